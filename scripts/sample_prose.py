"""Draw messages and docstrings at random, to be read: ``python scripts/sample_prose.py NUMBER SEED``.

Prints NUMBER messages, then NUMBER docstrings of the package, each with its file and line. A message is a
text that users see: a string passed to an error, to a function that prints, to a diagnostic or a check, or as
``help=``, ``hint=`` or ``fix=``. The same seed draws the same sample from the same sources.
"""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PRINTING = {"echo", "say", "secho", "confirm", "log_event", "failed", "warning", "ok", "skipped"}
KEYWORDS = {"help", "hint", "fix", "message", "reason", "short_help", "epilog"}
SHORTEST = 12
"""Characters; a shorter text is a label, not a message."""


class Prose(NamedTuple):
    """One text, and where it is."""

    place: str
    text: str


def messages(tree: ast.Module, file: Path) -> Iterator[Prose]:
    """Yield the messages of a module."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        is_error = name.endswith(("Error", "Refused", "Outage", "Diagnostic")) or name in PRINTING
        arguments = list(node.args) if is_error else []
        arguments += [word.value for word in node.keywords if word.arg in KEYWORDS]
        for argument in arguments:
            text = _text(argument)
            if len(text) >= SHORTEST and " " in text:
                yield Prose(f"{file}:{argument.lineno}", text)


def docstrings(tree: ast.Module, file: Path) -> Iterator[Prose]:
    """Yield the docstrings of a module, its classes, functions and attributes."""
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield Prose(f"{file}:{value.lineno}", value.value)


def _text(node: ast.expr) -> str:
    """Return the text of a string, with ``{}`` for each value in an f-string; empty for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
        case ast.IfExp(body=body, orelse=other):
            return " | ".join(filter(None, (_text(body), _text(other))))
    return ""


def sample(directory: Path, number: int, seed: int) -> str:
    """Return ``number`` messages and ``number`` docstrings of all modules below a directory."""
    found: tuple[list[Prose], list[Prose]] = ([], [])
    for file in sorted(directory.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found[0].extend(messages(tree, file))
        found[1].extend(docstrings(tree, file))
    choose = random.Random(seed)
    lines = []
    for title, texts in zip(("messages", "docstrings"), found, strict=True):
        chosen = sorted(choose.sample(texts, min(number, len(texts))))
        lines.append(f"== {len(chosen)} of {len(texts)} {title}, seed {seed}")
        lines += [f"{prose.place}: {' '.join(prose.text.split())}" for prose in chosen]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/sample_prose.py NUMBER SEED")
    print(sample(Path("reconciler"), int(sys.argv[1]), int(sys.argv[2])))
