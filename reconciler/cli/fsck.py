"""``reconcile fsck``: is the state what it should be? And what can be made again, is."""

from __future__ import annotations

import sys
import time

import click

from reconciler.actual.state_dir import Lease
from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.views.checks_text import fsck_data, show_report
from reconciler.cli.views.listing import echo_data
from reconciler.errors import ExitCode


@click.command(name="fsck", help="Check every invariant of the state. Exit code 1: something is wrong.")
@click.option("--repair", is_flag=True, help="Make indexes and the like again; needs the lease.")
@global_options
def command(context: Context, *, repair: bool) -> None:
    """Check, repair if asked to, and show what was found and what is left."""
    from reconciler.actual.fsck import examine

    with context.store(must_exist=True, read_only=not repair) as store:
        if repair:
            with Lease(store.path) as lease:
                lease.acquire(time.time())
                found = examine.repair(store)
        else:
            with store.read() as view:
                found = examine.examine(view)
        left = found
        if repair:
            with store.read() as view:
                left = examine.examine(view)
    if context.options.output in ("json", "yaml"):
        echo_data(context, fsck_data(found, left))
    else:
        show_report(context, found, left)
    sys.exit(ExitCode.NO if left.problems else ExitCode.OK)
