"""Terms of made-up posteriors, and the shards of a batch in one process."""

from dataclasses import replace

import numpy as np
import torch

from distvae.batch import Batch, Noise
from distvae.objectives import Terms
from distvae.posteriors.gaussian import NormalQ
from distvae.priors import Normal
from distvae.priors.normal import kl_standard_normal

F = torch.float64


def randn(*shape, seed=0, dtype=F):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed)).to(dtype)


def a_batch(n, *, step=0, **kw):
    return Batch(x=torch.zeros(n, 1), noise=Noise(3, step, np.arange(n)), total=n, step=step, **kw)


def leaves(n=12, d=3, dtype=F):
    """(distortion [n], mu [n, d], log var [n, d]) that ask for gradients."""
    values = 5 + randn(n, dtype=dtype), randn(n, d, seed=1, dtype=dtype), 0.3 * randn(n, d, seed=2, dtype=dtype) - 1
    return tuple(v.detach().requires_grad_() for v in values)


def terms_of(distortion, mu, logvar, prior=None, eps=None):
    q = NormalQ(mu, logvar.exp())
    z = mu + (0.5 * logvar).exp() * (randn(*mu.shape, seed=3, dtype=mu.dtype) if eps is None else eps)
    return Terms(distortion, kl_standard_normal(q.mu, q.var), q, z, prior or Normal().build(mu.shape[-1]))


def loss_of(part, terms, batch=None):
    return part.build().to(terms.distortion.dtype)(terms, batch or a_batch(len(terms.distortion)))


def with_gradients(part, inputs, batch=None, **kw):
    """(loss, gradients of its sum) in the leaves."""
    loss = loss_of(part, terms_of(*inputs, **kw), batch)
    return loss.detach(), *torch.autograd.grad(loss.sum(), inputs, materialize_grads=True)


def rows_of(terms, rows):
    q = NormalQ(*(t[rows] for t in terms.q))
    return Terms(terms.distortion[rows], terms.divergence[rows], q, terms.z[rows], terms.p)


def loss_in_shards(part, terms, batch, shards=2):
    """What each worker gives for its rows, in order. `gather` shows it the others', as they were in the whole batch."""
    seen = []
    loss_of(part, terms, replace(batch, gather=lambda t: seen.append(t) or t))
    out = []
    for rows in np.array_split(np.arange(batch.total), shards):
        calls = iter(seen)

        def gather(t, rows=rows, calls=calls):
            return torch.cat([(whole := next(calls))[: rows[0]], t, whole[rows[-1] + 1 :]])

        noise = replace(batch.noise, index=batch.noise.index[rows])
        out.append(loss_of(part, rows_of(terms, rows), replace(batch, x=batch.x[rows], noise=noise, gather=gather)))
    return torch.cat(out)
