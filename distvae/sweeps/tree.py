"""YAML text to a tree whose every value and key knows its place, and back.

Read from ruamel's *events*, so nothing is ever constructed: tags are refused, scalars follow YAML 1.2's core schema
(`1e-3` is a number; `no`, `1_000` and dates are strings), and size, depth and aliases are bounded before anything can
grow. A fault that leaves the rest readable (a duplicate key, a tag, NaN) is noted and reading goes on, so that one run
reports them all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from distvae import files

RANGES = ("grid", "choice", "uniform", "loguniform", "integer")  # see space.py; no step of a dotted field
MAX_BYTES = 1 << 20
MAX_NODES = 20_000  # aliases expanded; ruamel reads some 10,000 a second
MAX_DEPTH = 40
MAX_PROBLEMS = 20

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*")


class ConfigError(Exception):
    """What is wrong with a config, a line per problem: `file:line:column: field: what (what is allowed; the fix)`.
    The command exits 2."""

    def __init__(self, problems: list[str]):
        self.problems = list(dict.fromkeys(map(printable, problems)))
        more = len(self.problems) - MAX_PROBLEMS
        super().__init__("\n".join(self.problems[:MAX_PROBLEMS] + [f"... and {more} more problems"] * (more > 0)))


class Node:
    """A scalar, a list of nodes or a dict of nodes; `at` is its place, `keys` the places of a dict's keys, `drawn` the
    place of the range a value was drawn from."""

    __slots__ = ("at", "data", "drawn", "keys", "value")

    def __init__(self, value: Any, at: str, keys: dict[str, str] | None = None, drawn: str = ""):
        self.value, self.at, self.keys, self.drawn = value, at, keys or {}, drawn
        self.data: Any = None  # `plain`'s memo

    def plain(self) -> Any:
        """Plain Python data. Shared between the cells of a sweep: not to be changed."""
        if isinstance(self.value, dict | list) and self.data is None:
            v = self.value
            self.data = {k: n.plain() for k, n in v.items()} if isinstance(v, dict) else [n.plain() for n in v]
        return self.value if self.data is None else self.data

    def find(self, path: tuple[str | int, ...]) -> tuple[Node, bool]:
        """The node at `path`, or its nearest ancestor, and whether it was reached."""
        node = self
        for step in path:
            value = node.value
            inside = isinstance(value, dict) and step in value
            if not inside and not (isinstance(value, list) and isinstance(step, int) and step < len(value)):
                return node, False
            node = cast(Any, value)[step]
        return node, True


def printable(text: str) -> str:
    """On one line, whatever is in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(at: str) -> str:
    """A place for the middle of a message: without its file."""
    m = re.search(r":(\d+:\d+)$", at)
    return m[1] if m and not at.startswith("--set ") else at


