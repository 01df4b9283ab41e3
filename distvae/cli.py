"""The commands. Human text goes to stderr, data to stdout; every reading command has --json.

Exit codes: 0 ok, 1 bug, 2 usage or config, 3 some trials failed, 4 environment, 5 OUT is locked by another run, 130
Ctrl-C. Nothing heavy is imported before a command needs it: `distvae --help` answers without torch."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from distvae import files
from distvae.launch.commands import app as launch
from distvae.plots import FILES

app = typer.Typer(
    name="distvae",
    help="Sweep VAE variants from one YAML file to a rate-distortion curve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(launch, name="launch")
err = Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else 140)

Config = Annotated[Path, typer.Argument(help="the sweep's YAML file")]
Out = Annotated[
    Path, typer.Argument(parser=files.at, metavar="OUT", help="a sweep's output folder, or s3://bucket/prefix")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="override a value, as YAML")]
Address = Annotated[str | None, typer.Option(help="a running Ray cluster: auto or host:port; default: one of our own")]
Detach = Annotated[bool, typer.Option("--detach", help="run in the background, whatever becomes of this terminal")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output on stdout")]


@app.command()
def sweep(
    config: Config,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            parser=files.at,
            metavar="OUT",
            help="where results go: a folder, also a shared one, or s3://bucket/prefix; the same OUT again resumes",
        ),
    ],
    set_: Sets = None,
    address: Address = None,
    detach: Detach = False,
) -> None:
    """Train every trial of CONFIG that has not ended yet, then export the curve and its pictures."""
    go(config, out, set_ or (), address, detach=detach)


def go(config: Path, out: Path, sets: Sequence[str], address: str | None, *, detach: bool) -> None:
    """Run the sweep of a config, here or in the background; exits."""
    if detach:
        background(config, out, sets, address)
    began = time.time()
    heed(leave)
    from distvae.config import load
    from distvae.operate.console import Told
    from distvae.results.finish import finish
    from distvae.sweeps import overhead
    from distvae.sweeps.check import check_data
    from distvae.sweeps.plan import check_out
    from distvae.sweeps.run import sweep as run

    heed(interrupt)  # before the training and after it; `sweeps.driver` drains
    check_out(out)
    study = load(config, sets)
    check_data(study)
    algorithm = study.search.algorithm
    count = f"{algorithm.trials} suggestions" if algorithm else f"{len(study.trials)} trials"
    say(f"{study.name}: {count}" + (f" ({study.duplicates} duplicates removed)" if study.duplicates else ""))
    outcome = run(study, out, address=address, closing=lambda outcome: finish(outcome, Told(out), study))
    if address is None:
        overhead.keep(outcome, began, study.engine, {t.key: t for t in study.trials})
    raise typer.Exit(outcome.exit_code)


@app.command()
def plan(
    config: Config,
    set_: Sets = None,
    out: Annotated[
        Path | None, typer.Option("--out", parser=files.at, metavar="OUT", help="count what is already done there")
    ] = None,
    probe: Annotated[bool, typer.Option(help="measure a few steps for the estimate")] = True,
    as_json: Json = False,
) -> None:
    """Count the trials, their groups and what is left, and estimate time and memory. Trains nothing for keeps."""
    from distvae.config import load
    from distvae.sweeps.check import check_data
    from distvae.sweeps.estimate import overview, render

    study = load(config, set_ or ())
    check_data(study)
    view = overview(study, out, probe=probe, say=say)
    emit(view) if as_json else render(view, err)


@app.command()
def status(
    out: Out,
    watch: Annotated[bool, typer.Option("--watch", help="until the sweep ends, with its exit code")] = False,
    as_json: Json = False,
) -> None:
    """How far a sweep is: whether it runs, counts, failures with their logs, the best so far."""
    from distvae.operate import look

    if watch and as_json:
        raise UsageError("--watch is for people, --json for programs: give one of them")
    existing(out)
    code = look.watch(out, err) if watch else 0
    from distvae.results.finish import render_status, summary  # heavy, and a sweep that runs is seen before it

    run = None if watch else look.run(out)
    view = summary(out)
    if as_json:
        emit({**view, "run": run})
    else:
        for line in look.lines(run["state"], run) if run else ():
            say(line)
        render_status(view, err)
    raise typer.Exit(code)


@app.command()
def stop(
    out: Out,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY...", help="trials, or their keys' first digits")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="the sweep itself: it saves what runs, as at Ctrl-C")] = False,
) -> None:
    """Stop trials, which keep their rows and are not run again (but see retry), or --all the sweep; from any terminal."""
    if bool(keys) == all_:
        raise UsageError("stop takes the keys of trials (distvae stop OUT 3f2a), or --all: one of them")
    from distvae.operate import steer

    steer.drain(existing(out), say) if all_ else steer.stop(existing(out), keys or (), say)


@app.command()
def retry(
    out: Out,
    failed: Annotated[bool, typer.Option("--failed", help="all trials that failed")] = False,
    key: Annotated[
        list[str] | None, typer.Option(help="a failed, stopped or diverged trial, or its first digits")
    ] = None,
    address: Address = None,
    detach: Detach = False,
) -> None:
    """Run trials again, and what is left of the sweep; needs only OUT."""
    if not failed and not key:
        raise UsageError("retry takes --failed, or --key KEY, or both")
    from distvae.operate import steer

    what = steer.retry(existing(out), key or (), failed=failed, say=say)
    go(what.config, out, what.sets, address, detach=detach)


@app.command()
def extend(
    out: Out,
    epochs: Annotated[int, typer.Option(min=1, help="epochs that every trial is to have in the end")],
    address: Address = None,
    detach: Detach = False,
) -> None:
    """Let trials that finished go on to more epochs, and run what is left of the sweep; needs only OUT."""
    from distvae.operate import steer

    what = steer.extend(existing(out), epochs, say)
    go(what.config, out, what.sets, address, detach=detach)


@app.command()
def attach(out: Out) -> None:
    """Show what a sweep says until it ends, with its exit code; Ctrl-C leaves it running."""
    from distvae.operate.detach import attach as follow

    raise typer.Exit(follow(existing(out), show))


@app.command()
def logs(
    out: Out,
    key: Annotated[str, typer.Argument(metavar="KEY", help="a trial, or its key's first digits")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the trial or the sweep ends")] = False,
    as_json: Json = False,
) -> None:
    """One trial's log: starts, what it measured, what it raised, its end."""
    from distvae.operate import logs as of
    from distvae.operate import steer

    (found,) = steer.named(steer.planned(existing(out)), [key])
    if as_json:
        emit(of.data(out, found))
        return
    for line in of.show(out, found):
        print(line)
    for line in of.follow(out, found) if follow else ():
        print(line, flush=True)


