"""The kernels against what a user could write instead (_kl_forms.py), in one process, contenders in turn (A B C A B C),
medians. Every claim is published with the ratio it got and whether that reaches it.

Seconds are of one call, warm, inputs in place. Errors are to float64: the largest difference over the largest value of
the result (the worst of the outputs). `cores` is processor time over wall time, a check that one thread is one. Extra
memory is the peak of a fresh process's resident set over the same process warmed up on a small problem, with the
outputs. Eager forms are tuned first (chunk, dimensions at a time) and the fastest form whose error is at most 1e-4
stands for eager; torch.compile likewise, of several ways to write it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Call = Callable[[], Any]
HERE = Path(__file__).resolve().parent
GOOD = 1e-4  # relative error up to which a form may stand for its kind
MEMORY_LIMIT_MB, TIME_LIMIT_S = 6000.0, 120.0


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


F = sibling("_kl_forms")


# --- measuring -------------------------------------------------------------------------------------------------------


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleave(calls: dict[str, Call], repeats: int, at_least_s: float = 0.02) -> dict[str, dict[str, float]]:
    """name -> {s, low_s, high_s, cores}: seconds a call, median over `repeats` rounds of all in turn, each long enough
    to time; forms that take over 5 s take part in the first three rounds."""
    inner, spans = {}, {name: [] for name in calls}
    busy = dict.fromkeys(calls, (0.0, 0.0))
    for name, call in calls.items():
        one = math.inf
        for _ in range(2):  # the first may warm up; a slow one has done so when its error was taken
            if one < 1.0 or one == math.inf:
                started = time.perf_counter()
                call()
                one = min(one, time.perf_counter() - started)
        inner[name] = max(1, math.ceil(at_least_s / one))
    for turn in range(repeats):
        for name, call in calls.items():
            if turn >= 3 and statistics.median(spans[name]) > 5.0:
                continue
            cpu, started = time.process_time(), time.perf_counter()
            for _ in range(inner[name]):
                call()
            wall = time.perf_counter() - started
            spans[name].append(wall / inner[name])
            busy[name] = busy[name][0] + time.process_time() - cpu, busy[name][1] + wall
    return {
        name: {
            "s": statistics.median(all_),
            "low_s": min(all_),
            "high_s": max(all_),
            "cores": busy[name][0] / busy[name][1],
        }
        for name, all_ in spans.items()
    }


def error(got: Any, exact: tuple[Tensor, ...]) -> float:
    """Largest difference over largest value, of the worst output; nan and inf are infinitely wrong."""
    got = got if isinstance(got, tuple) else (got,)
    worst = max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(got, exact, strict=True))
    return worst if math.isfinite(worst) else math.inf


def tuned(menu: dict[str, list[Callable[..., Any]]], *inputs: Tensor) -> dict[str, Callable[..., Any]]:
    """Of every form the fastest setting, on these inputs (best of two)."""
    best = {}
    for name, settings in menu.items():
        spans = []
        for f in settings:
            f(*inputs)
            span = math.inf
            for _ in range(2):
                started = time.perf_counter()
                f(*inputs)
                span = min(span, time.perf_counter() - started)
            spans.append(span)
        best[name] = settings[spans.index(min(spans))]
    return best


def claim(text: str, other: dict[str, float] | None, mine: dict[str, float], at_least: float) -> dict[str, Any]:
    """other / mine >= at_least, of medians? Beside it the same of the fastest rounds, which other work on the machine
    disturbs least."""
    if other is None:
        return {"claim": text, "ratio": None, "reached": None}
    ratio = other["s"] / mine["s"]
    return {
        "claim": text,
        "ratio": ratio,
        "ratio_of_fastest": other["low_s"] / mine["low_s"],
        "reached": ratio >= at_least,
    }


def best(
    timed: dict[str, dict[str, float]], errors: dict[str, float], kind: str
) -> tuple[str | None, dict[str, float] | None]:
    """(name, timing) of the fastest form of a kind that is accurate."""
    fit = [name for name in timed if name.startswith(kind) and errors.get(name, 0.0) <= GOOD]
    name = min(fit, key=lambda name: timed[name]["s"], default=None)
    return name, None if name is None else timed[name]


def row(what: str, timed: dict[str, dict[str, float]], errors: dict[str, float], **more: Any) -> dict[str, Any]:
    name, other = best({k: v for k, v in timed.items() if k != "ours"}, errors, "")
    return {
        "what": what,
        "seconds": {k: v["s"] for k, v in timed.items()},
        "range_s": {k: [v["low_s"], v["high_s"]] for k, v in timed.items()},
        "cores": {k: round(v["cores"], 2) for k, v in timed.items()},
        "relative_error": errors,
        "best_alternative": name,
        "best_alternative_over_ours": None if other is None else other["s"] / timed["ours"]["s"],
        **more,
    }


# --- extra memory, each contender in a process of its own ----------------------------------------------------------------


def memory(job: dict[str, Any]) -> dict[str, float]:
    """{extra_mb, s} of a contender in a fresh process, or raises RuntimeError."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / "kl.py"), "--memory", json.dumps(job)],
        capture_output=True,
        text=True,
        timeout=600,
        env=env,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1][:200])
    return json.loads(done.stdout.strip().splitlines()[-1])


