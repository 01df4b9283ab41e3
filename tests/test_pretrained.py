"""Models saved and loaded: bit for bit, for every part of every union; and what is refused."""

import json
import pickle
import shutil

import pytest
import torch
from conformance import ALL, CASES
from safetensors.torch import load_file, save_file

import distvae
from distvae import pretrained
from distvae.config import loads
from distvae.objectives import BetaInput
from distvae.pretrained import CONFIG, WEIGHTS, PretrainedError
from distvae.vae import Model, Vae

X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def uses(vae: Vae) -> list[torch.Tensor]:
    """What a model answers: posterior parameters, reconstructions, samples."""
    q, z = vae.encode(X), vae.latents(5, seed=3)
    return [*q, vae.decode(z), vae.sample(4, seed=1)]


def same(a: Vae, b: Vae) -> None:
    buffers = [dict(v.named_buffers()) for v in (a, b)]
    assert buffers[0].keys() == buffers[1].keys()
    for x, y in zip(
        (*a.state_dict().values(), *buffers[0].values()), (*b.state_dict().values(), *buffers[1].values()), strict=True
    ):
        assert x.dtype == y.dtype and torch.equal(x, y)
    for x, y in zip(uses(a), uses(b), strict=True):
        assert torch.equal(x, y)
    assert (a.x_shape, a.beta, a.betas, a.metrics, a.trial, a.model) == (
        b.x_shape,
        b.beta,
        b.betas,
        b.metrics,
        b.trial,
        b.model,
    )


@pytest.mark.parametrize("name", ALL)
def test_a_model_comes_back_bit_for_bit(name, tmp_path):
    """With weights, running statistics and calibrated scales that no initialisation has."""
    trial = CASES[name]
    for dtype in (torch.float32, torch.float64):
        vae = Vae(trial.vae, (1, 8, 8), seed=3, dtype=dtype).eval()
        generator = torch.Generator().manual_seed(1)
        for t in vae.state_dict().values():
            if t.is_floating_point():
                t += 0.1 * torch.rand(t.shape, generator=generator, dtype=torch.float64).to(t.dtype)
        if isinstance(trial.objective, BetaInput):
            vae.beta, vae.betas = 0.7, trial.objective.grid()
        vae.save_pretrained(tmp_path / "model")
        back = distvae.from_pretrained(tmp_path / "model")
        assert not back.training and back.dtype == dtype
        same(vae, back)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [CONFIG, WEIGHTS]


