"""The README's part, added as it says, to a copy of the package: one file and one line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scipy.stats import laplace

ROOT = Path(__file__).parents[1]
(CODE,) = re.findall(r"```python\n(from dataclasses .*?)```", (ROOT / "README.md").read_text(), re.S)


def test_the_readmes_part_is_short_and_right():
    assert len(CODE.splitlines()) < 30
    names: dict = {}
    exec(compile(CODE, "README.md", "exec"), names)
    likelihood = names["Laplace"](b=0.3).build((1, 2, 2)).double()
    y, x = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 3, 4), (5, 4)))
    expected = -laplace.logpdf(x[:, None].numpy(), loc=y.numpy(), scale=0.3).sum(-1)
    assert likelihood.nll(y, x, None).numpy() == pytest.approx(expected)


def test_one_file_and_one_line_make_it_a_part(tmp_path):
    for folder in ("distvae", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "benchmarks"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "distvae" / "likelihoods" / "laplace.py").write_text(CODE)
    union = tmp_path / "distvae" / "likelihoods" / "__init__.py"
    line = re.search(r"^Likelihood = (\([^)]*\)|.*)$", union.read_text(), re.M)[0]
    assert "Laplace" not in line
    grown = f"{line[:-1].rstrip()} | Laplace)" if line.endswith(")") else f"{line} | Laplace"
    union.write_text(union.read_text().replace(line, "from distvae.likelihoods.laplace import Laplace\n\n" + grown))
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*command):
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
        )

    cli = "from distvae.cli import main; main()"
    assert '"laplace"' in run("-c", cli, "parts", "--json").stdout
    config = tmp_path / "x.yaml"
    config.write_text("vae: {likelihood: {type: laplce}}\n")
    bad = run("-c", cli, "plan", config)
    assert bad.returncode == 2 and "did you mean 'laplace'?" in bad.stderr.replace("\n", "")
    done = run("-m", "pytest", "-p", "no:cacheprovider", "tests/test_conformance.py", "-k", "likelihood-laplace")
    assert done.returncode == 0 and re.search(r"\[100%\]", done.stdout), done.stdout + done.stderr
    assert re.match(
        r"\.{7}s\.\s|\.{9}\s", done.stdout
    )  # two dtypes, divergence, gradients, YAML, a step, bound, GPU, stack