def _peak_mb(reset: bool = False) -> tuple[float, float]:
    """(resident now, peak since the last reset), MB, of Linux's /proc."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(status[k].split()[0]) * 1024 / 1e6 for k in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def measure_memory(job: dict[str, Any]) -> dict[str, float]:
    """In the fresh process. A compiled form is warmed up at its own size, as it holds for that only."""
    torch.set_num_threads(1)
    kind, name, n, d = job["row"], job["name"], job["n"], job["d"]
    call = contender(kind, name, job.get("settings"))
    compile_ = name.startswith("compile")
    call(*problem(n if compile_ else 256, d, both=kind == "both"))
    inputs = problem(n, d, both=kind == "both")
    before, _ = _peak_mb(reset=True)
    started = time.perf_counter()
    out = call(*inputs)
    span = time.perf_counter() - started
    _, peak = _peak_mb()
    del out
    return {"extra_mb": max(peak - before, 0.0), "s": span}


def settings_of(f: Callable[..., Any]) -> dict[str, Any]:
    return dict(f.keywords) if isinstance(f, partial) else {}


# --- contenders ------------------------------------------------------------------------------------------------------------

COMPILE = {
    "marginals": {
        "compile, naive": "marginals_naive",
        "compile, naive [D, N, M]": "marginals_naive_t",
        "compile, bound": "marginals_bound",
        "compile, bound [D, N, M]": "marginals_bound_t",
    },
    "joint": {"compile, naive": "joint_naive", "compile, [D, N, M]": "joint_naive_t"},
}
BOTH_COMPILE = {
    "compile, naive": "marginals_naive",
    "compile, bound": "marginals_bound",
    "compile, bound [D, N, M]": "marginals_bound_t",
}
OWN_BACKWARD = "compile, own backward"


def problem(n: int, d: int, *, both: bool = False, seed: int = 0) -> tuple[Tensor, ...]:
    """Posteriors like a trained VAE's: means N(0, 1), sigma from 0.22 to 1, one z of each (and a gradient)."""
    g = torch.Generator().manual_seed(seed)
    mu, logvar = torch.randn(n, d, generator=g), -3.0 * torch.rand(n, d, generator=g)
    z = mu + (0.5 * logvar).exp() * torch.randn(n, d, generator=g)
    return (z, mu, logvar, torch.randn(n, d, generator=g)) if both else (z, mu, logvar)


