"""Seconds per trial through distvae against the obvious alternative: a Tune *function* trainable that imports,
initialises DeepSpeed, trains and reports, in a fresh process per trial (Tune's default, no actor reuse).

Both sides run N short trials of the same model, data and steps in one run, half of ours, all of theirs, half of ours,
on a Ray cluster of the same size, two trials at a time on two cores. "Training" is the time of the same trials in one
warm process. distvae's figure is of the whole `sweep` call (ledger, MLflow and all) less its start-up, measured as the
time until the first trial reports; theirs is `Tuner.fit` less the same. The whole calls are given too."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

EPOCHS, BATCH = 3, 128


def trials(n: int, first: int = 0) -> list[Any]:
    from distvae.nets import Mlp
    from distvae.trial import Train, Trial
    from distvae.vae import Model

    base = Trial(vae=Model(encoder=Mlp(hidden=(64,)), latent_dim=8), train=Train(epochs=EPOCHS, batch_size=BATCH))
    return [replace(base, seed=first + i) for i in range(n)]


def ours(work: list[Any], out: Path) -> dict[str, float]:
    """One `sweep` call: seconds in all, and per trial after the first report."""
    from distvae.study import Study
    from distvae.sweeps import progress
    from distvae.sweeps.run import sweep

    seen: list[progress.Progress] = []
    original = progress.Progress.report

    def watch(self: progress.Progress, *args: Any) -> None:
        seen.append(self)
        original(self, *args)

    progress.Progress.report = watch  # type: ignore[method-assign]
    started = time.monotonic()
    try:
        outcome = sweep(Study("overhead", tuple(work)), out, display=False)
    finally:
        progress.Progress.report = original  # type: ignore[method-assign]
    ended = time.monotonic()
    assert outcome.count("finished") == len(work), outcome
    first = seen[0].first_at or ended
    return {"total_s": ended - started, "after_first_s": ended - first}


def theirs(work: list[Any]) -> dict[str, float]:
    """The obvious alternative: `Tuner(function)`, one fresh process a trial."""
    from ray import tune

    from distvae.sweeps import cluster

    configs = [json.dumps(t.config()) for t in work]
    first: list[float] = []

    class Watch(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            first.append(time.monotonic())

    def train(config: dict[str, Any]) -> None:
        import torch
        from ray import tune

        from distvae.sweeps.plan import trial_from_json
        from distvae.training.loop import Runner
        from distvae.training.world import meet

        torch.set_num_threads(1)
        runner = Runner(trial_from_json(config["trial"]), world=meet(0, 1), engine="deepspeed")
        rows = runner.advance().rows
        tune.report({"elbo": rows[-1]["elbo_nats"]})

    started = time.monotonic()
    with cluster.connect(None) as ray:
        tuner = tune.Tuner(
            tune.with_resources(train, {"CPU": 1}),
            param_space={"trial": tune.grid_search(configs)},
            tune_config=tune.TuneConfig(max_concurrent_trials=cluster.cores()),
            run_config=tune.RunConfig(storage_path=str(ray.scratch), verbose=0, callbacks=[Watch()]),
        )
        results = tuner.fit()
        ended = time.monotonic()
        assert not results.errors, results.errors
    return {"total_s": ended - started, "after_first_s": ended - first[0]}


def training_s(work: list[Any]) -> float:
    """Seconds of training and evaluation per trial in one warm process on one thread, DeepSpeed engine."""
    import torch

    from distvae.training.loop import Runner
    from distvae.training.world import meet

    torch.set_num_threads(1)
    spans = []
    for t in [work[0], *work[:5]]:
        started = time.monotonic()
        runner = Runner(t, world=meet(0, 1), engine="deepspeed")
        runner.advance()
        runner.close()
        spans.append(time.monotonic() - started)
    return sorted(spans[1:])[len(spans[1:]) // 2]


def run(trials_: int | None = None, say: Callable[[str], None] = print, **options: Any) -> dict[str, Any]:
    """Both sides, interleaved; JSON-able."""
    import ray
    import torch

    from distvae import __version__
    from distvae.results.provenance import git_sha
    from distvae.sweeps.cluster import cores
    from distvae.training.deepspeed_engine import import_deepspeed

    n = trials_ or options.get("trials") or 8
    with tempfile.TemporaryDirectory() as temp:
        train_s = training_s(trials(6, 1000))
        say(f"training alone: {train_s:.2f} s a trial")
        a = ours(trials(n), Path(temp) / "a")
        say(f"distvae: {a['total_s']:.1f} s for {n} trials")
        theirs_ = theirs(trials(n, 2000))
        say(f"function trainable: {theirs_['total_s']:.1f} s for {n} trials")
        b = ours(trials(n, 3000), Path(temp) / "b")
        say(f"distvae: {b['total_s']:.1f} s for {n} trials")
    at_once = cores()
    rest = n - 1  # trials after the first report

    def per_trial(x: dict[str, float]) -> float:
        return x["after_first_s"] * at_once / rest

    mine, other = (per_trial(a) + per_trial(b)) / 2, per_trial(theirs_)
    return {
        "trials": n,
        "at_once": at_once,
        "training_s_per_trial": train_s,
        "distvae_s_per_trial": mine,
        "function_trainable_s_per_trial": other,
        "ratio": other / mine,
        "distvae_overhead_s_per_trial": mine - train_s,
        "function_trainable_overhead_s_per_trial": other - train_s,
        "distvae_whole_s": (a["total_s"] + b["total_s"]) / 2,
        "function_trainable_whole_s": theirs_["total_s"],
        "what": "seconds a trial occupies its core, from the first report to the end of the call; whole_s includes start-up",
        "device": f"{platform.machine()}, {at_once} cores",
        "versions": {
            "distvae": __version__,
            "torch": torch.__version__,
            "ray": ray.__version__,
            "deepspeed": import_deepspeed().__version__,
        },
        "git_sha": git_sha(),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
