"""`distvae bench sweep`: its forms do the same work, and its verdicts follow from its numbers. Times are not looked at."""

import json
import math
import sys

import pytest
import torch

from distvae.batch import Batch, Noise
from distvae.bench import load
from distvae.training.stack import PerTrial


@pytest.fixture(scope="module")
def bench():
    return sys.modules[load("sweep").__module__]


def same_weights(vae):
    """A trial's weights for the model by hand, whose head has the means first."""
    named = {n: p.detach().clone() for n, p in vae.named_parameters()}
    head = max((n for n in named if n.startswith("encoder.")), key=lambda n: int(n.split(".")[1])).rsplit(".", 1)[0]
    for name in (f"{head}.weight", f"{head}.bias"):
        named[name] = named[name].unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)
    return named


@pytest.mark.parametrize("net", ["hidden 50", "conv 8"])
def test_forms_do_the_same_work(bench, net):
    F = bench.F
    work = F.Work(net, (0, 1, 2), "digits")
    ours, serial, vmapped, off = (F.FORMS[n](work) for n in ("ours", "serial eager", "vmap", "off"))
    ones = [ours.fused.ones[k].vae for k in ours.stacked.keys]
    for model, vae, runner in zip(serial.models, ones, off.runners, strict=True):
        assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in vae.parameters())
        assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), runner.vae.parameters(), strict=True))
        model.load_state_dict(same_weights(vae))
    with torch.no_grad():
        for name, p in vmapped.params.items():
            p.copy_(torch.stack([m.get_parameter(name) for m in serial.models]))
    rows = next(work.batches())
    x, _, ids = ours.fused.examples.at(rows, torch.float32, 0)
    assert torch.equal(x, serial.x[rows])
    noises = [Noise(s, 0, ids) for s in work.slots]
    eps = torch.stack([n.normal(1, F.LATENT, x)[:, 0] for n in noises])
    wanted = serial.losses(rows, eps)
    torch.testing.assert_close(vmapped.losses(rows, eps), wanted, rtol=1e-4, atol=0)
    batch = Batch(x=x, noise=Noise(0, torch.tensor(0), ids), total=len(rows))
    one = torch.ones(len(work.slots))
    each = PerTrial(torch.tensor(work.slots), one, one)
    mine = ours.stacked.stack.losses(batch, each, ours.stacked.stack.trials[0].objective.draw) / len(rows)
    torch.testing.assert_close(mine.detach(), wanted, rtol=1e-4, atol=0)
    assert (
        [t.train.lr for t in ours.stacked.stack.trials]
        == work.lrs
        == [o.param_groups[0]["lr"] for o in serial.optimizers]
    )
    for form in (ours, serial, vmapped, off):
        for _ in range(3):
            form()
    for form in (serial, vmapped):
        assert (form.losses(rows, eps) < wanted).all()
    trained = [r.vae for r in off.runners]
    for slot, one in enumerate(trained):
        for name, p in one.named_parameters():
            stacked = getattr(ours.stacked.stack, f"vae/{name}".replace(".", "/"))[slot]
            torch.testing.assert_close(stacked, p, rtol=1e-3, atol=1e-5)
            assert not torch.equal(p, ones[slot].get_parameter(name))


def test_a_small_run_has_every_row_and_verdict(bench):
    said: list[str] = []
    result = bench.run(
        said.append, nets=["hidden 50"], ks=[1, 2], seconds=0.0, data="digits", compile_=False, processes=1,
        engines=["torch"], rounds=2,
    )  # fmt: skip
    result = json.loads(json.dumps(result))
    assert set(result["rows"]) == {"hidden 50, K = 1", "hidden 50, K = 2"}
    for r in result["rows"].values():
        assert set(r["trial_steps_per_s"]) == {"serial eager", "vmap", "ours", "off"} and not r["skipped"]
        for name, rate in r["trial_steps_per_s"].items():
            low, high = r["spread"][name]
            assert 0 < low <= rate * (1 + 1e-9) and rate <= high * (1 + 1e-9) and math.isfinite(high)
    rate = result["rows"]["hidden 50, K = 2"]["trial_steps_per_s"]
    expected = {"ours >= 1.4x serial eager": ("serial eager", 1.4), "not slower than off": ("off", 1.0)}
    assert len(result["claims"]) == len(expected)
    for words, (other, least) in expected.items():
        (c,) = (c for c in result["claims"] if words in c["claim"])
        assert c["ratio"] == pytest.approx(rate["ours"] / rate[other]) and c["reached"] == (c["ratio"] >= least)
    assert {"device", "cores", "versions", "git_sha", "load_before", "kernels", "threads"} <= set(result)
    assert len(said) == 2


@pytest.mark.slow
def test_processes_share_the_trials(bench):
    result = bench.run(
        print, nets=["hidden 50"], ks=[3], seconds=0.0, data="digits", compile_=False, processes=2, engines=["torch"],
        rounds=1,
    )  # fmt: skip
    (r,) = result["rows"].values()
    assert not r["skipped"]
    assert {"serial eager, 2 processes", "ours, 2 processes"} < set(r["trial_steps_per_s"])
