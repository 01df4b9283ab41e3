"""Hard inputs for the kernels, and how an answer is held against its oracle."""

import torch
from torch import Tensor

LOG_SIGMA_1E_3, LOG_SIGMA_1E2 = -6.907755, 4.605170  # sigma from 1e-3 to 1e2


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=generator(seed)).to(dtype)


def means(*shape: int, seed: int = 0) -> Tensor:
    """Of every size: signed, |mu| from 1e-3 to 1e3, log-uniform."""
    rng = generator(seed)
    size = 10.0 ** (6.0 * torch.rand(*shape, generator=rng) - 3.0)
    return size * torch.where(torch.rand(*shape, generator=rng) < 0.5, -1.0, 1.0)


def logvars(*shape: int, seed: int = 0) -> Tensor:
    """Of sigma from 1e-3 to 1e2, log-uniform."""
    u = torch.rand(*shape, generator=generator(seed + 1))
    return 2.0 * (LOG_SIGMA_1E_3 + u * (LOG_SIGMA_1E2 - LOG_SIGMA_1E_3))


def strided(x: Tensor) -> Tensor:
    """The same values, not contiguous in any axis."""
    return (
        torch.stack([x, torch.full_like(x, torch.nan)], dim=-1).transpose(0, -2).contiguous().transpose(0, -2)[..., 0]
    )


def apart(out: Tensor, oracle: Tensor) -> float:
    """||out - oracle|| / ||oracle||, of one trial."""
    assert out.shape == oracle.shape
    out, oracle = out.detach().cpu().double(), oracle.detach().cpu().double()
    if not oracle.numel() or torch.equal(out, oracle):
        return 0.0
    return float(torch.linalg.vector_norm(out - oracle) / torch.linalg.vector_norm(oracle))


def agree(out: Tensor, oracle: Tensor, *, trials: bool = True, within: float = 1e-5) -> None:
    """Every trial of `out` `[K, ...]` (all of it where there is no trial axis) is within this of its oracle."""
    assert out.shape == oracle.shape
    pairs = zip(out, oracle, strict=True) if trials else [(out, oracle)]
    worst = [apart(a, b) for a, b in pairs]
    assert all(error <= within for error in worst), f"relative errors per trial: {worst}"


def same_bits(a: Tensor, b: Tensor) -> None:
    """Equal bit for bit, NaN where NaN."""
    assert a.shape == b.shape and a.dtype == b.dtype
    assert torch.equal(a.isnan(), b.isnan())
    assert torch.equal(a.nan_to_num(), b.nan_to_num())
