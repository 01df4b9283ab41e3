"""Errors of decoded means against numpy and torch's own losses."""

import numpy as np
import pytest
import torch
from subjects import F, digits, linear
from torch.nn.functional import binary_cross_entropy

from distvae import posteriors, priors
from distvae.likelihoods import Gaussian
from distvae.metrics.rate import Rate
from distvae.metrics.reconstruction import Reconstruction, middle, psnr


def test_errors_and_cross_entropy_of_the_decoded_mean():
    subject, metric = digits(), Reconstruction()
    x = subject.pixels("test").flatten(1)
    y = subject.vae.decode(subject.means("test")).flatten(1)
    got = metric.measure(subject, "test")
    assert list(got) == [c.name for c in metric.columns(subject.trial)]
    each = ((x - y) ** 2).mean(1).numpy()
    assert got["mse_mean"] == pytest.approx(each.mean(), rel=1e-12)
    assert got["psnr_db"] == pytest.approx(10 * np.log10(1 / each.mean()), rel=1e-12)
    assert got["psnr_image_db"] == pytest.approx((10 * np.log10(1 / each)).mean(), rel=1e-12)
    assert got["psnr_image_db"] > got["psnr_db"]
    bce = binary_cross_entropy(y, x, reduction="sum") / len(x)
    assert got["bce_mean_nats"] == pytest.approx(float(bce), rel=1e-9)
    assert got["mse_mean"] < float(subject.measured("test").mse.mean())  # z ~ q adds to the error


def test_what_is_not_defined_is_null():
    gaussian = Reconstruction().measure(digits(likelihood=Gaussian()), "test")
    assert gaussian["bce_mean_nats"] is None and gaussian["psnr_db"] is not None
    real = linear([[1.0], [2.0]], 0.5)
    got = Reconstruction().measure(real, "test")
    assert got["mse_mean"] > 0 and got["psnr_db"] is got["psnr_image_db"] is got["bce_mean_nats"] is None
    perfect = linear(np.eye(2), 0.5, encoder=torch.eye(2, dtype=F))
    assert Reconstruction().measure(perfect, "test")["mse_mean"] == 0.0
    assert float(psnr(torch.tensor(0.01))) == pytest.approx(20.0) and float(psnr(torch.tensor(0.0))) == np.inf


def test_the_code_is_a_point_of_the_latent_space():
    mu = torch.tensor([[0.2, 0.7, 0.1], [0.9, 0.6, 0.3]], dtype=F)
    assert middle(mu, "real") is mu
    assert middle(mu, "bits").tolist() == [[0, 1, 0], [1, 1, 0]]
    assert middle(mu, "onehot").tolist() == [[0, 1, 0], [1, 0, 0]]
    sphere = middle(mu, "sphere")
    torch.testing.assert_close(sphere.norm(dim=-1), torch.ones(2, dtype=F))
    torch.testing.assert_close(sphere[0] / sphere[0, 0], mu[0] / mu[0, 0])
    for posterior, prior in (
        (posteriors.VonMisesFisher(), priors.UniformSphere()),
        (posteriors.Bernoulli(), priors.Bernoulli()),
        (posteriors.Categorical(), priors.Categorical()),
        (posteriors.Delta(), priors.Normal()),
    ):
        subject = digits(posterior=posterior, prior=prior)
        got = Reconstruction().measure(subject, "test")
        codes = middle(subject.means("test"), posterior.space)
        error = (subject.vae.decode(codes) - subject.pixels("test")).square().mean()
        assert got["mse_mean"] == pytest.approx(float(error), rel=1e-12)


def test_three_kls_of_a_binarized_model():
    """S1 (methods S1.4): to the nearest mode, to N(0, I), to the mixture; at r = 0 they are one."""
    for r in (0.0, 1.0):
        subject = digits(scale=2.0, prior=priors.Binarized(r=r))
        m, got = subject.measured("test"), Rate().measure(subject, "test")
        q = torch.distributions.Normal(m.q.mu, m.q.var.sqrt())
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
        assert got["kl_standard_normal_nats"] == pytest.approx(float(kl.mean()), rel=1e-9)
        assert got["kl_standard_normal_se"] == pytest.approx(float(kl.std()) / len(kl) ** 0.5, rel=1e-9)
        three = [float(m.divergence.sum(-1).mean()), float(kl.mean()), float(m.rate.mean())]
        assert (max(three) - min(three) < 1e-6) == (r == 0.0)
    assert "bernoulli" in Rate().why_not(digits(posterior=posteriors.Bernoulli(), prior=priors.Bernoulli()))
