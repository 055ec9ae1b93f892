"""A listing that goes on: a table that lives on a terminal, the rows that change in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.context import Context, mute_stdout
from reconciler.cli.following import looks
from reconciler.cli.views.listing import GrowingTable, Listing, Row, as_yaml, is_table, table_lines

if TYPE_CHECKING:
    from reconciler.actual.store import Store

_REFRESH = 1.0
"""Seconds after which times like ``in 40 s`` are drawn anew."""


def follow(context: Context, store: Store, listing: Listing) -> None:
    """Show a listing as it changes, until Ctrl-C; that is how one ends it, so it is no failure."""
    try:
        if is_table(context) and sys.stdout.isatty():
            _follow_live(context, store, listing)
        else:
            _follow_rows(context, store, listing)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        mute_stdout()


def _follow_live(context: Context, store: Store, listing: Listing) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(no_color=not context.colored(), highlight=False)
    # The terminal may be given another size at any time: so each picture is made to its measure.
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for rows in looks(store, listing.look, refresh=_REFRESH):
            lines = _picture(context, listing, rows, console.size.height)
            text = Text("\n", no_wrap=True, overflow="crop").join(map(Text.from_ansi, lines))
            live.update(text, refresh=True)


def _picture(context: Context, listing: Listing, rows: Sequence[Row], height: int) -> list[str]:
    """Return the lines of a table that fits into so many lines, with how many rows it leaves out."""
    texts = list(map(listing.readable, rows))
    narrow, wide = listing.columns(texts)
    columns = [*narrow, *(wide if context.options.output == "wide" else ())]
    lines = table_lines(context, texts, columns) or ["nothing to show yet"]
    room = max(2, height - 1)
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"and {len(lines) - room + 1} more: the terminal is too low"]


def _follow_rows(context: Context, store: Store, listing: Listing) -> None:
    """Print each row, and again when anything of it has changed."""
    known: dict[Any, Row] = {}
    printer = _Printer(context, listing)
    for rows in looks(store, listing.look):
        fresh = {_identity(row, listing.name): row for row in rows}
        printer.print([row for key, row in fresh.items() if known.get(key) != row])
        for key in known.keys() - fresh.keys():
            context.say(f"{key[0]} is gone")
        known = fresh


def _identity(row: Row, name: str) -> tuple[Any, ...]:
    """Two jobs may have one key, a generation and its successor."""
    return row[name], row.get("uuid"), row.get("index")


class _Printer:
    """Prints rows as they come, in the form that ``-o`` asks for: JSON as one object a line."""

    def __init__(self, context: Context, listing: Listing) -> None:
        self._form = context.options.output
        self._listing = listing
        self._context = context
        self._table: GrowingTable | None = None

    def print(self, rows: Sequence[Row]) -> None:
        """Print some rows, if there are any."""
        for line in self._lines(rows) if rows else ():
            click.echo(line)

    def _lines(self, rows: Sequence[Row]) -> list[str]:
        match self._form:
            case "json":
                return [json.dumps(row, default=str) for row in rows]
            case "yaml":
                return [f"---\n{as_yaml(row).rstrip()}" for row in rows]
            case "name":
                return [str(row[self._listing.name]) for row in rows]
        texts = list(map(self._listing.readable, rows))
        if self._table is None:  # the columns are chosen once: lines below each other are one table
            narrow, wide = self._listing.columns(texts)
            self._table = GrowingTable(self._context, [*narrow, *(wide if self._form == "wide" else ())])
        return self._table.add(texts)
