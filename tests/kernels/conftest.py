import pytest
import torch
from backends import BACK_ENDS, select


@pytest.fixture(params=BACK_ENDS)
def back_end(request, monkeypatch) -> str:
    """The device of a back end that the kernels now run on."""
    return select(request.param, monkeypatch)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: threads only wait for each other, for long where the machine is busy. test_bits.py has more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
