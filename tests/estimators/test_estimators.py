"""Gradient estimators, exactly: every tuple of samples is a row of the batch, weighed by its probability, so that mean and
variance of an estimate are sums, not simulations. The problem: l(z) with interactions, bits or one-hots."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from distvae.batch import Batch, Noise
from distvae.estimators import Enumerate, GumbelSoftmax, Pathwise, Score, StraightThrough, natural
from distvae.estimators.score import leave_one_out
from distvae.kernels.philox import Stream
from distvae.posteriors import Bernoulli, Categorical, Delta, Gaussian, VonMisesFisher, polar
from distvae.posteriors.bernoulli import BernoulliQ
from distvae.posteriors.categorical import CategoricalQ
from distvae.posteriors.gaussian import NormalQ
from distvae.posteriors.von_mises_fisher import VonMisesFisherQ
from distvae.priors import Bernoulli as BernoulliPrior
from distvae.priors import Categorical as CategoricalPrior
from distvae.priors import Normal, UniformSphere

F = torch.float64
ETA = {"bits": [[0.4, -1.1]], "onehot": [[0.3, -0.9, 1.2]]}
Q = {"bits": BernoulliQ, "onehot": CategoricalQ}
P = {"bits": BernoulliPrior(p=0.3).build(2).to(F), "onehot": CategoricalPrior().build(3).to(F)}
SPACES = pytest.mark.parametrize("space", ["bits", "onehot"])


def weights(space):
    c = len(ETA[space][0])
    return torch.randn(c, c, dtype=F, generator=torch.Generator().manual_seed(c))


def cost(w):
    """l(z) `[B, S]`: positive, not linear, with interactions."""
    return lambda z: 3.0 + ((z @ w) ** 2).sum(-1) + z @ w[0] + (z @ w[1]).sin()


class Scripted:
    """A posterior or prior whose samples are given, its masses its own."""

    def __init__(self, law, z):
        self.law, self.z = law, z  # z [B, M, c]

    def __getattr__(self, name):
        return getattr(self.law, name)

    def rsample(self, noise, samples):
        return self.z

    def sample(self, noise, like):
        return self.z[:, noise.step >> 24]  # the prior's m-th draw


@dataclass(frozen=True)
class Chosen(Noise):
    """Noise whose choices between proposals are given."""

    choice: Tensor = field(default_factory=lambda: torch.empty(0))  # [B, M]

    def uniforms(self, samples, dim, like, stream=None):
        assert stream is Stream.CHOICE and self.step == samples << 24
        return self.choice[..., None]


def tuples(space, m, proposal, w):
    """Every outcome of m draws from the proposal: (probability [B], z [B, m, c], is it the prior's? [B, m])."""
    q, p = Q[space](torch.tensor(ETA[space], dtype=F)), P[space]
    codes = q.support()
    of_q, of_p = q.log_prob(codes[None])[0].exp(), p.log_prob(codes).exp()
    one = {
        "posterior": [(of_q[i], z, 0.0) for i, z in enumerate(codes)],
        "prior": [(of_p[i], z, 1.0) for i, z in enumerate(codes)],
    }
    one["mixture"] = [((1 - w) * a, z, s) for a, z, s in one["posterior"]] + [(w * a, z, s) for a, z, s in one["prior"]]
    rows = list(itertools.product(one[proposal], repeat=m))
    chance = torch.stack([torch.stack([a for a, _, _ in row]).prod() for row in rows])
    torch.testing.assert_close(chance.sum(), torch.ones((), dtype=F))
    return (
        chance,
        torch.stack([torch.stack([z for _, z, _ in row]) for row in rows]),
        torch.tensor([[s for _, _, s in row] for row in rows], dtype=F),
    )


def exactly(part, space, m):
    """Probabilities `[B]`, values `[B]`, encoder gradients `[B, c]` and the mean decoder gradient of every outcome."""
    proposal = getattr(part, "proposal", "posterior")
    chance, z, foreign = tuples(space, m, proposal, getattr(part, "w", 0.0))
    b = len(chance)
    eta = torch.tensor(ETA[space], dtype=F).repeat(b, 1).requires_grad_()
    w = weights(space).requires_grad_()
    elsewhere = z.flip(0)  # what the proposal not chosen would have drawn: never looked at
    own = torch.where(foreign[..., None] == 1, elsewhere, z)
    prior = Scripted(P[space], torch.where(foreign[..., None] == 1, z, elsewhere))
    noise = Chosen(0, 0, np.arange(b), choice=torch.where(foreign == 1, 1e-9, 1 - 1e-9))
    batch = Batch(x=eta, noise=noise, total=b, samples=m)
    value, seen = part.build().to(F)(Scripted(Q[space](eta), own), prior, cost(w), batch)
    assert seen.shape == own.shape
    (encoder,) = torch.autograd.grad(value.sum(), eta, retain_graph=True)
    (decoder,) = torch.autograd.grad((chance * value).sum(), w)
    return chance, value.detach(), encoder, decoder


def truth(space):
    """Value, encoder and decoder gradients of sum_z q(z) l(z), written out."""
    eta, w = torch.tensor(ETA[space], dtype=F, requires_grad=True), weights(space).requires_grad_()
    codes = Q[space](eta).support()
    if space == "bits":
        mass = torch.stack([torch.where(z == 1, eta[0].sigmoid(), 1 - eta[0].sigmoid()).prod() for z in codes])
    else:
        mass = eta[0].softmax(-1)
    value = (mass * cost(w)(codes)).sum()
    return value.detach(), *(g.reshape(-1) for g in torch.autograd.grad(value, (eta, w)))


SCORES = [
    Score(),
    Score(proposal="prior"),
    Score(proposal="mixture", w=0.25),
    Score(baseline="leave_one_out"),
    Score(proposal="prior", baseline="leave_one_out"),
    Score(proposal="mixture", w=0.25, baseline="leave_one_out"),
]


@SPACES
@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("part", SCORES, ids=lambda p: f"{p.proposal}-{p.baseline}")
def test_score_is_unbiased(part, space, m):
    if m < part.least_samples:
        assert part.baseline == "leave_one_out"
        return
    chance, value, encoder, decoder = exactly(part, space, m)
    wanted = truth(space)
    torch.testing.assert_close((chance * value).sum(), wanted[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(chance @ encoder, wanted[1], rtol=1e-11, atol=1e-12)  # Eq. 17
    torch.testing.assert_close(decoder.reshape(-1), wanted[2], rtol=1e-11, atol=1e-12)  # Eq. 18


def test_one_bit_is_equation_25():
    """E[grad] = q (1 - q) (l(1) - l(0)) in eta; each sample's is l(z) (z - q), Eq. 23."""
    for eta0 in (-2.0, 0.0, 0.7):
        eta = torch.full((2, 1), eta0, dtype=F, requires_grad=True)
        q, z = BernoulliQ(eta), torch.tensor([[[0.0]], [[1.0]]], dtype=F)
        l = torch.tensor([5.0, 2.0], dtype=F)  # l(0), l(1)
        batch = Batch(x=eta, noise=Noise(0, 0, np.arange(2)), total=2)
        value, _ = Score().build()(Scripted(q, z), None, lambda z, l=l: l[z[..., 0].long()], batch)
        torch.testing.assert_close(value, l)  # the usual value
        (grad,) = torch.autograd.grad(value.sum(), eta)
        p = float(eta.detach()[0].sigmoid())
        torch.testing.assert_close(grad[:, 0], l * (z[:, 0, 0] - p))
        chance = torch.tensor([1 - p, p], dtype=F)
        assert float(chance @ grad[:, 0]) == pytest.approx(p * (1 - p) * (2.0 - 5.0), rel=1e-12)


def variance(part, space, m):
    chance, _, g, _ = exactly(part, space, m)
    mean = chance @ g
    return float(chance @ (g - mean).square().sum(-1))


@SPACES
def test_more_samples_and_the_baseline_lower_the_variance(space):
    alone = variance(Score(), space, 1)
    assert variance(Score(), space, 4) == pytest.approx(alone / 4, rel=1e-10)
    for m in (2, 4):
        for proposal in ("posterior", "mixture", "prior"):
            plain, loo = (variance(Score(proposal=proposal, baseline=b), space, m) for b in ("none", "leave_one_out"))
            assert loo < 0.8 * plain, (m, proposal)


@SPACES
def test_the_baseline_leaves_the_value_alone(space):
    for proposal in ("posterior", "prior", "mixture"):
        values = [exactly(Score(proposal=proposal, baseline=b), space, 2)[1] for b in ("none", "leave_one_out")]
        assert torch.equal(*values)


def test_the_baseline_is_the_weighted_mean_of_the_others():
    c, r = torch.rand(3, 4, dtype=F), torch.rand(3, 4, dtype=F) + 0.1
    for m in range(4):
        rest = [j for j in range(4) if j != m]
        wanted = (r[:, rest] * c[:, rest]).sum(1) / r[:, rest].sum(1)
        torch.testing.assert_close(leave_one_out(c, r.log())[:, m], wanted)
    huge = leave_one_out(torch.ones(1, 3), torch.tensor([[-400.0, 0.0, -300.0]]))
    torch.testing.assert_close(huge, torch.ones(1, 3))  # ratios that underflow


@SPACES
def test_enumeration_is_exact(space):
    eta, w = torch.tensor(ETA[space], dtype=F, requires_grad=True), weights(space).requires_grad_()
    batch = Batch(x=eta, noise=Noise(0, 0, np.arange(1)), total=1, samples=3)
    value, z = Enumerate().build()(Q[space](eta), P[space], cost(w), batch)
    wanted = truth(space)
    torch.testing.assert_close(value[0], wanted[0])
    got = [g.reshape(-1) for g in torch.autograd.grad(value.sum(), (eta, w))]
    for a, b in zip(got, wanted[1:], strict=True):
        torch.testing.assert_close(a, b)
    assert z.shape == (1, 3, eta.shape[1]) and set(z.unique().tolist()) <= {0.0, 1.0}
    several, _ = Enumerate().build().measure(Q[space](eta), lambda z: torch.stack([cost(w)(z), z.sum(-1)], -1), batch)
    torch.testing.assert_close(several[0, 0], wanted[0])
    torch.testing.assert_close(several[0, 1], Q[space](eta).mu.sum())
    assert torch.autograd.gradcheck(lambda e: Enumerate().build()(Q[space](e), P[space], cost(w), batch)[0], eta)
    c = eta.shape[1]
    posterior = {"bits": Bernoulli(), "onehot": Categorical()}[space]
    assert Enumerate().samples(posterior, c, 1) == len(Q[space](eta).support())


# --- biased, and by how much ------------------------------------------------------------------------------------------


def test_straight_through_of_one_bit_is_off_by_the_curvature():
    """l = (z - t)^2: truth q (1 - q) (1 - 2 t), straight-through q (1 - q) (2 q - 2 t): off by q (1 - q) (2 q - 1)."""
    for eta0, t in ((-1.0, 0.3), (0.0, 0.3), (0.8, 0.45), (2.0, 0.45)):
        eta = torch.full((2, 1), eta0, dtype=F, requires_grad=True)
        q = float(eta.detach()[0].sigmoid())
        z = torch.tensor([[[0.0]], [[1.0]]], dtype=F)
        batch = Batch(x=eta, noise=Noise(0, 0, np.arange(2)), total=2)
        value, seen = StraightThrough().build()(
            Scripted(BernoulliQ(eta), z), None, lambda z, t=t: ((z - t) ** 2).sum(-1), batch
        )
        assert torch.equal(seen.detach(), z)  # exact codes forward
        (grad,) = torch.autograd.grad(value.sum(), eta)
        bias = float((1 - q) * grad[0] + q * grad[1]) - q * (1 - q) * (1 - 2 * t)
        assert bias == pytest.approx(q * (1 - q) * (2 * q - 1), abs=1e-12)


@SPACES
def test_straight_through_is_exact_where_l_is_linear(space):
    chance, z, _ = tuples(space, 1, "posterior", 0.0)
    eta = torch.tensor(ETA[space], dtype=F).repeat(len(chance), 1).requires_grad_()
    slope = weights(space)[0]
    batch = Batch(x=eta, noise=Noise(0, 0, np.arange(len(chance))), total=len(chance))
    value, _ = StraightThrough().build()(Scripted(Q[space](eta), z), None, lambda z: z @ slope, batch)
    (grad,) = torch.autograd.grad(value.sum(), eta)
    one = torch.tensor(ETA[space], dtype=F, requires_grad=True)
    (wanted,) = torch.autograd.grad((Q[space](one).mu @ slope).sum(), one)
    torch.testing.assert_close(chance @ grad, wanted[0])


@SPACES
def test_straight_through_is_biased_where_it_is_not(space):
    chance, value, g, decoder = exactly(StraightThrough(), space, 1)
    wanted = truth(space)
    torch.testing.assert_close((chance * value).sum(), wanted[0])  # the value and the decoder's gradient are exact
    torch.testing.assert_close(decoder.reshape(-1), wanted[2])
    assert float((chance @ g - wanted[1]).norm()) > 0.05 * float(wanted[1].norm())


class Grid:
    """Noise of one bit: the midpoints of n equal cells, an integral rather than a simulation."""

    def __init__(self, n):
        self.u = ((torch.arange(n, dtype=F) + 0.5) / n)[:, None, None]

    def uniforms(self, samples, dim, like, stream=None):
        return self.u


def gumbel_of_one_bit(part, eta0, t, n=200_000):
    """(mean value, mean gradient) of l = (z - t)^2."""
    eta = torch.full((n, 1), eta0, dtype=F, requires_grad=True)
    batch = Batch(x=eta, noise=Grid(n), total=n)  # pyright: ignore
    value, _ = part.build().to(F)(BernoulliQ(eta), None, lambda z: ((z - t) ** 2).sum(-1), batch)
    (grad,) = torch.autograd.grad(value.sum(), eta)
    return float(value.detach().mean()), float(grad.mean())


def test_the_gumbel_bias_of_one_bit_vanishes_with_the_temperature():
    eta0, t = 0.8, 0.3
    q = 1 / (1 + np.exp(-eta0))
    value, slope = q * (1 - t) ** 2 + (1 - q) * t**2, q * (1 - q) * (1 - 2 * t)
    bias = []
    for temperature in (2.0, 0.5, 0.1, 0.02):
        v, g = gumbel_of_one_bit(GumbelSoftmax(temperature=temperature), eta0, t)
        bias.append((abs(v - value), abs(g - slope)))
    values, slopes = zip(*bias, strict=True)
    assert list(values) == sorted(values, reverse=True) and values[0] > 0.05 and values[-1] < 0.005
    assert slopes[0] > 0.2 * slope and slopes[-1] < 0.002 and list(slopes) == sorted(slopes, reverse=True)


def test_hard_gumbel_has_the_right_value_and_a_biased_gradient():
    eta0, t = 0.8, 0.3
    q = 1 / (1 + np.exp(-eta0))
    value, gradient = gumbel_of_one_bit(GumbelSoftmax(temperature=0.5, hard=True), eta0, t)
    assert value == pytest.approx(q * (1 - t) ** 2 + (1 - q) * t**2, abs=1e-5)
    assert abs(gradient - q * (1 - q) * (1 - 2 * t)) > 0.05 * q * (1 - q)


@SPACES
def test_gumbel_gradients(space):
    """Soft: gradcheck. Hard: codes forward, the soft gradient backward."""
    eta = torch.tensor(ETA[space], dtype=F).repeat(3, 1).requires_grad_()
    batch = Batch(x=eta, noise=Noise(0, 0, np.arange(3)), total=3, samples=2)
    soft, hard = (GumbelSoftmax(temperature=0.7, hard=h).build().to(F) for h in (False, True))
    assert torch.autograd.gradcheck(lambda e: soft(Q[space](e), None, cost(weights(space)), batch)[0], eta)
    value, z = hard(Q[space](eta), None, lambda z: z @ weights(space)[0], batch)
    assert set(z.detach().round(decimals=12).unique().tolist()) == {0.0, 1.0}
    same, _ = soft(Q[space](eta), None, lambda z: z @ weights(space)[0], batch)
    assert torch.equal(*(torch.autograd.grad(v.sum(), eta)[0] for v in (value, same)))


@SPACES
@pytest.mark.parametrize("part", [*SCORES, GumbelSoftmax(), GumbelSoftmax(hard=True), StraightThrough()], ids=repr)
def test_evaluation_uses_exact_codes(part, space):
    q = Q[space](torch.tensor(ETA[space]))
    batch = Batch(x=q.logits, noise=Noise(0, 0, np.arange(1), Stream.EVALUATE), total=1, samples=50)
    value, z = part.build().measure(q, lambda z: z.sum(-1), batch)
    assert torch.equal(z, q.rsample(batch.noise, 50)) and torch.equal(value, z.sum(-1).mean(1))


# --- continuous latents -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", [Score(), Score(proposal="mixture", w=0.3, baseline="leave_one_out"), Score(proposal="prior")], ids=repr
)
def test_score_works_for_a_gaussian(part):
    """The mean gradient of E[(z - t)^2] is the exact one within its error; nothing passes through z."""
    n, m = 20_000, 4
    mu, var = torch.full((n, 1), 0.4, dtype=F, requires_grad=True), torch.full((n, 1), 0.5, dtype=F, requires_grad=True)
    batch = Batch(x=mu, noise=Noise(1, 0, np.arange(n)), total=n, samples=m)
    value, z = part.build().to(F)(NormalQ(mu, var), Normal().build(1), lambda z: ((z - 1.0) ** 2).sum(-1), batch)
    assert z.shape == (n, m, 1) and not z.requires_grad
    grads = [g[:, 0] for g in torch.autograd.grad(value.sum(), (mu, var))]
    for sample, exact in zip((value.detach(), *grads), (0.6**2 + 0.5, 2 * (0.4 - 1.0), 1.0), strict=True):
        assert abs(float(sample.mean()) - exact) < 4.5 * float(sample.std()) / n**0.5
        assert float(sample.std()) / n**0.5 < 0.05 * abs(exact)


def test_score_works_on_the_sphere():
    n = 20_000
    part, eye = Score(proposal="mixture", w=0.5), torch.eye(3, dtype=F)[:1].expand(n, -1)
    kappa = torch.full((n,), 2.0, dtype=F, requires_grad=True)
    batch = Batch(x=eye, noise=Noise(1, 0, np.arange(n)), total=n, samples=1)
    prior = UniformSphere().build(2)
    value, _ = part.build().to(F)(VonMisesFisherQ(eye, kappa), prior, lambda z: z[..., 0], batch)
    (g,) = torch.autograd.grad(value.sum(), kappa)
    one = torch.tensor([2.0], dtype=F, requires_grad=True)
    (exact,) = torch.autograd.grad(1 - polar.shortfall(one, 2), one)
    assert abs(float(g.mean() - exact)) < 4.5 * float(g.std()) / n**0.5 < 0.2 * float(exact)


def test_the_mixture_draws_from_both():
    n = 20_000
    q = BernoulliQ(torch.full((n, 1), 30.0, dtype=F))  # always 1
    prior = BernoulliPrior(p=1e-12).build(1).to(F)  # always 0
    batch = Batch(x=q.logits, noise=Noise(2, 7, np.arange(n)), total=n, samples=3)
    seen = []

    def nll(z):
        seen.append(z)
        return z.sum(-1)

    Score(proposal="mixture", w=0.3).build().to(F)(q, prior, nll, batch)
    share = seen[0].mean((0, 2))
    assert share.shape == (3,) and (share - 0.7).abs().max() < 4.5 * (0.21 / n) ** 0.5
    agree = ((seen[0][:, :1] == seen[0][:, 1:]).double().mean((0, 2)) - (0.49 + 0.09)).abs()
    assert agree.max() < 4.5 * (0.25 / n) ** 0.5  # independent draws


# --- what is refused --------------------------------------------------------------------------------------------------


def test_the_default_estimator():
    for part in (Gaussian(), Delta(), VonMisesFisher()):
        assert natural(part) == Pathwise()
    for part in (Bernoulli(), Categorical()):
        assert natural(part) == Score()


def test_refusals_say_why_and_what_to_write():
    parts = [Pathwise(), Score(), GumbelSoftmax(), StraightThrough(), Enumerate()]
    refused = {
        (e.type, q.type): e.refusal(q, d)
        for e in parts
        for q, d in ((Gaussian(), 50), (Delta(), 50), (VonMisesFisher(), 50), (Bernoulli(), 50), (Categorical(), 50))
    }
    allowed = {k for k, why in refused.items() if why is None}
    reparameterised = {"gaussian", "delta", "von_mises_fisher"}
    assert allowed == {
        *(("pathwise", q) for q in reparameterised),
        *(("score", q) for q in ("gaussian", "von_mises_fisher", "bernoulli", "categorical")),
        *((e, q) for e in ("gumbel_softmax", "straight_through") for q in ("bernoulli", "categorical")),
        ("enumerate", "categorical"),
    }
    assert all("use " in why for why in refused.values() if why)
    assert Enumerate().refusal(Bernoulli(), 12) is None and "2^13" in str(Enumerate().refusal(Bernoulli(), 13))
    assert [s.least_samples for s in SCORES] == [1, 1, 1, 2, 2, 2]
