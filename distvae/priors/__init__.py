"""Priors p(z) and their divergences."""

from distvae.priors.bernoulli import Bernoulli
from distvae.priors.binarized import Binarized
from distvae.priors.categorical import Categorical
from distvae.priors.normal import Normal
from distvae.priors.uniform_sphere import UniformSphere

Prior = Normal | Binarized | UniformSphere | Bernoulli | Categorical

__all__ = ["Bernoulli", "Binarized", "Categorical", "Normal", "Prior", "UniformSphere"]
