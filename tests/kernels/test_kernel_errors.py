"""Wrong arguments: an error that names the argument, what it is and what it should be."""

import re

import pytest
import torch

from distvae.kernels import gaussian_kl, gaussian_mixture_kl, log_density, log_marginals, mpd, sample_kl

X = torch.zeros(4, 3)
X3 = torch.zeros(2, 4, 3)
INDEX = torch.arange(4)


def sample(mu=X, logvar=None, **kw):
    return sample_kl(mu, X if logvar is None else logvar, **{"seed": 0, "step": 0, "index": INDEX, **kw})


def mixture(mu=X, logvar=None, r=0.5):
    return gaussian_mixture_kl(mu, X if logvar is None else logvar, r)


def closed(mu=X, logvar=None, **kw):
    return gaussian_kl(mu, X if logvar is None else logvar, **kw)


# --- mu and logvar (z): every kernel ----------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [sample, mixture, closed, mpd])
def test_mu_and_logvar(f):
    def call(mu, logvar):
        return f(mu, logvar)

    with pytest.raises(TypeError, match=r"^mu: a tensor is needed, not list"):
        call([[0.0]], X)
    with pytest.raises(TypeError, match=r"^logvar: a tensor is needed, not float"):
        call(X, 0.0)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=rf"^mu: dtype {str(dtype)[6:]} is not one of float32.*\[4, 3\]"):
            call(X.to(dtype), X)
    with pytest.raises(ValueError, match=r"^mu: shape \[\] has 0 dimensions, not"):
        call(torch.zeros(()), torch.zeros(()))
    with pytest.raises(ValueError, match=r"^logvar: shape \[4, 2\] is not \[4, 3\], which mu \[4, 3\] asks for"):
        call(X, X[:, :2])
    with pytest.raises(ValueError, match=r"^logvar: shape \[4, 3\] is not \[2, 4, 3\], which mu \[2, 4, 3\] asks for"):
        call(X3, X)
    with pytest.raises(TypeError, match=r"^logvar: dtype float64 is not that of mu, float32"):
        call(X, X.double())
    with pytest.raises(ValueError, match=r"^logvar: on meta, but mu is on cpu: move one of them"):
        call(X, X.to("meta"))


