"""YAML as a person would write it: block strings, comments above keys, no aliases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString


def text(*documents: Mapping[str, Any], comments: Mapping[tuple[str, ...], str] | None = None) -> str:
    """The documents, `---` between them. `comments`: path of a key, through mappings -> what stands above."""
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    parts = []
    for document in documents:
        tree = _tree(document)
        for path, comment in (comments or {}).items():
            _above(tree, path, comment)
        out = StringIO()
        yaml.dump(tree, out)
        parts.append(out.getvalue())
    return "---\n".join(parts)


def _tree(value: Any) -> Any:
    if isinstance(value, Mapping):
        return CommentedMap((k, _tree(v)) for k, v in value.items())
    if isinstance(value, str):
        if "\n" in value:
            return LiteralScalarString(value)
        odd = not value or value.strip() != value or value.lower() in _WORDS or value[0].isdigit()
        return DoubleQuotedScalarString(value) if odd else value
    return CommentedSeq(_tree(v) for v in value) if isinstance(value, Sequence) else value


_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"}  # YAML 1.1, which Kubernetes and Ray read


def _above(tree: Any, path: tuple[str, ...], comment: str) -> None:
    *to, key = path
    for step in to:
        tree = tree.get(step, {})
    if key in tree:
        tree.yaml_set_comment_before_after_key(key, before=comment, indent=2 * len(to))
