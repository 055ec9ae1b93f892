"""Listings: the same rows as table, JSON, YAML or bare names."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from reconciler.cli.context import Context

if TYPE_CHECKING:
    from reconciler.actual.view import View

Row = dict[str, Any]

_HEALTH_COLORS = {
    "Healthy": "green", "Degraded": "red", "Progressing": "cyan", "Suspended": "yellow",
    "COMPLETED": "green", "FAILED": "red", "REMOTE_ERROR": "red", "RUNNING": "cyan",
    "OutOfSync": "yellow", "Unknown": "yellow",
}  # fmt: skip


class Listing(msgspec.Struct, frozen=True):
    """What a verb lists: ``look`` finds the rows.

    For a table ``readable`` makes texts of the values of a row, ``columns`` chooses what is shown of such
    rows: always, and with ``-o wide`` as well. ``name`` is the field of ``-o name``, and names a row.
    """

    look: Callable[[View], list[Row]]
    columns: Callable[[Sequence[Row]], tuple[Sequence[str], Sequence[str]]]
    name: str
    readable: Callable[[Row], Row] = lambda row: row


def show_listing(context: Context, listing: Listing, rows: Sequence[Row]) -> None:
    """Print the rows of a listing in the format that ``-o`` asks for."""
    if is_table(context):
        rows = list(map(listing.readable, rows))
    show(context, rows, *listing.columns(rows), name=listing.name)


def is_table(context: Context) -> bool:
    """Whether the answer is for people."""
    return context.options.output in ("table", "wide")


def show(
    context: Context, rows: Sequence[dict[str, Any]], columns: Sequence[str], wide: Sequence[str], name: str
) -> None:
    """Print rows in the format that ``-o`` asks for.

    ``columns`` are the fields of a table, ``wide`` those added by ``-o wide``, ``name`` the one of
    ``-o name``.
    """
    match context.options.output:
        case "json" | "yaml":
            echo_data(context, rows)
        case "name":
            for row in rows:
                click.echo(row[name])
        case chosen:
            _table(context, rows, [*columns, *(wide if chosen == "wide" else [])])


def echo_data(context: Context, data: Any) -> None:
    """Print data for programs: as YAML with ``-o yaml``, otherwise as JSON."""
    if context.options.output == "yaml":
        click.echo(as_yaml(data), nl=False)
    else:
        click.echo(json.dumps(data, indent=2, default=str))


def as_yaml(value: Any) -> str:
    """Return data as YAML, ending with a line break."""
    from reconciler.desired.yaml.writer import dump

    return dump(json.loads(json.dumps(value, default=str)))


_GAP = "  "
_NARROWEST = 8


def _table(context: Context, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    if not rows:
        context.say("nothing to show")
    for line in table_lines(context, rows, columns):
        click.echo(line)


def table_lines(context: Context, rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Return aligned columns; on a terminal cut to its width, elsewhere complete. Without rows, nothing."""
    if not rows:
        return []
    cells, widths = _cells_and_widths(rows, columns)
    limit = terminal_width()
    widths = widths if limit is None else _fitted(widths, limit)
    return [_line(context, line, widths, header=number == 0) for number, line in enumerate(cells)]


class GrowingTable:
    """A table for a pipe, to which lines are added: columns only get wider."""

    def __init__(self, context: Context, columns: Sequence[str]) -> None:
        self._context = context
        self._columns = columns
        self._widths: list[int] = []

    def add(self, rows: Sequence[Row]) -> list[str]:
        """Return the lines of more rows, the first time with a header."""
        cells, widths = _cells_and_widths(rows, self._columns)
        old = self._widths or widths
        self._widths = [max(pair) for pair in zip(old, widths, strict=True)]
        lines = [_line(self._context, line, self._widths, header=n == 0) for n, line in enumerate(cells)]
        return lines if old is widths else lines[1:]


def _cells_and_widths(rows: Sequence[Row], columns: Sequence[str]) -> tuple[list[list[str]], list[int]]:
    header = [column.upper().replace("_", " ") for column in columns]
    cells = [header, *([cell_text(row[column]) for column in columns] for row in rows)]
    return cells, [max(map(display_width, column)) for column in zip(*cells, strict=True)]


def _line(context: Context, cells: Sequence[str], widths: Sequence[int], *, header: bool) -> str:
    texts = [_styled(context, cell, width, header=header) for cell, width in zip(cells, widths, strict=True)]
    return _GAP.join(texts).rstrip()


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
