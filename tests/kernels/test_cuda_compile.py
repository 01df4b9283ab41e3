"""The CUDA kernels compile for every architecture we name, without a GPU: registers, spills, and what the inner loops
issue. A register more than the table is no bug, but a decision: occupancy may fall."""

import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from distvae.kernels import cuda, nvrtc

ARCHS = ("sm_80", "sm_90", "sm_100")
REGISTERS = {  # the most of any architecture; the __launch_bounds__ ask for no more than 65536 / (threads x blocks)
    "sample_kl": 64,
    "sample_kl_backward": 64,
    "normals": 32,
    "uniforms": 32,
    "bernoulli": 32,
    "nll": 32,
    "nll_backward": 32,
    "mixture_kl": 40,
    "mixture_kl_backward": 40,
    "marginals_bound": 48,
    "marginals_prepare": 64,
    "marginals_sums": 80,
    "marginals_rows": 80,
    "marginals_finish": 64,
    "marginals_rows_finish": 64,
    "marginals_columns": 96,
    "density_prepare": 64,
    "density_sums": 128,
    "density_finish": 64,
    "density_rows": 128,
    "density_columns": 128,
    "sum_partials": 64,
}


@pytest.fixture(autouse=True)
def needs_nvrtc():
    if torch.version.cuda is None:
        pytest.skip("torch is a CPU build: NVRTC does not come with it")
    nvrtc.library()  # a torch built for CUDA brings it: not to find it is a failure


@cache
def compiled(arch):
    """{source: (cubin, log)}"""
    return {s: nvrtc.compile_(s, cuda.sources(), arch, ("--ptxas-options=-v",)) for s in cuda.SOURCES}


def resources(log):
    """{kernel: (registers, bytes of stack and spills)}"""
    found, name, local = {}, "", 0
    for line in log.splitlines():
        if entry := re.search(r"Compiling entry function '(\w+)'", line):
            name = entry[1]
        elif stack := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            local = sum(map(int, stack.groups()))
        elif used := re.search(r"Used (\d+) registers", line):
            found[name] = int(used[1]), local
    return found


@pytest.mark.parametrize("arch", [a if a == "sm_90" else pytest.param(a, marks=pytest.mark.slow) for a in ARCHS])
def test_no_spills_and_few_registers(arch):
    seen = set()
    for _, log in compiled(arch).values():
        assert "warning" not in log.replace("0 warning", ""), log
        for kernel, (registers, local) in resources(log).items():
            family = re.sub(r"_(float64|float32|bfloat16|float16)$", "", kernel)
            seen.add(family)
            assert local == 0, f"{kernel}: {local} bytes of local memory"
            assert registers <= REGISTERS[family], kernel
    assert seen == set(REGISTERS)


def disassembler():
    found = shutil.which("nvdisasm")
    triton = find_spec("triton")
    for folder in (triton.submodule_search_locations if triton else None) or ():
        if (beside := Path(folder) / "backends/nvidia/bin/nvdisasm").exists():
            found = found or str(beside)
    return found


def disassemble(source, kernel, folder):
    """The kernel's instructions, on Hopper."""
    tool = disassembler()
    if tool is None:
        pytest.skip("no nvdisasm, on the PATH or with triton")
    (folder / "x.cubin").write_bytes(compiled("sm_90")[source][0])
    sass = subprocess.run([tool, "-c", folder / "x.cubin"], capture_output=True, text=True, check=True).stdout
    return sass.partition(f".text.{kernel}:")[2].partition("\n\t.section")[0]


def loops(text):
    """The bodies of a kernel's innermost loops, as lists of opcodes: label to the branch back to it."""
    lines = text.splitlines()
    labels = {line.strip().rstrip(":"): n for n, line in enumerate(lines) if re.match(r"\.L_x?_?\w+:", line.strip())}
    bodies = []
    for n, line in enumerate(lines):
        back = re.search(r"BRA(?:\.\w+)* .*`\((\.L\w+)\)", line)
        if back and labels.get(back[1], n) < n and (start := labels[back[1]]) is not None:
            body = lines[start + 1 : n + 1]
            if not any(l.strip().rstrip(":") in labels for l in body):
                bodies.append(re.findall(r"\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", "\n".join(body)))
    return bodies


@pytest.mark.parametrize(
    ("kernel", "pairs", "others"),
    [
        ("marginals_sums", 8, {"FADD": 16, "FMUL": 8, "FFMA": 8}),  # per pair: FADD, FMUL, FFMA, MUFU.EX2, FADD
        ("marginals_rows", 8, {"FADD": 8, "FMUL": 16, "FFMA": 16}),
        ("marginals_columns", 4, {"FADD": 4, "FMUL": 8, "FFMA": 16}),
    ],
)
def test_one_exponential_a_pair_and_dimension(tmp_path, kernel, pairs, others):
    counts = [Counter(body) for body in loops(disassemble("log_marginals.cu", kernel, tmp_path))]
    plain = min((c for c in counts if c["MUFU.EX2"]), key=lambda c: c.total())  # the other loop adds log-weights
    assert plain["MUFU.EX2"] == pairs
    assert {op: plain[op] for op in others} == others
    assert plain.total() - pairs - sum(others.values()) <= 14  # loads, indices, the branch
    assert not any(op.startswith(("LDG", "LDL", "STL", "D", "F2F")) for op in plain)


def test_sample_kl_moves_16_bytes_at_a_time(tmp_path):
    for kernel, loads in (("sample_kl_float32", 2), ("sample_kl_backward_float32", 4)):
        text = disassemble("sample_kl.cu", kernel, tmp_path)
        assert len(re.findall(r"LDG\.E\S*\.128", text)) == loads
        assert len(re.findall(r"STG\.E\S*\.128", text)) == 2


def test_bernoulli_nll_moves_16_bytes_at_a_time(tmp_path):
    for kernel, stores in (("nll_float32", 0), ("nll_backward_float32", 1)):
        text = disassemble("bernoulli_nll.cu", kernel, tmp_path)
        assert len(re.findall(r"LDG\.E\S*\.128", text)) == 2
        assert len(re.findall(r"STG\.E\S*\.128", text)) == stores


def test_a_broken_source_says_where():
    with pytest.raises(nvrtc.CompileError, match=r"(?s)broken\.cu for sm_90.*undefined_thing"):
        nvrtc.compile_("broken.cu", {"broken.cu": "__global__ void f() { undefined_thing(); }"}, "sm_90")


def test_cubins_are_kept_and_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    tiny = {"tiny.cu": 'extern "C" __global__ void f() {}'}
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    made = nvrtc.cubin("tiny.cu", tiny, "sm_90")
    (kept,) = (tmp_path / "cache" / "kernels").iterdir()
    assert kept.read_bytes() == made and kept.suffix == ".cubin"
    monkeypatch.setattr(nvrtc, "compile_", lambda *a: pytest.fail("compiled again"))
    assert nvrtc.cubin("tiny.cu", tiny, "sm_90") == made
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "file"))
    assert nvrtc.cubin("tiny.cu", tiny, "sm_90")


def test_where_there_is_no_device_it_says_so():
    import torch

    if torch.cuda.is_available():
        assert cuda.unavailable() is None
    else:
        assert cuda.unavailable() == "torch sees no CUDA device"