@app.command("eval")
def evaluate(
    out: Out,
    metrics: Annotated[
        str | None, typer.Option(help="names with commas between, or a YAML list; default: the sweep's `metrics:`")
    ] = None,
    trial: Annotated[list[str] | None, typer.Option(help="key of a trial, or its first digits; default: all")] = None,
    again: Annotated[bool, typer.Option(help="measure again what has been measured")] = False,
    address: Annotated[str | None, typer.Option(help="a running Ray cluster; default: one of our own")] = None,
    as_json: Json = False,
) -> None:
    """Measure trials that have ended, from their kept weights: more columns of the curve."""
    from distvae.results.evaluation import evaluate as run
    from distvae.results.evaluation import render

    view = run(existing(out), metrics, trial or (), again=again, address=address, say=say)
    emit(view) if as_json else render(view, err)
    raise typer.Exit(3 if view["failed"] else 0)


@app.command()
def export(
    out: Out,
    format_: Annotated[str, typer.Option("--format", help="parquet, csv, or compressai (JSON)")] = "parquet",
    to: Annotated[
        Path | None,
        typer.Option(parser=files.at, metavar="PATH", help="file to write (compressai: folder); default: in OUT"),
    ] = None,
) -> None:
    """Write the rate-distortion curve from the ledger; prints its path (compressai: one for each curve)."""
    from distvae.results import compressai, ledger

    if format_ not in ("parquet", "csv", "compressai"):
        raise UsageError(f"--format: {format_!r} is not one of parquet, csv, compressai")
    if format_ == "compressai":
        for path in compressai.export(existing(out), to):
            print(path)
        return
    print(ledger.export(existing(out), format_, to))


