"""The same VAE on the same images, trained by a plain loop written by hand, by pythae, and by distvae: seconds per epoch
of training, and what the trained models are worth on the test images.

The plain loop is the best that an ordinary user would write: images as floats in memory, rows picked by a permutation,
`binary_cross_entropy_with_logits`, torch's fused Adam. pythae runs its own BaseTrainer (installed here only, into a
temporary environment over this one). distvae's forms: one trial by `engine: torch` and by `engine: deepspeed`, and the
seeds as one stack (seconds per epoch are then per trial). Everyone starts from the same weights for a seed; noise and
order of the examples are each one's own. Runs of the forms are interleaved, in another order for every seed.

What a model is worth is measured by one piece of code for all (below, float64 sums, written by hand): -ELBO by one
sample, and IW-NLL, nats per test image. `distvae bench peers --json`; needs DISTVAE_DATA or MNIST in the cache."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

SEEDS, EPOCHS, BATCH, LR = 3, 5, 128, 1e-3
HIDDEN, LATENT, IW, TEST = (256, 128), 16, 50, 2000
PYTHAE = ("pythae==0.1.2", "imageio")


class Plain(nn.Module):
    """The VAE, written down: logits of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        wide, narrow = HIDDEN
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, wide),
            nn.ReLU(),
            nn.Linear(wide, narrow),
            nn.ReLU(),
            nn.Linear(narrow, 2 * LATENT),
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, narrow), nn.ReLU(), nn.Linear(narrow, wide), nn.ReLU(), nn.Linear(wide, 784)
        )

    def forward(self, x: Tensor) -> Tensor:
        mu, logvar = self.encoder(x).chunk(2, -1)
        logits = self.decoder(mu + (0.5 * logvar).exp() * torch.randn_like(mu))
        distortion = binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
        return (distortion + 0.5 * (logvar.exp() + mu.square() - 1.0 - logvar).sum()) / len(x)


def start(seed: int) -> Plain:
    torch.manual_seed(seed)
    return Plain()


def plain(x: Tensor, seed: int) -> tuple[list[float], Plain]:
    """Seconds of each epoch, and the model."""
    model = start(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    seconds = []
    for _ in range(EPOCHS):
        began = time.monotonic()
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            model(x[rows]).backward()
            optimizer.step()
        seconds.append(time.monotonic() - began)
    return seconds, model


# --- distvae ------------------------------------------------------------------------------------------------------------


def trial(seed: int) -> Any:
    from distvae.config import loads

    config = {
        "data": {"type": "mnist"},
        "vae": {"encoder": {"type": "mlp", "hidden": list(HIDDEN)}, "latent_dim": LATENT},
        "train": {"batch_size": BATCH, "lr": LR, "epochs": EPOCHS},
        "evaluate": {"every": EPOCHS},
        "seeds": [seed],
    }
    return loads(json.dumps(config)).trials[0]


def put(vae: Any, model: Plain) -> None:
    """The plain model's weights into a distvae one: ours is [in, out] per layer and (mean, log variance) per
    dimension."""
    theirs, ours = dict(model.named_parameters()), dict(vae.named_parameters())
    with torch.no_grad():
        for name, p in zip(_names(vae), _names(model), strict=True):
            value = theirs[p]
            if p.startswith("encoder.5"):
                value = value.unflatten(0, (2, LATENT)).transpose(0, 1).flatten(0, 1)
            ours[name].copy_(value)


def take(vae: Any) -> Plain:
    """The other way round."""
    model = Plain()
    theirs, ours = dict(model.named_parameters()), dict(vae.named_parameters())
    with torch.no_grad():
        for name, p in zip(_names(vae), _names(model), strict=True):
            value = ours[name].detach()
            if p.startswith("encoder.5"):
                value = value.unflatten(0, (LATENT, 2)).transpose(0, 1).flatten(0, 1)
            theirs[p].copy_(value)
    return model


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def distvae(engine: str) -> Callable[[Tensor, int], tuple[list[float], Plain]]:
    def run(x: Tensor, seed: int) -> tuple[list[float], Plain]:
        from distvae.training.loop import Runner
        from distvae.training.world import World, meet

        runner = Runner(trial(seed), engine=engine, world=meet(0, 1) if engine == "deepspeed" else World())
        put(runner.vae, start(seed))
        seconds = []
        for _ in range(EPOCHS):
            began = time.monotonic()
            runner.train_epoch()
            seconds.append(time.monotonic() - began)
        model = take(runner.vae)
        runner.close()
        return seconds, model

    return run


def stacked() -> list[float]:
    """Seconds per epoch and trial of all seeds as one stack."""
    from distvae.training.fused import Fused
    from distvae.training.group import Setting

    fused = Fused([trial(s) for s in range(SEEDS)], Setting(most=SEEDS))
    seconds = []
    for _ in range(EPOCHS):
        began = time.monotonic()
        assert fused.train(list(fused.states), math.inf)
        seconds.append((time.monotonic() - began) / SEEDS)
    fused.close()
    return seconds


# --- pythae -------------------------------------------------------------------------------------------------------------


def install(folder: Path) -> Path:
    """A Python that sees this environment's packages, and pythae."""
    venv.create(folder, system_site_packages=True, with_pip=True)
    python = folder / "bin" / "python"
    here = "import site, sys; print([p for p in sys.path if p.endswith('site-packages')][0])"
    own = subprocess.run([str(python), "-c", here], check=True, capture_output=True, text=True).stdout.strip()
    this = subprocess.run([sys.executable, "-c", here], check=True, capture_output=True, text=True).stdout.strip()
    Path(own, "over.pth").write_text(this + "\n")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *PYTHAE], check=True)
    return python


