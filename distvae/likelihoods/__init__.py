"""Likelihoods p(x|z), each with the measure its -log is of: `binary`, `mass256`, `density`, or none."""

from distvae.likelihoods.bernoulli import Bernoulli
from distvae.likelihoods.bitwise_categorical import BitwiseCategorical
from distvae.likelihoods.categorical_256 import Categorical256
from distvae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from distvae.likelihoods.gaussian import Gaussian
from distvae.likelihoods.logistic_mixture import LogisticMixture
from distvae.likelihoods.student_t import StudentT

Likelihood = (
    Bernoulli | Gaussian | ContinuousBernoulli | StudentT | LogisticMixture | Categorical256 | BitwiseCategorical
)

__all__ = [
    "Bernoulli",
    "BitwiseCategorical",
    "Categorical256",
    "ContinuousBernoulli",
    "Gaussian",
    "Likelihood",
    "LogisticMixture",
    "StudentT",
]
