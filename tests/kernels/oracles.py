"""What the kernels should give, in float64 and the obvious way: whole N x M x D arrays, scipy, torch.distributions and
autograd. Nothing here is shared with distvae/kernels but the random numbers of philox.py, which have known answers."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal, kl_divergence

from distvae.kernels import philox


def double(x: Tensor) -> Tensor:
    """A float64 leaf on the CPU, of the same values."""
    return x.detach().cpu().double().requires_grad_()


# --- divergences ----------------------------------------------------------------------------------------------------


def binarized_kl(mu: Tensor, var: Tensor, r, prior_mu=0.0, prior_var=1.0) -> Tensor:
    """S1, Eqs. 3-5: the KL to the prior moved by r to the side that mu is on (the positive one where they are equal)."""
    r, prior_mu, prior_var = (torch.as_tensor(x, dtype=torch.float64) for x in (r, prior_mu, prior_var))
    side = torch.where(mu.detach() >= prior_mu.detach(), 1.0, -1.0).double()
    return kl_divergence(Normal(mu, var.sqrt()), Normal(prior_mu + r * side, prior_var.sqrt()))


def kl_of_50_digits(mu: float, logvar: float) -> tuple[float, float]:
    """(KL(N(mu, e^logvar) || N(0, 1)), its derivative by logvar), without cancellation."""
    getcontext().prec = 50
    m, lv = Decimal(mu), Decimal(logvar)
    return float((lv.exp() - 1 - lv + m * m) / 2), float((lv.exp() - 1) / 2)


def mixture_kl(mu: Tensor, logvar: Tensor, r: Tensor) -> Tensor:
    """The integral of q ln(q / p), p = 1/2 N(-r, 1) + 1/2 N(r, 1), by Gauss-Legendre on panels that shrink towards the
    kink of ln p at z = 0; 1-d arguments. Beyond 12 sigma there is 1e-32 of q."""
    sigma = (0.5 * logvar).exp()
    edges = torch.cat([torch.zeros(1), torch.logspace(-7, 1.5, 35)]).double()
    edges = torch.cat([-edges.flip(0), edges[1:]])
    panels = torch.cat(
        [
            (edges - (mu / sigma).detach()[:, None]).clamp(-12.0, 12.0),  # around z = 0
            torch.linspace(-12.0, 12.0, 49, dtype=torch.float64).expand(len(mu), -1),
        ],
        dim=1,
    ).sort(dim=1).values  # fmt: skip
    x, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(12))
    half, middle = 0.5 * panels.diff(dim=1), 0.5 * (panels[:, 1:] + panels[:, :-1])
    x, w = (middle[..., None] + half[..., None] * x).flatten(1), (half[..., None] * w).flatten(1)
    z = mu[:, None] + sigma[:, None] * x
    prior = MixtureSameFamily(
        Categorical(torch.ones(len(mu), 2, dtype=torch.float64)),
        Normal(torch.stack([-r, r], dim=-1).double(), torch.ones(1, dtype=torch.float64)),
    )
    log_q = Normal(0.0, 1.0).log_prob(x) - 0.5 * logvar[:, None]
    log_p = prior.log_prob(z.T).T
    return (w * Normal(0.0, 1.0).log_prob(x).exp() * (log_q - log_p)).sum(1)


def mpd(mu: Tensor, logvar: Tensor, statistic: str) -> Tensor:
    """All pairs."""
    q = Normal(mu, (0.5 * logvar).exp())
    pairs = kl_divergence(
        Normal(q.loc[..., :, None, :], q.scale[..., :, None, :]),
        Normal(q.loc[..., None, :, :], q.scale[..., None, :, :]),
    ).sum(-1)
    n = mu.shape[-2]
    if statistic == "v":
        return pairs.mean((-1, -2))
    return pairs[..., ~torch.eye(n, dtype=torch.bool)].mean(-1)


# --- sample_kl ------------------------------------------------------------------------------------------------------


def noise(mu: Tensor, seed: int, step: int, index: Tensor, p_keep: float, stream: int = 0, sample: int = 0):
    """(eps, g) `[B, D]`: the normal of this sample, and the Bernoulli(p_keep) / p_keep of the example, one for all of
    its samples."""
    at = {"index": index.cpu().numpy() % 2**32, "step": step % 2**32, "dim": mu.shape[1]}
    eps = _sample(seed, stream, sample, at)
    kept = philox.uniform(seed, philox.Stream.DROPOUT, **at)[:, 0] <= p_keep
    return torch.from_numpy(eps), torch.from_numpy(kept / p_keep)


def _sample(seed: int, stream: int, sample: int, at: dict) -> np.ndarray:
    """Row `sample` of philox.normal, without the samples before it: Box-Muller of the words at that counter."""
    blocks = -(-at["dim"] // 4)
    counter = (stream << 24) + np.arange(blocks, dtype=np.uint64)
    w = philox.philox(seed, at["index"][:, None], at["step"], sample, counter)
    w = w.reshape(len(at["index"]), 4 * blocks)
    u = (w + 0.5) / 2.0**32
    z = np.sqrt(-2.0 * np.log(u[:, 0::2])) * np.exp(2j * np.pi * u[:, 1::2])
    return np.stack([z.real, z.imag], axis=-1).reshape(u.shape)[:, : at["dim"]]


def sample_kl(mu: Tensor, logvar: Tensor, eps: Tensor, g: Tensor, r: float, floor: float) -> tuple[Tensor, Tensor]:
    """(z, kl) `[B, D]` of one trial, given its noise."""
    var = g * logvar.exp() + floor
    return mu + var.sqrt() * eps, binarized_kl(mu, var, r)


# --- aggregated posterior -------------------------------------------------------------------------------------------


def pair_weights(
    n: int, m: int, sampling: str, dataset_size: int | None, exclude_self: bool, offset: int
) -> np.ndarray:
    """`[N, M]`: what q(z_i | x_j) is multiplied with (Chen et al. 2018: Eq. 5, and Appendix C.2 with M + 1 = `m`)."""
    own = (np.arange(n) + offset)[:, None] == np.arange(m)
    following = (np.arange(n) + offset + 1)[:, None] % max(m, 1) == np.arange(m)
    if sampling == "stratified":
        size, others = dataset_size, m - 1
        return np.where(own, 1 / size, np.where(following, (size - others) / (size * others), 1 / others))
    if exclude_self:
        weights = np.where(own, 0.0, 1 / max(m - 1, 1))
    else:
        weights = np.full((n, m), 1 / max(m, 1))
    return weights / dataset_size if sampling == "weighted" else weights


def log_density(z: np.ndarray, mu: np.ndarray, logvar: np.ndarray, weights: np.ndarray, *, joint: bool) -> np.ndarray:
    """ln sum_j weights_ij q(z_i | x_j): `[N]`, or `[N, D]` of every dimension by itself."""
    logs = norm.logpdf(z[:, None], mu[None], np.exp(0.5 * logvar)[None])  # [N, M, D]
    if joint:
        return logsumexp(logs.sum(-1), axis=1, b=weights)
    return logsumexp(logs, axis=1, b=weights[..., None])


def log_density_by_autograd(z: Tensor, mu: Tensor, logvar: Tensor, weights: np.ndarray, *, joint: bool) -> Tensor:
    """The same, for its gradients."""
    logs = Normal(mu[None], (0.5 * logvar).exp()[None]).log_prob(z[:, None])
    w = torch.from_numpy(weights).log()
    return torch.logsumexp(logs.sum(-1) + w, dim=1) if joint else torch.logsumexp(logs + w[..., None], dim=1)
