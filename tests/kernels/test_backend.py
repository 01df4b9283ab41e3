"""DISTVAE_KERNELS: which back end runs, and what is said where one cannot."""

import shutil
import subprocess
import sys

import pytest
import torch

from distvae import kernels
from distvae.kernels import backend, cpu, cuda, reference

X = torch.zeros(2, 3)


@pytest.fixture
def ask(monkeypatch):
    return lambda name: monkeypatch.setenv("DISTVAE_KERNELS", name)


@pytest.fixture
def broken(monkeypatch):
    monkeypatch.setattr(cpu, "unavailable", lambda: "no compiler here")


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("c++")), reason="no C++ compiler here")
def test_the_cpu_library_is_built_where_a_compiler_is():
    assert cpu.unavailable() is None


@pytest.mark.parametrize("name", ["reference", "cuda"])
def test_cpu_tensors_take_the_reference_when_asked_to_or_when_another_device_is_meant(ask, name):
    ask(name)
    assert backend.pick(X) is reference


def test_cpu_tensors_take_cpp_unless_told_otherwise(ask, monkeypatch):
    monkeypatch.setattr(cpu, "unavailable", lambda: None)
    ask("cpu")
    assert backend.pick(X) is cpu
    ask("auto")
    assert backend.pick(X) is cpu
    monkeypatch.delenv("DISTVAE_KERNELS")
    assert backend.pick(X) is cpu


def test_the_choice_is_read_at_every_call(ask, monkeypatch):
    monkeypatch.setattr(cpu, "unavailable", lambda: None)
    picked = []
    for name in ("cpu", "reference", "cpu"):
        ask(name)
        picked.append(backend.pick(X))
    assert picked == [cpu, reference, cpu]


def test_float64_and_other_devices_take_the_reference(ask, monkeypatch):
    monkeypatch.setattr(cpu, "unavailable", lambda: None)
    for name in ("auto", "cpu", "cuda"):
        ask(name)
        assert backend.pick(X.double()) is reference
        assert backend.pick(X.to("meta")) is reference


def test_what_cannot_run_is_replaced_if_not_asked_for_and_an_error_if_it_was(ask, broken):
    ask("auto")
    assert backend.pick(X) is reference
    ask("cpu")
    with pytest.raises(backend.KernelsUnavailable, match=r"DISTVAE_KERNELS=cpu: no compiler here"):
        backend.pick(X)


def test_a_wrong_choice_is_named_with_the_right_ones(ask):
    ask("gpu")
    with pytest.raises(backend.KernelsUnavailable, match=r"DISTVAE_KERNELS: 'gpu' is not one of auto, cpu, cuda, ref"):
        backend.pick(X)


def test_a_sweep_asks_before_it_starts(ask, broken, tmp_path):
    from distvae.cli import exit_code
    from distvae.study import Study
    from distvae.sweeps.run import sweep

    for asked, said in (("cpu", "no compiler here"), ("gpu", "'gpu' is not one of")):
        ask(asked)
        with pytest.raises(backend.KernelsUnavailable, match=said) as e:
            sweep(Study("x", ()), tmp_path / "out")
        assert exit_code(e.value) == 4
    assert not (tmp_path / "out").exists()


def test_doctor_says_which_back_end_and_why(ask, broken, monkeypatch):
    monkeypatch.setattr(cuda, "unavailable", lambda: "no device")
    ask("auto")
    assert backend.describe() == "cpu: reference (no compiler here); cuda: reference (no device)"
    ask("cuda")
    assert backend.describe() == "cpu: reference (DISTVAE_KERNELS=cuda); cuda: reference (no device)"


def test_names_are_imported_when_used_and_unknown_ones_are_an_attribute_error():
    for name in kernels.__all__:
        assert callable(getattr(kernels, name))
    with pytest.raises(AttributeError, match="no_such_kernel"):
        kernels.no_such_kernel  # noqa: B018


def test_philox_imports_no_torch():
    code = "import sys, distvae.kernels.philox; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
