"""cluster/deepspeed/*.json: DeepSpeed takes each and trains with it, on CPU, to the rows of plain torch.
(tests/config/test_deepspeed_options.py: each loads.)"""

import json
import math
from pathlib import Path

import pytest

from distvae.config import load, loads

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "cluster" / "deepspeed").glob("*.json"))
SWEEP = """
data: {type: digits}
vae: {encoder: {type: mlp, hidden: [16]}, latent_dim: 2}
train: {epochs: 1, batch_size: 240, dtype: %s}
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_deepspeed_trains_with_each(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "training"))
    from ranks import train_on

    jobs, at = [], tmp_path / "x.yaml"
    for path in EXAMPLES:
        dtype = "float16" if "fp16" in path.name else "float32"
        at.write_text(f"deepspeed: {path}\n")
        block = load(at).deepspeed
        assert block == json.loads(path.read_text())
        (trial,) = loads(SWEEP % dtype).trials
        scale = {k: v for k, v in block.items() if k in ("fp16", "gradient_accumulation_steps")}  # of the arithmetic
        jobs += [{"trial": trial.config(), "engine": "deepspeed", "deepspeed": block}]
        jobs += [{"trial": trial.config(), "engine": "torch", "deepspeed": scale}]
    rows = train_on(2, jobs, tmp_path)
    assert len(rows) == 2 * len(EXAMPLES) >= 8
    for path, by_deepspeed, by_torch in zip(EXAMPLES, rows[::2], rows[1::2], strict=True):
        tolerance = 5e-3 if "fp16" in path.name else 1e-4
        for a, b in zip(by_deepspeed, by_torch, strict=True):
            assert math.isclose(a["elbo_nats"], b["elbo_nats"], rel_tol=tolerance), path.name
