"""Listings: the same rows as a table, JSON, YAML or bare names, printed once or followed (``--watch``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from reconciler.cli.context import Context
from reconciler.cli.following import looks
from reconciler.cli.formats import as_json, as_yaml, emit
from reconciler.cli.streams import Controlling, stdout_is_abandoned
from reconciler.cli.views.words import one_line
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError

if TYPE_CHECKING:
    from reconciler.actual.store import Store
    from reconciler.actual.view import View

Row = dict[str, Any]

_COLORS = {
    "Healthy": "green", "Degraded": "red", "Progressing": "cyan", "Suspended": "yellow",
    "COMPLETED": "green", "FAILED": "red", "REMOTE_ERROR": "red", "RUNNING": "cyan",
    "OutOfSync": "yellow", "Unknown": "yellow",
}  # fmt: skip


class Listing(msgspec.Struct, frozen=True):
    """A kind of rows and how to show them.

    ``look`` reads the rows from the store. For a table ``readable`` turns the values of a row into short
    texts, and ``columns`` chooses the columns: those always shown, and those that ``-o wide`` adds. ``name``
    is the field that identifies a row, and the one that ``-o name`` prints.
    """

    look: Callable[[View], list[Row]]
    columns: Callable[[Sequence[Row]], tuple[Sequence[str], Sequence[str]]]
    name: str
    readable: Callable[[Row], Row] = lambda row: row
    headers: bool = True

    def arranged(self, columns: str | None, sort_by: str | None, *, headers: bool) -> Listing:
        """Return the listing with other columns (``a,b.c``), in another order (``a``, or ``-a`` for the
        largest first), or without headers.

        Columns are fields of the rows as ``-o json`` has them; ``b.c`` is the entry ``c`` of the field ``b``.
        The rows of ``look`` get these entries as fields of their own.

        Raises
        ------
        InputError
            When the rows are read: they do not have such a field.
        """
        wanted = [column.strip() for column in columns.split(",")] if columns else []
        key = (sort_by or "").removeprefix("-")

        def look(view: View) -> list[Row]:
            rows = self.look(view)
            for field in filter(None, (*wanted, key)):
                _add_field(rows, field)
            if key:
                known = [row for row in rows if row[key] is not None]
                known.sort(key=lambda row: _sort_key(row[key]), reverse=sort_by != key)
                rows = known + [row for row in rows if row[key] is None]
            return rows

        chosen = (lambda rows: (wanted, ())) if wanted else self.columns
        return msgspec.structs.replace(self, look=look, columns=chosen, headers=headers)


def _add_field(rows: Sequence[Row], field: str) -> None:
    """Give each row the field ``a.b`` as a value of its own. Raises InputError if no row can have it."""
    first, dot, rest = field.partition(".")
    for row in rows[:1]:
        if first not in row or (dot and not isinstance(row[first], (dict, type(None)))):
            hint = did_you_mean(field, list(row)) or f"one of: {', '.join(row)}"
            raise InputError(f"there is no column '{field}'", hint=hint)
    for row in rows:
        if dot and field not in row:
            inner = row[first]
            row[field] = inner.get(rest) if isinstance(inner, dict) else None


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Order numbers before texts, and everything else by its text."""
    is_number = isinstance(value, (int, float))
    return not is_number, value if is_number else str(value)


def show_listing(context: Context, listing: Listing, rows: Sequence[Row]) -> None:
    """Print the rows of a listing in the format of ``-o``."""
    if is_table(context):
        rows = list(map(listing.readable, rows))
    show(context, rows, *listing.columns(rows), name=listing.name, headers=listing.headers)


def is_table(context: Context) -> bool:
    """Return whether the output is for people, not for programs."""
    return context.options.output in ("table", "wide")


def show(
    context: Context,
    rows: Sequence[Row],
    columns: Sequence[str],
    wide: Sequence[str],
    name: str,
    *,
    headers: bool = True,
) -> None:
    """Print rows in the format of ``-o``.

    ``columns`` are the fields of a table, ``wide`` those that ``-o wide`` and ``-o csv`` add, ``name`` is the
    field that ``-o name`` prints.
    """

    def text() -> None:
        if not rows:
            context.say("nothing to show")
        wanted = [*columns, *(wide if context.options.output == "wide" else [])]
        for line in table_lines(context, rows, wanted)[0 if headers else 1 :]:
            click.echo(line)

    def csv() -> None:
        import csv
        import io

        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        every = [*columns, *wide]
        if headers:
            writer.writerow(every)
        for row in rows:
            values = (row[column] for column in every)
            writer.writerow(
                as_json(value, indent=None) if isinstance(value, (dict, list)) else value for value in values
            )
        click.echo(buffer.getvalue(), nl=False)

    emit(context, lambda: rows, text, names=lambda: (row[name] for row in rows), csv=csv)


# tables ---------------------------------------------------------------------------------------------------

