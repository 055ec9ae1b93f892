"""Plain data to YAML text that reads back as the same data."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.desired.yaml.builder import OutOfRangeError, resolve_plain


def dump(value: Any) -> str:
    """Return plain data as block style YAML, keys in their order."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


# The style of manifests, in which edits are written.

WIDTH = 100
"""Columns of a collection on one line; in a block mapping, a longer one gets lines of its own."""

_BLOCK_LEVELS = 3
"""A new document is written line by line down to ``spec.set``; everything below goes on one line."""

_PLAIN = re.compile(r"[\w./+-]([\w./+@%=~ -]*[\w./+@%=~-])?")
_NUMBER_LIKE = re.compile(r"[-+.\d][-+.\d_:,eExXoOa-fA-F]*|[-.]+")
_OLD_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})
_DASH = re.compile(r"-([ -]|$)")


def flow_text(value: Any) -> str:
    """Return a value on one line: a scalar, ``{a: 1}`` or ``[a, b]``."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow_text(key)}: {flow_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow_text(inner) for inner in value) + "]"
    return _scalar(value)


def block_lines(value: Mapping[str, Any], indent: int, levels: int = _BLOCK_LEVELS) -> list[str]:
    """Return a mapping line by line, indented by ``indent`` spaces, at most ``levels`` mappings deep."""
    lines: list[str] = []
    for key, inner in value.items():
        lines += entry_lines(key, inner, indent, levels - 1)
    return lines


def entry_lines(key: str, value: Any, indent: int, levels: int = 0) -> list[str]:
    """Return one entry of a block mapping: on one line unless it is too long or ``levels`` remain."""
    head = f"{' ' * indent}{flow_text(key)}:"
    line = f"{head} {flow_text(value)}"
    if isinstance(value, Mapping) and value and (levels > 0 or len(line) > WIDTH):
        return [head, *block_lines(value, indent + 2, levels)]
    return [line]


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, int | float):
        return repr(value)
    return value if _reads_as_itself(value) else _quoted(value)


def _reads_as_itself(text: str) -> bool:
    """Return whether the text needs no quotes, neither here nor for readers of YAML 1.1."""
    if not _PLAIN.fullmatch(text) or not text.isprintable() or _DASH.match(text):
        return False
    if _NUMBER_LIKE.fullmatch(text) or text.lower() in _OLD_WORDS:
        return False
    try:
        return isinstance(resolve_plain(text), str)
    except OutOfRangeError:
        return False


def _quoted(text: str) -> str:
    """Return the text in double quotes. YAML knows all escapes of JSON; visible text stays as it is."""

    def escaped(character: str) -> str:
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(character if character.isprintable() else escaped(character) for character in quoted)
