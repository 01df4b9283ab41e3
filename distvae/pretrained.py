"""A trained model as a folder of two files, for use away from its sweep: `model.safetensors`, its weights and running
statistics, and `config.json`, all that rebuilds it around them. Nothing is ever unpickled.

The config is written last and holds the weights' SHA-256: a folder without it is no model yet, and a pair that does not
belong together (a copy cut short, a save that was killed) is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distvae import __version__, files
from distvae.files import replacing
from distvae.trial import PROTOCOL_VERSION, Trial, as_data
from distvae.vae import Model, Vae

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT = "distvae"
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class PretrainedError(Exception):
    """A folder that holds no model this distvae can load, or a model that cannot be saved. One line: where, what, the
    remedy."""


def save_pretrained(vae: Vae, folder: str | os.PathLike[str]) -> Path:
    """Write the model into `folder`, in place of one that is there. Raises PretrainedError on a dtype without a name in
    configs."""
    from safetensors.torch import save

    folder = files.at(folder)
    dtype = next((name for name, t in DTYPES.items() if t == vae.dtype), None)
    if dtype is None:
        raise PretrainedError(f"{folder}: a model of {vae.dtype} is not saved: use vae.float() or vae.double()")
    blob = save({name: t.detach().cpu().contiguous().clone() for name, t in vae.state_dict().items()})
    config = {
        "format": FORMAT,
        "version": __version__,
        "protocol": PROTOCOL_VERSION,
        "weights_sha256": hashlib.sha256(blob).hexdigest(),
        "x_shape": list(vae.x_shape),
        "dtype": dtype,
        "beta": vae.beta,  # of a beta-input model: what it is used at,
        "betas": list(vae.betas),  # and evaluated at
        "metrics": vae.metrics,
        **({"trial_key": vae.trial.key, "trial": vae.trial.config()} if vae.trial else {"vae": as_data(vae.model)}),
    }
    with replacing(folder / WEIGHTS) as f:
        f.write(blob)
    with replacing(folder / CONFIG) as f:
        f.write(json.dumps(config, indent=2, allow_nan=False).encode())
    return folder


def from_pretrained(folder: str | os.PathLike[str], *, device: str = "cpu") -> Vae:
    """The model that `save_pretrained` wrote, in evaluation mode, bit for bit: its `.beta`, `.betas`, `.trial` and
    `.metrics` too. Raises PretrainedError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = files.at(folder)
    config = _config(folder)
    try:
        blob = (folder / WEIGHTS).read_bytes()
    except OSError as e:
        raise PretrainedError(f"{folder / WEIGHTS}: {e.strerror} (save the model again)") from None
    try:
        tensors = load(blob)
    except (SafetensorError, ValueError) as e:
        why = "is not a safetensors file, and nothing else is read: no pickle is ever loaded"
        raise PretrainedError(f"{folder / WEIGHTS}: {why} ({e})") from None
    vae, beta = _built(folder, config)
    _fits(folder / WEIGHTS, vae.state_dict(), tensors)
    if hashlib.sha256(blob).hexdigest() != config.get("weights_sha256"):
        raise PretrainedError(
            f"{folder / WEIGHTS}: are not the weights {CONFIG} was written with (save the model again)"
        )
    vae.load_state_dict(tensors)
    vae.beta = beta
    return vae.eval().to(device)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except OSError as e:
        raise PretrainedError(f"{path}: {e.strerror} (vae.save_pretrained({str(folder)!r}) writes a model)") from None
    except ValueError as e:
        raise PretrainedError(f"{path}: is not JSON ({e})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise PretrainedError(f'{path}: is not of a distvae model (no "format": "{FORMAT}")')
    protocol = config.get("protocol")
    if not isinstance(protocol, int) or protocol > PROTOCOL_VERSION:
        made = f"protocol {protocol!r} of distvae {config.get('version')}"
        raise PretrainedError(
            f"{path}: was saved under {made}, and this is protocol {PROTOCOL_VERSION} (distvae {__version__}): update distvae"
        )
    return config


def _built(folder: Path, config: dict[str, Any]) -> tuple[Vae, float | None]:
    """The model that the config describes, not yet with its weights, and its beta."""
    from distvae.config import adapter

    try:
        trial = adapter(Trial | None).validate_python(config.get("trial"))
        model = trial.vae if trial else adapter(Model).validate_python(config["vae"])
        x_shape = adapter(tuple[int, ...]).validate_python(config["x_shape"])
        beta = adapter(float | None).validate_python(config["beta"])
        vae = Vae(model, x_shape, dtype=DTYPES[config["dtype"]])
        vae.betas = adapter(tuple[float, ...]).validate_python(config["betas"])
        vae.metrics = adapter(dict[str, dict[str, float]]).validate_python(config["metrics"])
    except (ValueError, KeyError, TypeError, RuntimeError) as e:
        first = " ".join(str(e).split())[:200]
        raise PretrainedError(
            f"{folder / CONFIG}: does not describe a model that this distvae builds: {first}"
        ) from None
    vae.trial = trial
    return vae, beta


def _fits(path: Path, needed: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Same names, shapes and dtypes, or PretrainedError with the first that is not."""
    for name in sorted({*needed, *found}):
        if name not in found or name not in needed:
            lack = "lacks" if name not in found else f"has, and the model of {CONFIG} lacks,"
            raise PretrainedError(f"{path}: {lack} {name} (the two files are not of one model)")
        a, b = needed[name], found[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            told = [f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (b, a)]
            raise PretrainedError(f"{path}: {name} is {told[0]}, and the model of {CONFIG} has {told[1]}")
