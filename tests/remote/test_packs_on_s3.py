"""Packs and zips on S3: what is read does not change, and a damaged one is made again from its spare."""

import json

import pytest
from ledgers import finished, trial

from distvae import files
from distvae.operate import logs
from distvae.results import compaction, ledger, packs
from distvae.store import appended, folded, twice

SIZE = 4


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for module in (packs, folded):
        monkeypatch.setattr(module, "SIZE", SIZE)
    monkeypatch.setattr(ledger, "MANY", 2 * SIZE)


def test_packed_damaged_and_mended(out):
    trials = [trial(seed) for seed in range(2 * SIZE + 1)]
    for t in trials:
        finished(out, t, 1.0 + t.seed, 2.0)
        files.append(logs.path(out, t.key), json.dumps({"event": "begin", "unix_s": 1.0}) + "\n")
    appended.flush()
    keys = {t.key for t in trials}
    before = ledger.load(out).to_pylist(), ledger.scan(out), logs.texts(out, keys)
    compaction.compact(out, dict.fromkeys(keys, "finished"), running=False)
    assert sorted(f.name[:5] for f in (out / "points").iterdir()) == sorted(["pack-", "pack-", trials_left(out)[:5]])
    assert (ledger.load(out).to_pylist(), ledger.scan(out), logs.texts(out, keys)) == before
    pack, zipped = packs.found(out)[0], twice.found(out / "logs", "folded-*.zip")[0]
    sound = pack.read_bytes()
    pack.put(sound[:1000] + b"?" + sound[1001:])
    zipped.remove()
    folded._open.cache_clear()
    assert ledger.load(out).to_pylist() == before[0] and logs.texts(out, keys) == before[2]
    ended, (line,) = ledger.scan(out)
    assert ended == before[1][0] and line == f"{pack} is damaged: made again from {twice.spare(pack)}"
    assert pack.read_bytes() == sound
    assert compaction.mend(out) == [f"{zipped} is damaged: made again from {twice.spare(zipped)}"]
    t = next(t for t in trials if t.key in {r["trial_key"] for r in packs.read(pack).to_pylist()})
    assert ledger.history(out, t.key).status == ledger.end(out, t.key, 0).status == "finished"


def trials_left(out):
    (left,) = [f.name for f in (out / "points").iterdir() if not f.name.startswith("pack-")]
    return left
