"""Training objectives: surrogates, never what a result is ranked by."""

from distvae.objectives.beta_input import BetaInput
from distvae.objectives.capacity import Capacity
from distvae.objectives.elbo import Elbo
from distvae.objectives.objective import ObjectivePart, Terms

Objective = Elbo | Capacity | BetaInput

__all__ = ["BetaInput", "Capacity", "Elbo", "Objective", "ObjectivePart", "Terms"]
