"""Posterior heads q(z|x)."""

from distvae.posteriors.bernoulli import Bernoulli
from distvae.posteriors.categorical import Categorical
from distvae.posteriors.delta import Delta
from distvae.posteriors.du import Du
from distvae.posteriors.gaussian import Gaussian
from distvae.posteriors.von_mises_fisher import VonMisesFisher

Posterior = Gaussian | Du | Delta | VonMisesFisher | Bernoulli | Categorical

__all__ = ["Bernoulli", "Categorical", "Delta", "Du", "Gaussian", "Posterior", "VonMisesFisher"]
