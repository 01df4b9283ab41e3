"""`distvae bench kl` at sizes that take no time: its contenders are right, its verdicts follow from its numbers. Times
are not looked at."""

import json
import sys

import pytest
import torch

from distvae.bench import load
from distvae.kernels import log_density, log_marginals

FORMS = ("marginals", "both", "memory", "joint", "threads", "sample_kl", "nll", "binarize", "share")


@pytest.fixture(scope="module")
def run():
    return load("kl")


def module(run):
    return sys.modules[run.__module__]


IN_PROCESS = tuple(form for form in FORMS if form != "memory")  # memory is measured in processes of its own


@pytest.mark.parametrize("forms", [IN_PROCESS, pytest.param(FORMS, marks=pytest.mark.slow)], ids=["quick", "all"])
def test_every_row_is_filled_and_every_form_is_right(run, forms):
    lines: list[str] = []
    result = json.loads(json.dumps(run(say=lines.append, quick=True, rows=forms)))
    rows = result["rows"]
    assert {name.partition(" ")[0].strip(",") for name in rows} == set(forms) and len(lines) > 10
    for name in ("marginals", "both", "joint"):
        errors = rows[name]["relative_error"]
        assert set(errors) == set(rows[name]["seconds"]) and "ours" in errors
        assert all(e < 1e-4 for e in errors.values()), (name, errors)
        assert sum(k.startswith("eager") for k in errors) >= 3
    for row in rows.values():
        for claim in row["claims"]:
            if claim.get("ratio") is not None:
                assert claim["reached"] in (True, False) and claim["ratio"] > 0
    assert rows["sample_kl [2, 8, 4]"]["relative_error"]["ours"] < 1e-5
    assert rows["nll [2, 8, 1, 20]"]["relative_error"]["ours"] < 1e-6
    assert rows["binarize [8, 20]"]["relative_error"] == {"ours": 0.0, "reference": 0.0}
    assert 0 < rows["share, batch 8"]["share"] < 1.5
    assert "memory" not in forms or rows["memory"]["extra_mb"]["ours"]["128"] >= 0


@pytest.mark.parametrize("kind", ["marginals", "joint", "both"])
def test_what_errors_are_measured_against_is_the_reference(run, kind):
    bench = module(run)
    inputs = tuple(x.double() for x in bench.problem(70, 5, both=kind == "both"))
    truth = bench.truth(kind, *inputs)
    f = log_density if kind == "joint" else log_marginals
    if kind != "both":
        torch.testing.assert_close(truth[0], f(*inputs), rtol=1e-10, atol=1e-10)
        return
    wanted = bench.F.both_autograd(f, *inputs)
    for got, want in zip(truth, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["marginals_naive", "marginals_naive_t", "marginals_bound", "marginals_bound_t"])
def test_what_is_compiled_is_right_before_it_is_compiled(run, name):
    bench = module(run)
    inputs = tuple(x.double() for x in bench.problem(40, 3, both=True))
    wanted = bench.F.both_autograd(log_marginals, *inputs)
    for got, want in zip(bench.F.both_autograd(getattr(bench.F, name), *inputs), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    own = bench.F.backward_t(inputs[3], wanted[0], *inputs[:3])
    for got, want in zip(own, wanted[1:], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_a_claim_is_reached_or_not(run):
    claim = module(run).claim
    span = lambda s: {"s": s, "low_s": 0.9 * s}  # noqa: E731
    assert claim("", span(4.0), span(1.0), 4.0)["reached"] is True
    assert claim("", span(3.9), span(1.0), 4.0)["reached"] is False
    assert claim("", None, span(1.0), 4.0)["reached"] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="takes seconds there")
def test_without_a_device_there_are_no_rows_for_one():
    lines: list[str] = []
    assert load("kl_gpu")(say=lines.append)["rows"] == {} and "no CUDA device" in lines[0]