@pytest.mark.parametrize("f", [sample, mixture])
@pytest.mark.parametrize("shape", [(3,), (1, 2, 4, 3)])
def test_a_trial_has_two_axes_and_trials_three(f, shape):
    with pytest.raises(
        ValueError, match=rf"^mu: shape {re.escape(str(list(shape)))} has {len(shape)} dimensions, not 2 or 3"
    ):
        f(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("f", [log_density, log_marginals])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.0, X, X), TypeError, "z: a tensor is needed, not float"),
        ((X.long(), X, X), TypeError, "z: dtype int64 is not one of float32, float64, bfloat16, float16 ([4, 3])"),
        ((X[0], X, X), ValueError, "z: shape [3] has 1 dimensions, not 2 or 3"),
        ((X, None, X), TypeError, "mu: a tensor is needed, not NoneType"),
        ((X, X[:, :2], X), ValueError, "mu: shape [4, 2] is not [4, 3], which z [4, 3] asks for"),
        ((X, X3, X3), ValueError, "mu: shape [2, 4, 3] is not [4, 3], which z [4, 3] asks for"),
        ((X3, X3[:1], X3), ValueError, "mu: shape [1, 4, 3] is not [2, 4, 3], which z [2, 4, 3] asks for"),
        ((X, X.half(), X), TypeError, "mu: dtype float16 is not that of z, float32"),
        ((X, X.to("meta"), X), ValueError, "mu: on meta, but z is on cpu: move one of them"),
        ((X, X, X[:2]), ValueError, "logvar: shape [2, 3] is not [4, 3], which mu [4, 3] asks for"),
        ((X, X, X.double()), TypeError, "logvar: dtype float64 is not that of mu, float32"),
        ((X, X, X.to("meta")), ValueError, "logvar: on meta, but mu is on cpu: move one of them"),
    ],
    ids=str,
)
def test_the_tensors_of_a_density(f, arguments, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        f(*arguments)


@pytest.mark.parametrize("f", [log_density, log_marginals])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sampling": "mws"}, "sampling: 'mws' is not one of 'mean', 'weighted', 'stratified'"),
        ({"sampling": "weighted"}, "dataset_size: None is not a number of examples >= the 4 of the minibatch"),
        ({"sampling": "stratified", "dataset_size": 3}, "dataset_size: 3 is not a number of examples >= the 4"),
        ({"dataset_size": 10}, "dataset_size: only sampling 'weighted' and 'stratified' use it"),
        ({"exclude_self": True, "offset": 1}, "offset: rows 1 to 4 of z have no component of their own among 4"),
        ({"exclude_self": True, "offset": -1}, "offset: rows -1 to 2 of z have no component of their own among 4"),
        ({"sampling": "stratified", "dataset_size": 10, "offset": 9}, "offset: rows 9 to 12 of z have no component"),
        (
            {"sampling": "stratified", "dataset_size": 10, "exclude_self": True},
            "exclude_self: not with sampling 'strat",
        ),
    ],
    ids=str,
)
def test_the_estimator_of_a_density(f, more, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        f(X, X, X, **more)


@pytest.mark.parametrize("more", [{"exclude_self": True}, {"sampling": "stratified", "dataset_size": 5}], ids=str)
def test_a_single_component_cannot_be_left_out(more):
    with pytest.raises(ValueError, match=r"^mu: 1 component; leaving out or weighing a row's own needs at least 2"):
        log_density(X[:1], X[:1], X[:1], **more)


# --- hyper-parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"seed": 0.5}, TypeError, "seed: an integer or a tensor of them is needed, not float"),
        ({"seed": True}, TypeError, "seed: an integer or a tensor of them is needed, not bool"),
        ({"seed": torch.zeros(1)}, TypeError, "seed: dtype float32 is not int64"),
        ({"seed": torch.zeros(1, dtype=torch.int32)}, TypeError, "seed: dtype int32 is not int64"),
        ({"seed": INDEX[:3]}, ValueError, "seed: shape [3] is neither [] nor [1], one per trial of mu [4, 3]"),
        ({"seed": INDEX[:1].to("meta")}, ValueError, "seed: on meta, but mu is on cpu"),
        ({"step": -1}, ValueError, "step: -1 is not an integer >= 0"),
        ({"step": None}, TypeError, "step: an integer >= 0 or a tensor of them is needed, not NoneType"),
        ({"step": INDEX}, ValueError, "step: shape [4] is neither [] nor [1]"),
        ({"index": None}, TypeError, "index: an int64 tensor is needed, not NoneType"),
        ({"index": [0, 1, 2, 3]}, TypeError, "index: an int64 tensor is needed, not list"),
        ({"index": INDEX.int()}, TypeError, "index: an int64 tensor is needed, not torch.int32"),
        ({"index": INDEX[:3]}, ValueError, "index: shape [3] is not [4], one id per example of mu [4, 3]"),
        ({"index": INDEX.to("meta")}, ValueError, "index: on meta, but mu is on cpu"),
        ({"r": -0.1}, ValueError, "r: -0.1 is not a number >= 0"),
        ({"r": float("nan")}, ValueError, "r: nan is not a number >= 0"),
        ({"r": float("inf")}, ValueError, "r: inf is not a number >= 0"),
        ({"r": "0.1"}, TypeError, "r: a number >= 0 or a tensor of them is needed, not str"),
        ({"r": torch.zeros(1, 1)}, ValueError, "r: shape [1, 1] is neither [] nor [1]"),
        ({"p_keep": 0.0, "floor": 0.1}, ValueError, "p_keep: 0.0 is not a number in (0, 1]"),
        ({"p_keep": 1.1}, ValueError, "p_keep: 1.1 is not a number in (0, 1]"),
        ({"p_keep": torch.ones(2)}, ValueError, "p_keep: shape [2] is neither [] nor [1]"),
        ({"p_keep": 0.5}, ValueError, "floor: 0.0 with p_keep 0.5 < 1: a dropped variance would be 0"),
        ({"floor": -1e-3}, ValueError, "floor: -0.001 is not a number >= 0"),
        ({"floor": torch.ones(1).to("meta")}, ValueError, "floor: on meta, but mu is on cpu"),
        ({"mask": X[0] > 0.5, "mu": X3, "logvar": X3}, ValueError, "mask: shape [3] is not [2, 3], which mu [2, 4, 3]"),
        ({"mask": X > 0.5}, ValueError, "mask: shape [4, 3] is not [1, 3], which mu [4, 3] asks for"),
        ({"mask": X[0]}, TypeError, "mask: a bool tensor is needed, not torch.float32"),
        ({"mask": [True] * 3}, TypeError, "mask: a bool tensor is needed, not list"),
        ({"mask": (X[0] > 0).to("meta")}, ValueError, "mask: on meta, but mu is on cpu"),
        ({"stream": 1}, ValueError, "stream: 1 is not a stream of normals (0 to 255, 1 is dropout's)"),
        ({"stream": 256}, ValueError, "stream: 256 is not a stream of normals"),
        ({"stream": -1}, ValueError, "stream: -1 is not a stream of normals"),
        ({"sample": -1}, ValueError, "sample: -1 is not in [0, 2^32)"),
        ({"sample": 2**32}, ValueError, "sample: 4294967296 is not in [0, 2^32)"),
    ],
    ids=str,
)
def test_sample_kl(more, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        sample(**more)


@pytest.mark.parametrize(
    ("r", "error", "message"),
    [
        (-1.0, ValueError, "r: -1.0 is not a number >= 0"),
        (None, TypeError, "r: a number >= 0 or a tensor of them is needed, not NoneType"),
        (torch.zeros(3), ValueError, "r: shape [3] is neither [] nor [1], one per trial of mu [4, 3]"),
        (torch.zeros(()).to("meta"), ValueError, "r: on meta, but mu is on cpu"),
    ],
    ids=str,
)
def test_the_mixtures_r(r, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        mixture(r=r)


@pytest.mark.parametrize("name", ["r", "prior_mu", "prior_logvar"])
def test_the_prior_of_the_closed_form(name):
    with pytest.raises(TypeError, match=rf"^{name}: a number or a tensor is needed, not str"):
        closed(**{name: "0"})
    with pytest.raises(TypeError, match=rf"^{name}: dtype int64 is not a floating type"):
        closed(**{name: INDEX})
    for wrong in (torch.zeros(3), torch.zeros(4, 2), torch.zeros(1, 4, 3)):  # [3] would be four trials', not dimensions
        shape = re.escape(str(list(wrong.shape)))
        with pytest.raises(ValueError, match=rf"^{name}: shape {shape} does not broadcast over .* mu \[4, 3\]"):
            closed(**{name: wrong})
    with pytest.raises(ValueError, match=rf"^{name}: on meta, but mu is on cpu"):
        closed(**{name: torch.zeros(4).to("meta")})


@pytest.mark.parametrize("r", [-0.5, float("nan")])
def test_r_of_the_closed_form_is_a_distance(r):
    with pytest.raises(ValueError, match=r"^r: .* is not a number >= 0"):
        closed(r=r)


def test_mpd_needs_pairs():
    with pytest.raises(ValueError, match=r"^mu: shape \[3\] has 1 dimensions"):
        mpd(X[0], X[0])
    with pytest.raises(ValueError, match=r"^mu: shape \[0, 3\] has 0 examples; the v-statistic needs more"):
        mpd(X[:0], X[:0])
    with pytest.raises(ValueError, match=r"^mu: shape \[1, 3\] has 1 examples; the u-statistic needs more"):
        mpd(X[:1], X[:1], statistic="u")
    with pytest.raises(ValueError, match=r"^statistic: 'w' is not one of 'v', 'u'"):
        mpd(X, X, statistic="w")


def test_errors_are_the_same_compiled():
    torch._dynamo.reset()
    compiled = torch.compile(lambda m, lv: gaussian_mixture_kl(m, lv, 0.5), backend="eager")
    with pytest.raises(ValueError, match=r"logvar: shape \[4, 2\] is not \[4, 3\]"):
        compiled(X, X[:, :2])
