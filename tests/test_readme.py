"""The README's part, added as it says, to a copy of the package: one file and one line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest, laplace, norm

from distvae.batch import Noise
from distvae.posteriors.gaussian import NormalQ

ROOT = Path(__file__).parents[1]
(CODE,) = re.findall(r"```python\n(import math\n.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_the_readmes_part_is_short_and_right():
    assert len(CODE.splitlines()) < 30
    names: dict = {}
    exec(compile(CODE, "README.md", "exec"), names)
    prior = names["Laplace"](b=0.6).build(1).double()
    for mu, sigma in ((0.0, 1.0), (1.3, 0.4), (-4.0, 2.0)):
        q = NormalQ(torch.tensor([[mu]], dtype=torch.float64), torch.tensor([[sigma**2]], dtype=torch.float64))

        def kl(z, mu=mu, sigma=sigma):
            return norm.pdf(z, mu, sigma) * (norm.logpdf(z, mu, sigma) - laplace.logpdf(z, scale=0.6))

        exact = quad(kl, mu - 12 * sigma, 0)[0] + quad(kl, 0, mu + 12 * sigma)[0]
        assert float(prior.divergence(q)) == pytest.approx(exact, abs=1e-7)
    z = prior.sample(Noise(0, 0, np.arange(20_000)), torch.zeros(1, dtype=torch.float64))
    assert kstest(z[:, 0].numpy(), laplace(scale=0.6).cdf).pvalue > 1e-3


def test_one_file_and_one_line_make_it_a_part(tmp_path):
    for folder in ("distvae", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "benchmarks"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "distvae" / "priors" / "laplace.py").write_text(CODE)
    union = tmp_path / "distvae" / "priors" / "__init__.py"
    text = union.read_text()
    line = next(line for line in text.splitlines() if line.startswith("Prior = "))
    union.write_text(text.replace(line, "from distvae.priors.laplace import Laplace\n" + line + " | Laplace"))
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*command):
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
        )

    cli = "from distvae.cli import main; main()"
    assert '"laplace"' in run("-c", cli, "parts", "--json").stdout
    config = tmp_path / "x.yaml"
    config.write_text("vae: {prior: {type: laplce}}\n")
    bad = run("-c", cli, "plan", config)
    assert bad.returncode == 2 and "did you mean 'laplace'?" in bad.stderr.replace("\n", "")
    done = run("-m", "pytest", "-p", "no:cacheprovider", "tests/test_conformance.py", "-k", "laplace")
    assert done.returncode == 0 and re.search(r"\[100%\]", done.stdout), done.stdout + done.stderr
    assert done.stdout.count(".") >= 6  # two dtypes, gradients, YAML, a step, the bound
