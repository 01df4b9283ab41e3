"""Losses that are not numbers, and a trial that is too large: results and failures of their own, never their neighbours'."""

import resource

import pytest
from driver import distvae
from faulted import by_place, config, same_command_again

from distvae.config import load
from distvae.results import ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MIXED = """
name: faults
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2}
objective: {type: elbo, beta: %(beta)s}
train: {epochs: 40, batch_size: 256, optimizer: sgd, lr: %(lr)s}
evaluate: {every: 10}
seeds: 2
resources: {fuse: %(fuse)s}
engine: torch
"""
CALM = {"beta": "1.0", "lr": "1.0e-3"}
WILD = {
    "NaN loss": {"lr": "{grid: [100.0, 1.0e-3]}"},
    "inf loss": {"beta": "{grid: [3.0e+38, 1.0]}"},  # of a batch: near float32's end
}


@pytest.fixture(scope="module", params=["off", "2"])
def calm(request, tmp_path_factory):
    """(fuse, the rows of the trials that diverge nowhere, without the others)."""
    folder = tmp_path_factory.mktemp("calm")
    path, out = config(folder, MIXED % {**CALM, "fuse": request.param}), folder / "out"
    same_command_again(path, out)
    return request.param, by_place(out)


@pytest.mark.parametrize("fault", WILD)
def test_loss_diverges(tmp_path, calm, fault, tell):
    """a loss that is not a number is a result, and its neighbours' rows are those without it"""
    fuse, theirs = calm
    path, out = config(tmp_path, MIXED % {**CALM, **WILD[fault], "fuse": fuse}), tmp_path / "out"
    same_command_again(path, out)
    ended, _ = ledger.scan(out, mend=False)
    finished = {key for key, _, _ in theirs}
    assert {key: e.status for key, e in ended.items()} == {
        t.key: "finished" if t.key in finished else "diverged" for t in load(path).trials
    }
    assert len(finished) == 2 and len(ended) == 4
    mine = by_place(out)
    for place, values in theirs.items():
        assert mine[place] == {k: v if v is None else pytest.approx(v, rel=1e-6, abs=1e-9) for k, v in values.items()}
    files = {p.name for p in (out / "points").iterdir()}
    same_command_again(path, out)
    assert {p.name for p in (out / "points").iterdir()} == files  # diverged trials are never run again
    tell(
        fault=f"{fault} ({'each by itself' if fuse == 'off' else 'in a stack'})",
        outcome="2 diverged, 2 finished with the rows they have without the others",
    )


LARGE = """
name: faults
vae: {encoder: {type: mlp, hidden: {grid: [[8], [65536, 65536]]}}, latent_dim: 2}
train: {epochs: 2, batch_size: 256}
engine: torch
"""
HAS = 12 * 2**30  # bytes for each process; a layer of the large trial is 16 GiB


def little_memory():
    """On every machine alike, and none of it is taken from others."""
    resource.setrlimit(resource.RLIMIT_AS, (HAS, HAS))


def test_out_of_memory(tmp_path, tell):
    """out of memory in one trial: it has failed, and says so; the others finish"""
    path, out = config(tmp_path, LARGE), tmp_path / "out"
    done = distvae("sweep", path, "--out", out, preexec_fn=little_memory)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr and "failed twice" in done.stderr
    ended, _ = ledger.scan(out, mend=False)
    large = next(t.key for t in load(path).trials if t.vae.encoder.hidden[0] > 8)
    assert {key: e.status for key, e in ended.items()} == {
        t.key: "failed" if t.key == large else "finished" for t in load(path).trials
    }
    assert "memory" in (out / "logs" / f"{large}.jsonl").read_text()
    again = distvae("sweep", path, "--out", out, preexec_fn=little_memory)
    assert again.returncode == 3, again.stderr  # what has failed is always run again, what has finished never
    attempts = sorted(p.name.split(".")[1] for p in (out / "points").glob(f"{large}.*"))
    assert attempts == ["0", "1"] and len(list((out / "points").iterdir())) == 3
    tell(
        outcome="1 failed (exit 3, its log says why), 1 finished; the same command runs the failed one again, and it alone"
    )
