"""``reconcile backup``: the whole state in one file, also while a reconcile runs."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.views.words import contents_text
from reconciler.doctor.check import space_text


@click.command(name="backup", help="Copy the state to FILE: one moment of it, also while a reconcile runs.")
@click.argument("file", metavar="FILE")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@global_options
def command(context: Context, *, file: str, force: bool) -> None:
    """Write a backup, and say what is in it."""
    from reconciler.actual.backup import contents_of, save_copy

    target = Path(file).expanduser()
    with context.store(must_exist=True, read_only=True) as store:
        size = save_copy(store, target, overwrite=force)
        with store.read() as view:  # what came in meanwhile may be counted, but is not in the file
            contents = contents_of(view)
    click.echo(f"{target}: {contents_text(contents)}, {space_text(size)}")
