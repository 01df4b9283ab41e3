"""The pictures of a sweep and of its trials: KINDS by name, each in the file of its name, imported when it is asked
for.

    KINDS["rd"].draw(out, folder, options)     one kind
    draw(out, ["all"])                         every kind that has something to show"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from distvae.plots.kind import Kind, NothingToPlotError, OptionError, Options

PLOTS = "plots"  # the folder in OUT
FILES = (
    "rd",
    "heat",
    "parallel",
    "training",
    "reconstructions",
    "samples",
    "traversals",
    "pairs",
    "umap",
    "aggregated",
)  # of KINDS, in order: distvae/plots/<name>.py has `KIND`


class Kinds(Mapping[str, Kind]):
    """Name -> Kind. Its names are known before anything is imported."""

    def __getitem__(self, name: str) -> Kind:
        if name not in FILES:
            raise KeyError(name)
        return import_module(f"distvae.plots.{name}").KIND

    def __iter__(self) -> Iterator[str]:
        return iter(FILES)

    def __len__(self) -> int:
        return len(FILES)


KINDS = Kinds()


@dataclass
class Drawn:
    """The pictures by kind, and why others were left out of `all`: reason -> kinds."""

    pictures: dict[str, list[Path]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        return [path for paths in self.pictures.values() for path in paths]

    @property
    def missing(self) -> list[str]:
        """What was left out, for people."""
        return [f"no {', '.join(kinds)}: {why}" for why, kinds in self.left_out.items()]


def chosen(names: Sequence[str], given: Collection[str] = ()) -> list[Kind]:
    """The kinds that `--kind` names; of `all`, those that read --trial and --sampler where they are `given`.
    Raises OptionError: there is no such kind, or none that reads an option."""
    kinds: dict[str, Kind] = {}
    for name in names:
        if name != "all" and name not in KINDS:
            from distvae.sweeps.explain import one_of

            raise OptionError(f"--kind: {one_of(name, [*KINDS, 'all'])}")
        kinds |= {n: KINDS[n] for n in (KINDS if name == "all" else (name,))}
    for option in given:
        if not any(option in kind.reads for kind in kinds.values()):
            readers = [n for n in KINDS if option in KINDS[n].reads]
            raise OptionError(
                f"{flag(option)}: {' and '.join(kinds)} {'do' if len(kinds) > 1 else 'does'} not read it, "
                f"only {', '.join(readers)} (add --kind {readers[0]})"
            )
    about = [option for option in ("trial", "sampler") if option in given and "all" in names]
    return [kind for kind in kinds.values() if all(option in kind.reads for option in about)]


def flag(option: str) -> str:
    """An option as it is typed."""
    return "-n" if option == "n" else f"--{option}"


def draw(
    out: Path, names: Sequence[str] = ("all",), options: Options | None = None, given: Collection[str] = ()
) -> Drawn:
    """The pictures of OUT in OUT/plots. With `all`, kinds that have nothing to show are left out, with the reason.

    Raises NothingToPlotError if a kind named has nothing to show, or none of all, and OptionError."""
    from distvae.data import DataError

    options, drawn = options or Options(), Drawn()
    kinds = chosen(names, given)
    for kind in kinds:
        try:
            drawn.pictures[kind.name] = kind.draw(out, out / PLOTS, options)
        except (NothingToPlotError, DataError) as e:  # the data may be on another machine
            if "all" not in names:
                raise
            drawn.left_out.setdefault(str(e), []).append(kind.name)
    if not drawn.pictures:
        raise NothingToPlotError("\n".join(drawn.missing))
    return drawn
