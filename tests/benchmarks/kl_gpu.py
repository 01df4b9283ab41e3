"""The rows of kl.py that need a CUDA device: sample_kl against the device's copy bandwidth, log_marginals against the
throughput of its exponential unit, and CUDA graphs for shapes where launches are all there is.

Times are of CUDA events around several calls, contenders in turn, medians. The bound of log_marginals is N^2 D
exponentials at the rate of a kernel that does nothing else, compiled and timed in the same run; beside it the formula
N^2 D / (16 SMs clock) with the clock read under that load."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]
EX2 = """
template <typename T> T ex2_loop(T x) {
  float a = x, b = x + 1.0f, c = x + 2.0f, d = x + 3.0f;
  for (int i = 0; i < 1024; ++i) {
    asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(a));
    asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(b));
    asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(c));
    asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(d));
  }
  return a + b + c + d;
}
"""
EX2_PER_ELEMENT = 4096


def run(say: Callable[[str], None] = print, *, quick: bool = False, **options: Any) -> dict[str, Any]:
    """These rows alone, as `distvae bench kl_gpu`; none without a device."""
    from distvae.bench import load

    return load("kl")(say=say, quick=quick, rows=("gpu",))


def rows(
    *, quick: bool = False, repeats: int = 7, compile_: bool = True, say: Callable[[str], None] = print
) -> dict[str, dict[str, Any]]:
    """name -> row, as kl.py's."""
    kl = sys.modules["distvae_bench_kl"] if "distvae_bench_kl" in sys.modules else sys.modules["__main__"]
    forms = kl.sibling("_kl_forms")
    name = torch.cuda.get_device_name()
    bandwidth = copy_bandwidth(2**20 if quick else 2**28)
    rate, how = ex2_rate(2**16 if quick else 2**21)
    clock = sm_clock_hz(lambda: ex2_rate(2**21))
    say(f"{name}: copy {bandwidth / 1e12:.2f} TB/s, {rate / 1e12:.2f} T exponentials/s ({how})")
    found = {}
    big = (4, 64, 32) if quick else (64, 2048, 128)
    found["gpu sample_kl, large"] = bandwidth_row(kl, forms, big, bandwidth, repeats, compile_, say)
    for n in (512,) if quick else (10_000, 60_000):
        found[f"gpu marginals, N = {n}"] = marginals_row(kl, forms, n, 32, rate, how, clock, repeats, compile_, say)
    for shape in ((1, 128, 16), (16, 128, 16)):
        found[f"gpu sample_kl, graph {list(shape)}"] = graph_row(kl, forms, shape, repeats, say)
    return {key: {**row, "device": name} for key, row in found.items()}


# --- measuring -------------------------------------------------------------------------------------------------------


def span(call: Call, inner: int) -> float:
    """Seconds a call on the device, of `inner` launched one after the other."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(inner):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / inner


def interleave(calls: dict[str, Call], repeats: int) -> dict[str, dict[str, float]]:
    inner = {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        inner[name] = max(1, min(1000, math.ceil(0.02 / max(span(call, 1), 1e-6))))
    spans: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            spans[name].append(span(call, inner[name]))
    return {k: {"s": statistics.median(v), "low_s": min(v), "high_s": max(v), "cores": 1.0} for k, v in spans.items()}


def peak_mb(call: Call) -> float:
    """Device memory above what was held, torch's allocator only."""
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - held
    del out
    return peak / 1e6


def copy_bandwidth(n: int) -> float:
    """Bytes read and written a second by a copy of n floats."""
    x = torch.rand(n, device="cuda")
    y = torch.empty_like(x)
    for _ in range(3):
        y.copy_(x)
    return 8.0 * n / min(span(lambda: y.copy_(x), 10) for _ in range(5))


def ex2_rate(n: int) -> tuple[float, str]:
    """(exponentials a second, how it was found)."""
    try:
        f = torch.cuda.jiterator._create_jit_fn(EX2)
        x = torch.zeros(n, device="cuda")
        f(x)
        torch.cuda.synchronize()
        return n * EX2_PER_ELEMENT / min(span(lambda: f(x), 3) for _ in range(5)), "measured, a kernel of MUFU.EX2 only"
    except Exception as e:  # no NVRTC, or another compiler
        clock = sm_clock_hz(lambda: None)
        return 16.0 * torch.cuda.get_device_properties(0).multi_processor_count * clock, f"16 a clock and SM ({e})"[
            :200
        ]


