"""The back ends a kernel's test runs on: the fixture `back_end` (conftest.py) selects one and gives the device."""

import os

import pytest
import torch

from distvae.kernels import backend

BACK_ENDS = ("reference", "cpu", pytest.param("cuda", marks=pytest.mark.gpu))


def select(name: str, monkeypatch) -> str:
    """Has the kernels run on this back end, and names the device to put tensors on. Skips where it cannot run."""
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    if name != "reference" and (why := getattr(backend, name).unavailable()):
        pytest.skip(f"{name}: {why}")
    monkeypatch.setitem(os.environ, "DISTVAE_KERNELS", name)
    return "cuda" if name == "cuda" else "cpu"
