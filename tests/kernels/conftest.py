import pytest
from backends import BACK_ENDS, select


@pytest.fixture(params=BACK_ENDS)
def back_end(request, monkeypatch) -> str:
    """The device of a back end that the kernels now run on."""
    return select(request.param, monkeypatch)