@app.command()
def plot(
    out: Out,
    kind: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(FILES)}, or all that have something to show (the default); several with commas"),
    ] = None,
    color: Annotated[
        str | None, typer.Option(help="knob that colours the points: r, beta, ..., or a dotted config name")
    ] = None,
    x: Annotated[str | None, typer.Option(help="heat map: knob along x; default: the one with most values")] = None,
    y: Annotated[str | None, typer.Option(help="heat map: knob along y; default: the next")] = None,
    value: Annotated[str | None, typer.Option(help="metric of heat map and training curves; default elbo_nats")] = None,
    split: Annotated[str | None, typer.Option(help="split whose rows are drawn; default test")] = None,
    trial: Annotated[str | None, typer.Option(help="key of a trial, or its first digits; default: the best")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="samples: how z is drawn, as YAML, e.g. {type: aggregated}; default: every one")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, max=10_000, help="images or examples of a trial")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="seed of the draws, and of a sampler that is fitted; default 0")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a sweep, and its best trial (or --trial) where its weights were kept; prints the files' paths."""
    from distvae.plots import Options, draw
    from distvae.results.tracking import log_pictures

    options = {"color": color, "x": x, "y": y, "value": value, "split": split, "trial": trial, "sampler": sampler}
    given = {k: v for k, v in {**options, "n": n, "seed": seed}.items() if v is not None}
    names = [name.strip() for text in kind or ["all"] for name in text.split(",")]
    drawn = draw(existing(out), names, Options(**given), given)
    if as_json:
        emit(
            {
                "pictures": {k: list(map(str, v)) for k, v in drawn.pictures.items()},
                "left_out": [{"kinds": kinds, "why": why} for why, kinds in drawn.left_out.items()],
            }
        )
    else:
        for path in drawn.paths:
            print(path)
        for line in drawn.missing:
            say(line)
    if away := log_pictures(out, drawn.paths):
        say(away)


@app.command()
def compare(
    outs: Annotated[
        list[Path],
        typer.Argument(parser=files.at, metavar="OUT...", help="sweeps; the others are compared with the first"),
    ],
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="of one OUT: compare its families by a dotted config name")
    ] = None,
    split: Annotated[str, typer.Option(help="split whose rows are compared: train, valid or test")] = "test",
    as_json: Json = False,
    to: Annotated[
        Path | None, typer.Option(parser=files.at, metavar="PNG", help="draw all frontiers into this file")
    ] = None,
) -> None:
    """How far the rate-distortion curves of sweeps lie apart: BD-rate, BD-distortion, area, the best of each."""
    if (len(outs) < 2) != (by is not None):
        raise UsageError(
            "compare takes two OUT or more, or one and --by NAME (distvae compare OUT --by objective.type)"
        )
    if split not in ("train", "valid", "test"):
        raise UsageError(f"--split: {split!r} is not one of train, valid, test")
    if len({existing(out).resolve() for out in outs}) < len(outs):
        raise UsageError("compare takes different OUT (families within one: --by NAME)")
    from distvae.results import compare as sides_of
    from distvae.results.compare_picture import draw
    from distvae.results.compare_table import render

    sides = sides_of.of_sweeps(outs) if by is None else sides_of.of_families(outs[0], by)
    view = sides_of.compare(sides, split, by=by)
    emit(view) if as_json else render(view, err)
    if to is not None:
        path = draw(sides, view, to)
        say(f"picture: {path}") if as_json else print(path)


@app.command()
def report(
    out: Out,
    to: Annotated[
        Path | None, typer.Option(parser=files.at, metavar="PATH", help="file to write; default: OUT/report.html")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page of a sweep, self-contained: frontier, every trial, pictures; prints its path."""
    from distvae.report import build, write

    emit(build(existing(out))) if as_json else print(write(existing(out), to))


@app.command()
def ui(
    out: Out,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port")] = 5000,
) -> None:
    """Serve MLflow's compare UI of a sweep on loopback; prints its URL, stops with Ctrl-C."""
    from distvae.results.ui import serve

    raise typer.Exit(serve(existing(out), port, say))


@app.command()
def sync(
    out: Out,
    uri: Annotated[str | None, typer.Option(help="MLflow tracking URI; default: the sweep's")] = None,
    as_json: Json = False,
) -> None:
    """Bring MLflow up to date from the ledger. Safe to repeat: nothing is stored twice."""
    from distvae.results.tracking import sync as replay

    view = replay(existing(out), uri)
    emit(view) if as_json else say(
        f"MLflow has {view['trials']} trials, {view['metrics']} metric points and {view['pictures']} pictures of {out}"
    )


@app.command()
def parts(as_json: Json = False) -> None:
    """Every part a YAML can choose, with its knobs, their ranges and meaning."""
    from distvae.menu import menu, render

    emit(menu()) if as_json else render(menu(), Console(highlight=False, width=None if sys.stdout.isatty() else 140))


@app.command()
def schema() -> None:
    """The JSON Schema of a sweep's YAML, for editors; on stdout."""
    from distvae.json_schema import schema as build

    emit(build())


@app.command()
def doctor(as_json: Json = False) -> None:
    """What works on this machine, what does not, and the remedy."""
    from distvae.doctor import examine, render

    checks = examine()
    emit(checks) if as_json else render(checks, err)
    raise typer.Exit(0 if all(c["ok"] for c in checks if c["needed"]) else 4)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="overhead, sweep, kl, kl_gpu, early_stopping, peers or scale")],
    as_json: Json = False,
    trials: Annotated[int, typer.Option(min=2, help="overhead: trials on each side")] = 8,
) -> None:
    """Time distvae against the obvious alternative, side by side, in one run."""
    from distvae.bench import load, render

    result = load(name)(trials=trials, say=say)
    emit(result) if as_json else render(result, err)


