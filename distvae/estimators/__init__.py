"""Estimators of the gradient of E_q[-log p(x|z)]."""

from distvae.estimators.estimator import EstimatorModule, EstimatorPart
from distvae.estimators.pathwise import Pathwise
from distvae.posteriors.posterior import PosteriorPart

Estimator = Pathwise


def natural(posterior: PosteriorPart) -> EstimatorPart:
    """The estimator a trial gets that names none."""
    return Pathwise()


__all__ = ["Estimator", "EstimatorModule", "EstimatorPart", "Pathwise", "natural"]