_GAP = "  "
_NARROWEST = 8
"""Columns of the terminal; no column of a table is narrowed further."""


def table_lines(context: Context, rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Return aligned lines with a header, cut to the width of the terminal if stdout is one.

    Without rows there is no header either.
    """
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
    texts = []
    for cell, width in zip(cells, widths, strict=True):
        text = cut(cell, width)
        padding = " " * (width - display_width(text))
        color = None if header else _COLORS.get(cell)
        texts.append((context.style(text, bold=header, fg=color) if header or color else text) + padding)
    return _GAP.join(texts).rstrip()


def terminal_width() -> int | None:
    """Return the number of columns of the terminal that stdout is; None if it is not a terminal."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def _fitted(widths: list[int], limit: int) -> list[int]:
    """Return narrower columns, the widest ones first, so that a line fits into ``limit``.

    If even the narrowest columns do not fit, those at the right are cut off.
    """
    room = limit - len(_GAP) * (len(widths) - 1)
    if sum(min(width, _NARROWEST) for width in widths) > room:
        shown: list[int] = []
        for width in widths:
            left = limit - sum(shown) - len(_GAP) * len(shown)
            shown.append(max(0, min(width, left)))
        return shown
    while sum(widths) > room and max(widths) > _NARROWEST:
        widest = max(widths)
        second = max((width for width in widths if width < widest), default=0)
        share = -(-(sum(widths) - room) // widths.count(widest))
        less = max(_NARROWEST, second, widest - share)
        widths = [less if width == widest else width for width in widths]
    return widths


def cut(text: str, width: int) -> str:
    """Return text that is at most ``width`` columns wide; where something is cut off it ends with ``…``."""
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
    """Return a value for people, on one line."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict():
            return " ".join(f"{key}={cell_text(inner)}" for key, inner in value.items()) or "{}"
        case list():
            return ", ".join(map(cell_text, value)) or "-"
    return one_line(str(value))


# --watch --------------------------------------------------------------------------------------------------

_REFRESH = 1.0
"""Seconds after which a live table redraws times such as ``in 40 s``."""


def follow(context: Context, store: Store, listing: Listing) -> None:
    """Show a listing as it changes until Ctrl-C, which is the normal end and not a failure."""
    try:
        if is_table(context) and sys.stdout.isatty():
            _follow_on_terminal(context, store, listing)
        else:
            _follow_in_pipe(context, store, listing)
    except KeyboardInterrupt:
        return


def _follow_on_terminal(context: Context, store: Store, listing: Listing) -> None:
    """Redraw one table, with as many rows as the terminal has room for."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    # Each cell went through one_line, so only the table itself moves the cursor.
    stream: Any = Controlling(sys.stdout)
    console = Console(file=stream, no_color=not context.colored(), highlight=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for rows in looks(store, listing.look, refresh=_REFRESH):
            texts = list(map(listing.readable, rows))
            lines = table_lines(context, texts, _columns(context, listing, texts)) or ["nothing to show yet"]
            # The size is read again each time: the terminal may have been resized.
            room = max(2, console.size.height - 1)
            if len(lines) > room:
                hidden = len(lines) - room + 1
                lines = [*lines[: room - 1], f"and {hidden} more: the terminal is not high enough"]
            text = Text("\n", no_wrap=True, overflow="crop").join(map(Text.from_ansi, lines))
            live.update(text, refresh=True)


def _follow_in_pipe(context: Context, store: Store, listing: Listing) -> None:
    """Print each row, and again when any field of it has changed. JSON is one object per line."""

    def identity(row: Row) -> tuple[Any, ...]:
        # Two jobs can have the same key: a superseded one and its successor.
        return row[listing.name], row.get("uuid"), row.get("index")

    known: dict[tuple[Any, ...], Row] = {}
    table: GrowingTable | None = None
    for rows in looks(store, listing.look):
        fresh = {identity(row): row for row in rows}
        changed = [row for key, row in fresh.items() if known.get(key) != row]
        lines: list[str] = []
        match context.options.output:
            case "json":
                lines = [as_json(row, indent=None) for row in changed]
            case "yaml":
                lines = [f"---\n{as_yaml(row).rstrip()}" for row in changed]
            case "name":
                lines = [str(row[listing.name]) for row in changed]
            case _ if changed:
                texts = list(map(listing.readable, changed))
                if table is None:  # the columns are chosen once, so that all lines are one table
                    table = GrowingTable(context, _columns(context, listing, texts))
                lines = table.add(texts)
        for line in lines:
            click.echo(line)
        if stdout_is_abandoned():
            return
        for key in known.keys() - fresh.keys():
            context.say(f"{key[0]} is gone")
        known = fresh


def _columns(context: Context, listing: Listing, texts: Sequence[Row]) -> list[str]:
    narrow, wide = listing.columns(texts)
    return [*narrow, *(wide if context.options.output == "wide" else ())]
