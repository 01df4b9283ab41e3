"""Likelihoods p(x|z), each with the measure its density is of: `binary`, `density`, or none."""

from distvae.likelihoods.bernoulli import Bernoulli
from distvae.likelihoods.gaussian import Gaussian

Likelihood = Bernoulli | Gaussian

__all__ = ["Bernoulli", "Gaussian", "Likelihood"]