def compiled_own_backward() -> Callable[..., tuple[Tensor, ...]]:
    forward, backward = (torch.compile(f, dynamic=False) for f in (F.marginals_bound_t, F.backward_t))

    def call(z: Tensor, mu: Tensor, logvar: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        out = forward(z, mu, logvar)
        return out, *backward(g, out, z, mu, logvar)

    return call


def contender(kind: str, name: str, settings: dict[str, Any] | None = None) -> Callable[..., Any]:
    """A form by its name, for the fresh process that measures its memory."""
    from distvae.kernels import log_density, log_marginals

    if kind == "both":
        if name == OWN_BACKWARD:
            return compiled_own_backward()
        if name.startswith("compile"):
            return partial(F.both_autograd, torch.compile(getattr(F, BOTH_COMPILE[name]), dynamic=False))
        if name == "keops":
            return partial(F.both_autograd, F.marginals_keops)
        if name == "ours":
            return partial(F.both_autograd, log_marginals)
        return partial(F.both_checkpoint if "checkpoint" in name else F.both_chunked, **(settings or {}))
    if name.startswith("compile"):
        return torch.compile(getattr(F, COMPILE[kind][name]), dynamic=False)
    if name == "ours":
        return log_marginals if kind == "marginals" else log_density
    if name == "keops":
        return F.marginals_keops if kind == "marginals" else F.joint_keops
    menu = F.marginals_eager() if kind == "marginals" else F.joint_eager()
    return partial(menu[name][0].func, **(settings or {}))


# --- rows 1 to 3: densities ----------------------------------------------------------------------------------------------


def density_row(kind: str, n: int, d: int, repeats: int, compile_: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """log_marginals forward, its forward and backward (`both`), or log_density forward: one thread, N = M."""
    torch._dynamo.reset()
    inputs = problem(n, d, both=kind == "both")
    few = (inputs[0][: max(n // 16, 1)], *inputs[1:3], *(x[: max(n // 16, 1)] for x in inputs[3:]))
    menu = {"marginals": F.marginals_eager, "both": F.both_eager, "joint": F.joint_eager}[kind]()
    skipped: dict[str, str] = {}
    with threads(1):
        forms: dict[str, Callable[..., Any]] = {"ours": contender(kind, "ours"), **tuned(menu, *few)}
        say(f"{kind}: eager forms tuned")
        if compile_:
            for name in COMPILE[kind] if kind != "both" else (*BOTH_COMPILE, OWN_BACKWARD):
                f = contender(kind, name)
                try:
                    f(*inputs)
                    forms[name] = f
                except Exception as e:
                    skipped[name] = f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200]}"
            say(f"{kind}: compiled")
        why = F.keops()
        if why:
            skipped["keops"] = why
        else:
            forms["keops"] = contender(kind, "keops")
        exact = truth(kind, *inputs)
        errors = {name: error(f(*inputs), exact) for name, f in forms.items()}
        timed = interleave({name: partial(f, *inputs) for name, f in forms.items()}, repeats)
    mine = timed["ours"]
    eager, fused = best(timed, errors, "eager"), best(timed, errors, "compile")
    claims = {
        "marginals": [
            claim(">= 4x the best eager", eager[1], mine, 4.0),
            claim(">= 2x torch.compile", fused[1], mine, 2.0),
        ],
        "both": [
            claim(">= 4x torch.compile of the forward, with its autograd", _autograd_compile(timed, errors), mine, 4.0),
            claim(">= 4x torch.compile, with a hand-written backward too", fused[1], mine, 4.0),
            claim(">= 4x the best eager, with a hand-written backward", eager[1], mine, 4.0),
        ],
        "joint": [
            claim("no slower than the best eager of direct differences", _direct_eager(timed, errors), mine, 1.0),
            claim("no slower than torch.compile", fused[1], mine, 1.0),
        ],
    }[kind]
    what = {
        "marginals": "log_marginals forward",
        "both": "log_marginals forward and backward",
        "joint": "log_density forward",
    }[kind]
    for name, t in timed.items():
        say(f"{kind}: {name:<40} {t['s'] * 1e3:9.1f} ms   error {errors[name]:.1e}")
    return row(
        f"{what}, one thread, N = M = {n}, D = {d}",
        timed,
        errors,
        settings={name: settings_of(f) for name, f in forms.items() if name.startswith("eager")},
        best_eager=eager[0],
        best_compile=fused[0],
        skipped=skipped,
        claims=claims,
    )


def truth(kind: str, *inputs: Tensor) -> tuple[Tensor, ...]:
    """In float64, by forms whose agreement with the reference back end a test checks."""
    wide = tuple(x.double() for x in inputs)
    if kind == "both":
        return F.both_chunked(*wide, way="direct", moments=False, chunk=2**17)
    if kind == "joint":
        return (F.joint_chunked(*wide, chunk=2**17),)
    return (F.marginals_chunked(*wide, way="direct", chunk=2**17, dims=1),)


def _autograd_compile(timed: dict[str, dict[str, float]], errors: dict[str, float]) -> dict[str, float] | None:
    return best({k: v for k, v in timed.items() if k != OWN_BACKWARD}, errors, "compile")[1]


def _direct_eager(timed: dict[str, dict[str, float]], errors: dict[str, float]) -> dict[str, float] | None:
    return best({k: v for k, v in timed.items() if "gemm" not in k}, errors, "eager")[1]


def memory_row(kind: str, measured: dict[str, Any], sizes: tuple[int, ...], d: int, say) -> dict[str, Any]:
    """Extra memory of ours, the best eager and every compiled form, at growing N; a form is left out where what it
    took before says that it would need too much memory or time."""
    names = ["ours", measured["best_eager"], *(k for k in measured["seconds"] if k.startswith(("compile", "keops")))]
    extra: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name in [n for n in names if n]:
        before = None
        for n in sizes:
            if before is not None:
                grown = (n / before[0]) ** 2
                need, span = before[1]["extra_mb"] * grown, before[1]["s"] * grown
                if need > MEMORY_LIMIT_MB or span > TIME_LIMIT_S:
                    skipped[f"{name}, N = {n}"] = f"would take {need:.0f} MB and {span:.0f} s, from N = {before[0]}"
                    continue
            settings = measured["settings"].get(name)
            try:
                found = memory({"row": kind, "name": name, "n": n, "d": d, "settings": settings})
            except (RuntimeError, subprocess.TimeoutExpired) as e:
                skipped[f"{name}, N = {n}"] = str(e)[:200]
                break
            extra.setdefault(name, {})[str(n)] = round(found["extra_mb"], 1)
            before = n, found
            say(f"memory: {name:<40} N = {n:<6} {found['extra_mb']:9.1f} MB  {found['s']:.2f} s")
    mine = extra.get("ours", {}).get(str(sizes[-1]))
    return {
        "what": f"peak extra memory of log_marginals forward and backward, MB, one thread, N = M, D = {d}",
        "extra_mb": extra,
        "skipped": skipped,
        "claims": [
            {
                "claim": f"at most 64 MB at N = {sizes[-1]}",
                "megabytes": mine,
                "reached": None if mine is None else mine <= 64.0,
            }
        ],
    }


# --- row 4: two threads --------------------------------------------------------------------------------------------------


def exp_loop(n_threads: int, times: int) -> float:
    """Seconds for `times` exps of a cache-sized tensor in each of n independent threads."""

    def work() -> None:
        torch.set_num_threads(1)
        x = torch.rand(2**15)
        out = torch.empty_like(x)
        for _ in range(times):
            torch.exp(x, out=out)

    crew = [threading.Thread(target=work) for _ in range(n_threads)]
    started = time.perf_counter()
    for t in crew:
        t.start()
    for t in crew:
        t.join()
    return time.perf_counter() - started


def threads_row(n: int, d: int, repeats: int, loops: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Gain of two threads over one, beside that of a loop that shares nothing: the machine's own limit."""
    from distvae.kernels import log_marginals

    fwd, both = problem(n, d), problem(n, d, both=True)

    def on(k: int, f: Callable[..., Any], *inputs: Tensor) -> Call:
        def call() -> None:
            with threads(k):
                f(*inputs)

        return call

    gains: dict[str, list[float]] = {"forward": [], "forward and backward": [], "exp loop": []}
    backward = partial(F.both_autograd, log_marginals)
    calls = {"forward": (log_marginals, fwd), "forward and backward": (backward, both)}
    for f, inputs in calls.values():
        on(2, f, *inputs)()
    for _ in range(repeats):
        for name, (f, inputs) in calls.items():
            spans = []
            for k in (1, 2):
                started = time.perf_counter()
                on(k, f, *inputs)()
                spans.append(time.perf_counter() - started)
            gains[name].append(spans[0] / spans[1])
        one, two = exp_loop(1, loops), exp_loop(2, loops)
        gains["exp loop"].append(2.0 * one / two)
    gain = {name: statistics.median(g) for name, g in gains.items()}
    say("threads: " + ", ".join(f"{name} {g:.2f}x" for name, g in gain.items()))
    return {
        "what": f"two threads over one, log_marginals at N = M = {n}, D = {d}, beside independent loops of exp",
        "gain": gain,
        "range": {name: [min(g), max(g)] for name, g in gains.items()},
        "claims": [
            {
                "claim": f"{name}: >= 0.9 of the loop's gain",
                "ratio": gain[name] / gain["exp loop"],
                "reached": gain[name] >= 0.9 * gain["exp loop"],
            }
            for name in ("forward", "forward and backward")
        ],
    }


# --- rows 5 and 6: a training step ---------------------------------------------------------------------------------------


def trial_inputs(k: int, b: int, d: int, device: str = "cpu") -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    made = {
        "mu": torch.randn(k, b, d, generator=g),
        "logvar": -2.0 * torch.rand(k, b, d, generator=g),
        "gz": torch.randn(k, b, d, generator=g),
        "gkl": torch.rand(k, b, d, generator=g),
        "r": torch.rand(k, generator=g),
        "p_keep": 0.5 + 0.5 * torch.rand(k, generator=g),
        "floor": 0.05 + 0.01 * torch.rand(k, generator=g),
        "seed": torch.arange(k),
        "step": torch.zeros(k, dtype=torch.int64),
        "index": torch.arange(b),
    }
    return {name: x.to(device) for name, x in made.items()}


def ours_step(x: dict[str, Tensor]) -> Call:
    from distvae.kernels import sample_kl

    mu, logvar = (x[name].clone().requires_grad_() for name in ("mu", "logvar"))
    rest = {name: x[name] for name in ("seed", "step", "index", "r", "p_keep", "floor")}

    def call() -> tuple[Tensor, ...]:
        z, kl = sample_kl(mu, logvar, **rest)
        return z.detach(), kl.detach(), *torch.autograd.grad((z, kl), (mu, logvar), (x["gz"], x["gkl"]))

    return call


def eager_step(x: dict[str, Tensor], f: Callable[..., Any], generator: torch.Generator | None) -> Call:
    mu, logvar = (x[name].clone().requires_grad_() for name in ("mu", "logvar"))
    r, p, floor = (x[name][:, None, None] for name in ("r", "p_keep", "floor"))

    def call() -> tuple[Tensor, ...]:
        z, kl = f(mu, logvar, r, p, floor) if generator is None else f(mu, logvar, r, p, floor, generator)
        return z.detach(), kl.detach(), *torch.autograd.grad((z, kl), (mu, logvar), (x["gz"], x["gkl"]))

    return call


def sample_error(x: dict[str, Tensor], got: tuple[Tensor, ...]) -> float:
    """Of ours against the reference in float64, whose noise has the same address. (Eager draws other noise.)"""
    wide = {
        name: v.double() if v.dtype == torch.float32 and name in ("mu", "logvar", "gz", "gkl") else v
        for name, v in x.items()
    }
    return error(got, tuple(t.double() for t in ours_step(wide)()))


def sample_row(
    shape: tuple[int, int, int], at_least: float | None, repeats: int, compile_: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    x = trial_inputs(*shape)
    skipped: dict[str, str] = {}
    with threads(1):
        calls = {"ours": ours_step(x), "eager": eager_step(x, F.sample_kl_eager, torch.Generator().manual_seed(0))}
        if compile_:
            torch._dynamo.reset()
            call = eager_step(x, torch.compile(F.sample_kl_eager, dynamic=False), None)
            try:
                call()
                calls["compile"] = call
            except Exception as e:
                skipped["compile"] = f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200]}"
        errors = {"ours": sample_error(x, calls["ours"]())}
        timed = interleave(calls, repeats)
    say(f"sample_kl {list(shape)}: " + ", ".join(f"{k} {v['s'] * 1e6:.0f} us" for k, v in timed.items()))
    claims = []
    if at_least is not None:
        claims.append(claim(f">= {at_least:g}x eager", timed["eager"], timed["ours"], at_least))
    return row(
        f"sample_kl forward and backward, one thread, [K, B, D] = {list(shape)}, per-trial r, p_keep, floor; eager and "
        "compile draw as many normals and uniforms from torch's generator",
        timed,
        errors,
        skipped=skipped,
        claims=claims,
    )


def nll_row(
    shape: tuple[int, int, int, int], at_least: float | None, repeats: int, compile_: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Cross-entropy of K trials' logits `[K, B, S, P]` with the images that they share, forward and backward."""
    from distvae.kernels import bernoulli_nll

    def eager(y: Tensor, x: Tensor) -> Tensor:
        full = x[:, None].expand_as(y)
        return nn.functional.binary_cross_entropy_with_logits(y, full, reduction="none").sum(-1)

    _, b, _, p = shape
    g = torch.Generator().manual_seed(0)
    y, x, up = 3 * torch.randn(shape, generator=g), torch.rand(b, p, generator=g), torch.randn(shape[:3], generator=g)

    def step(f: Callable[..., Tensor], dtype: torch.dtype = torch.float32) -> Call:
        leaf, pixels, weight = y.to(dtype).requires_grad_(), x.to(dtype), up.to(dtype)

        def call() -> tuple[Tensor, ...]:
            out = f(leaf, pixels)
            return out.detach(), *torch.autograd.grad(out, leaf, weight)

        return call

    with threads(1):
        calls = {"ours": step(bernoulli_nll), "eager": step(eager)}
        if compile_:
            torch._dynamo.reset()
            calls["compile"] = step(torch.compile(eager, dynamic=False))
        exact = step(eager, torch.float64)()
        errors = {name: error(call(), exact) for name, call in calls.items()}
        timed = interleave(calls, repeats)
    say(f"nll {list(shape)}: " + ", ".join(f"{name} {v['s'] * 1e6:.0f} us" for name, v in timed.items()))
    claims = [] if at_least is None else [claim(f">= {at_least:g}x eager", timed["eager"], timed["ours"], at_least)]
    what = f"bernoulli_nll forward and backward, one thread, [K, B, S, P] = {list(shape)}, images shared by the trials"
    return row(what, timed, errors, claims=claims)


def binarize_row(b: int, p: int, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Dynamic binarisation of a batch; torch.bernoulli draws as many, of its own generator."""
    from distvae.data import binarize
    from distvae.kernels import philox, reference

    x, index = torch.rand(b, p, generator=torch.Generator().manual_seed(0)), torch.arange(b)
    stream, seed, step = philox.Stream.BINARIZE, torch.tensor([3]), torch.tensor([5])
    exact = torch.from_numpy(philox.uniform(3, stream, index=index.numpy(), step=5, dim=p)[:, 0]) < x.double()
    calls: dict[str, Call] = {
        "ours": lambda: binarize(x, seed=3, index=index, step=5),
        "reference": lambda: reference.bernoulli(seed, step, index, x, int(stream))[0],
        "torch.bernoulli, other draws": lambda: torch.bernoulli(x),
    }
    with threads(1):
        errors = {name: error(calls[name](), (exact.double(),)) for name in ("ours", "reference")}
        timed = interleave(calls, repeats)
    say(f"binarize [{b}, {p}]: " + ", ".join(f"{name} {v['s'] * 1e6:.0f} us" for name, v in timed.items()))
    claims = [claim(">= 5x the reference", timed["reference"], timed["ours"], 5.0)]
    return row(f"dynamic binarisation of [{b}, {p}], one thread", timed, errors, claims=claims)


def share_row(batch: int, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """How much of a toyVAE step (784-256-128-16, Bernoulli, Adam) is sample_kl."""
    from distvae.kernels import sample_kl

    def mlp(*sizes: int) -> nn.Sequential:
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    torch.manual_seed(0)
    encoder, decoder = mlp(784, 256, 128, 32), mlp(16, 128, 256, 784)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    x, index, counter = torch.rand(batch, 784), torch.arange(batch), iter(range(10**9))

    def step() -> None:
        mu, logvar = encoder(x).chunk(2, -1)
        z, kl = sample_kl(mu, logvar, seed=0, step=next(counter), index=index)
        loss = nn.functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum") + kl.sum()
        optimiser.zero_grad(set_to_none=True)
        (loss / batch).backward()
        optimiser.step()

    inputs = trial_inputs(1, batch, 16)
    mu, logvar = (inputs[name][0].clone().requires_grad_() for name in ("mu", "logvar"))
    gz, gkl = inputs["gz"][0], inputs["gkl"][0]

    def part() -> None:
        z, kl = sample_kl(mu, logvar, seed=0, step=next(counter), index=index)
        torch.autograd.grad((z, kl), (mu, logvar), (gz, gkl))

    with threads(1):
        timed = interleave({"step": step, "sample_kl": part}, repeats)
    share = timed["sample_kl"]["s"] / timed["step"]["s"]
    say(f"share of sample_kl in a step of {batch}: {share:.1%}")
    return {
        "what": f"sample_kl forward and backward (noise included) in a whole toyVAE step, batch {batch}, one thread: "
        "small, so its speed matters little there; its worth is correct noise, per-trial vectors and few launches",
        "seconds": {name: t["s"] for name, t in timed.items()},
        "share": share,
        "claims": [],
    }


# --- all of it -----------------------------------------------------------------------------------------------------------

NLL_SHAPES = {(1, 128, 1, 784): None, (16, 128, 1, 784): 4.0}
ROWS = ("marginals", "both", "memory", "joint", "threads", "sample_kl", "nll", "binarize", "share", "gpu")


def run(
    say: Callable[[str], None] = print,
    *,
    quick: bool = False,
    rows: tuple[str, ...] = ROWS,
    repeats: int = 7,
    compile_: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """`quick`: tiny sizes, for a test. `rows`: which. JSON-able."""
    from distvae import __version__
    from distvae.kernels import backend
    from distvae.results.provenance import git_sha

    n, d, repeats = (96, 8, 1) if quick else (4096, 32, repeats)
    sizes = (128,) if quick else (4096, 10_000)
    shapes = {(1, 128, 16): None, (16, 128, 16): 2.0, (64, 128, 128): 5.0}
    if quick:
        shapes = {(2, 8, 4): None}
    compile_ = compile_ and not quick
    load = os.getloadavg()[0]
    found: dict[str, dict[str, Any]] = {}
    for kind in ("marginals", "both", "joint"):
        if kind in rows or (kind == "both" and "memory" in rows):
            found[kind] = density_row(kind, n, d, repeats, compile_, say)
        if kind == "both" and "memory" in rows:
            found["memory"] = memory_row(kind, found["both"], sizes, d, say)
    if "threads" in rows:
        found["threads"] = threads_row(n, d, repeats, 10 if quick else 10_000, say)
    if "sample_kl" in rows:
        for shape, at_least in shapes.items():
            name = f"sample_kl {list(shape)}"
            found[name] = sample_row(shape, at_least, repeats, compile_, say)
    if "nll" in rows:
        for shape, at_least in {(2, 8, 1, 20): None}.items() if quick else NLL_SHAPES.items():
            found[f"nll {list(shape)}"] = nll_row(shape, at_least, repeats, compile_, say)
    if "binarize" in rows:
        b, p = (8, 20) if quick else (128, 784)
        found[f"binarize [{b}, {p}]"] = binarize_row(b, p, repeats, say)
    if "share" in rows:
        for batch in (8,) if quick else (64, 128):
            found[f"share, batch {batch}"] = share_row(batch, repeats, say)
    if "gpu" in rows and torch.cuda.is_available():
        found |= sibling("kl_gpu").rows(quick=quick, repeats=repeats, compile_=compile_, say=say)
    if "gpu" in rows and not torch.cuda.is_available():
        say("gpu: no CUDA device, rows left out")
    summary = {}
    for name, r in found.items():
        for c in r["claims"]:
            value = c.get("ratio", c.get("megabytes"))
            verdict = {True: "reached", False: "NOT reached", None: "not measured"}[c["reached"]]
            summary[f"{name}: {c['claim']}"] = verdict if value is None else f"{value:.3g}  {verdict}"
    return {
        **summary,
        "rows": found,
        "repeats": repeats,
        "device": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": load,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": backend.describe(),
        "versions": {"distvae": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "git_sha": git_sha(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=json.loads)
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(measure_memory(args.memory)))
        return
    result = run(
        lambda text: print(text, file=sys.stderr), quick=args.quick, rows=tuple(args.rows), repeats=args.repeats
    )
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
