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


def _table(context: Context, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Aligned columns; on a terminal cut to its width, elsewhere complete."""
    if not rows:
        context.say("nothing to show")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper().replace("_", " "), no_wrap=True)
    for row in rows:
        cells = [_cell(row[column]) for column in columns]
        table.add_row(*(Text(cell, style=_HEALTH_COLORS.get(cell, "")) for cell in cells))
    width = None if sys.stdout.isatty() else 100_000
    console = Console(width=width, no_color=not context.colored(), force_terminal=context.colored())
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{key}={inner}" for key, inner in value.items()) or "{}"
    return str(value).replace("\n", " ")