def pythae(python: Path, folder: Path, images: Path) -> Callable[[Tensor, int], tuple[list[float], Plain]]:
    from safetensors.torch import load_file, save_file

    def run(x: Tensor, seed: int) -> tuple[list[float], Plain]:
        weights, out = folder / f"start{seed}.safetensors", folder / f"end{seed}.safetensors"
        first = {k.replace(".", ".net.", 1): v.contiguous() for k, v in start(seed).state_dict().items()}
        save_file(first, weights)
        spec = {
            "images": str(images), "weights": str(weights), "out": str(out), "hidden": HIDDEN, "latent": LATENT,
            "batch": BATCH, "epochs": EPOCHS, "lr": LR, "seed": seed, "threads": torch.get_num_threads(),
        }  # fmt: skip
        (folder / "spec.json").write_text(json.dumps(spec))
        script = Path(__file__).with_name("_pythae_run.py")
        subprocess.run([str(python), str(script), str(folder / "spec.json")], check=True, capture_output=True)
        model = Plain()
        model.load_state_dict({k.replace(".net.", ".", 1): v for k, v in load_file(out).items()})
        return json.loads(Path(f"{out}.json").read_text()), model

    return run


# --- what a model is worth ----------------------------------------------------------------------------------------------


@torch.no_grad()
def worth(model: Plain, x: Tensor) -> dict[str, float]:
    """-ELBO by one sample and IW-NLL by `IW`, nats per image."""
    g = torch.Generator().manual_seed(0)
    elbo, nll = [], []
    for some in x.split(100):
        mu, logvar = model.encoder(some).chunk(2, -1)
        eps = torch.randn(IW, len(some), LATENT, generator=g)
        z = mu + (0.5 * logvar).exp() * eps
        logits, target = model.decoder(z), some.flatten(1).expand(IW, -1, -1)
        given = -binary_cross_entropy_with_logits(logits, target, reduction="none").double().sum(-1)
        ratio = -0.5 * (z.double().square() - eps.double().square() - logvar.double()).sum(-1)
        rate = 0.5 * (logvar.exp() + mu.square() - 1.0 - logvar).double().sum(-1)
        elbo.append(rate - given[0])
        nll.append(math.log(IW) - torch.logsumexp(given + ratio, 0))
    return {"negative_elbo_nats": float(torch.cat(elbo).mean()), "iw_nll_nats": float(torch.cat(nll).mean())}


def run(say: Callable[[str], None] = print, **_: Any) -> dict[str, Any]:
    from distvae.config import loads
    from distvae.data import load
    from distvae.results.provenance import git_sha

    torch.set_num_threads(1)
    data = load(loads(json.dumps({"data": {"type": "mnist"}})).trials[0].data)
    x, test = (torch.from_numpy(s.x).float() / 255 for s in (data.train, data.test))
    test = test[:TEST]
    seconds: dict[str, list[float]] = {}
    value: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temp:
        from safetensors.torch import save_file

        folder = Path(temp)
        save_file({"x": x}, folder / "images.safetensors")
        say("installing pythae")
        python = install(folder / "venv")
        forms: dict[str, Callable[[Tensor, int], tuple[list[float], Plain]]] = {
            "plain": plain,
            "distvae": distvae("torch"),
            "distvae_deepspeed": distvae("deepspeed"),
            "pythae": pythae(python, folder, folder / "images.safetensors"),
        }
        names = list(forms)
        for seed in range(SEEDS):
            for name in names[seed % len(names) :] + names[: seed % len(names)]:
                epochs, model = forms[name](x, seed)
                seconds.setdefault(name, []).extend(epochs)
                value.setdefault(name, []).append(worth(model, test))
                say(f"seed {seed} {name}: {statistics.median(epochs):.2f} s per epoch, {value[name][-1]}")
            seconds.setdefault("distvae_stack", []).extend(stacked())
            say(
                f"seed {seed} stack of {SEEDS}: {statistics.median(seconds['distvae_stack']):.2f} s per epoch and trial"
            )
    median = {name: statistics.median(s) for name, s in seconds.items()}
    return {
        "setting": f"MNIST, {len(x)} images, MLP 784-{HIDDEN[0]}-{HIDDEN[1]}-{LATENT}, batch {BATCH}, {EPOCHS} epochs, "
        f"{SEEDS} seeds, one thread; -ELBO (1 sample) and IW-NLL ({IW} samples) of {TEST} test images",
        "seconds_per_epoch": {n: {"median": m, "all": seconds[n]} for n, m in median.items()},
        "times_plain": {n: m / median["plain"] for n, m in median.items()},
        "test": {
            name: {k: {"mean": statistics.mean(v[k] for v in vs), "seeds": [v[k] for v in vs]} for k in vs[0]}
            for name, vs in value.items()
        },
        "torch": torch.__version__,
        "pythae": PYTHAE[0],
        "cpu": _cpu(),
        "load": os.getloadavg(),
        "git_sha": git_sha(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(os.sched_getaffinity(0))} cores" if names else "unknown"


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
