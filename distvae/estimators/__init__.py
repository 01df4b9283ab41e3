"""Estimators of the gradient of E_q[-log p(x|z)]."""

from distvae.estimators.enumerate import Enumerate
from distvae.estimators.estimator import EstimatorModule, EstimatorPart
from distvae.estimators.gumbel_softmax import GumbelSoftmax
from distvae.estimators.pathwise import Pathwise
from distvae.estimators.score import Score
from distvae.estimators.straight_through import StraightThrough
from distvae.posteriors.posterior import PosteriorPart

Estimator = Pathwise | Score | GumbelSoftmax | StraightThrough | Enumerate


def natural(posterior: PosteriorPart) -> EstimatorPart:
    """The estimator a trial gets that names none."""
    return Pathwise() if posterior.reparameterized else Score()


__all__ = [
    "Enumerate",
    "Estimator",
    "EstimatorModule",
    "EstimatorPart",
    "GumbelSoftmax",
    "Pathwise",
    "Score",
    "StraightThrough",
    "natural",
]
