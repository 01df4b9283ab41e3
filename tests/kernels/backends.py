"""The back ends a kernel's test runs on: the fixture `back_end` (conftest.py) selects one and gives the device."""

import os

import pytest
import torch

from distvae.kernels import backend

BACK_ENDS = ("reference", "cpu", pytest.param("cuda", marks=pytest.mark.gpu))


def select(name: str, monkeypatch) -> str:
    """Has the kernels run on this back end, and names the device to put tensors on. Skips where it cannot
    run for want of a device or a compiler, never for a fault of ours."""
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    if name != "reference" and (why := getattr(backend, name).unavailable()):
        assert name != "cuda", f"there is a CUDA device, but its kernels cannot run: {why}"
        pytest.skip(f"{name}: {why}")  # test_backend.py fails instead where there is a compiler
    monkeypatch.setitem(os.environ, "DISTVAE_KERNELS", name)
    return "cuda" if name == "cuda" else "cpu"
