"""``reconcile diff``: what the plan from one revision to another is. Runs no code of the repository."""

from __future__ import annotations

import sys

import click

from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.plan import show_comparison


@click.command(name="diff", help="Show what the plan from REV1 to REV2 is; FLOWS are globs.")
@click.argument("base", metavar="REV1")
@click.argument("head", metavar="REV2")
@click.argument("flows", nargs=-1)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are differences.")
@global_options
def command(context: Context, *, base: str, head: str, flows: tuple[str, ...], exit_code: bool) -> None:
    """Compare two revisions, in either direction: nothing is applied, so no guard has a say."""
    code = show_comparison(
        context, base, head, exit_code=exit_code, allow_prune=True, flows=flows, advice=False
    )
    sys.exit(code)
