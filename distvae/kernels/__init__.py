"""Batched KL and latent densities: torch operators with a torch reference, C++ and CUDA C++ behind them (backend.py).
Needs torch and numpy only; names are imported when first used, so that `kernels.philox` alone imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distvae.kernels.closed_form import gaussian_kl
    from distvae.kernels.density import log_density, log_marginals
    from distvae.kernels.diversity import mpd
    from distvae.kernels.mixture import gaussian_mixture_kl
    from distvae.kernels.sampling import sample_kl

__all__ = ["gaussian_kl", "gaussian_mixture_kl", "log_density", "log_marginals", "mpd", "sample_kl"]

_HOMES = {
    "gaussian_kl": "closed_form",
    "gaussian_mixture_kl": "mixture",
    "log_density": "density",
    "log_marginals": "density",
    "mpd": "diversity",
    "sample_kl": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
