"""`distvae launch slurm`'s script under a real SLURM of two nodes: pre-empted, cancelled and out of time, it goes on."""

import machines
import pytest
import real_slurm
from commands import command
from launched import LONG, nobody, once, reached, saved
from machines import Lan, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
LONGER = LONG.replace("1500", "24000").replace("750", "12000")


@pytest.fixture
def slurm(tmp_path):
    real_slurm.skip_without()
    machines.skip_without()
    with Lan(2, tmp_path) as lan, real_slurm.RealSlurm(lan, tmp_path, cpus=3) as found:
        yield found


def test_preempted_cancelled_and_out_of_time(capsys, tmp_path, slurm):
    """Pre-empted and out of time it saves and comes back by itself; told to stop it saves, and like one that is cancelled it
    stays away until it is submitted again."""
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(LONGER)
    done = command(
        capsys, "launch", "slurm", config, "--out", "out", "--to", tmp_path, "--nodes", 2, "--cpus-per-node", 3
    )
    assert done.code == 0, done.err
    script = tmp_path / "long.sbatch"

    def said() -> str:
        return "".join(p.read_text() for p in sorted(tmp_path.glob("long-*.out")))

    def further(number: int, than: int) -> None:
        """It runs, on both nodes, and has saved something newer."""
        slurm.until(number, "RUNNING", seconds=120)
        wait_for(
            lambda: len(saved(out)) == 4 and reached(out) > than,
            240,
            [*tmp_path.glob("*.log"), *tmp_path.glob("*.out")],
        )

    job = slurm.submit(script, cwd=tmp_path)
    further(job, 0)
    assert all(m.processes("ray::Rank") for m in slurm.lan.machines), "trials on both nodes"

    other = slurm.submit("--partition=high", "--exclusive", "--nodes=2", "--wrap=sleep 1", cwd=tmp_path)
    slurm.until(other, "COMPLETED", seconds=240)
    assert slurm.job(job)["Restarts"] == "1" and slurm.state(job) in ("PENDING", "CONFIGURING", "RUNNING"), said()
    assert said().count("stopping: running trials save and stop") == 1
    then = reached(out)

    further(job, then)
    slurm.run("scancel", "--batch", "--signal=TERM", job)
    slurm.until(job, "FAILED", seconds=120)
    assert slurm.job(job)["ExitCode"] == "130:0" and slurm.job(job)["Restarts"] == "1", said()
    assert said().count("stopping: running trials save and stop") == 2
    then, job = reached(out), slurm.submit(script, cwd=tmp_path)

    further(job, then)
    slurm.run("scancel", job)
    slurm.until(job, "CANCELLED", seconds=120)
    assert all(nobody(m, but=real_slurm.DAEMONS) for m in slurm.lan.machines), said()

    again = slurm.submit("--time=2", "--signal=B:USR1@30", script, cwd=tmp_path)
    slurm.until(again, "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", seconds=900)
    assert slurm.state(again) == "COMPLETED" and slurm.job(again)["ExitCode"] == "0:0", said()
    assert int(slurm.job(again)["Restarts"]) >= 1, "its slice was long enough for the whole sweep"
    assert slurm.state(job) == "CANCELLED" and slurm.job(job)["Restarts"] == "0"
    assert "Traceback" not in said()
    once(out, config)
