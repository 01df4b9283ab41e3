"""What `distvae plan` says of beta and sigma_x, in JSON and in words."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from distvae.config import loads
from distvae.sweeps.estimate import SHOWN, overview, render

FIXED = "{type: gaussian, mode: fixed, sigma: {grid: [0.5, 2.0]}}"


def plan(text):
    view = overview(loads(text), None, probe=False)
    out = io.StringIO()
    render(view, Console(file=out, width=120))
    return view, out.getvalue()


def test_every_beta_at_every_fixed_sigma_has_its_equivalent():
    view, words = plan(
        f"vae: {{likelihood: {FIXED}}}\nobjective: {{type: elbo, beta: {{grid: [4, 0, 0.25, 1]}}}}\nseeds: 2\n"
    )
    rows = view["equivalent_sigma"]
    assert [(e["beta"], e["sigma"]) for e in rows] == [(b, s) for b in (0.0, 0.25, 1.0, 4.0) for s in (0.5, 2.0)]
    assert all(e["equivalent_sigma"] == pytest.approx(e["sigma"] * math.sqrt(e["beta"])) for e in rows)
    lines = [line.split() for line in words.splitlines()]
    assert ["beta", "sigma_x", "sigma_x", "at", "beta", "=", "1"] in lines
    assert ["0.25", "2", "1"] in lines and ["4", "0.5", "1"] in lines and ["4", "2", "4"] in lines


def test_a_beta_input_model_has_one_for_each_beta_it_is_evaluated_at():
    view, _ = plan(
        "vae: {likelihood: {type: gaussian, sigma: 0.5}, conditioning: {type: film}}\n"
        "objective: {type: beta_input, betas: [0.04, 1, 9]}\n"
    )
    assert [e["equivalent_sigma"] for e in view["equivalent_sigma"]] == pytest.approx([0.1, 0.5, 1.5])


@pytest.mark.parametrize(
    "text",
    [
        "vae: {likelihood: {type: bernoulli}}",
        "vae: {likelihood: {type: gaussian, mode: learned}}",
        "vae: {likelihood: {type: gaussian, mode: optimal}}",
        "vae: {likelihood: {type: student_t}}",
        "vae: {likelihood: {type: gaussian}}\nobjective: {type: capacity, capacity: 1.0}",
    ],
)
def test_where_beta_and_sigma_do_not_trade_nothing_is_said(text):
    view, words = plan(text)
    assert "equivalent_sigma" not in view and "sigma_x at beta" not in words


def test_a_long_list_is_cut_in_words_and_whole_in_json():
    betas = [0.1 * i for i in range(1, SHOWN + 6)]
    view, words = plan(f"vae: {{likelihood: {{type: gaussian}}}}\nobjective: {{type: elbo, beta: {{grid: {betas}}}}}\n")
    assert len(view["equivalent_sigma"]) == SHOWN + 5
    assert f"... {SHOWN + 5} in all" in words
