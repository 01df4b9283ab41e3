"""`distvae compare` and `distvae export --format compressai`: what they print, write and refuse."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from commands import command

from distvae.data import Gaussian
from distvae.likelihoods import Gaussian as GaussianPixels
from distvae.objectives import Elbo
from distvae.priors import Binarized, Mixture
from distvae.results import ledger, rows
from distvae.sweeps.plan import trial_from_json
from distvae.trial import Train, Trial
from distvae.vae import Model

PLANE = {4.0: (1.0, 9.0), 2.0: (2.0, 6.0), 1.0: (3.5, 4.0), 0.5: (6.0, 3.0)}  # beta: (rate, distortion), nats


def a_sweep(out: Path, shifts: dict[int, float], *, measure: str = "binary", **parts) -> Path:
    """Finished trials on a convex curve for each seed, moved by `shifts[seed]` nats of rate; mse = distortion / 100."""
    parts = {"prior": Binarized(r=0.0), **parts}
    data = {"data": parts.pop("data")} if "data" in parts else {}
    for seed, shift in shifts.items():
        for beta, (rate, distortion) in PLANE.items():
            t = Trial(
                vae=Model(latent_dim=2, **parts), objective=Elbo(beta=beta), train=Train(epochs=1), seed=seed, **data
            )
            row = {"n_examples": 100, "epoch": 1, "step": 12, "point": 0, "measure": measure}
            row |= {"rate_nats": rate + shift, "distortion_nats": distortion, "distortion_mse": distortion / 100}
            row |= {"elbo_nats": -rate - shift - distortion}
            measured = [{**row, "split": split} for split in ("valid", "test")]
            identity = {"sweep": "s", "status": "finished", "attempt": 0, "device": "cpu", "git_sha": "abc"}
            ledger.commit(out, rows.table(t, measured, **identity))
    return out


@pytest.fixture
def two(tmp_path):
    """B needs 0.4, 0.5, 0.6 nats more than A, seed by seed."""
    a = a_sweep(tmp_path / "a", {0: 0.0, 1: 2.0, 2: 4.0})
    return a, a_sweep(tmp_path / "b", {0: 0.4, 1: 2.5, 2: 4.6}, prior=Binarized(r=0.5))


def test_the_command_tells_people_and_programs(two, tmp_path, capsys):
    shown = command(capsys, "compare", *two, "--to", tmp_path / "both.png")
    assert shown.code == 0 and shown.out.strip() == str(tmp_path / "both.png")
    assert (tmp_path / "both.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for words in ("BD-rate, nats", "+0.5", "95% CI, 3 seeds", "s (b) minus s (a)", "no configuration is in both"):
        assert words in shown.err, words
    read = command(capsys, "compare", *two, "--json", "--split", "valid")
    view = json.loads(read.out)
    assert view["split"] == "valid" and view["against"] == "s (a)"
    assert view["panels"][0]["differences"][0]["numbers"]["rate_nats"]["by_seed"]["seeds"] == 3


def test_one_seed_and_no_overlap_are_said(tmp_path, capsys):
    a, b = a_sweep(tmp_path / "a", {0: 0.0}), a_sweep(tmp_path / "b", {0: 10.0, 1: 10.0})
    shown = command(capsys, "compare", a, b)
    assert shown.code == 0 and "1 seed" in shown.err and "no rate is in the range" in shown.err
    assert "4 configurations are in both" in shown.err and "differ by at most 10 nats" in shown.err


@pytest.mark.parametrize(
    "options, says",
    [
        (["A"], "two OUT or more, or one and --by"),
        (["A", "B", "--by", "vae.prior.r"], "two OUT or more, or one and --by"),
        (["A", "A"], "takes different OUT"),
        (["A", "B", "--split", "all"], "--split: 'all' is not one of train, valid, test"),
        (["A", "B", "--split", "train"], "nothing to compare on the train split"),
        (["A", "nowhere"], "holds no sweep"),
        (["A", "--by", "r"], "no configuration of"),
    ],
)
def test_what_cannot_be_compared_exits_2(two, tmp_path, capsys, options, says):
    names = {"A": two[0], "B": two[1], "nowhere": tmp_path / "nowhere"}
    done = command(capsys, "compare", *(names.get(o, o) for o in options))
    assert done.code == 2 and says in done.err and not done.out


# --- export -----------------------------------------------------------------------------------------------------------


def as_compressai_reads(path: Path, metric: str):
    """The logic of CompressAI's plot command (compressai/utils/plot): its name, bits per pixel and metric."""
    data = json.loads(path.read_text())
    results = data.get("results", data)
    if "bpp" not in results or metric not in results:
        raise ValueError(f"{path}: no {metric}")
    values = np.array(results[metric])
    if metric == "ms-ssim":
        values = -10 * np.log10(1 - values)
    return {"name": data.get("name", path.name.split(".")[0]), "xs": np.array(results["bpp"]), "ys": values}


