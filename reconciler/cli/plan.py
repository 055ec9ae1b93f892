"""``reconcile plan`` and ``reconcile diff``: what would change.

Neither runs code of the repository, except ``plan --build``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from reconciler.cli.context import Context, opened
from reconciler.cli.formats import emit
from reconciler.cli.live_names import complete_flow_selectors
from reconciler.cli.options import global_options
from reconciler.cli.views.plan_text import built_text, cost_line, plan_lines, summary_line
from reconciler.cli.views.terminal_reporter import show_diagnostics
from reconciler.errors import ExitCode, InputError

if TYPE_CHECKING:  # imported when used: shell completion runs this module at each press of the tab key
    from reconciler.cli.planning import Planned


@click.command(help="Show what a reconcile would change; without --build, runs no code of the repository.")
@click.option("--base", metavar="REV", help="Compare with this revision, as if it were applied.")
@click.option("--head", metavar="REV", help="With --base: the revision to compare.  [default: --branch]")
@click.option("--out", metavar="FILE", help="Save the plan for `reconcile apply FILE`.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are changes.")
@click.option("--allow-prune", is_flag=True, help="Plan as if the guards allowed everything.")
@click.option("--build", is_flag=True, help="Run the code of new and changed flows to show their jobs.")
@click.option("--full", is_flag=True, help="Compare everything, not only what may have changed.")
@global_options
def plan(
    context: Context,
    *,
    base: str | None,
    head: str | None,
    out: str | None,
    exit_code: bool,
    allow_prune: bool,
    build: bool,
    full: bool,
) -> None:
    """Compare the revision with the store, or with another revision."""
    if build and out is not None:
        raise InputError(
            "--out cannot be combined with --build: a saved plan is compared with one that runs no code",
            hint="review the plan with --build, then save it without",
        )
    if base is None:
        if head is not None:
            raise InputError("--head requires --base", hint="choose the revision to plan with --branch")
        code = show_plan(
            context, exit_code=exit_code, allow_prune=allow_prune, full=full, out=out, build=build
        )
        sys.exit(code)
    if out is not None:
        raise InputError(
            "--out cannot be combined with --base: only a plan against the store can be applied",
            hint="save the plan without --base, once the branch is merged",
        )
    code = _show_comparison(context, base, head, exit_code=exit_code, allow_prune=allow_prune, build=build)
    sys.exit(code)


@click.command(help="Show the plan from REV1 to REV2; FLOWS are selectors.")
@click.argument("base", metavar="REV1")
@click.argument("head", metavar="REV2")
@click.argument("flows", nargs=-1, shell_complete=complete_flow_selectors)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are differences.")
@global_options
def diff(context: Context, *, base: str, head: str, flows: tuple[str, ...], exit_code: bool) -> None:
    """Compare two revisions, in either direction. Nothing is applied, so guards refuse nothing."""
    code = _show_comparison(
        context, base, head, exit_code=exit_code, allow_prune=True, flows=flows, advice=False
    )
    sys.exit(code)


_RUNS_CODE = "note: --build runs the code of this repository, as your user, and submits nothing"


def show_plan(
    context: Context,
    *,
    exit_code: bool,
    allow_prune: bool,
    follow: bool = False,
    adopt: bool = False,
    full: bool = False,
    out: str | None = None,
    build: bool = False,
) -> int:
    """Print the plan of a reconcile, save it in ``out`` if given, and return the exit code.

    A plan for another branch than the one that the state follows has a note that says so; not with
    ``follow``, which is how such a plan is applied. ``adopt`` plans for a state of another repository.
    With ``full`` everything is compared, and checked against the usual plan. With ``build`` the code of flows
    that are not built yet is run; what it makes is shown and not kept.
    """
    from reconciler.cli.planning import plan_revision, plan_with_builds
    from reconciler.cli.saved_plan import save
    from reconciler.comparison import Comparison

    source = context.source()
    revision = source.revision()
    context.notice_uncommitted(source)
    with opened(context.state_dir(source, revision)) as store:
        with store.read() as view:
            counter = view.change_counter()  # read before planning: later changes make the plan stale
        comparison = Comparison(source, store, revision, follow=follow, adopt=adopt, full=full)
        if build:
            context.say(_RUNS_CODE)
            planned = plan_with_builds(comparison, allow_prune=allow_prune, say=context.say)
        else:
            planned = plan_revision(comparison, allow_prune=allow_prune)
        plan = planned.plan
        other = bool(planned.notes)
        print_planned(context, planned)
        if out is not None and not plan.refusals:
            save(Path(out).expanduser(), comparison, planned, counter, allow_prune=allow_prune)
    if plan.refusals and out is not None:
        context.say("not saved: a guard refuses this plan; to save it anyway, add --allow-prune")
    elif out is not None:
        context.say(f"saved in {out}; apply it with: reconcile apply {out}{' --follow' * other}")
    elif plan.refusals:
        context.say("refused by a guard; to apply it anyway: reconcile --once --allow-prune")
    elif plan.effective and context.options.output in ("table", "wide"):
        context.say(f"apply it with: reconcile --once{' --follow' * (other or follow)}{' --adopt' * adopt}")
    return _exit_code(planned, exit_code=exit_code)


def _show_comparison(
    context: Context,
    base: str,
    head: str | None,
    *,
    exit_code: bool,
    allow_prune: bool,
    flows: Sequence[str] = (),
    advice: bool = True,
    build: bool = False,
) -> int:
    """Print what ``head`` would change after ``base``, and return the exit code.

    ``flows`` are selectors that restrict the plan; ``advice`` adds notes for a branch that is about to be
    merged.
    """
    from reconciler.cli.planning import plan_comparison

    source = context.source()
    if head is None:
        context.notice_uncommitted(source)
    if build:
        context.say(_RUNS_CODE)
    planned = plan_comparison(context, source, base, head, allow_prune=allow_prune, flows=flows, build=build)
    if not advice:
        planned = msgspec.structs.replace(planned, notes=())
    print_planned(context, planned, compared=True)
    return _exit_code(planned, exit_code=exit_code)


def print_planned(context: Context, planned: Planned, *, compared: bool = False) -> None:
    """Print a plan in the format that ``-o`` selects; ``compared`` if it is between two revisions."""

    def data() -> object:
        from reconciler.cli.views.data import plan_data

        return plan_data(planned.plan, planned.cost, planned.built)

    def markdown() -> None:
        from reconciler.cli.views.markdown import plan_markdown

        notes = planned.notes
        if planned.built is not None:
            notes = (f"the code of the repository was run: {built_text(planned.built)}", *notes)
        click.echo(plan_markdown(planned.plan, planned.cost, notes, compared=compared))

    def text() -> None:
        show_diagnostics(context, planned.plan.diagnostics)
        for note in planned.notes:
            context.say(f"note: {note}")
        for line in plan_lines(context, planned.plan):
            click.echo(line)
        click.echo(summary_line(context, planned.plan, compared=compared))
        if planned.built is not None:
            click.echo(built_text(planned.built))
        cost = cost_line(planned.cost)
        if cost is not None:
            click.echo(cost)

    names = (action.key for action in planned.plan.effective)
    emit(context, data, text, names=lambda: names, markdown=markdown)


def _exit_code(planned: Planned, *, exit_code: bool) -> int:
    if planned.plan.has_errors:
        return ExitCode.USAGE
    if planned.plan.refusals:
        return ExitCode.REFUSED
    return ExitCode.NO if exit_code and planned.plan.effective else ExitCode.OK
