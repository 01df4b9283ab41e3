"""The files of `distvae launch`: what is in them, what their readers would refuse, and that edited ones are kept."""

import copy
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from commands import command
from ruamel.yaml import YAML

from distvae.config import load, loads
from distvae.launch import documents, kuberay_schema, ray_up, sbatch
from distvae.launch.written import edited, seal

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "cluster" / "examples"
yaml = YAML(typ="safe")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "it's a.yaml"
    path.write_text("name: My_Sweep\nseeds: 3\nresources: {workers: 2, threads: 2, concurrency: 3}\n")
    return path


def lines():
    text = (EXAMPLES / "make.sh").read_text()
    return [line for line in text.splitlines() if line.startswith("distvae ")]


def test_the_examples_are_what_the_commands_write(capsys, tmp_path, monkeypatch):
    import shlex

    monkeypatch.chdir(ROOT)
    for line in lines():
        words = shlex.split(line)
        assert words[-2:] == ["--to", "cluster/examples"]
        done = command(capsys, *words[1:-1], tmp_path)
        assert done.code == 0 and all(Path(p).parent == tmp_path for p in done.out.split()), done.err
    written = {p.name: p.read_text() for p in tmp_path.iterdir()}
    there = {p.name: p.read_text() for p in EXAMPLES.iterdir() if p.name != "make.sh"}
    assert written == there, "run cluster/examples/make.sh"
    assert not any(edited(text) for text in there.values())
    assert not any("RAY_AUTH_TOKEN=" in t.replace("RAY_AUTH_TOKEN=$(od", "") for t in there.values())  # no secret


def test_the_image_has_the_examples_ray():
    (ray,) = re.findall(r"^ARG RAY=(.*)$", (ROOT / "cluster" / "Dockerfile").read_text(), re.M)
    assert all(f"--ray-version {ray} " in line for line in lines() if "launch slurm" not in line)


def test_slurm(capsys, tmp_path, config):
    done = command(capsys, "launch", "slurm", config, "--out", "it's out", "--to", tmp_path, "--set", "seeds=2")
    assert done.code == 0 and done.out == f"{tmp_path}/my-sweep.sbatch\n" and f"sbatch {tmp_path}/my-" in done.err
    text = (tmp_path / "my-sweep.sbatch").read_text()
    found = sbatch.options(text)
    assert found["nodes"] == "1" and found["cpus-per-task"] == "9"  # 2 trials of 2 ranks of 2 threads, and Ray
    assert found["requeue"] is None and found["open-mode"] == "append" and found["signal"] == "B:USR1@300"
    assert "RAY_AUTH_MODE=token" in text and "--dashboard-host=127.0.0.1" in text
    sweep = re.search(r"^sweep='(.*?)'\n\nasked", text, re.M | re.S)
    assert sweep is not None
    shell = f"distvae() {{ printf '%s\\n' \"$@\"; }}\nrun={tmp_path}; address=h:1\nsweep='{sweep[1]}'\neval \"$sweep\""
    said = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert said.stdout.splitlines() == [
        "sweep",
        str(config),
        "--out",
        "it's out",
        "--set",
        "seeds=2",
        "--address",
        "h:1",
    ]


@pytest.mark.parametrize(
    "option, said",
    [
        ("partitoin=gpu", "'partitoin' is no option of sbatch - did you mean 'partition'?"),
        ("mem=lots", "mem: 'lots' is not what sbatch takes"),
        ("requeue=yes", "requeue takes no value"),
        ("account", "account needs a value"),
    ],
)
def test_what_sbatch_would_refuse(capsys, tmp_path, config, option, said):
    done = command(capsys, "launch", "slurm", config, "--out", "x", "--to", tmp_path / "to", "--sbatch", option)
    assert done.code == 2 and said in done.err and not (tmp_path / "to").exists()


def test_a_script_that_bash_cannot_read_is_not_written(capsys, tmp_path, config):
    done = command(capsys, "launch", "slurm", config, "--out", "x", "--to", tmp_path / "to", "--setup", "if true")
    assert done.code == 2 and "syntax error" in done.err and not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    "time, seconds, warning",
    [("10", 600, 150), ("10:30", 630, 157), ("4:0:0", 14400, 300), ("1-12", 129600, 300), ("0-0:30", 1800, 300)],
)
def test_a_slice_is_longer_than_its_warning(capsys, tmp_path, config, time, seconds, warning):
    """Or the job would go back to the queue before it has begun, for ever."""
    assert sbatch.seconds(time) == seconds
    assert command(capsys, "launch", "slurm", config, "--out", "x", "--to", tmp_path, "--time", time).code == 0
    assert sbatch.options((tmp_path / "my-sweep.sbatch").read_text())["signal"] == f"B:USR1@{warning}"


