"""Samplers: their laws against exact moments, their addresses, and what they refuse."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.stats import norm

from distvae.config import ConfigError
from distvae.likelihoods import Gaussian as GaussianLikelihood
from distvae.nets import Film, Mlp
from distvae.posteriors import Categorical as CategoricalPosterior
from distvae.posteriors import Delta, VonMisesFisher
from distvae.posteriors import Gaussian as GaussianPosterior
from distvae.priors import Binarized, Categorical, Mixture, Normal, UniformSphere
from distvae.samplers import (
    Aggregated,
    Biased,
    Prior,
    Recursive,
    Sampler,
    SamplerError,
    SecondStage,
    Unbinarized,
    draw,
    named,
)
from distvae.vae import Model, Vae

N = 20_000
PARTS = [
    Prior(),
    Unbinarized(),
    Biased(),
    Aggregated(components=2),
    SecondStage(hidden=(8,), epochs=1),
    Recursive(betas=(4.0, 0.5)),
]


def identity(std: float, prior=None, dim: int = 2, posterior=None) -> Vae:
    """A linear VAE of vectors with q(z|x) = N(x, std^2 I) (or z = x) and E[x|z] = z, float64."""
    model = Model(
        encoder=Mlp(hidden=()),
        latent_dim=dim,
        posterior=posterior or GaussianPosterior(),
        prior=prior or Normal(),
        likelihood=GaussianLikelihood(),
    )
    vae = Vae(model, (dim,), dtype=torch.float64)
    with torch.no_grad():
        for p in vae.parameters():
            p.zero_()
        rows = slice(None) if posterior else slice(0, None, 2)
        vae.encoder[-1].weight[rows] = torch.eye(dim, dtype=torch.float64)
        if posterior is None:
            vae.encoder[-1].bias[1::2] = 2.0 * math.log(std)
        vae.decoder[-1].weight.copy_(torch.eye(dim))
    return vae


def conditioned() -> Vae:
    model = Model(
        encoder=Mlp(hidden=(6,)),
        latent_dim=2,
        conditioning=Film(),
        prior=Binarized(r=1.0),
        likelihood=GaussianLikelihood(),
    )
    vae = Vae(model, (4,), seed=3, dtype=torch.float64).eval()
    with torch.no_grad():  # a conditioned net starts from the plain one: make beta matter
        for name, p in vae.named_parameters():
            if "beta" in name:
                p.add_(0.3 * torch.linspace(-1, 1, p.numel(), dtype=p.dtype).reshape(p.shape))
    vae.beta = 1.0
    return vae


def cloud(n: int = 300, dim: int = 4) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, dim)))


def near(values: torch.Tensor, mean: float, std: float) -> bool:
    """Is the mean of independent `values` within 5 standard errors?"""
    return abs(float(values.mean()) - mean) < 5 * std / math.sqrt(len(values))


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [Normal(), Binarized(r=1.5), Mixture(components=3)], ids=repr)
def test_prior_is_the_model_s_own(prior):
    vae = identity(0.1, prior)
    assert torch.equal(draw(vae, 9, seed=5), vae.sample(9, seed=5))


def test_reduced_bias_and_unbinarized_differ_by_a_mode():
    """S1: (a) ~ (b) for small r; the variances are 1 + r^2 and 1."""
    for r in (0.0, 0.5, 2.0):
        vae = identity(0.1, Binarized(r=r))
        a, b = (part.fit(vae).latents(N, seed=1) for part in (Prior(), Unbinarized()))
        assert torch.allclose((a - b).abs(), torch.full_like(a, r), rtol=0, atol=1e-12)
        up = ((a - b) > 0).double()
        assert r == 0 or all(near(up[:, d], 0.5, 0.5) for d in range(2))
        fourth = 3 + 6 * r**2 + r**4  # E[a^4]
        for d in range(2):
            assert near(b[:, d].square(), 1.0, math.sqrt(2))
            assert near(a[:, d].square(), 1 + r**2, math.sqrt(fourth - (1 + r**2) ** 2))


def test_unbinarized_over_a_mixture_is_that_mixture():
    over = Mixture(components=3, learned=False, means="circle", scale=4.0, std=0.1)
    z = Unbinarized().fit(identity(0.1, Binarized(r=1.0, over=over))).latents(2000)
    alone = Prior().fit(identity(0.1, over)).latents(2000)
    assert torch.equal(z, alone)
    assert torch.allclose(z.norm(dim=-1), torch.tensor(4.0, dtype=z.dtype), atol=0.6)


def test_biased_takes_the_frequencies_of_the_data():
    """70% of the examples above 0 in dimension 0, all of them in dimension 1."""
    x = torch.ones(1000, 2, dtype=torch.float64)
    x[:300, 0] = -1
    r = 1.5
    fitted = Biased().fit(identity(1e-3, Binarized(r=r)), x)
    assert fitted.up.tolist() == [0.7, 1.0]
    z = fitted.latents(N, seed=2)
    assert near(z[:, 0], 0.4 * r, math.sqrt(1 + 0.84 * r**2)) and near(z[:, 1], r, 1.0)
    modes = 0.7 * (1 - norm.cdf(-r)) + 0.3 * (1 - norm.cdf(r))  # p(z_0 > 0)
    assert near((z[:, 0] > 0).double(), modes, math.sqrt(modes * (1 - modes)))
    independent = (z[:, 0] - z[:, 0].mean()) * (z[:, 1] - z[:, 1].mean())
    assert near(independent, 0.0, float(independent.std()))


def test_biased_counts_draws_or_means():
    x = torch.full((N, 1), 0.5, dtype=torch.float64)
    vae = identity(1.0, Binarized(r=1.0), dim=1)
    p = norm.cdf(0.5)
    assert Biased(of="means").fit(vae, x).up.item() == 1.0
    assert abs(Biased().fit(vae, x).up.item() - p) < 5 * math.sqrt(p * (1 - p) / N)


def test_biased_over_a_mixture_counts_from_the_component_s_mean():
    """Components at (5, 0) and (-5, 0); the examples lie right of both means (or of one), and below them."""
    over = Mixture(components=2, learned=False, means="circle", scale=5.0, std=0.5)
    vae = identity(1e-3, Binarized(r=1.0, over=over))
    for first, up in ((5.5, 1.0), (4.5, 0.5)):
        x = torch.tensor([[first, -0.5], [-4.5, -0.5]], dtype=torch.float64).repeat(50, 1)
        fitted = Biased().fit(vae, x)
        assert fitted.up.tolist() == [up, 0.0]
        z = fitted.latents(N)
        assert near((z[:, 0] > 0).double(), 0.5, 0.5)
        for side, mean in ((z[:, 0] > 0, 5.0), (z[:, 0] < 0, -5.0)):  # the mode does not depend on the component
            assert near(z[side, 0], mean + 2 * up - 1, math.sqrt(0.25 + 4 * up * (1 - up)))
            assert near(z[side, 1], -1.0, 0.5)


MIXTURE = {  # weight, mean, covariance
    "a": (0.5, [4.0, 0.0], [[0.5, 0.3], [0.3, 0.4]]),
    "b": (0.3, [-4.0, 1.0], [[0.2, -0.1], [-0.1, 0.3]]),
    "c": (0.2, [0.0, -5.0], [[0.6, 0.0], [0.0, 0.1]]),
}


def mixture(n: int) -> torch.Tensor:
    rng = np.random.default_rng(1)
    parts = [rng.multivariate_normal(m, c, size=round(w * n)) for w, m, c in MIXTURE.values()]
    return torch.from_numpy(np.concatenate(parts))


def test_aggregated_recovers_a_known_mixture_and_draws_from_it():
    x = mixture(6000)
    fitted = Aggregated(components=3).fit(identity(1e-3), x, seed=4)
    z = fitted.latents(N, seed=8)
    for weight, mean, covariance in MIXTURE.values():
        at = int((fitted.means - torch.tensor(mean)).norm(dim=-1).argmin())
        c = fitted.factors[at] @ fitted.factors[at].T
        assert abs(fitted.weights[at] - weight) < 0.01
        assert torch.allclose(fitted.means[at], torch.tensor(mean, dtype=z.dtype), atol=0.07)
        assert torch.allclose(c, torch.tensor(covariance, dtype=z.dtype), atol=0.07)
        mine = z[torch.cdist(z, fitted.means).argmin(-1) == at]  # 5 std and more apart: nearest is whose it is
        assert abs(len(mine) / N - weight) < 0.02
        assert torch.allclose(mine.mean(0), fitted.means[at], atol=0.05)
        assert torch.allclose(mine.T.cov(), c, atol=0.05)


def test_one_component_has_the_moments_of_the_aggregated_posterior():
    """Of draws: cov(x) + std^2; of means: cov(x). Diagonal: without what is off it."""
    x, std = mixture(6000), 2.0
    want = x.T.cov(correction=0)
    noise = std**2 * torch.eye(2, dtype=x.dtype)
    for part, covariance in (
        (Aggregated(components=1), want + noise),
        (Aggregated(components=1, of="means"), want),
        (Aggregated(components=1, of="means", covariance="diag"), want.diag().diag()),
    ):
        (factor,) = part.fit(identity(std), x).factors
        atol = 0.5 if part.of == "draws" else 1e-5  # cov(x) is about 13; sklearn adds 1e-6 to the diagonal
        assert torch.allclose(factor @ factor.T, covariance, rtol=0, atol=atol)
    assert not torch.allclose(want, want + noise, atol=2.0)


def test_an_autoencoder_has_a_sampler():
    x = mixture(2000)
    fitted = Aggregated(components=1).fit(identity(0.0, posterior=Delta()), x)
    assert torch.allclose(fitted.means[0], x.mean(0), atol=1e-9)


def test_second_stage_learns_where_the_first_one_s_latents_are():
    """Two modes at (-3, 1) and (3, 1), std 0.3. Of one Gaussian with their moments 38% lies between them, |z_0| < 1.5."""
    rng = np.random.default_rng(2)
    x = 0.3 * rng.normal(size=(2048, 2)) + [0, 1] + np.where(rng.random((2048, 1)) < 0.7, 3, -3) * np.array([1, 0])
    x = torch.from_numpy(x)
    fitted = SecondStage(hidden=(64, 64), epochs=20, lr=5e-3).fit(identity(0.1), x, seed=0)
    z = fitted.latents(4000, seed=1)
    assert torch.allclose(z.mean(0), x.mean(0), atol=0.3)
    std = torch.tensor([math.sqrt(x[:, 0].var() + 0.01), math.sqrt(0.1)], dtype=x.dtype)
    assert torch.allclose(z.std(0), std, rtol=0.2)
    assert (z[:, 0].abs() < 1.5).double().mean() < 0.2
    assert 0.6 < (z[:, 0] > 0).double().mean() < 0.8


def test_second_stage_adds_the_noise_it_has_learned():
    """With nothing to gain from u, all of z's variance is gamma's."""
    part = SecondStage(hidden=(), epochs=1, lr=1e-9)
    fitted = part.fit(identity(0.5), cloud(64, 2))
    z = fitted.latents(N)
    with torch.no_grad():
        fitted.stage.decoder[-1].weight.zero_(), fitted.stage.decoder[-1].bias.zero_()
        fitted.stage.likelihood.raw.fill_(-1.0)
        sigma = fitted.stage.likelihood.variance().sqrt()
    plain = fitted.latents(N)
    assert torch.allclose(plain.std(0), fitted.std * sigma, rtol=0.03) and not torch.equal(z, plain)
    assert torch.allclose(plain.mean(0), fitted.mean, atol=5 * float((fitted.std * sigma).max()) / math.sqrt(N))


def test_recursive_goes_down_the_betas():
    vae = conditioned()
    one = Recursive(betas=(2.0,)).fit(vae).images(5, seed=1)
    assert torch.equal(one, vae.sample(5, seed=1, beta=2.0)) and not torch.equal(one, vae.sample(5, seed=1))
    z = vae.latents(5, seed=1)
    for now, then in ((4.0, 1.0), (1.0, 0.25)):
        z = vae.encode(vae.decode(z, beta=now), beta=then).mu
    by_hand = vae.decode(z, beta=0.25)
    assert torch.allclose(Recursive(betas=(4.0, 1.0, 0.25), of="means").fit(vae).images(5, seed=1), by_hand)
    assert not torch.allclose(Recursive(betas=(4.0, 1.0, 0.25)).fit(vae).images(5, seed=1), by_hand)


def test_recursive_visits_the_model_s_betas_largest_first():
    vae = conditioned()
    vae.betas = (0.5, 1.0, 4.0)
    assert Recursive().fit(vae).betas == (4.0, 1.0, 0.5)


def test_recursive_draws_by_the_posterior_s_variance():
    """After one turn z ~ q(z|x_1): standardised by hand, it is N(0, I)."""
    vae = conditioned()
    x1 = vae.decode(vae.latents(5000, seed=3), beta=4.0)
    q = vae.encode(x1, beta=0.5)
    eps = (Recursive(betas=(4.0, 0.5)).fit(vae).latents(5000, seed=3) - q.mu) / q.var.sqrt()
    for d in range(2):
        assert near(eps[:, d], 0.0, 1.0) and near(eps[:, d].square(), 1.0, math.sqrt(2))
    first = vae.latents(5000, seed=3)
    own = first - torch.where(first - Unbinarized().fit(vae).latents(5000, seed=3) > 0, 1.0, -1.0)
    assert near((eps * own).flatten(), 0.0, 1.0), "other noise than the prior's"


# --- addresses --------------------------------------------------------------------------------------------------------


def test_every_sampler_has_a_case():
    assert {type(p) for p in PARTS} == set(get_args(Sampler))


@pytest.mark.parametrize("part", PARTS, ids=lambda p: p.type)
def test_more_images_begin_with_the_same_ones_and_the_seed_matters(part):
    vae, x = conditioned(), cloud()
    fitted = part.fit(vae, x, seed=7)
    z = fitted.latents(6, seed=1)
    assert z.shape == (6, 2) and z.dtype == torch.float64
    assert torch.allclose(fitted.latents(11, seed=1)[:6], z, rtol=0, atol=1e-12)  # nets round by the batch
    assert not torch.allclose(fitted.latents(6, seed=2), z)
    torch.manual_seed(99)
    np.random.seed(99)
    with torch.no_grad():  # as a caller may have it
        again = part.fit(vae, x, seed=7)
    assert torch.equal(again.latents(6, seed=1), z), "torch's and numpy's generators have no say"
    assert torch.equal(draw(vae, 6, part, x, seed=7), again.images(6, seed=7))
    assert fitted.images(6, seed=1).shape == (6, 4)
    assert not fitted.images(6, seed=1).requires_grad


@pytest.mark.parametrize("part", PARTS, ids=lambda p: p.type)
def test_fitting_leaves_the_model_as_it_was(part):
    vae = conditioned()
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    vae.train()
    part.fit(vae, cloud()).images(3)
    assert vae.training and all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters())


def test_examples_are_drawn_and_second_noise_is_fresh():
    """Where one stream serves two uses, their correlation would show."""
    vae, x = identity(1.0), torch.zeros(4000, 2, dtype=torch.float64)
    part = SecondStage(hidden=(), epochs=1, lr=1e-9, batch=4000)
    from distvae.batch import Noise
    from distvae.samplers.sampler import codes, posterior

    one, two = (codes(posterior(vae, x), "draws", 0, step) for step in (0, 1))
    latent = torch.from_numpy(Noise(0, 0, np.arange(4000)).normal(1, 2, x)[:, 0].numpy())
    assert near((one * two).flatten(), 0.0, 1.0) and near((one * latent).flatten(), 0.0, 1.0)
    assert part.fit(vae, x).mean.abs().max() < 5 / math.sqrt(4000)


# --- errors -----------------------------------------------------------------------------------------------------------


def sphere() -> Vae:
    model = Model(latent_dim=2, posterior=VonMisesFisher(), prior=UniformSphere(), likelihood=GaussianLikelihood())
    return Vae(model, (4,))


@pytest.mark.parametrize(
    ("part", "vae", "said"),
    [
        (
            Unbinarized(),
            identity(1.0),
            "unbinarized is about the modes of a binarized prior, and this model's is normal",
        ),
        (Biased(), identity(1.0), "biased is about the modes"),
        (Aggregated(), sphere(), "aggregated draws z in R^d, and the von_mises_fisher posterior's do not live there"),
        (SecondStage(), sphere(), "second_stage draws z in R^d"),
        (Recursive(), identity(1.0), "recursive goes from one beta to another, and this model is told none"),
        (Recursive(), conditioned(), "does not say at which betas"),
        (Aggregated(), identity(1.0), "fitted to training examples, and there are none"),
        (Biased(), conditioned(), "fitted to training examples, and there are none"),
    ],
    ids=repr,
)
def test_a_sampler_that_does_not_fit_the_model_says_why(part, vae, said):
    with pytest.raises(SamplerError) as e:
        part.fit(vae)
    assert said in str(e.value)


def test_too_few_examples():
    with pytest.raises(SamplerError, match="components: 10 is too many for 9 examples"):
        Aggregated().fit(identity(1.0), cloud(9, 2))


def test_what_diverged_is_not_fitted_in_silence():
    vae = identity(1.0)
    with pytest.raises(SamplerError, match="lr: at 100 the second stage diverged"):
        SecondStage(hidden=(4,), epochs=3, lr=100.0, batch=1).fit(vae, cloud(3, 2))
    vae.encoder[-1].bias.data.fill_(math.nan)
    with pytest.raises(SamplerError, match="not finite"):
        Aggregated(components=1).fit(vae, cloud(9, 2))


def test_prior_draws_of_discrete_and_spherical_models():
    assert torch.allclose(Prior().fit(sphere()).latents(9).norm(dim=-1), torch.ones(9))
    model = Model(latent_dim=5, posterior=CategoricalPosterior(), prior=Categorical(), likelihood=GaussianLikelihood())
    z = Prior().fit(Vae(model, (4,))).latents(9)
    assert z.shape == (9, 5) and (z.sum(-1) == 1).all()


def test_a_sampler_by_name_data_or_yaml():
    assert named("biased") == Biased()
    assert named("{type: aggregated, components: 3}") == named({"type": "aggregated", "components": 3})
    assert named({"type": "recursive", "betas": [2, 1.0]}) == Recursive(betas=(2.0, 1.0))
    vae = identity(0.1, Binarized(r=1.0))
    assert torch.equal(draw(vae, 3, {"type": "unbinarized"}), draw(vae, 3, Unbinarized()))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("bised", "sampler.type: 'bised' is not one of prior, unbinarized, biased, aggregated, second_stage, recursive"),
        ({"type": "aggregated", "covariance": "fll"}, "sampler.covariance: 'fll' is not one of full, diag"),
        ({"type": "aggregated", "components": 0}, "sampler.components: 0 is below 1"),
        ({"type": "prior", "of": "means"}, "unknown key 'of'"),
        ({"components": 3}, "sampler.type: is missing"),
        ("{type: aggregated, components: {grid: [1, 2]}}", "a grid cannot be here: one value is chosen"),
        ({"type": "recursive", "betas": [1.0, 0.0]}, "0.0 is not above 0.0"),
        ("[1, 2]", "a list is not a mapping"),
        ("{type: ", "YAML syntax"),
        ("", "null is not a mapping"),
    ],
)  # fmt: skip
def test_a_sampler_that_is_none_says_what_is_allowed(what, said):
    with pytest.raises(ConfigError) as e:
        named(what)
    assert str(e.value).startswith("draw: ") and said in str(e.value)
