"""``reconcile plan``: what a reconcile would change. Never runs code of the repository."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from reconciler.cli.context import Context, opened
from reconciler.cli.options import global_options
from reconciler.cli.views.listing import echo_data
from reconciler.cli.views.plan_text import cost_line, plan_lines, summary_line
from reconciler.cli.views.terminal_reporter import show_diagnostics
from reconciler.errors import ExitCode, InputError

if TYPE_CHECKING:  # the shell asks for completions at every key: what makes a plan is imported when used
    from reconciler.cli.planning import Planned


@click.command(name="plan", help="Show what a reconcile would change; runs no code of the repository.")
@click.option("--base", metavar="REV", help="Compare with this revision as if it were applied.")
@click.option("--head", metavar="REV", help="With --base: the revision to compare.  [default: --branch]")
@click.option("--out", metavar="FILE", help="Save the plan, for `reconcile apply FILE`.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are changes.")
@click.option("--allow-prune", is_flag=True, help="Plan as if the guards allowed everything.")
@global_options
def command(
    context: Context,
    *,
    base: str | None,
    head: str | None,
    out: str | None,
    exit_code: bool,
    allow_prune: bool,
) -> None:
    """Compare the revision with the store, or with another revision."""
    if base is None:
        if head is not None:
            raise InputError("--head goes with --base", hint="choose what is planned with --branch")
        sys.exit(show_plan(context, exit_code=exit_code, allow_prune=allow_prune, out=out))
    if out is not None:
        raise InputError(
            "--out does not go with --base: only a plan against the store can be applied",
            hint="save the plan without --base, once the branch is merged",
        )
    sys.exit(show_comparison(context, base, head, exit_code=exit_code, allow_prune=allow_prune))


def show_plan(context: Context, *, exit_code: bool, allow_prune: bool, out: str | None = None) -> int:
    """Print the plan, save it if asked for; return the exit code."""
    from reconciler.cli.planning import plan_revision
    from reconciler.cli.saved_plan import save
    from reconciler.loop import Session

    source = context.source()
    revision = source.revision()
    context.notice_uncommitted(source)
    with opened(context.state_dir(source, revision)) as store:
        with store.read() as view:
            counter = view.change_counter()  # before the plan: what moves meanwhile makes it stale
        session = Session(source, store, revision)
        planned = plan_revision(session, allow_prune=allow_prune)
        plan = planned.plan
        print_planned(context, planned)
        if out is not None and not plan.refusals:
            save(Path(out).expanduser(), session, planned, counter, allow_prune=allow_prune)
    if plan.refusals and out is not None:
        context.say("not saved, since a guard refuses it; if it is meant, add --allow-prune")
    elif out is not None:
        context.say(f"saved in {out}; apply it with: reconcile apply {out}")
    elif plan.refusals:
        context.say("refused by a guard; if this is meant: reconcile --once --allow-prune")
    elif plan.effective and context.options.output in ("table", "wide"):
        context.say("apply it with: reconcile --once")
    return _exit_code(planned, exit_code=exit_code)


def show_comparison(
    context: Context,
    base: str,
    head: str | None,
    *,
    exit_code: bool,
    allow_prune: bool,
    flows: Sequence[str] = (),
    advice: bool = True,
) -> int:
    """Print what one revision would change after another, and return the exit code.

    ``flows`` are globs: only what is done to such flows. ``advice`` are notes for whoever is about to merge.
    """
    from reconciler.cli.planning import plan_comparison

    source = context.source()
    if head is None:
        context.notice_uncommitted(source)
    planned = plan_comparison(context, source, base, head, allow_prune=allow_prune, flows=flows)
    if not advice:
        planned = msgspec.structs.replace(planned, notes=())
    print_planned(context, planned, compared=True)
    return _exit_code(planned, exit_code=exit_code)


def print_planned(context: Context, planned: Planned, *, compared: bool = False) -> None:
    """Print a plan in the form that is asked for."""
    plan, cost = planned.plan, planned.cost
    match context.options.output:
        case "json" | "yaml":
            from reconciler.cli.views.data import plan_data

            echo_data(context, plan_data(plan, cost))
        case "markdown":
            from reconciler.cli.views.markdown import plan_markdown

            click.echo(plan_markdown(plan, cost, planned.notes, compared=compared))
        case "name":
            for action in plan.effective:
                click.echo(action.key)
        case _:
            _print_text(context, planned, compared=compared)


def _print_text(context: Context, planned: Planned, *, compared: bool) -> None:
    show_diagnostics(context, planned.plan.diagnostics)
    for note in planned.notes:
        context.say(f"note: {note}")
    for line in plan_lines(context, planned.plan):
        click.echo(line)
    click.echo(summary_line(context, planned.plan, compared=compared))
    cost = cost_line(planned.cost)
    if cost is not None:
        click.echo(cost)


def _exit_code(planned: Planned, *, exit_code: bool) -> int:
    if planned.plan.has_errors:
        return ExitCode.USAGE
    if planned.plan.refusals:
        return ExitCode.REFUSED
    return ExitCode.NO if exit_code and planned.plan.effective else ExitCode.OK