@pytest.mark.parametrize("time", ["soon", "0", "1:70", ""])
def test_what_is_no_time(capsys, tmp_path, config, time):
    done = command(capsys, "launch", "slurm", config, "--out", "x", "--to", tmp_path / "to", "--time", time)
    assert done.code == 2 and "is not a time like 30 (minutes)" in done.err and not (tmp_path / "to").exists()


def test_options_are_read_as_sbatch_reads_them():
    text = "#!/bin/bash\n# hello\n\n#SBATCH --nodes=2 --time=1-0 # two\nexport A=1\n#SBATCH --nonsense\n"
    assert sbatch.options(text) == {"nodes": "2", "time": "1-0"}
    with pytest.raises(ValueError, match=r"line 2: #SBATCH -N 2: .* is no option"):
        sbatch.options("#!/bin/bash\n#SBATCH -N 2\n")


@pytest.mark.parametrize("kind", ["slurm", "kuberay", "ray"])
def test_each_explains_itself(capsys, kind):
    done = command(capsys, "launch", kind, "--help")
    assert done.code == 0 and f"Usage: distvae launch {kind}" in done.out
    assert kind in command(capsys, "launch", "--help").out and "launch" in command(capsys, "--help").out


def documents_of(path):
    return {d["kind"]: d for d in yaml.load_all(path.read_text())}


def test_kuberay(capsys, tmp_path, config):
    options = ["--image", "me/it:1", "--claim", "vol", "--data", "/shared/d", "--cpus-per-node", "5"]
    done = command(capsys, "launch", "kuberay", config, "--out", "/shared/o u t", "--to", tmp_path, *options)
    assert done.code == 0, done.err
    found = documents_of(tmp_path / "my-sweep-rayjob.yaml")
    again = loads(found["ConfigMap"]["data"]["sweep.yaml"])
    assert [t.key for t in again.trials] == [t.key for t in load(config).trials]
    assert again.resources == load(config).resources
    spec = found["RayJob"]["spec"]
    assert spec["entrypoint"] == "distvae sweep /etc/distvae/sweep.yaml --out '/shared/o u t' --address auto"
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and cluster["rayVersion"] == version("ray")
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["replicas"] == 3 and workers["rayStartParams"] == {"num-cpus": "4"}
    label = found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    for group in (cluster["headGroupSpec"], workers):
        assert label.items() <= group["template"]["metadata"]["labels"].items()
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "DISTVAE_DATA", "value": "/shared/d"} in container["env"]
        assert {"/etc/distvae", "/shared"} == {m["mountPath"] for m in container["volumeMounts"]}


def change(tree, path, value):
    *to, last = path.split(".")
    for step in to:
        tree = tree[int(step) if step.isdigit() else step]
    if value is None:
        del tree[last]
    else:
        tree[last] = value


@pytest.mark.parametrize(
    "path, value, said",
    [
        ("spec.entrypiont", "x", "entrypiont"),
        ("spec.entrypoint", None, "entrypoint"),
        ("spec.backoffLimit", -1, "minimum"),
        ("spec.submissionMode", "sidecar", "submissionMode"),
        ("metadata.name", "a" * 48, "47 characters"),
        ("metadata.name", "My_Sweep", "metadata.name"),
        ("spec.rayClusterSpec.rayVersion", "2.51.0", "2.52.0"),
        ("spec.rayClusterSpec.rayVersion", 2.52, "rayVersion"),
        ("spec.rayClusterSpec.authOptions.mode", "tokens", "mode"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0, "num-cpus"),  # KubeRay wants strings
        ("spec.rayClusterSpec.headGroupSpec.template.spec.restartPolicy", "Always", "Never"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers", [], "containers"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", 1, "does not hold"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.volumes", [], "no volume"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.resources.limits.memory", "8GB", "memory"),
        ("spec.ttlSecondsAfterFinished", 5, None),
    ],
)
def test_what_kuberay_would_refuse(path, value, said):
    good = documents_of(EXAMPLES / "eight-gpus-rayjob.yaml")["RayJob"]
    kuberay_schema.check(good)
    bad = copy.deepcopy(good)
    change(bad, path, value)
    if said is None:
        kuberay_schema.check(bad)
        change(bad, "spec.shutdownAfterJobFinishes", False)
        said = "shutdownAfterJobFinishes"
    with pytest.raises(ValueError, match=said):
        kuberay_schema.check(bad)


