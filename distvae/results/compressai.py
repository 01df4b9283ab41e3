"""A sweep's curves as CompressAI's results files, which its plot command and scripts read beside codecs' own: one JSON for
each (data, measure) panel and family of parts, `{"name", "description", "results": {"bpp": [...], "psnr": [...], ...}}`.

    bpp  = rate / (ln 2 x H x W)        psnr = -10 log10(mse), peak 1

What is honest about it: a rate is KL(q(z|x) || p(z)), what relative entropy coding of one z ~ q(z|x) takes at best (up
to a logarithm of it); nothing was coded, and there is no file of that size. PSNR is of the mean squared error over the
split (CompressAI's own files have the mean of each image's PSNR, which is larger). In colour or grey the error is a mean
over channels, so `psnr-rgb`, the name of newer files, has the same numbers. A curve is what no other configuration of
its family beats in both, means over seeds. Beside these arrays stand ours, in nats, and, under `points`, what those
files drop: each point's whole configuration."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distvae import __version__
from distvae.data import load as load_data
from distvae.files import replacing
from distvae.results import curves, ledger
from distvae.results.curves import Config
from distvae.results.families import varied_choices
from distvae.sweeps.plan import trial_from_json
from distvae.trial import flatten

FOLDER = "compressai"
UNITS = {
    "bpp": "bits per pixel (H x W), ideal",
    "psnr": "dB, peak 1, of the mean squared error",
    "psnr-rgb": "dB, the same numbers as psnr",
    "mse": "squared pixel, per pixel and channel",
    "rate_nats": "nats/example",
    "distortion_nats": "nats/example",
    "elbo_nats": "nats/example",
    "seeds": "seeds that a point is the mean of",
}


class NoCodecError(Exception):
    """No curve of the sweep can be read as a codec's (exit code 2)."""


def export(out: Path, to: Path | None = None, split: str = "test") -> list[Path]:
    """Write the files into the folder `to` (default: OUT/compressai) and return their paths. Raises NoCodecError where
    no data are pictures with pixels in [0, 1]."""
    table = ledger.load(out)
    sweep = " + ".join(sorted(set(table["sweep"].to_pylist())))
    files: dict[str, dict[str, Any]] = {}
    whys = []
    for (data, measure), configs in curves.panels(curves.configs(table, split)).items():
        shape, why = _picture(configs[0])
        if shape is None:
            whys.append(f"the {data} data {why}")
            continue
        for label, members in _families(configs).items():
            stem = re.sub(r"[^A-Za-z0-9_]+", "-", " ".join([data, measure, label]).strip())
            curve = _curve(members, shape, split)
            name = f"{sweep}: {label}" if label else sweep
            files[_free(stem, files)] = {"name": name, "description": _said(data, measure, split, curve), **curve}
    if not files:
        raise NoCodecError(f"{out}: {'; '.join(whys) or f'no finished trial has a valid bound on the {split} split'}")
    folder = to or out / FOLDER
    return [_write(folder / f"{stem}.json", content) for stem, content in files.items()]


def _picture(config: Config) -> tuple[tuple[int, ...] | None, str]:
    """Shape of one x, or None and why its rate and error make no bpp and PSNR."""
    data = trial_from_json(config.points[0].row["config_json"]).data
    if not data.unit:
        return None, "are real numbers, without a peak for a PSNR"
    shape = data.shape or load_data(data).x_shape
    return (shape, "") if len(shape) == 3 else (None, f"are no pictures: one x is of shape {tuple(shape)}")


def _families(configs: Sequence[Config]) -> dict[str, list[Config]]:
    """Label -> the configurations that make the same choices. The label is of the parts' types, outer first, and where
    that does not tell two families apart, of all choices by name."""
    nested = {c.config_key: curves.config_of(c.points[0]) for c in configs}
    varied = sorted(varied_choices(nested.values(), absent=True), key=lambda name: (name.count("."), name))
    found: dict[tuple[str | None, ...], list[Config]] = defaultdict(list)
    for c in configs:
        flat = dict(flatten(nested[c.config_key]))
        found[tuple(flat.get(name) for name in varied)].append(c)
    types = [
        [v for n, v in zip(varied, choice, strict=True) if v is not None and n.endswith(".type")] for choice in found
    ]
    labels = [" ".join(dict.fromkeys(t)) for t in types]
    if len(set(labels)) < len(labels):
        labels = [
            " ".join(f"{n}={v}" for n, v in zip(varied, choice, strict=True) if v is not None) for choice in found
        ]
    return dict(zip(labels, found.values(), strict=True))


def _curve(configs: Sequence[Config], shape: Sequence[int], split: str) -> dict[str, Any]:
    """The arrays, by increasing rate, and what each point is."""
    pixels = math.prod(shape[1:])
    found = [(c, mse) for c in configs if (mse := curves.mean_of(c, "distortion_mse"))]
    kept: list[tuple[Config, float]] = []
    for c, mse in sorted(found, key=lambda f: (f[0].rate.mean, f[1])):
        if not kept or mse < kept[-1][1]:
            kept.append((c, mse))
    psnr = [-10.0 * math.log10(mse) for _, mse in kept]
    results = {
        "bpp": [c.rate.mean / math.log(2.0) / pixels for c, _ in kept],
        "psnr": psnr,
        "psnr-rgb": psnr,
        "mse": [mse for _, mse in kept],
        "rate_nats": [c.rate.mean for c, _ in kept],
        "distortion_nats": [c.distortion.mean for c, _ in kept],
        "elbo_nats": [c.elbo.mean for c, _ in kept],
        "seeds": [c.seeds for c, _ in kept],
    }
    return {
        "results": results,
        "units": UNITS,
        "data": configs[0].data,
        "measure": configs[0].measure,
        "split": split,
        "pixels": pixels,
        "configurations": len(configs),
        "distvae": __version__,
        "points": [_point(c) for c, _ in kept],
    }


def _point(c: Config) -> dict[str, Any]:
    config = curves.config_of(c.points[0])
    config.pop("seed")
    return {
        "config_key": c.config_key,
        "trial_keys": [p.trial_key for p in c.points],
        "beta": c.knobs["beta"],
        **{
            name: {**asdict(i), "kind": i.kind}
            for name, i in (("rate_nats", c.rate), ("distortion_nats", c.distortion))
        },
        "config": config,
    }


def _said(data: str, measure: str, split: str, curve: dict[str, Any]) -> str:
    points = len(curve["results"]["bpp"])
    return (
        f"distvae, {data} ({measure}), {split} split, means over seeds; {points} of {curve['configurations']} configurations: "
        f"those that none beats in both. bpp: KL(q(z|x) || p(z)) / ln 2 / {curve['pixels']} pixels, the least that coding a z "
        "takes, nothing was coded. psnr: of the split's mean squared error."
    )


def _free(stem: str, taken: dict[str, Any]) -> str:
    names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _write(path: Path, content: dict[str, Any]) -> Path:
    with replacing(path) as f:
        f.write(json.dumps(content, indent=2, allow_nan=False).encode())
    return path
