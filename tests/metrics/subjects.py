"""Models under measurement, made by hand: no training."""

import math

import torch

from distvae.data import Digits
from distvae.data import Gaussian as GaussianData
from distvae.data import load as load_data
from distvae.likelihoods import Gaussian as GaussianLikelihood
from distvae.metrics.subject import Subject
from distvae.nets import Mlp
from distvae.trial import Train, Trial
from distvae.vae import Model, Vae

F = torch.float64


def digits(dtype="float64", seed=0, scale=1.0, hidden=(16,), **model):
    """A subject on the bundled digits with its initial weights, the encoder's times `scale`."""
    model = {"latent_dim": 3, **model}
    trial = Trial(data=Digits(), vae=Model(encoder=Mlp(hidden=hidden), **model), train=Train(dtype=dtype), seed=seed)
    vae = Vae(trial.vae, load_data(trial.data).x_shape, seed=seed, dtype=trial.dtype)
    with torch.no_grad():
        for p in vae.encoder.parameters():
            p.mul_(scale)
    return Subject(trial, vae)


def linear(w, sigma, *, n=60, encoder=None, log_var=None, **model):
    """A linear VAE x ~ N(W z, sigma^2 I), z ~ N(0, I), of data N(0, W W' + sigma^2 I) restricted to `n` test examples.

    W `[P, D]` has orthogonal columns, so that the exact posterior is a diagonal Gaussian: the encoder is that one, or
    mu = `encoder` x (`[D, P]`) and log variances `log_var` `[D]`."""
    w = torch.as_tensor(w, dtype=F)
    precision = 1.0 + w.square().sum(0) / sigma**2
    encoder = w.T / sigma**2 / precision[:, None] if encoder is None else encoder
    log_var = -precision.log() if log_var is None else log_var
    data = GaussianData(eigenvalues=tuple(float(v) for v in 1.0 + torch.arange(len(w))), n=64, n_held=n)
    model = {"likelihood": GaussianLikelihood(sigma=sigma), "latent_dim": w.shape[1], **model}
    trial = Trial(data=data, vae=Model(encoder=Mlp(hidden=()), **model), train=Train(dtype="float64"))
    vae = Vae(trial.vae, (len(w),), dtype=F)
    with torch.no_grad():
        head, decoder = vae.encoder[-1], vae.decoder[-1]
        head.weight.copy_(torch.stack([encoder, torch.zeros_like(encoder)], 1).flatten(0, 1))
        head.bias.copy_(torch.stack([torch.zeros_like(log_var), log_var], 1).flatten())
        decoder.weight.copy_(w)
        decoder.bias.zero_()
    return Subject(trial, vae)


def log_normal(z, mu, var):
    """log N(z; mu, var), summed over the last axis."""
    return (-0.5 * ((z - mu) ** 2 / var + torch.log(2.0 * math.pi * torch.as_tensor(var, dtype=F)))).sum(-1)
