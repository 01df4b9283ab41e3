"""Batched KL and latent densities: torch operators with a torch reference, C++ and CUDA C++ behind them (backend.py).
Needs torch and numpy only; names are imported when first used, so that `kernels.philox` alone imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distvae.kernels.closed_form import gaussian_kl
    from distvae.kernels.cross_entropy import bernoulli_nll
    from distvae.kernels.density import log_density, log_marginals
    from distvae.kernels.diversity import mpd
    from distvae.kernels.mixture import gaussian_mixture_kl
    from distvae.kernels.noise import bernoulli, normals, uniforms
    from distvae.kernels.sampling import sample_kl

__all__ = [
    "bernoulli",
    "bernoulli_nll",
    "gaussian_kl",
    "gaussian_mixture_kl",
    "log_density",
    "log_marginals",
    "mpd",
    "normals",
    "sample_kl",
    "uniforms",
]

_HOMES = {
    "bernoulli": "noise",
    "bernoulli_nll": "cross_entropy",
    "gaussian_kl": "closed_form",
    "gaussian_mixture_kl": "mixture",
    "log_density": "density",
    "log_marginals": "density",
    "mpd": "diversity",
    "normals": "noise",
    "sample_kl": "sampling",
    "uniforms": "noise",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
