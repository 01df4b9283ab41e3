"""Losses that are not numbers, and a trial that is too large: results and failures of their own, never their neighbours'."""

import pytest
from driver import distvae
from faulted import by_place, config, same_command_again

from distvae.config import load
from distvae.results import ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MIXED = """
name: faults
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2}
train: {epochs: 40, batch_size: 256, optimizer: sgd, lr: {grid: [%s, 1.0e-3]}}
evaluate: {every: 10}
seeds: 2
resources: {fuse: %s}
engine: torch
"""


@pytest.mark.parametrize("fuse", ["off", "2"])
@pytest.mark.parametrize("lr", ["100.0", "1.0e+30"], ids=["nan", "inf"])
def test_loss_diverges(tmp_path, lr, fuse, tell):
    """a loss that is not a number is a result, and its neighbours' rows are those without it"""
    path, out = config(tmp_path, MIXED % (lr, fuse)), tmp_path / "out"
    same_command_again(path, out)
    ended, _ = ledger.scan(out, mend=False)
    status = {
        t.train.lr: {ended[u.key].status for u in load(path).trials if u.train.lr == t.train.lr}
        for t in load(path).trials
    }
    assert status == {float(lr): {"diverged"}, 1e-3: {"finished"}}
    calm = tmp_path / "calm"
    calm.mkdir()
    alone = config(calm, MIXED.replace("{grid: [%s, 1.0e-3]}", "1.0e-3") % fuse)
    same_command_again(alone, calm / "out")
    mine, theirs = by_place(out), by_place(calm / "out")
    assert theirs
    for place, values in theirs.items():
        assert mine[place] == {k: v if v is None else pytest.approx(v, rel=1e-6, abs=1e-9) for k, v in values.items()}
    files = {p.name for p in (out / "points").iterdir()}
    same_command_again(path, out)
    assert {p.name for p in (out / "points").iterdir()} == files  # diverged trials are never run again
    name = f"{'NaN' if lr == '100.0' else 'inf'} loss ({'each by itself' if fuse == 'off' else 'in a stack'})"
    tell(fault=name, outcome="2 diverged, 2 finished with the rows they have without the others")


LARGE = """
name: faults
vae: {encoder: {type: mlp, hidden: {grid: [[8], [1000000000]]}}, latent_dim: 2}
train: {epochs: 2, batch_size: 256}
engine: torch
"""


def test_out_of_memory(tmp_path, tell):
    """out of memory in one trial: it has failed, and says so; the others finish"""
    path, out = config(tmp_path, LARGE), tmp_path / "out"
    done = distvae("sweep", path, "--out", out)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr and "failed twice" in done.stderr
    ended, _ = ledger.scan(out, mend=False)
    large = next(t.key for t in load(path).trials if t.vae.encoder.hidden[0] > 8)
    assert {key: e.status for key, e in ended.items()} == {
        t.key: "failed" if t.key == large else "finished" for t in load(path).trials
    }
    assert "memory" in (out / "logs" / f"{large}.jsonl").read_text()
    again = distvae("sweep", path, "--out", out)  # what has failed is always run again, what has finished never
    assert again.returncode == 3, again.stderr
    attempts = sorted(p.name.split(".")[1] for p in (out / "points").glob(f"{large}.*"))
    assert attempts == ["0", "1"] and len(list((out / "points").iterdir())) == 3
    tell(
        outcome="1 failed (exit 3, its log says why), 1 finished; the same command runs the failed one again, and it alone"
    )