def test_compressai_reads_the_curve(tmp_path, capsys):
    out = a_sweep(tmp_path / "out", {0: 0.0, 1: 0.2, 2: 0.4})
    done = command(capsys, "export", out, "--format", "compressai")
    (path,) = map(Path, done.out.split())
    assert done.code == 0 and path == out / "compressai" / "digits-binary.json"
    rates = np.array([rate + 0.2 for rate, _ in PLANE.values()])
    mse = np.array([distortion / 100 for _, distortion in PLANE.values()])
    for metric in ("psnr", "psnr-rgb"):
        read = as_compressai_reads(path, metric)
        assert read["name"] == "s"
        np.testing.assert_allclose(read["xs"], rates / math.log(2) / 64)  # 8 x 8 pixels
        np.testing.assert_allclose(read["ys"], 20 * np.log10(1 / np.sqrt(mse)))
    np.testing.assert_allclose(as_compressai_reads(path, "distortion_nats")["ys"], 100 * mse)
    with pytest.raises(ValueError, match="no ms-ssim"):
        as_compressai_reads(path, "ms-ssim")


def test_every_array_has_a_unit_and_every_point_its_config(tmp_path, capsys):
    out = a_sweep(tmp_path / "out", {0: 0.0, 1: 0.2})
    content = json.loads(Path(command(capsys, "export", out, "--format", "compressai").out.strip()).read_text())
    assert content["results"].keys() == content["units"].keys()
    assert {len(v) for v in content["results"].values()} == {4} == {len(content["points"])}
    for point, beta in zip(content["points"], PLANE, strict=True):
        trials = [trial_from_json(json.dumps({**point["config"], "seed": seed})) for seed in (0, 1)]
        assert point["beta"] == beta == trials[0].objective.beta
        assert point["config_key"] == trials[0].config_key and point["trial_keys"] == [t.key for t in trials]
        assert point["rate_nats"]["seeds"] == 2
    assert "nothing was coded" in content["description"] and "64 pixels" in content["description"]


def test_a_file_for_each_family_and_measure(tmp_path, capsys):
    out = a_sweep(tmp_path / "out", {0: 0.0})
    a_sweep(out, {0: 0.5}, prior=Mixture())
    a_sweep(out, {0: 0.5}, likelihood=GaussianPixels(), measure="density")
    done = command(capsys, "export", out, "--format", "compressai", "--to", tmp_path / "curves")
    found = {Path(p).name: json.loads(Path(p).read_text()) for p in done.out.split()}
    assert {name: (f["name"], f["measure"]) for name, f in found.items()} == {
        "digits-binary-binarized-normal.json": ("s: binarized normal", "binary"),
        "digits-binary-mixture.json": ("s: mixture", "binary"),
        "digits-density.json": ("s", "density"),
    }
    assert sorted(found) == sorted(p.name for p in (tmp_path / "curves").iterdir())


def test_what_another_beats_in_both_is_not_on_the_curve(tmp_path, capsys):
    out = a_sweep(tmp_path / "out", {0: 0.0})
    a_sweep(out, {0: 0.4}, prior=Binarized(r=1.0))  # the same errors for more rate
    (path,) = map(Path, command(capsys, "export", out, "--format", "compressai").out.split())
    content = json.loads(path.read_text())
    assert content["configurations"] == 8 and content["results"]["rate_nats"] == [r for r, _ in PLANE.values()]


def test_data_that_are_no_pictures_are_refused(tmp_path, capsys):
    out = a_sweep(tmp_path / "out", {0: 0.0}, data=Gaussian(eigenvalues=(2.0, 1.0)), likelihood=GaussianPixels())
    done = command(capsys, "export", out, "--format", "compressai")
    assert done.code == 2 and "the gaussian data are real numbers" in done.err and not done.out
    assert command(capsys, "export", out, "--format", "json").code == 2
