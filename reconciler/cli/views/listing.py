"""Listings: the same rows as table, JSON, YAML or bare names."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from reconciler.cli.context import Context

_HEALTH_COLORS = {
    "Healthy": "green", "Degraded": "red", "Progressing": "cyan", "Suspended": "yellow",
    "COMPLETED": "green", "FAILED": "red", "REMOTE_ERROR": "red", "RUNNING": "cyan",
    "OutOfSync": "yellow", "Unknown": "yellow",
}  # fmt: skip


def show(
    context: Context, rows: Sequence[dict[str, Any]], columns: Sequence[str], wide: Sequence[str], name: str
) -> None:
    """Print rows in the format that ``-o`` asks for.

    ``columns`` are the fields of a table, ``wide`` those added by ``-o wide``, ``name`` the one of
    ``-o name``.
    """
    match context.options.output:
        case "json":
            click.echo(json.dumps(rows, indent=2, default=str))
        case "yaml":
            click.echo(as_yaml(rows), nl=False)
        case "name":
            for row in rows:
                click.echo(row[name])
        case chosen:
            _table(context, rows, [*columns, *(wide if chosen == "wide" else [])])


def as_yaml(value: Any) -> str:
    """Return data as YAML."""
    from reconciler.desired.yaml_writer import dump

    return dump(json.loads(json.dumps(value, default=str)))


def as_json(value: Any) -> str:
    """Return data as JSON."""
    return json.dumps(value, indent=2, default=str)


_GAP = "  "
_NARROWEST = 8


def _table(context: Context, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Aligned columns; on a terminal cut to its width, elsewhere complete."""
    if not rows:
        context.say("nothing to show")
        return
    header = [column.upper().replace("_", " ") for column in columns]
    cells = [header, *([cell_text(row[column]) for column in columns] for row in rows)]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    limit = terminal_width()
    widths = widths if limit is None else _fitted(widths, limit)
    for number, line in enumerate(cells):
        texts = [
            _styled(context, cell, width, header=number == 0)
            for cell, width in zip(line, widths, strict=True)
        ]
        click.echo(_GAP.join(texts).rstrip())


def terminal_width() -> int | None:
    """Return the width of the terminal that stdout is; None if it is none."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def _fitted(widths: list[int], limit: int) -> list[int]:
    """Take from the widest columns until the line fits; if that cannot be, drop columns at the right."""
    room = limit - len(_GAP) * (len(widths) - 1)
    if sum(min(width, _NARROWEST) for width in widths) > room:
        return _dropped(widths, limit)
    while sum(widths) > room and max(widths) > _NARROWEST:
        widest = max(widths)
        second = max((width for width in widths if width < widest), default=0)
        share = -(-(sum(widths) - room) // widths.count(widest))
        less = max(_NARROWEST, second, widest - share)
        widths = [less if width == widest else width for width in widths]
    return widths


def _dropped(widths: list[int], limit: int) -> list[int]:
    shown: list[int] = []
    for width in widths:
        left = limit - sum(shown) - len(_GAP) * len(shown)
        shown.append(max(0, min(width, left)))
    return shown


def _styled(context: Context, cell: str, width: int, *, header: bool) -> str:
    text = cut(cell, width)
    padding = " " * (width - display_width(text))
    if header:
        return context.style(text, bold=True) + padding
    color = _HEALTH_COLORS.get(cell)
    return (context.style(text, fg=color) if color else text) + padding


def cut(text: str, width: int) -> str:
    """Return the text, shortened to a width if it is longer."""
    if display_width(text) <= width:
        return text
    while text and display_width(text) > width - 1:
        text = text[: max(0, min(len(text) - 1, width - 1))]
    return f"{text}…" if width > 0 else ""


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(1 for character in text if unicodedata.east_asian_width(character) in "WF")
    return len(text) + wide - sum(1 for character in text if unicodedata.combining(character))


def cell_text(value: Any) -> str:
    """Return a value as people read it, on one line."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict():
            return " ".join(f"{key}={cell_text(inner)}" for key, inner in value.items()) or "{}"
        case list():
            return ", ".join(map(cell_text, value)) or "-"
    return str(value).replace("\n", " ")
