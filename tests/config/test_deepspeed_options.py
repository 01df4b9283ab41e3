"""The `deepspeed:` block and DeepSpeed's JSON files: what is passed on, and every fault with its file, place and fix."""

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from distvae.config import ConfigError, load, loads
from distvae.deepspeed_options import HOMES, OPTIONS

EXAMPLES = Path(__file__).parents[2] / "cluster" / "deepspeed"
ZERO = "deepspeed: {zero_optimization: {stage: %d, %s: {device: cpu}}}"
BLOCKS = [
    (
        "deepspeed: {zero_optimisation: {stage: 3}}",
        "x.yaml:1:13: deepspeed.zero_optimisation: unknown key",
        "did you mean 'zero_optimization'?",
    ),
    (
        "deepspeed: {zero_optimization: {stge: 3}}",
        "x.yaml:1:33: deepspeed.zero_optimization.stge: unknown key",
        "did you mean 'stage'?",
    ),
    (
        "deepspeed: {zero_optimization: {stage: 2, overlap_comm: auto}}",
        "x.yaml:1:57: deepspeed.zero_optimization.overlap_comm: 'auto'",
        "leave it out",
    ),
    (
        "deepspeed: {communication_data_type: fp16}",
        "x.yaml:1:13: deepspeed.communication_data_type: unknown key",
        "what could change a trial's numbers is not passed on",
    ),
    (
        "deepspeed: {zero_optimization: {stage: 3, offload_param: {device: nvme}}}",
        "x.yaml:1:67: deepspeed.zero_optimization.offload_param.device: 'nvme'",
        "not one of cpu, none",
    ),
    (
        ZERO % (0, "offload_optimizer"),
        "x.yaml:1:71: deepspeed.zero_optimization.offload_optimizer: ",
        "needs ZeRO stage 1 or more, and stage is 0",
    ),
    (
        ZERO % (2, "offload_param"),
        "x.yaml:1:67: deepspeed.zero_optimization.offload_param: ",
        "needs ZeRO stage 3, and stage is 2",
    ),
    (
        "deepspeed: {fp16: {loss_scale: 128}}",
        "x.yaml:1:20: deepspeed.fp16.loss_scale: unknown key",
        "initial_scale_power",
    ),
    ("deepspeed: {fp16: {hysteresis: 0.5}}", "x.yaml:1:32: deepspeed.fp16.hysteresis: 0.5", "at least 1"),
    ("deepspeed: {dump_state: 1}", "x.yaml:1:25: deepspeed.dump_state: 1", "true or false"),
    (
        "train: {dtype: float64}\ndeepspeed: {zero_optimization: {stage: 1}}",
        "x.yaml:2:40: deepspeed.zero_optimization.stage: ZeRO stage 1 keeps float32 master weights",
        "write stage: 0, or dtype: float32",
    ),
    ("deepspeed: 3", "x.yaml:1:12: deepspeed: 3 is not a mapping", "nor the name of its JSON file"),
]


def said(call, *args, **more) -> list[str]:
    with pytest.raises(ConfigError) as e:
        call(*args, **more)
    return e.value.problems


@pytest.mark.parametrize(("block", "place", "fix"), BLOCKS, ids=[b[0][:40] for b in BLOCKS])
def test_a_block_that_would_be_ignored_or_fail_late_is_refused(block, place, fix):
    (line,) = said(loads, block, label="x.yaml")
    assert line.startswith(place) and fix in line


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "ds").mkdir()
    (tmp_path / "x.yaml").write_text("data: {type: digits}\ndeepspeed: ds/zero.json\n")

    def write(text: str) -> Path:
        (tmp_path / "ds" / "zero.json").write_text(text)
        return tmp_path / "x.yaml"

    return write


def test_a_json_file_is_the_block_it_holds(sweep, monkeypatch, tmp_path):
    block = {"zero_optimization": {"stage": 3, "reduce_bucket_size": 5e8}, "gradient_accumulation_steps": 2}
    path = sweep(json.dumps(block, indent="\t"))  # as DeepSpeed's own examples are indented, now and then
    monkeypatch.chdir(tmp_path / "ds")  # relative to the YAML, wherever one stands
    study = load(path)
    assert study.deepspeed == block
    again = loads(study.resolved)  # OUT/sweep.yaml needs no other file
    assert again.deepspeed == block and again.trials == study.trials
    whole_batch = path.with_name("y.yaml")
    whole_batch.write_text("vae: {posterior: {type: du}}\ndeepspeed: ds/zero.json\n")
    (line,) = said(load, whole_batch)
    assert f"{tmp_path}/ds/zero.json:6:" in line and "statistic of the whole batch" in line


def test_faults_name_the_json_file_and_its_line(sweep, tmp_path):
    label = f"{tmp_path}/ds/zero.json"
    auto = (
        '{\n "train_batch_size": "auto",\n "zero_optimization": {\n  "stage": "auto"},\n "fp16": {"enabled": true}\n}'
    )
    assert [line.split(" (")[0] for line in said(load, sweep(auto))] == [
        f"{label}:2:2: deepspeed.train_batch_size: has one home, train.batch_size",
        f"{label}:4:12: deepspeed.zero_optimization.stage: 'auto' is for Hugging Face's trainer to fill in, and here nobody does",
        f"{label}:5:11: deepspeed.fp16.enabled: has one home, train.dtype: float16",
    ]
    assert said(load, sweep("{zero_optimization: {stage: 2}}"))[0].startswith(f"{label}:1:2: deepspeed: is not JSON")
    assert said(load, sweep("[1]"))[0].startswith(f"{label}:1:1: deepspeed: is not a mapping")
    assert "nested more than" in said(load, sweep('{"a": ' + "[" * 5000 + "]" * 5000 + "}"))[0]
    path = sweep("{}")
    (tmp_path / "ds" / "zero.json").unlink()
    (line,) = said(load, path)
    assert line.startswith(f"{path}:2:12: deepspeed: 'ds/zero.json' does not exist") and label in line


@pytest.mark.slow
def test_the_command_exits_2_and_imports_no_deepspeed(sweep):
    code = "import sys; from distvae.cli import main; sys.argv[1:] = ['plan', sys.argv[1]]\ntry: main()\nfinally: print('deepspeed' in sys.modules)"
    path = sweep('{"zero_optimisation": {"stage": 2}}')
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 2 and "zero.json:1:2: deepspeed.zero_optimisation: unknown key" in done.stderr
    assert done.stdout.strip() == "False" and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.json")))
def test_the_examples_load(name, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(f"deepspeed: {EXAMPLES / name}\nresources: {{workers: 2}}\n")
    assert load(path).deepspeed == json.loads((EXAMPLES / name).read_text())


def test_every_option_is_one_of_deepspeeds():
    """Read from its source: names of fields and string constants."""
    spec = find_spec("deepspeed")
    assert spec is not None and spec.submodule_search_locations
    root = Path(next(iter(spec.submodule_search_locations)))
    known = set()
    for path in [*root.glob("runtime/*.py"), *root.glob("runtime/zero/*config.py"), *root.glob("*/con*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                known.add(node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                known.add(node.target.id)

    def names(options):
        for key, due in options.items():
            yield key
            yield from names(due) if isinstance(due, dict) else ()

    ours = {*names(OPTIONS), *(part for home in HOMES for part in home.split("."))}
    assert len(ours) > 40 and ours <= known, ours - known
