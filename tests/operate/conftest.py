import pytest
from ledgers import measured

from distvae.config import load
from distvae.results import ledger, rows
from distvae.sweeps.plan import write_plan

TEXT = """\
name: s
vae: {latent_dim: 2, prior: {type: binarized, r: {grid: [0, 0.5]}}}
train: {epochs: 2}
seeds: 2
"""


class Made:
    """OUT of four planned trials: one finished, one failed, one diverged, one not run."""

    def __init__(self, folder):
        self.out, self.config = folder / "out", folder / "s.yaml"
        self.config.write_text(TEXT)
        self.study = load(self.config)
        self.finished, self.failed, self.diverged, self.open = (t.key for t in self.study.trials)
        write_plan(self.out, self.study)
        for trial, status in zip(self.study.trials, ("finished", "failed", "diverged"), strict=False):
            self.end(trial, status)

    def end(self, trial, status, attempt=0, epochs=(1, 2)):
        some = [measured(e, s, 1.0, 2.0) for e in epochs for s in ("valid", "test")] if status != "failed" else []
        facts = {"sweep": "s", "status": status, "attempt": attempt, "device": "cpu", "git_sha": "abc"}
        ledger.commit(self.out, rows.table(trial, some, **facts))

    def status(self):
        return {key: end.status for key, end in ledger.scan(self.out)[0].items()}


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)
