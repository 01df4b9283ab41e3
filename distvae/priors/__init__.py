"""Priors p(z) and their divergences."""

from distvae.priors.binarized import Binarized
from distvae.priors.normal import Normal

Prior = Normal | Binarized

__all__ = ["Binarized", "Normal", "Prior"]
