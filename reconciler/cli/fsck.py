"""``reconcile fsck``: check the invariants of the state, and repair what can be rebuilt."""

from __future__ import annotations

import sys
import time

import click

from reconciler.actual.state_dir import Lease
from reconciler.cli.context import Context
from reconciler.cli.formats import emit
from reconciler.cli.options import global_options
from reconciler.cli.views.checks_text import fsck_data, show_report
from reconciler.errors import ExitCode


@click.command(name="fsck", help="Check every invariant of the state. Exit code 1: there are problems.")
@click.option("--repair", is_flag=True, help="Rebuild indexes and other derived data; needs the lease.")
@global_options
def command(context: Context, *, repair: bool) -> None:
    """Check the state, repair it on request, and print the problems found and those that remain."""
    from reconciler.actual.fsck import examine

    with context.store(must_exist=True, read_only=not repair) as store:
        if repair:
            with Lease(store.path) as lease:
                lease.acquire(time.time())
                found = examine.repair(store, time.time())
        with store.read() as view:
            left = examine.examine(view)
    if not repair:
        found = left
    emit(context, lambda: fsck_data(found, left), lambda: show_report(context, found, left))
    sys.exit(ExitCode.NO if left.problems else ExitCode.OK)