def show(value: Any) -> str:
    """A value as the YAML says it, short."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = printable(repr(value))
    return text if len(text) <= 60 else text[:57] + "..." + ("'" if isinstance(value, str) else "")


# --- reading ----------------------------------------------------------------------------------------------------------


def read_file(path: str | Path) -> tuple[str, str]:
    """(text, the file's name for messages)."""
    label = printable(str(path))
    try:
        with files.at(path).open("rb") as f:
            data = f.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        why = "is a directory, not a YAML file" if isinstance(e, IsADirectoryError) else "cannot be read"
        why = "does not exist" if isinstance(e, FileNotFoundError) else why
        raise ConfigError([f"{label}:1:1: file: {why} ({printable(getattr(e, 'strerror', None) or str(e))})"]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            [f"{label}:1:1: file: is larger than {MAX_BYTES} bytes (a config is text of a few hundred lines)"]
        )
    try:
        return data.decode("utf-8-sig"), label
    except UnicodeDecodeError as e:
        before = data[: e.start].decode("utf-8-sig", "replace")
        place = f"{before.count(chr(10)) + 1}:{len(before.rpartition(chr(10))[2]) + 1}"
        why = f"byte 0x{data[e.start]:02x} is not UTF-8 (save the file as UTF-8)"
        raise ConfigError([f"{label}:{place}: file: {why}"]) from None


def parse(text: str, place: Callable[[int, int], str], problems: list[str], path: str = "") -> Node | None:
    """The tree of `text` (the value at `path`), None if it has none. Notes what is wrong in `problems`; raises where
    reading cannot go on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError([*problems, f"{place(1, 1)}: text: is not UTF-8"]) from None
    reader = _Reader(text, place, problems)
    try:
        return reader.document(path)
    except ConfigError:
        raise
    except (
        Exception
    ) as e:  # ruamel's scanner has crashes of its own (IndexError, ...): a fault of the text all the same
        raise ConfigError([*problems, _syntax(e, text, place)]) from None


def _syntax(e: Exception, text: str, place: Callable[[int, int], str]) -> str:
    mark = getattr(e, "problem_mark", None) or getattr(e, "context_mark", None)
    what = getattr(e, "problem", None) or getattr(e, "context", None) or getattr(e, "reason", None) or str(e) or repr(e)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if mark is None and isinstance(at := getattr(e, "position", None), int):  # a character YAML does not allow
        before = text[:at]
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
        what = f"character U+{ord(text[at]):04X} is not allowed in YAML" if at < len(text) else what
    hint = " (indent with spaces)" if "\\t" in what or "\t" in what else ""
    return f"{place(line, column)}: YAML syntax: {printable(str(what).strip())}{hint}"


class _Reader:
    def __init__(self, text: str, place: Callable[[int, int], str], problems: list[str]):
        from ruamel.yaml import YAML

        self.events: Iterator[Any] = iter(YAML(typ="safe", pure=True).parse(text))
        self.place, self.problems = place, problems
        self.anchors: dict[str, tuple[Node, int, int]] = {}  # node, nodes in it, height
        self.count = 0

    def at(self, event: Any) -> str:
        return self.place(event.start_mark.line + 1, event.start_mark.column + 1)

    def note(self, at: str, path: str, what: str) -> None:
        if len(self.problems) > 10 * MAX_PROBLEMS:
            raise ConfigError(self.problems)
        self.problems.append(f"{at}: {path}: {what}" if path else f"{at}: {what}")

    def fail(self, at: str, path: str, what: str) -> Exception:
        return ConfigError([*self.problems, f"{at}: {path or 'file'}: {what}"])

    def document(self, path: str) -> Node | None:
        root = None
        for event in self.events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent" and root is not None:
                raise self.fail(self.at(event), "", "a second document starts here (one config per file)")
            if kind in ("StreamStartEvent", "DocumentStartEvent", "DocumentEndEvent", "StreamEndEvent"):
                continue
            root, _ = self.node(event, path, 1)
        return root

    def grow(self, n: int, height: int, at: str, path: str) -> None:
        self.count += n
        if self.count > MAX_NODES:
            raise self.fail(at, path, f"more than {MAX_NODES} values, aliases expanded (use loguniform or uniform)")
        if height > MAX_DEPTH:
            raise self.fail(at, path, f"nested more than {MAX_DEPTH} deep")

    def node(self, event: Any, path: str, depth: int) -> tuple[Node, int]:
        """The node that starts with `event`, and its height."""
        at, kind, before = self.at(event), type(event).__name__, self.count
        if kind == "AliasEvent":
            if event.anchor not in self.anchors:
                raise self.fail(at, path, f"alias *{printable(event.anchor)} has no anchor before it")
            node, size, height = self.anchors[event.anchor]
            self.grow(size, depth + height, at, path)
            return node, height
        self.grow(1, depth, at, path)
        if getattr(event, "tag", None) is not None:
            self.note(at, path, f"tag {printable(str(event.tag))} is not allowed (write the plain value)")
        height = 0
        if kind == "ScalarEvent":
            node = Node(self.scalar(event, at, path), at)
        elif kind == "SequenceStartEvent":
            node = Node([], at)
            while type(item := next(self.events)).__name__ != "SequenceEndEvent":
                child, h = self.node(item, path, depth + 1)
                node.value.append(child)
                height = max(height, h + 1)
        else:
            node = Node({}, at)
            while type(item := next(self.events)).__name__ != "MappingEndEvent":
                key_at, key = self.at(item), self.key(item, path, depth + 1)
                inner = path if key is None or key in RANGES else f"{path}.{printable(key)}" if path else printable(key)
                child, h = self.node(next(self.events), inner, depth + 1)
                height = max(height, h + 1)
                if key is not None and key in node.value:
                    first = node.keys[key]
                    self.note(key_at, inner, f"duplicate key (first at {short(first)}; keep one)")
                elif key is not None:
                    node.value[key], node.keys[key] = child, key_at
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.count - before, height)
        return node, height

    def key(self, event: Any, path: str, depth: int) -> str | None:
        at = self.at(event)
        node, _ = self.node(event, path, depth)
        if not isinstance(node.value, str):
            self.note(at, path, f"key {show(node.value)} is not a name (quote it if it is one)")
        elif node.value == "<<":
            self.note(at, path, "merge keys (<<) are YAML 1.1 (repeat the keys, or alias the whole mapping)")
        elif len(node.value) > 200:
            self.note(at, path, "key is longer than 200 characters")
        else:
            return node.value
        return None

    def scalar(self, event: Any, at: str, path: str) -> Any:
        text = event.value
        try:
            text.encode()
        except UnicodeEncodeError:
            self.note(at, path, f"{show(text)} is not text (a lone surrogate)")
            return ""
        value = text if event.style else resolve(text)
        if isinstance(value, float) and not math.isfinite(value):
            self.note(at, path, f"{text} is not a finite number")
        elif isinstance(value, int | float) and len(text) > 100:
            self.note(at, path, f"a number of {len(text)} characters is out of range")
            return 0
        return value


def resolve(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        if len(text) > 100:
            return 0  # int() refuses thousands of digits; the caller reports the length
        return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text) + 0.0  # -0.0 is 0.0: the same numbers, and no second trial
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


# --- writing ----------------------------------------------------------------------------------------------------------


def dump(data: Any, width: int = 100) -> str:
    """YAML of plain data that `parse` reads back to the same data: short mappings on one line, as people write them."""
    return "".join(line + "\n" for line in _block(data, "", width)) if data else "{}\n"


def _block(data: dict[str, Any], indent: str, width: int) -> Iterator[str]:
    for key, value in data.items():
        line = f"{indent}{_flow(key)}: {_flow(value)}"
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        simple = indent or not any(isinstance(v, dict) and len(v) > 1 for v in inside)
        if not inside or (len(line) <= width and simple):
            yield line
        elif isinstance(value, dict):
            yield f"{indent}{_flow(key)}:"
            yield from _block(value, indent + "  ", width)
        else:
            yield f"{indent}{_flow(key)}:"
            yield from (f"{indent}- {_flow(item)}" for item in value)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        bare = _BARE.fullmatch(value) and len(value) <= 80 and resolve(value) == value
        return value if bare else '"' + "".join(map(_escape, value)) + '"'
    return repr(value) if type(value) in (int, float) else show(value)


def _escape(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    return c if c.isprintable() else f"\\U{ord(c):08x}"
