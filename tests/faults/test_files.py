"""What the disk does to files: checkpoints and committed rows that are cut short or have a flipped bit, halves of
checkpoints, pickles in the place of weights. Each is noticed, set aside and never read."""

import pickle
import random
import signal

import pytest
from driver import Sweep
from faulted import before, config, contents, events, holds, same_command_again

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def killed(tmp_path):
    """A sweep that was killed once each trial that had saved had two checkpoints: (config, OUT)."""
    path, out = config(tmp_path), tmp_path / "out"
    with Sweep(path, out) as sweep:
        sweep.wait_for(lambda: {len(found) for found in checkpoints(out).values()} == {2})
        sweep.end(signal.SIGKILL)
        assert sweep.all_gone(), sweep.survivors()
    return path, out


def checkpoints(out):
    """Trial key -> its checkpoint folders, the newest last."""
    found = {}
    for state in sorted(out.glob("checkpoints/*/ep*/state.json")):
        found.setdefault(state.parts[-3], []).append(state.parent)
    return found


def cut(path):
    blob = path.read_bytes()
    path.write_bytes(blob[: random.randrange(1, len(blob))])


def flip(path):
    blob = bytearray(path.read_bytes())
    blob[random.randrange(len(blob))] ^= 1 << random.randrange(8)
    path.write_bytes(blob)


@pytest.mark.parametrize("damage", [cut, flip], ids=["truncated", "bit flipped"])
def test_checkpoint_damaged(killed, clean, damage, tell):
    """the newest checkpoint of every running trial"""
    path, out = killed
    then, found = before(out), checkpoints(out)
    for folders in found.values():
        damage(folders[-1] / "rank0.safetensors")
    said = same_command_again(path, out)
    for key, folders in found.items():
        newest, previous = folders[-1].name, folders[-2].name
        assert f"{key}: damaged and set aside: checkpoint {newest}; it goes on from {previous}" in said, said
        begun = next(e for e in events(out, key, "begin") if e["unix_s"] > then.at)
        epoch, _, position = previous.removeprefix("ep").partition("-")
        assert (begun["epoch"], begun["position"]) == (int(epoch), int(position or 0)), (begun, folders)
    holds(path, out, then, clean.rows, lost=found)
    name = "truncated" if damage is cut else "bit-flipped"
    tell(
        fault=f"checkpoint {name}",
        outcome=f"the newest of {len(found)} set aside, said so; each went on from the one before",
    )


def test_checkpoint_half_written(killed, clean, tell):
    """half-written checkpoint directory: with and without its final name"""
    path, out = killed
    then, found = before(out), checkpoints(out)
    for folders in found.values():
        whole = folders[-1]
        for name in (f".{whole.name}.tmp", "ep0009999"):
            half = whole.with_name(name)
            half.mkdir()
            blob = (whole / "rank0.safetensors").read_bytes()
            (half / "rank0.safetensors").write_bytes(blob[: len(blob) // 2])
    same_command_again(path, out)
    tell(outcome=f"never seen; {holds(path, out, then, clean.rows)}")


class Boom:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (self.canary.touch, ())


def test_pickle_planted(killed, clean, tmp_path, tell):
    """a pickle planted as a checkpoint, its digest mended, and as its state"""
    import hashlib
    import json

    path, out = killed
    then, found = before(out), checkpoints(out)
    canary = tmp_path / "canary"
    blob = pickle.dumps(Boom(canary))
    for number, folders in enumerate(found.values()):
        for folder in folders:
            (folder / "rank0.safetensors").write_bytes(blob)
            state = json.loads((folder / "state.json").read_bytes())
            state["files"]["rank0.safetensors"] = hashlib.sha256(blob).hexdigest()
            (folder / "state.json").write_bytes(json.dumps(state).encode() if number % 2 else blob)
    said = same_command_again(path, out)
    assert not canary.exists()
    for key in found:
        assert any(f"{key}: damaged and set aside" in s and s.endswith("starts anew") for s in said.splitlines()), said
    holds(path, out, then, clean.rows, lost=found)
    tell(outcome=f"refused and said so, canary not created, {len(found)} trials from the start")


@pytest.mark.parametrize("damage", [cut, flip], ids=["truncated", "bit flipped"])
def test_rows_damaged(tmp_path, clean, damage, tell):
    """Parquet file of a trial that has ended"""
    import shutil

    out = tmp_path / "out"
    shutil.copytree(clean.out, out)
    files = sorted((out / "points").glob("*.parquet"))
    victims = random.sample(files, 2)
    for victim in victims:
        sound = victim.read_bytes()
        damage(victim)
        while _reads_as(victim, sound):  # the bit carried nothing: another
            victim.write_bytes(sound)
            damage(victim)
    then = before(out)
    for victim in victims:
        del then.points[victim.name]
    said = same_command_again(clean.path, out)
    assert all(f"{v} is damaged" in said for v in victims), said
    assert {p.name for p in (out / "quarantine").iterdir()} == {v.name for v in victims}
    held = holds(clean.path, out, then, clean.rows)
    assert len(contents(out)) == len(files)
    name = "truncated" if damage is cut else "bit-flipped"
    tell(fault=f"Parquet file {name}", outcome=f"detected, set aside, run again; {held}")


def _reads_as(path, sound):
    from distvae.results import ledger

    table = ledger._read(path)
    if table is None:
        return False
    now = table.to_pylist()
    path_bytes = path.read_bytes()
    path.write_bytes(sound)
    truth = ledger._read(path)
    path.write_bytes(path_bytes)
    assert truth is not None and now == truth.to_pylist(), "read in silence, and not what was written"
    return True