def sm_clock_hz(load: Callable[[], Any]) -> float:
    """The SM clock just after a load, from nvidia-smi; nan where there is none."""
    load()
    try:
        query = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "-i", "0"]
        return 1e6 * float(subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return math.nan


# --- rows ------------------------------------------------------------------------------------------------------------


def bandwidth_row(
    kl: Any, forms: Any, shape: tuple[int, int, int], bandwidth: float, repeats: int, compile_: bool, say: Any
) -> dict[str, Any]:
    """sample_kl forward (4 floats an element) and forward and backward (4 + 6), against what a copy moves."""
    from distvae.kernels import sample_kl

    x = kl.trial_inputs(*shape, device="cuda")
    rest = {name: x[name] for name in ("seed", "step", "index", "r", "p_keep", "floor")}
    r, p, floor = (x[name][:, None, None] for name in ("r", "p_keep", "floor"))

    @torch.no_grad()
    def ours_forward() -> Any:
        return sample_kl(x["mu"], x["logvar"], **rest)

    @torch.no_grad()
    def eager_forward(f: Any) -> Any:
        return f(x["mu"], x["logvar"], r, p, floor)

    forward = {"ours": ours_forward, "eager": partial(eager_forward, forms.sample_kl_eager)}
    both = {"ours": kl.ours_step(x), "eager": kl.eager_step(x, forms.sample_kl_eager, None)}
    if compile_:
        fused = torch.compile(forms.sample_kl_eager, dynamic=False)
        forward["compile"] = partial(eager_forward, fused)
        both["compile"] = kl.eager_step(x, torch.compile(forms.sample_kl_eager, dynamic=False), None)
    errors = {"ours": kl.sample_error(x, both["ours"]())}
    one, two = interleave(forward, repeats), interleave(both, repeats)
    size = 4.0 * x["mu"].numel()
    share = {
        "forward": 4.0 * size / one["ours"]["s"] / bandwidth,
        "forward and backward": 10.0 * size / two["ours"]["s"] / bandwidth,
    }
    say(f"sample_kl {list(shape)}: " + ", ".join(f"{k} {v:.0%} of copy bandwidth" for k, v in share.items()))
    return kl.row(
        f"sample_kl forward and backward, [K, B, D] = {list(shape)}, on the device",
        two,
        errors,
        forward_seconds={k: v["s"] for k, v in one.items()},
        extra_mb={k: peak_mb(c) for k, c in both.items()},
        copy_bytes_per_s=bandwidth,
        share_of_copy_bandwidth=share,
        claims=[],
    )


def marginals_row(
    kl: Any,
    forms: Any,
    n: int,
    d: int,
    rate: float,
    how: str,
    clock: float,
    repeats: int,
    compile_: bool,
    say: Any,
) -> dict[str, Any]:
    from distvae.kernels import log_marginals

    z, mu, logvar = (t.cuda() for t in kl.problem(n, d))
    few = min(n, 64)
    exact = (forms.marginals_naive(z[:few].double(), mu.double(), logvar.double()),)
    skipped: dict[str, str] = {}
    functions: dict[str, Callable[..., Tensor]] = {"ours": log_marginals}
    chunks = (2**24, 2**26, 2**28)
    for way in ("exp2", "logsumexp"):
        f = forms.marginals_logsumexp if way == "logsumexp" else partial(forms.marginals_chunked, way=way, dims=d)
        tried = []
        for chunk in chunks:
            g = partial(f, chunk=chunk)
            g(z, mu, logvar)
            tried.append((span(partial(g, z, mu, logvar), 1), chunk))
        functions[f"eager, {way}"] = partial(f, chunk=min(tried)[1])
    if compile_:
        for name in ("naive", "bound_t"):
            f = torch.compile(getattr(forms, f"marginals_{name}"), dynamic=False)
            try:
                f(z, mu, logvar)
                functions[f"compile, {name}"] = f
            except Exception as e:
                skipped[f"compile, {name}"] = f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200]}"
    errors = {name: kl.error(f(z, mu, logvar)[:few], exact) for name, f in functions.items()}
    calls: dict[str, Call] = {name: partial(f, z, mu, logvar) for name, f in functions.items()}
    timed = interleave(calls, repeats)
    at_least = float(n) * n * d / rate
    formula = float(n) * n * d / (16.0 * torch.cuda.get_device_properties(0).multi_processor_count * clock)
    say(f"log_marginals N = {n}: {timed['ours']['s'] * 1e3:.2f} ms, bound {at_least * 1e3:.2f} ms")
    return kl.row(
        f"log_marginals forward, N = M = {n}, D = {d}, on the device; errors of the first {few} rows",
        timed,
        errors,
        extra_mb={name: peak_mb(call) for name, call in calls.items()},
        exponentials_bound_s=at_least,
        exponentials_how=how,
        formula_bound_s=None if math.isnan(formula) else formula,
        ours_over_bound=timed["ours"]["s"] / at_least,
        skipped=skipped,
        claims=[],
    )


def graph_row(kl: Any, forms: Any, shape: tuple[int, int, int], repeats: int, say: Any) -> dict[str, Any]:
    """Forward and backward of a small sample_kl, launched and replayed from a CUDA graph; eager in a graph too."""
    x = kl.trial_inputs(*shape, device="cuda")
    calls: dict[str, Call] = {"ours": kl.ours_step(x), "eager": kl.eager_step(x, forms.sample_kl_eager, None)}
    errors = {"ours": kl.sample_error(x, calls["ours"]())}
    for name in ("ours", "eager"):
        calls[f"{name}, graph"] = captured(calls[name])
    timed = interleave(calls, repeats)
    say(f"sample_kl {list(shape)}: " + ", ".join(f"{k} {v['s'] * 1e6:.1f} us" for k, v in timed.items()))
    return kl.row(
        f"sample_kl forward and backward, [K, B, D] = {list(shape)}, on the device, with and without a CUDA graph",
        timed,
        errors,
        claims=[],
    )


def captured(call: Call) -> Call:
    """The call as a CUDA graph; warmed up on a side stream first, as capture needs."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> Any:
        graph.replay()
        return kept

    return replay
