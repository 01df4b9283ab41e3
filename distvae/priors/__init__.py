"""Priors p(z) and their divergences."""

from distvae.priors.binarized import Binarized
from distvae.priors.mixture import Mixture
from distvae.priors.normal import Normal
from distvae.priors.vamp import Vamp

Prior = Normal | Binarized | Mixture | Vamp

__all__ = ["Binarized", "Mixture", "Normal", "Prior", "Vamp"]
