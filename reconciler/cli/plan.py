"""``reconcile plan``: what a reconcile would change. Never runs code of the repository."""

from __future__ import annotations

import sys

import click

from reconciler.cli.context import Context, opened
from reconciler.cli.options import global_options
from reconciler.cli.views.diagnostics import show_diagnostics
from reconciler.cli.views.listing import as_json, as_yaml
from reconciler.cli.views.plan_text import plan_lines, summary_line
from reconciler.errors import ExitCode


@click.command(name="plan", help="Show what a reconcile would change; runs no code of the repository.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are changes.")
@click.option("--allow-prune", is_flag=True, help="Plan as if the guards allowed everything.")
@global_options
def command(context: Context, *, exit_code: bool, allow_prune: bool) -> None:
    """Compare the revision with the store."""
    sys.exit(show_plan(context, exit_code=exit_code, allow_prune=allow_prune))


def show_plan(context: Context, *, exit_code: bool, allow_prune: bool) -> int:
    """Print the plan; return the exit code."""
    from reconciler.cli.views.data import plan_data
    from reconciler.loop import Session

    source = context.source()
    revision = source.revision()
    context.notice_uncommitted(source)
    with opened(context.state_dir(source, revision)) as store:
        session = Session(source, store, revision)
        plan = session.plan(session.load(), allow_prune=allow_prune)
    if context.options.output in ("json", "yaml"):
        click.echo((as_json if context.options.output == "json" else as_yaml)(plan_data(plan)))
    elif context.options.output == "name":
        for action in plan.effective:
            click.echo(action.key)
    else:
        show_diagnostics(context, plan.diagnostics)
        for line in plan_lines(context, plan):
            click.echo(line)
        click.echo(summary_line(context, plan))
        if plan.effective and not plan.refusals:
            context.say("apply it with: reconcile --once")
    if plan.has_errors:
        return ExitCode.USAGE
    if plan.refusals:
        return ExitCode.REFUSED
    return ExitCode.NO if exit_code and plan.effective else ExitCode.OK
