"""The metrics of density and code on every posterior, prior and likelihood of the unions (conformance.py): each column is
a number, or null exactly where it is stated to be."""

import math

import numpy as np
import pytest
from conformance import CASES, UNIONS, members

from distvae.data import load
from distvae.metrics.active_units import ActiveUnits
from distvae.metrics.decomposition import Decomposition
from distvae.metrics.diversity import Diversity
from distvae.metrics.importance import IwNll
from distvae.metrics.mmd import Mmd
from distvae.metrics.rate import Rate
from distvae.metrics.reconstruction import Reconstruction
from distvae.metrics.sparsity import Sparsity
from distvae.metrics.subject import Subject
from distvae.vae import Vae

METRICS = [
    IwNll(samples=3),
    Decomposition(),
    Diversity(),
    ActiveUnits(),
    Sparsity(mse=1.0),
    Mmd(),
    Reconstruction(),
    Rate(),
]
FAMILIES = ("posterior", "prior", "likelihood", "estimator", "conditioning")
WALKED = [name for name in CASES if name.split("-")[0] in FAMILIES]


def nulls(model):
    """The columns that this model has not, by what its parts say of themselves."""
    q, p = model.posterior, model.prior
    split = {"tc_nats", "tc_se", "dimensionwise_kl_nats", "dimensionwise_kl_se"}
    none = set()
    if not q.density or model.likelihood.measure is None:
        none |= {"iw_nll_nats", "iw_nll_se", "iw_samples", "iw_ess"}
    if not q.density:
        none |= {"mi_nats", "mi_se", "mi_loo_nats", "mi_loo_se", "aggregate_kl_nats", "aggregate_kl_se", *split}
    if p.type in ("mixture", "vamp", "uniform_sphere", "categorical") or getattr(p, "over", p).type in (
        "mixture",
        "vamp",
    ):
        none |= split
    if q.type not in ("gaussian", "du"):
        none |= {"mpd_nats", "mpd_distinct_nats", "conditional_entropy_nats", "collapsed_dims"}
        none |= {"inactive_dims", "inactive_share", "kl_standard_normal_nats", "kl_standard_normal_se"}
    if model.likelihood.type != "bernoulli":
        none.add("bce_mean_nats")
    return none


def test_the_walk_is_of_every_member():
    for family in FAMILIES:
        kinds = {type(getattr(CASES[n].vae, family)) for n in WALKED if n.startswith(f"{family}-")}
        assert kinds >= set(members(UNIONS[family])), family
    assert len(WALKED) > 40


@pytest.mark.parametrize("name", WALKED)
def test_every_column_is_a_number_or_a_stated_null(name):
    trial = CASES[name]
    beta = trial.objective.grid()[-1]
    subject = Subject(trial, Vae(trial.vae, load(trial.data).x_shape, seed=trial.seed), beta=beta)
    null = set()
    for metric in METRICS:
        columns = {c.name: c for c in metric.columns(trial)}
        assert all(c.doc for c in columns.values())
        if why := metric.why_not(subject):
            assert trial.vae.posterior.type in why or "sigma_x" in why
            null |= set(columns)
            continue
        got = metric.measure(subject, "test")
        assert list(got) == list(columns)
        for column, value in got.items():
            if value is None:
                null.add(column)
            else:
                assert isinstance(value, int) if columns[column].whole else isinstance(value, float), column
                assert not isinstance(value, np.generic) and math.isfinite(value), column
    assert null == nulls(trial.vae)
