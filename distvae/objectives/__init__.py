"""Training objectives: surrogates, never what a result is ranked by."""

from distvae.objectives.beta_input import BetaInput
from distvae.objectives.capacity import Capacity
from distvae.objectives.dip import Dip
from distvae.objectives.elbo import Elbo
from distvae.objectives.free_bits import FreeBits
from distvae.objectives.infovae import InfoVae
from distvae.objectives.objective import ObjectivePart, Terms
from distvae.objectives.tcvae import TcVae
from distvae.objectives.wae import Wae

Objective = Elbo | Capacity | Dip | FreeBits | InfoVae | TcVae | Wae | BetaInput

__all__ = [
    "BetaInput",
    "Capacity",
    "Dip",
    "Elbo",
    "FreeBits",
    "InfoVae",
    "Objective",
    "ObjectivePart",
    "TcVae",
    "Terms",
    "Wae",
]
