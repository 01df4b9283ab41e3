"""Two sweeps on one machine: nothing of one is found by the other. And an epoch that takes long is no reason to lose it:
the first Ctrl-C saves within it."""

import json
import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from driver import Sweep, distvae
from safetensors.torch import load_file

import distvae as api
from distvae.config import load
from distvae.sweeps import cluster
from distvae.sweeps.rank import Rank
from distvae.vae import Vae

PAIR = """
data: {type: digits}
vae:
  encoder: {type: mlp, hidden: [32]}
  latent_dim: 5
  posterior: {type: du, gamma: 0.7, p_keep: 0.8}
train: {epochs: 2, batch_size: 200, dtype: %s}
resources: {workers: 2}
deepspeed: %s.json
"""
CPU = {"device": "cpu"}
LEFT = {"zero_optimization": {"stage": 2, "offload_optimizer": CPU}}
RIGHT = {"zero_optimization": {"stage": 3, "offload_param": CPU, "stage3_param_persistence_threshold": 0}}


def test_gangs_meet_on_ports_that_the_system_picks(monkeypatch, tmp_path):
    monkeypatch.setenv("MASTER_PORT", "29500")  # where everybody would meet by default
    plain = Rank.__ray_metadata__.modified_class
    job = {"cwd": os.getcwd(), "out": str(tmp_path), "local": True, "threads": 1}
    gangs = [plain(0, 2, job) for _ in range(3)]
    addresses = [g.open_store() for g in gangs]
    assert {host for host, _ in addresses} == {"127.0.0.1"}
    ports = {port for _, port in addresses}
    assert len(ports) == 3 and 29500 not in ports


def test_a_cluster_has_a_folder_and_a_token_of_its_own(tmp_path):
    tokens = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cluster._secret.cache_clear()  # as in another process
        path = cluster._local_settings(str(tmp_path / name))["RAY_AUTH_TOKEN_PATH"]
        assert path.startswith(str(tmp_path / name)) and stat.S_IMODE(os.stat(path).st_mode) == 0o600
        tokens.append(Path(path).read_text())
    assert len(set(tokens)) == 2 and min(map(len, tokens)) == 64
    cluster._secret.cache_clear()


@pytest.mark.slow
@pytest.mark.sweep
def test_two_sweeps_at_once(tmp_path, monkeypatch):
    """Each with gangs of two, from a JSON file of its own; the rows are those of plain torch."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "compiled"))
    configs = {}
    for name, dtype, block in (("left", "float32", LEFT), ("right", "bfloat16", RIGHT)):
        (tmp_path / f"{name}.json").write_text(json.dumps(block))
        configs[name] = tmp_path / f"{name}.yaml"
        configs[name].write_text(PAIR % (dtype, name))
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda n: distvae("sweep", configs[n], "--out", tmp_path / n, timeout=400), configs))
    for name, done in zip(configs, ends, strict=True):
        assert done.returncode == 0, done.stderr
        assert "torch" not in done.stderr  # DeepSpeed it was
        (trial,) = load(configs[name]).trials
        expected, found = api.train(trial).rows.to_pylist(), api.load_curve(tmp_path / name).to_pylist()
        assert len(found) == len(expected) == 6
        at = {(r["epoch"], r["split"]): r for r in found}
        tolerance = 1e-4 if name == "left" else 5e-3
        for e in expected:
            for m in ("rate_nats", "distortion_nats", "objective"):
                x, y = e[m], at[e["epoch"], e["split"]][m]
                assert abs(x - y) <= tolerance * max(1.0, abs(x)), (name, e["epoch"], e["split"], m, x, y)
        weights = load_file(tmp_path / name / "checkpoints" / trial.key / "model.safetensors")
        whole = {n: p.shape for n, p in Vae(trial.vae, (1, 8, 8)).state_dict().items()}
        assert {n: p.shape for n, p in weights.items()} == whole  # gathered from the ranks
        assert load(tmp_path / name / "sweep.yaml").deepspeed == (LEFT if name == "left" else RIGHT)
    assert not (tmp_path / "compiled").exists()


@pytest.mark.slow
@pytest.mark.sweep
def test_ctrl_c_within_a_long_epoch_loses_nothing(tmp_path):
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(
        "vae: {encoder: {type: mlp, hidden: [16]}, latent_dim: 2, posterior: {type: du, p_keep: 0.7}}\n"
        "train: {epochs: 1, batch_size: 1, samples: 8}\n"
        "resources: {checkpoint_s: 1.0}\n"
    )
    (trial,) = load(config).trials
    folder = out / "checkpoints" / trial.key
    stopped = 0
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: list(folder.glob("ep0000000-*/state.json")))  # checkpoint_s, though no epoch has ended
        assert sweep.end(signal.SIGINT) == 130, sweep.text()
        stopped = max(int(p.name.split("-")[1]) for p in folder.glob("ep0000000-*"))
        assert 0 < stopped < 1437
    again = distvae("sweep", config, "--out", out)
    assert again.returncode == 0, again.stderr

    def facts(rows):
        kept = ("epoch", "split", "step", "rate_nats", "distortion_nats", "objective", "active_units")
        return sorted(tuple(r[k] for k in kept) for r in rows.to_pylist())

    assert facts(api.load_curve(out)) == facts(api.train(trial, engine="deepspeed").rows)  # bit for bit