class UsageError(Exception):
    """A value of an option that is not allowed (exit code 2)."""


def existing(out: Path) -> Path:
    """OUT of a reading command: it must hold a sweep."""
    from distvae.sweeps.plan import check_out

    check_out(out)
    if not (out / "points").is_dir() and not (out / "plan.parquet").exists():
        raise UsageError(
            f"{out} holds no sweep (no plan.parquet, no points/); start one with: distvae sweep CONFIG --out {out}"
        )
    return out


def emit(data: Any) -> None:
    json.dump(data, sys.stdout, indent=1, default=str)
    sys.stdout.write("\n")


def say(text: str) -> None:
    err.print(text, markup=False)


def heed(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    """What a Ctrl-C or SIGTERM does from now on."""
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, handler)


def leave(signum: int, frame: object) -> None:
    """At once: nothing is to be put in order. Also while large libraries are imported: an exception in the middle of that
    becomes an ImportError of numpy's, or ends the process in C++."""
    os._exit(130)


def interrupt(signum: int, frame: object) -> None:
    """The first Ctrl-C or SIGTERM ends what is being done, in order; another one at once."""
    heed(leave)
    # Not KeyboardInterrupt: Python ends one that went through an `exec` of text, as in `dataclass`, as by signal 2.
    raise SystemExit(130)


def deaf() -> None:
    """As Python ends it gives signals their defaults back: a Ctrl-C then would be the exit code."""
    heed(signal.SIG_IGN)


def show(text: str) -> None:
    """As it is, without a line's end of its own."""
    sys.stderr.write(text)
    sys.stderr.flush()


def background(config: Path, out: Path, sets: Sequence[str], address: str | None) -> None:
    """Start the sweep in a session of its own; exits once it has OUT, or with its exit code if it ended before."""
    from distvae.operate import detach

    words = ["sweep", str(config), "--out", str(out), *(w for s in sets for w in ("--set", s))]
    code = detach.start([*words, *(("--address", address) if address else ())], out, show)
    if code is None:
        say(
            f"it runs in the background: distvae attach {out} (what it says), distvae status {out} --watch (how far it is)"
        )
        say(f"to stop it: distvae stop {out} --all")
    raise typer.Exit(code or 0)


def main() -> None:
    """Entry point: exceptions that a user can mend become a line and an exit code, others stay tracebacks (exit 1)."""
    atexit.register(deaf)  # the first to be registered is the last to be called
    try:
        app(prog_name="distvae")  # also under python -m
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as e:
        code = exit_code(e)
        if code is None:
            raise
        for line in str(e).splitlines() or [type(e).__name__]:
            say(line)
        sys.exit(code)


def exit_code(e: Exception) -> int | None:
    """The exit code of an error a user can mend. By name, so that nothing is imported to find out."""
    codes = {
        "ConfigError": 2,
        "DataError": 2,
        "UsageError": 2,
        "NothingToPlotError": 2,
        "NothingToCompareError": 2,
        "NoCodecError": 2,
        "OptionError": 2,
        "SamplerError": 2,
        "FeatureError": 2,
        "BenchError": 2,
        "LaunchError": 2,
        "KeyNotFoundError": 2,
        "CannotExtendError": 2,
        "ResourcesError": 4,
        "AddressError": 4,
        "ClusterError": 4,
        "OptunaMissingError": 4,
        "KernelsUnavailable": 4,
        "TrackerError": 4,
        "StoreError": 4,
        "UnwrittenError": 4,
        "BucketError": 2,
        "UnsafeNameError": 2,
        "OutLockedError": 5,
    }
    return codes.get(type(e).__name__) if type(e).__module__.startswith("distvae") else None


if __name__ == "__main__":
    from distvae import cli  # whose errors `exit_code` knows; those of `__main__` are others

    cli.main()
