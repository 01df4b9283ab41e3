"""Training objectives: surrogates, never what a result is ranked by."""

from distvae.objectives.capacity import Capacity
from distvae.objectives.elbo import Elbo

Objective = Elbo | Capacity

__all__ = ["Capacity", "Elbo", "Objective"]
