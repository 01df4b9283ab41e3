"""`distvae launch slurm|kuberay|ray CONFIG --out OUT`. Paths on stdout, what to do next on stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distvae.launch.job import Job

app = typer.Typer(no_args_is_help=True, help="Write files that start a sweep on a cluster, from its `resources:`.")

Config = Annotated[Path, typer.Argument(help="the sweep's YAML file")]
Out = Annotated[str, typer.Option("--out", help="where results go: a folder all nodes see, or s3://bucket/prefix")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="override a value, as YAML")]
To = Annotated[Path, typer.Option(help="folder of the files")]
Force = Annotated[bool, typer.Option("--force", help="write over files that were edited")]
Nodes = Annotated[int | None, typer.Option(min=1, help="default: as many as resources.concurrency needs, else one")]
Cpus = Annotated[int | None, typer.Option(min=2, help="cores of a node; default: what is needed, at most 32")]
Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs of a node; default: what is needed, at most 8")]
RayVersion = Annotated[str | None, typer.Option(help="of the cluster's Ray; default: the one installed here")]
Data = Annotated[str | None, typer.Option(help="DISTVAE_DATA on the nodes: a folder that all of them mount")]


@app.command()
def slurm(
    config: Config,
    out: Out,
    set_: Sets = None,
    nodes: Nodes = None,
    cpus_per_node: Cpus = None,
    gpus_per_node: Gpus = None,
    time: Annotated[str, typer.Option(help="a slice: the job goes back to the queue and on from there")] = "04:00:00",
    sbatch: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="an option of sbatch's, e.g. partition=gpu")
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(metavar="SHELL", help="a line before all others, e.g. 'module load cuda'")
    ] = None,
    to: To = Path("."),
    force: Force = False,
) -> None:
    """A script for sbatch: Ray on its nodes by `ray symmetric-run`, saved and queued again when it is pre-empted."""
    from distvae.launch import slurm as launcher

    job = _job(config, out, set_, nodes, cpus_per_node, gpus_per_node, absolute=False)
    text = launcher.script(job, time=time, extra=sbatch or (), setup=setup or ())
    (path,) = _write(to, {f"{job.name}.sbatch": text}, job, force)
    _next(f"next, from {Path.cwd() if not config.is_absolute() else 'anywhere'}: {launcher.submit(path)}")


@app.command()
def kuberay(
    config: Config,
    out: Out,
    image: Annotated[str, typer.Option(help="a container's, built with cluster/Dockerfile")],
    set_: Sets = None,
    nodes: Nodes = None,
    cpus_per_node: Cpus = None,
    gpus_per_node: Gpus = None,
    memory: Annotated[str | None, typer.Option(help="of a node, e.g. 64Gi; default: 4 for each core")] = None,
    claim: Annotated[str | None, typer.Option(help="PersistentVolumeClaim that all pods mount (ReadWriteMany)")] = None,
    mount: Annotated[str, typer.Option(help="where they mount it")] = "/shared",
    secret: Annotated[str | None, typer.Option(help="Secret whose keys become environment variables: S3's")] = None,
    data: Data = None,
    retries: Annotated[int, typer.Option(min=0, help="new clusters, should one be lost")] = 3,
    ray_version: RayVersion = None,
    to: To = Path("."),
    force: Force = False,
) -> None:
    """A RayJob for KubeRay with its config and a NetworkPolicy."""
    from distvae.launch import kuberay as launcher

    job = _job(config, out, set_, nodes, cpus_per_node, gpus_per_node, absolute=True, ray=ray_version)
    text = launcher.manifest(
        job, image=image, claim=claim, mount=mount, data=data, secret=secret, memory=memory, retries=retries
    )
    (path,) = _write(to, {f"{job.name}-rayjob.yaml": text}, job, force)
    _next(f"next: kubectl apply -f {path}")
    _next(f"then: kubectl get rayjob {job.name} --watch")


@app.command()
def ray(
    config: Config,
    out: Out,
    set_: Sets = None,
    nodes: Nodes = None,
    cpus_per_node: Cpus = None,
    gpus_per_node: Gpus = None,
    region: Annotated[str, typer.Option(help="AWS region")] = "us-west-2",
    instance: Annotated[str | None, typer.Option(help="EC2 type of the workers; default: the least that fits")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="workers that may be taken away: their trials go on")] = False,
    image: Annotated[str | None, typer.Option(help="container with distvae; default: install a checkout")] = None,
    source: Annotated[str, typer.Option(help="the checkout that is copied and installed without --image")] = ".",
    data: Data = None,
    ray_version: RayVersion = None,
    to: To = Path("."),
    force: Force = False,
) -> None:
    """A cluster file for `ray up` on AWS, and the sweep's config as it goes there."""
    from distvae.launch import ray_up
    from distvae.launch.written import seal

    job = _job(config, out, set_, nodes, cpus_per_node, gpus_per_node, absolute=True, ray=ray_version)
    text = ray_up.cluster(job, region=region, instance_type=instance, image=image, source=source, data=data, spot=spot)
    files = {f"{job.name}-ray.yaml": text, f"{job.name}-sweep.yaml": seal(job.study.resolved, "ray")}
    path, _ = _write(to, files, job, force)
    _next("next, in that folder (once: ray get-auth-token --generate):")
    _next(f"  ray up {Path(path).name}")
    _next(f"  {ray_up.run(Path(path).name, job, data, bool(image))}")
    _next(f"  ray down {Path(path).name}")


def _job(
    config: Path,
    out: str,
    sets: list[str] | None,
    nodes: int | None,
    cpus: int | None,
    gpus: int | None,
    *,
    absolute: bool,
    ray: str | None = None,
) -> Job:
    from distvae.config import load
    from distvae.launch.job import Job, check_out, check_ray
    from distvae.launch.layout import layout, planned

    check_out(out, absolute=absolute)
    version = check_ray(ray)
    study = load(config, sets or ())
    shape = layout(study.resources, planned(study), nodes=nodes, cpus=cpus, gpus=gpus)
    return Job(study, config, out, shape, tuple(sets or ()), version)


def _write(to: Path, files: dict[str, str], job: Job, force: bool) -> list[str]:
    from distvae.launch.written import write

    paths = [str(path) for path in write(to, files, force=force)]
    _next(f"{job.study.name}: {job.layout}")
    for path in paths:
        print(path)
    return paths


def _next(text: str) -> None:
    print(text, file=sys.stderr)
