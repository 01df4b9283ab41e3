"""Trial-steps per second of K trials, by hand and by distvae, in one run: serial eager, serial torch.compile, as many
one-thread processes as there are cores, torch.func's vmap, and ours, stacked and not; on a GPU a CUDA-graphed model too.

Rounds over all forms in turn (A B C A B C), wall-clock time of a step, medians; `spread` is the slowest and the fastest
round. Forms of one process have one thread, so their figures are per thread; those of several processes are per machine,
with every core at work. `cpu_ms` is processor time per trial-step, which other processes on the machine disturb less.
Compiling is not in any figure: `compile_s` has it. What is claimed is published with the ratio it got."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
CPU_NETS = ("hidden 50", "hidden 400", "conv 8", "conv 32")
GPU_NETS = ("hidden 50", "hidden 400", "toyVAE", "conv 8", "conv 32")
KS = (1, 4, 16, 64)
AT_LEAST_S = 0.05  # a timed span
MOST_ROUNDS = 15
LONG_S = 6.0  # a step that takes longer is timed once, its first


def sibling(name: str) -> ModuleType:
    """A module beside this one, which is loaded by its path."""
    full = f"distvae_bench_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, HERE / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


F = sibling("_sweep_forms")


# --- forms as something to time -----------------------------------------------------------------------------------------


class Here:
    """A form in this process."""

    def __init__(self, form: Any, device: str):
        self.form, self.trials, self.device = form, form.trials, device

    def span(self, steps: int) -> tuple[float, float | None]:
        """(wall, processor) seconds of `steps` steps."""
        cpu, started = time.process_time(), time.perf_counter()
        for _ in range(steps):
            self.form()
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - started, time.process_time() - cpu

    def close(self) -> None:
        if hasattr(self.form, "close"):
            self.form.close()


class Worker:
    """A process with one thread that builds forms and steps them when it is told to, one JSON line at a time."""

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r}); import sweep; sweep.serve()"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def tell(self, **order: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker of the benchmark ended ({self.process.wait()})")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve() -> None:
    """The life of a `Worker`."""
    torch.set_num_threads(1)
    out, sys.stdout = sys.stdout, sys.stderr
    built: dict[str, Here] = {}
    for line in sys.stdin:
        order, answer = json.loads(line), None
        match order["do"]:
            case "build":
                work = F.Work(order["net"], tuple(order["slots"]), order["data"])
                built[order["form"]] = Here(F.FORMS[order["form"]](work), "cpu")
            case "step":
                answer = built[order["form"]].span(order["steps"])
            case "drop":
                built.pop(order["form"]).close()
        print(json.dumps(answer), file=out, flush=True)


class Spread:
    """A form in several processes at once, each with its share of the trials."""

    def __init__(self, workers: Sequence[Worker], form: str, work: Any):
        self.workers, self.form, self.trials = workers, form, work.k
        for i, w in enumerate(workers):
            w.tell(do="build", form=form, net=work.net, slots=work.slots[i :: len(workers)], data=work.data)
        for w in workers:
            w.hear()

    def span(self, steps: int) -> tuple[float, float | None]:
        started = time.perf_counter()
        for w in self.workers:
            w.tell(do="step", form=self.form, steps=steps)
        cpu = sum(w.hear()[1] for w in self.workers)
        return time.perf_counter() - started, cpu

    def close(self) -> None:
        for w in self.workers:
            w.tell(do="drop", form=self.form)
            w.hear()


# --- a row: one net, one K ----------------------------------------------------------------------------------------------


def forms(work: Any, workers: Sequence[Worker], compiled: Any, engines: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """How to build everything that this row compares."""
    names = [n for n in F.FORMS if "DeepSpeed" not in n or "deepspeed" in engines]
    menu: dict[str, Callable[[], Any]] = {n: lambda n=n: Here(F.FORMS[n](work), work.device) for n in names}
    if compiled is not None:
        menu["serial compile"] = lambda: Here(F.Serial(work, compiled), work.device)
    if work.device.startswith("cuda"):
        menu["one graphed model"] = lambda: Here(F.Graphed(work), work.device)
    elif work.k >= len(workers) > 1:
        n = len(workers)
        menu[f"serial eager, {n} processes"] = lambda: Spread(workers, "serial eager", work)
        menu[f"ours, {n} processes"] = lambda: Spread(workers, "ours", work)
    return menu


def row(
    work: Any, menu: dict[str, Callable[[], Any]], seconds: float, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    there, skipped, first = {}, {}, {}
    for name, build in menu.items():
        try:
            there[name] = build()
            first[name] = there[name].span(1)
        except Exception as e:
            there.pop(name, None)
            skipped[name] = f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200] if str(e).strip() else ''}"
    steps = {}
    for name, form in there.items():
        once = first[name][0] if first[name][0] > 1.0 else form.span(1)[0]  # the first is slower
        steps[name] = max(1, round(AT_LEAST_S / once))
    walls: dict[str, list[float]] = {name: [] for name in there}
    cpus: dict[str, list[float]] = {name: [] for name in there}
    until = time.monotonic() + seconds
    for turn in range(rounds):
        for name, form in there.items():
            long = first[name][0] > LONG_S
            if long and turn:
                continue
            wall, cpu = first[name] if long else form.span(steps[name])
            per = steps[name] * form.trials
            walls[name].append(wall / per)
            cpus[name].append(cpu / per)
        if turn and time.monotonic() >= until:
            break
    for form in there.values():
        form.close()
    rate = {name: 1.0 / statistics.median(w) for name, w in walls.items()}
    say(f"{work.net}, K = {work.k}: " + ", ".join(f"{n} {r:.0f}" for n, r in rate.items()) + " trial-steps/s")
    for name, why in skipped.items():
        say(f"{work.net}, K = {work.k}: {name} left out: {why}")
    return {
        "net": work.net,
        "k": work.k,
        "trial_steps_per_s": rate,
        "spread": {name: [1.0 / max(w), 1.0 / min(w)] for name, w in walls.items()},
        "cpu_ms": {name: 1e3 * statistics.median(c) for name, c in cpus.items()},
        "rounds": {name: len(w) for name, w in walls.items()},
        "skipped": skipped,
        "load": os.getloadavg()[0],
    }


# --- claims -------------------------------------------------------------------------------------------------------------


def claim(what: str, r: dict[str, Any], ours: str, other: str, at_least: float) -> dict[str, Any] | None:
    rate = r["trial_steps_per_s"]
    if ours not in rate or other not in rate:
        return None
    ratio = rate[ours] / rate[other]
    cpu = r["cpu_ms"][other] / r["cpu_ms"][ours]
    return {"claim": what, "ratio": ratio, "ratio_cpu": cpu, "at_least": at_least, "reached": ratio >= at_least}


def claims(rows: dict[str, dict[str, Any]], device: str, data: str) -> list[dict[str, Any]]:
    """Every claim, at every K it is about."""
    from distvae.study import Resources, Study
    from distvae.sweeps import groups

    gpu = device.startswith("cuda")
    study = Study("bench", (), resources=Resources(gpus=1.0 if gpu else 0.0))
    most, found = groups.MOST_GPU if gpu else groups.MOST_CPU, []
    for name, r in rows.items():
        if r["net"] == "hidden 50" and r["k"] > 1 and not gpu:
            found.append(claim(f"{name}: ours >= 1.4x serial eager, per thread", r, "ours", "serial eager", 1.4))
        if r["net"] == "toyVAE" and r["k"] == 64 and gpu:
            found.append(claim(f"{name}: ours >= 25x serial eager", r, "ours", "serial eager", 25.0))
            found.append(claim(f"{name}: ours >= 5x one graphed model", r, "ours", "one graphed model", 5.0))
        stacks = groups.why_not(F.Work(r["net"], (0,), data).trials()[0], study) is None
        if stacks and 1 < r["k"] <= most:
            for engine in ("", ", DeepSpeed"):
                what = f"{name}{engine}: fuse auto (which stacks it) not slower than off"
                found.append(claim(what, r, f"ours{engine}", f"off{engine}", 1.0))
    return [c for c in found if c is not None]


# --- all of it ----------------------------------------------------------------------------------------------------------


def run(
    say: Callable[[str], None] = print,
    *,
    nets: Sequence[str] | None = None,
    ks: Sequence[int] = KS,
    seconds: float = 8.0,
    data: str | None = None,
    compile_: bool = True,
    processes: int | None = None,
    engines: Sequence[str] = ("torch", "deepspeed"),
    rounds: int = MOST_ROUNDS,
    **options: Any,
) -> dict[str, Any]:
    """`seconds` of rounds for each net and K. JSON-able."""
    from distvae import __version__
    from distvae.kernels import backend
    from distvae.results.provenance import git_sha

    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = data or ("mnist" if os.environ.get("DISTVAE_DATA") else "digits")
    engines, left_out = _importable(engines)
    load, began, threads = os.getloadavg(), time.monotonic(), torch.get_num_threads()
    sha = git_sha()  # of what runs, not of what is there when it ends
    torch.set_num_threads(1)
    n = 0 if device == "cuda" else processes if processes is not None else len(os.sched_getaffinity(0))
    workers = [Worker() for _ in range(n if n > 1 else 0)]
    rows: dict[str, dict[str, Any]] = {}
    compile_s: dict[str, float | str] = {}
    try:
        for net in nets or (GPU_NETS if device == "cuda" else CPU_NETS):
            compiled = None
            if compile_:
                compiled, compile_s[net] = _compiled(F.Work(net, (0, 1), data, device))
                say(f"{net}: torch.compile {compile_s[net]}")
            for k in ks:
                work = F.Work(net, tuple(range(k)), data, device)
                rows[f"{net}, K = {k}"] = row(work, forms(work, workers, compiled, engines), seconds, rounds, say)
    finally:
        for w in workers:
            w.close()
        torch.set_num_threads(threads)
    verdicts = claims(rows, device, data)
    return {
        **{c["claim"]: f"{c['ratio']:.2f}x  {'reached' if c['reached'] else 'NOT reached'}" for c in verdicts},
        "what": f"one Adam step on {F.BATCH} images of {data}, Gaussian posterior, Bernoulli likelihood, d = {F.LATENT}, "
        "float32, trials that differ in beta, learning rate and seed; vmap has one learning rate for all",
        "threads": "forms of one process: 1 thread; forms of several processes: 1 thread each, all at once",
        "rows": rows,
        "claims": verdicts,
        "compile_s": compile_s,
        "left_out": left_out,
        "processes": n,
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": load,
        "load_after": os.getloadavg(),
        "wall_s": time.monotonic() - began,
        "kernels": backend.describe(),
        "versions": {"distvae": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "git_sha": sha,
    }


def _importable(engines: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The engines that can be had, and why the others cannot."""
    if "deepspeed" not in engines:
        return list(engines), {}
    from distvae.training.deepspeed_engine import import_deepspeed

    try:
        import_deepspeed()
    except ImportError as e:
        return [e for e in engines if e != "deepspeed"], {"DeepSpeed": str(e)}
    return list(engines), {}


def _compiled(work: Any) -> tuple[Any, float | str]:
    """(the compiled loss, seconds) or (None, why not)."""
    torch._dynamo.reset()
    loss, started = torch.compile(F.call, dynamic=False), time.monotonic()
    try:
        F.Serial(work, loss)()
    except Exception as e:
        return None, f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200]}"
    return loss, time.monotonic() - started


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nets", nargs="+", choices=list(F.NETS))
    parser.add_argument("--ks", nargs="+", type=int, default=KS)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--data")
    parser.add_argument("--no-compile", dest="compile_", action="store_false")
    args = parser.parse_args()
    json.dump(run(lambda text: print(text, file=sys.stderr), **vars(args)), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
