"""Posterior heads q(z|x)."""

from distvae.posteriors.du import Du
from distvae.posteriors.gaussian import Gaussian

Posterior = Gaussian | Du

__all__ = ["Du", "Gaussian", "Posterior"]
