"""Priors p(z) and their divergences."""

from distvae.priors.bernoulli import Bernoulli
from distvae.priors.binarized import Binarized
from distvae.priors.categorical import Categorical
from distvae.priors.mixture import Mixture
from distvae.priors.normal import Normal
from distvae.priors.uniform_sphere import UniformSphere
from distvae.priors.vamp import Vamp

Prior = Normal | Binarized | Mixture | Vamp | UniformSphere | Bernoulli | Categorical

__all__ = ["Bernoulli", "Binarized", "Categorical", "Mixture", "Normal", "Prior", "UniformSphere", "Vamp"]