def test_ray_up(capsys, tmp_path, config):
    done = command(capsys, "launch", "ray", config, "--out", "s3://bucket/x", "--to", tmp_path, "--cpus-per-node", 5)
    assert done.code == 0 and done.out.split() == [f"{tmp_path}/my-sweep-ray.yaml", f"{tmp_path}/my-sweep-sweep.yaml"]
    tree = yaml.load((tmp_path / "my-sweep-ray.yaml").read_text())
    worker = tree["available_node_types"]["worker"]
    assert (worker["min_workers"], worker["max_workers"], tree["max_workers"]) == (1, 3, 3)
    assert worker["resources"] == {"CPU": 4} and worker["node_config"] == {"InstanceType": "c7i.2xlarge"}
    starts = [line for name in ("head", "worker") for line in tree[f"{name}_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts) and "--dashboard-host=127.0.0.1" in starts[1]
    assert tree["file_mounts"]["~/sweep.yaml"] == "my-sweep-sweep.yaml"
    assert [t.key for t in load(tmp_path / "my-sweep-sweep.yaml").trials] == [t.key for t in load(config).trials]
    assert "ray exec my-sweep-ray.yaml --tmux " in done.err
    tree["avialable_node_types"] = {}
    with pytest.raises(ValueError, match="avialable_node_types"):
        ray_up.check(tree)


@pytest.mark.parametrize("kind", ["kuberay", "ray"])
@pytest.mark.parametrize(
    "out, said",
    [
        ("runs/x", "no folder here is on that cluster's nodes"),
        ("s3://", "is not s3://bucket/prefix"),
        ("gs://bucket/x", "is not s3://bucket/prefix"),
        ("a\nb", r"--out a\nb: is not the name of a folder"),
    ],
)
def test_out_must_be_somewhere_that_the_nodes_see(capsys, tmp_path, config, kind, out, said):
    image = ["--image", "i"] if kind == "kuberay" else []
    done = command(capsys, "launch", kind, config, "--out", out, "--to", tmp_path / "to", *image)
    assert done.code == 2 and said in done.err and not (tmp_path / "to").exists()


def test_out_of_kuberay_is_on_the_volume(capsys, tmp_path, config):
    for options in (["--out", "/shared/x"], ["--out", "/sharedx", "--claim", "c"], ["--out", "/x", "--claim", "c"]):
        done = command(capsys, "launch", "kuberay", config, "--image", "i", "--to", tmp_path / "to", *options)
        assert done.code == 2 and "under /shared (--mount)" in done.err
    done = command(
        capsys, "launch", "kuberay", config, "--image", "i", "--to", tmp_path / "to", "--out", "s3://bucket/x"
    )
    assert done.code == 0


def test_an_edited_file_is_kept(capsys, tmp_path, config):
    def launch(*more):
        return command(capsys, "launch", "slurm", config, "--out", "x", "--to", tmp_path, *more)

    path = tmp_path / "my-sweep.sbatch"
    assert launch().code == 0 and launch("--time", "10").code == 0 and "--time=10" in path.read_text()
    path.write_text(path.read_text().replace("--time=10", "--time=11"))
    done = launch()
    assert done.code == 2 and f"{path}: was edited" in done.err and "--time=11" in path.read_text()
    assert launch("--force").code == 0 and "--time=04:00:00" in path.read_text()
    path.write_text("mine")
    assert launch().code == 2 and path.read_text() == "mine"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert launch("--force").code == 2 and not (tmp_path / "elsewhere").exists()


def test_a_seal_knows_any_edit():
    for text in ("#!/bin/sh\necho 1\n", "a: 1\n"):
        sealed = seal(text, "slurm")
        assert not edited(sealed) and edited(sealed + " ") and edited(sealed.replace("1", "2")) and edited(text)


def test_words_that_older_yaml_reads_as_something_else_are_quoted():
    data = {"a": "no", "b": "0", "c": "", "d": "x\ny\n", "e": " s", "f": [{"g": "On"}, 1, True], "h": "1e3"}
    text = documents.text(data, comments={("f",): "why", ("nowhere", "x"): "no"})
    assert yaml.load(text) == data and '"no"' in text and '"On"' in text and "# why\nf:" in text


def test_a_ray_without_tokens_is_refused(capsys, tmp_path, config):
    done = command(
        capsys, "launch", "ray", config, "--out", "s3://bucket/x", "--to", tmp_path, "--ray-version", "2.51.0"
    )
    assert done.code == 2 and "has no token authentication (2.52 or newer)" in done.err