SWEEP = """\
vae:
  encoder: {type: mlp, hidden: [12]}
  latent_dim: 3
  posterior: {type: %s}
  prior: %s
  likelihood: %s
  conditioning: %s
objective: %s
train: {epochs: 2, batch_size: 256}
"""
KINDS = {
    "optimal sigma": ("du", "{type: normal}", "{type: gaussian, mode: optimal}", "null", "{type: elbo}"),
    "vamp": ("gaussian", "{type: vamp, components: 4}", "{type: bernoulli}", "null", "{type: elbo}"),
    "told beta": ("gaussian", "{type: normal}", "{type: bernoulli}", "{type: film, hidden: 4}", "{type: beta_input}"),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_best_of_a_sweep_is_saved_with_what_it_measured(name, tmp_path):
    (trial,) = loads(SWEEP % KINDS[name]).trials
    result = distvae.train(trial, tmp_path / "out")
    best = distvae.load_best(tmp_path / "out")
    assert best.trial == trial == result.model.trial
    rows = [r for r in result.rows.to_pylist() if r["epoch"] == 2 and r["split"] == "test"]
    (row,) = [r for r in rows if not best.betas or r["beta"] == best.beta]
    assert best.metrics["test"]["elbo_nats"] == row["elbo_nats"] and set(best.metrics) == {"train", "valid", "test"}
    if name == "told beta":
        assert (
            best.beta
            == max(
                (r for r in result.rows.to_pylist() if r["epoch"] == 2 and r["split"] == "valid"),
                key=lambda r: r["elbo_nats"],
            )["beta"]
        )
    elif name == "optimal sigma":
        assert result.model.metrics == best.metrics and float(best.likelihood.frozen_var) != 1.0
    folder = best.save_pretrained(tmp_path / "my-vae")
    same(best, Vae.from_pretrained(folder))
    config = json.loads((folder / CONFIG).read_text())
    assert config["trial"] == trial.config() and config["trial_key"] == trial.key and config["metrics"] == best.metrics


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    vae = Vae(Model(latent_dim=3), (1, 8, 8))
    return vae.save_pretrained(tmp_path / "model")


def refused(folder, *says):
    with pytest.raises(PretrainedError) as e:
        distvae.from_pretrained(folder)
    assert all(s in str(e.value) for s in says), e.value
    assert "\n" not in str(e.value)


class Planted:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("plant", ["pickle", "torch.save", "cut"])
def test_a_pickle_planted_as_weights_is_not_loaded(saved, plant):
    path = saved / WEIGHTS
    if plant == "pickle":
        path.write_bytes(pickle.dumps(Planted()))
    elif plant == "torch.save":
        torch.save({"weights": Planted()}, path)
    else:
        path.write_bytes(path.read_bytes()[:-8])
    refused(saved, WEIGHTS, "is not a safetensors file", "no pickle is ever loaded")


def edited(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_weights_that_do_not_fit_the_config(saved, tmp_path):
    other = Vae(Model(latent_dim=4), (1, 8, 8)).save_pretrained(tmp_path / "other")
    shutil.copy(other / WEIGHTS, saved / WEIGHTS)
    refused(saved, "decoder.", "float32, and the model of config.json has")
    tensors = load_file(other / WEIGHTS)
    tensors.pop(min(tensors))
    save_file(tensors, other / WEIGHTS)
    refused(other, "lacks decoder.", "the two files are not of one model")
    edited(saved, dtype="float64")
    refused(saved, "float64")


def test_weights_of_another_save_are_noticed(saved, tmp_path):
    """What a save that was killed between its two files leaves."""
    other = Vae(Model(latent_dim=3), (1, 8, 8), seed=1).save_pretrained(tmp_path / "other")
    shutil.copy(other / WEIGHTS, saved / WEIGHTS)
    refused(saved, "are not the weights config.json was written with")


def test_a_save_that_fails_leaves_no_model(tmp_path, monkeypatch):
    vae = Vae(Model(latent_dim=3), (1, 8, 8))
    monkeypatch.setattr(pretrained.json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        vae.save_pretrained(tmp_path / "model")
    refused(tmp_path / "model", CONFIG, "No such file")
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"protocol": 99, "version": "9.0"}, ["protocol 99 of distvae 9.0", "update distvae"]),
        ({"protocol": None}, ["protocol None"]),
        ({"format": "diffusers"}, ['no "format": "distvae"']),
        ({"vae": {"latent_dim": 0}}, ["does not describe a model"]),
        ({"vae": {"prior": {"type": "binarised"}}}, ["does not describe a model", "binarised"]),
        ({"dtype": "int8"}, ["does not describe a model", "int8"]),
        ({"x_shape": "image"}, ["does not describe a model"]),
        ({"metrics": [1]}, ["does not describe a model"]),
    ],
)
def test_a_config_that_is_not_ours(saved, changes, says):
    edited(saved, **changes)
    refused(saved, CONFIG, *says)


def test_no_folder_no_json_no_weights(saved, tmp_path):
    refused(tmp_path / "nowhere", "No such file", "save_pretrained(")
    (saved / WEIGHTS).unlink()
    refused(saved, WEIGHTS, "No such file")
    (saved / CONFIG).write_text("[")
    refused(saved, "is not JSON")


def test_half_precision_has_no_name(tmp_path):
    with pytest.raises(PretrainedError, match=r"torch\.bfloat16 is not saved: use vae\.float\(\)"):
        Vae(Model(), (1, 8, 8)).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
