"""``reconcile apply``: carry out a plan that was saved and looked at, or nothing at all."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click

from reconciler.cli.context import Context, opened
from reconciler.cli.options import global_options
from reconciler.errors import InputError


@click.command(name="apply", help="Apply a plan that `reconcile plan --out` saved, unless it is stale.")
@click.argument("file", metavar="PLAN")
@click.option("--wait", is_flag=True, help="Go on until nothing is running.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: how long.")
@global_options
def command(context: Context, file: str, *, wait: bool, timeout: float | None) -> None:
    """Apply a saved plan."""
    if timeout is not None and not wait:
        raise InputError("--timeout goes with --wait")
    limit = (math.inf if timeout is None else timeout) if wait else None
    sys.exit(apply_file(context, Path(file).expanduser(), limit))


def apply_file(context: Context, file: Path, limit: float | None) -> int:
    """Apply the plan of a file; return the exit code, as of ``reconcile --once``.

    Raises
    ------
    InputError
        The file is no saved plan.
    RefusedError
        The plan is stale, or for something else.
    """
    from reconciler.cli.once import reconcile_pass
    from reconciler.cli.saved_plan import check_holds, check_source, read
    from reconciler.loop import Session

    saved = read(file)
    if context.options.branch not in (None, saved.branch):
        raise InputError(
            f"the plan is for branch {saved.branch}, not {context.options.branch}", hint="leave --branch out"
        )
    source = context.source()
    source.branch, source.path = saved.branch, saved.path
    check_source(saved, source)
    with opened(context.state_dir(source, saved.revision), context.say) as store:
        session = Session(source, store, saved.revision)
        return reconcile_pass(
            context, session, limit, allow_prune=saved.allow_prune, check=lambda: check_holds(saved, session)
        )
