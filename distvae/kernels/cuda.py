"""The CUDA back end (not here yet)."""

NAME = "cuda"


def unavailable() -> str | None:
    return "there are no CUDA kernels yet"
