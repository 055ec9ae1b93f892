"""Plain data to YAML text that reads back as the same data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.desired.yaml.builder import OutOfRangeError, resolve_plain


def dump(value: Any, *, ascii_only: bool = False) -> str:
    """Return plain data as block style YAML, keys in their order.

    Readers of YAML 1.1, to whom ``on``, ``1:30:00`` and ``1_000`` are not strings, read the same data back.
    """
    lines: list[str] = []
    if (isinstance(value, dict | list) and value) or not isinstance(value, dict | list | str):
        _dump(value, 0, lines, ascii_only)
    else:
        lines.append(_inline(value, "", ascii_only))
    return "\n".join(lines) + "\n"


def _dump(value: Any, indent: int, lines: list[str], ascii_only: bool) -> None:
    """Append the lines of a mapping or list, each indented by at least ``indent`` spaces."""
    pad = " " * indent
    if isinstance(value, dict):
        for key, inner in value.items():
            head = f"{pad}{_inline(key, None, ascii_only)}:"
            if len(head) - indent > _LONGEST_KEY:
                lines.append(f"{pad}? {head[indent:-1]}")
                head = f"{pad}:"
            if isinstance(inner, dict | list) and inner:
                lines.append(head)
                _dump(inner, indent + 2 if isinstance(inner, dict) else indent, lines, ascii_only)
            else:
                lines.append(f"{head} {_inline(inner, pad, ascii_only)}")
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list) and inner:
                start = len(lines)
                _dump(inner, indent + 2, lines, ascii_only)
                lines[start] = f"{pad}- {lines[start][indent + 2 :]}"
            else:
                lines.append(f"{pad}- {_inline(inner, pad, ascii_only)}")
    else:
        lines.append(pad + _inline(value, pad, ascii_only))


_LONGEST_KEY = 500
"""Readers refuse a longer key that is not marked with ``?``."""


def _inline(value: Any, pad: str | None, ascii_only: bool) -> str:
    """Return a scalar or an empty collection; text of several lines as a literal block unless it is a key.

    ``pad`` is the indentation of the entry; None for a key.
    """
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    if not isinstance(value, str):
        return _scalar(value)
    if ascii_only and not value.isascii():
        return _quoted(value, ascii_only=True)
    literal = "\n" in value and not value.endswith("\n\n") and value[0] not in " \n"
    if pad is not None and literal and value.replace("\n", "").isprintable():
        body = value.removesuffix("\n").split("\n")
        chomp = "" if value.endswith("\n") else "-"
        return "\n".join([f"|{chomp}", *(f"{pad}  {line}" if line else "" for line in body)])
    return value if _reads_as_itself(value, _BLOCK_PLAIN) else _quoted(value)


# The style of manifests, in which edits are written.

WIDTH = 100
"""Columns of a collection on one line; in a block mapping, a longer one gets lines of its own."""

_BLOCK_LEVELS = 3
"""A new document is written line by line down to ``spec.set``; everything below goes on one line."""

_PLAIN = re.compile(r"[\w./+-]([\w./+@%=~ -]*[\w./+@%=~-])?")
_BLOCK_PLAIN = re.compile(r"[^\W\d](?!.*(: | #)).*(?<![\s:])|[\w./+-]*")
"""Text that needs no quotes in block style, unless it reads as another type."""

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
        text = repr(value)
        # Readers of YAML 1.1 want a point in every floating-point number.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return value if _reads_as_itself(value) else _quoted(value)


def _reads_as_itself(text: str, plain: re.Pattern[str] = _PLAIN) -> bool:
    """Return whether the text needs no quotes, neither here nor for readers of YAML 1.1."""
    if not plain.fullmatch(text) or not text.isprintable() or _DASH.match(text):
        return False
    if _NUMBER_LIKE.fullmatch(text) or text.lower() in _OLD_WORDS:
        return False
    try:
        return isinstance(resolve_plain(text), str)
    except OutOfRangeError:
        return False


def _quoted(text: str, *, ascii_only: bool = False) -> str:
    """Return the text in double quotes. YAML knows all escapes of JSON; visible text stays as it is."""

    def escaped(character: str) -> str:
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(
        character
        if character.isprintable() and not (ascii_only and ord(character) > 126)
        else escaped(character)
        for character in quoted
    )
