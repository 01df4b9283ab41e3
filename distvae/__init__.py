"""distvae: sweeps of VAE variants, from one YAML file to a rate-distortion curve.

`train`, `sweep`, `load_curve`, `load_best`, `measure`, `from_pretrained` and `samplers` are imported when first used: `import
distvae` costs nothing."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distvae import samplers
    from distvae.api import Result, load_best, load_curve, measure, sweep, train
    from distvae.pretrained import from_pretrained

try:
    __version__ = version("distvae")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["Result", "from_pretrained", "load_best", "load_curve", "measure", "samplers", "sweep", "train"]


def __getattr__(name: str) -> Any:
    if name == "samplers":  # import_module sets the attribute: asked for once
        return import_module("distvae.samplers")
    if name == "from_pretrained":
        return import_module("distvae.pretrained").from_pretrained
    if name in __all__:
        return getattr(import_module("distvae.api"), name)
    raise AttributeError(f"module 'distvae' has no attribute {name!r}")
