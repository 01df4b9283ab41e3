"""A feature net of one's own: a function that Python can import and that returns the net.

    # nets.py, on PYTHONPATH or installed
    def inception(): return MyInception()              # images [B, *x_shape] in [0, 1] -> features [B, F]

    net: {type: module, path: "nets:inception", name: inception}

Whoever writes `path` into a YAML has that module imported and the function called, as if by hand; only modules on
Python's path, never a file's name or a pickle. Resizing, normalising, channels are the net's business."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from torch import nn

from distvae.features.net import FeatureError, FeatureNetPart, Net
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Module(FeatureNetPart):
    """A net of one's own: what an importable function returns."""

    type: Literal["module"] = "module"
    path: Annotated[
        str, Hyper(doc="package.module:function, called without arguments; its net takes images, gives [B, F]")
    ]
    name: Annotated[str, Hyper(doc="short name of the net, which is in the columns' names")]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.path):
            raise ValueError(f"path: {self.path!r} is not package.module:function")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", self.name) or self.name in ("classifier", "pixels"):
            raise ValueError(
                f"name: {self.name!r} is not a name of its own (small letters, digits, '_', at most 40, first a letter; "
                "not classifier or pixels)"
            )

    @property
    def short(self) -> str:
        return self.name

    def recipe(self) -> dict[str, Any]:
        return {"path": self.path}

    def doc(self, label: str) -> str:
        return f"the net {self.name} (what {self.path} returned)"

    def make(self, data: Dataset) -> Net:
        module, function = self.path.split(":")
        where = f"net.path: {self.path}"
        try:
            build = getattr(import_module(module), function)
        except ImportError as e:
            raise FeatureError(f"{where}: {e} (is it installed, or its folder on PYTHONPATH?)") from e
        except AttributeError as e:
            raise FeatureError(f"{where}: module {module} has no {function}") from e
        net: Any = build()
        if isinstance(net, nn.Module):
            return net.requires_grad_(False)
        if not callable(net):
            raise FeatureError(f"{where}: returned {type(net).__name__}, expected a net (nn.Module or function)")
        return cast(Net, net)
