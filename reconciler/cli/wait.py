"""``reconcile wait``: wait until flows, jobs, workers or the source reach a state."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from reconciler.actual.state_dir import Lease
from reconciler.cli.context import Context
from reconciler.cli.following import looks
from reconciler.cli.formats import emit
from reconciler.cli.live_names import complete_selectors
from reconciler.cli.options import Duration, global_options
from reconciler.cli.streams import redraw_line
from reconciler.cli.views.listing import cut
from reconciler.cli.views.words import many
from reconciler.cli.wait_targets import RevisionGoal, Targets, read_goal
from reconciler.errors import ExitCode, InputError
from reconciler.model.goals import GoalKind, GoalVerdict, Prospect

_HELP = """Wait until every condition holds.

SELECTORs: FLOW and FLOW/JOB, both may be globs; a uuid; worker:NAME for the worker itself; label:KEY=VALUE,
flowset:SET and 'item.COLUMN>VALUE' for flows. Conditions, with --for:

\b
  healthy         flows: all jobs have completed (default for flows)
  completed       jobs, or all jobs of flows (default for jobs)
  synced          flows: as the last applied revision wants them
  idle            jobs, flows: nothing is running or could start
  state=STATE,... jobs, or all jobs of flows
  deleted         flows, jobs: gone, and the last job of the flow has ended
  revision=REV    REV or a descendant is applied; with flows: to these
  reachable       workers (their default)

Exit code 0: every condition holds. 1: timed out, or a condition cannot hold without your help. 2: a SELECTOR
matches nothing."""

_FEW = 10
_EXAMPLES = 3


@click.command(name="wait", help=_HELP, short_help="Wait until flows, jobs or workers reach a state.")
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1, shell_complete=complete_selectors)
@click.option("--for", "wanted", metavar="CONDITION", help="What to wait for, see above.")
@click.option("--timeout", type=Duration(), metavar="DURATION", help="How long.  [default: no limit]")
@global_options
def command(
    context: Context, *, selectors: tuple[str, ...], wanted: str | None, timeout: float | None
) -> None:
    """Wait; results go to stdout, what is missing to stderr."""
    goal = read_goal(wanted) if wanted is not None else None
    revision = None
    if goal is not None and goal.kind is GoalKind.REVISION:
        revision = RevisionGoal(goal.revision, context.source)
    if not selectors and revision is None:
        raise InputError("name what to wait for", hint="for all flows: `reconcile wait '*'`")
    targets = Targets(selectors, goal, revision)
    with context.store(must_exist=True, read_only=True) as store:
        progress = _Progress(context)
        verdicts: list[GoalVerdict] = []
        try:
            for number, verdicts in enumerate(looks(store, targets.verdicts, seconds=timeout)):
                prospects = {verdict.prospect for verdict in verdicts}
                if Prospect.NEVER in prospects or prospects == {Prospect.HOLDS}:
                    break
                if number == 0 and Lease(store.path).holder() is None:
                    context.say(
                        "note: no reconcile is running on this state, so nothing changes: start "
                        "`reconcile watch`, or run `reconcile --once --wait`"
                    )
                progress.show(verdicts)
        finally:
            progress.clear()
    sys.exit(_report(context, verdicts, timeout))


class _Progress:
    """A line on a terminal that shows what is missing."""

    def __init__(self, context: Context) -> None:
        self._on = sys.stderr.isatty() and not context.options.quiet
        self._shown = False

    def show(self, verdicts: Sequence[GoalVerdict]) -> None:
        """Draw the line, over the last one."""
        if self._on:
            import shutil

            hold = sum(verdict.prospect is Prospect.HOLDS for verdict in verdicts)
            line = f"{hold} of {len(verdicts)}; {_missing(verdicts, 1)}".replace("\n", " ")
            width = shutil.get_terminal_size().columns - 1
            redraw_line(cut(line, width))
            self._shown = True

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            redraw_line()


def _report(context: Context, verdicts: Sequence[GoalVerdict], timeout: float | None) -> ExitCode:
    """Print what holds, and what does not and why; return the exit code."""
    hold = [verdict for verdict in verdicts if verdict.prospect is Prospect.HOLDS]

    def text() -> None:
        if len(hold) > _FEW:
            click.echo(f"{many(len(hold), 'target')}: as wanted")
            return
        for verdict in hold:
            click.echo(f"{verdict.target}: {verdict.message}")

    emit(
        context,
        lambda: [{"target": v.target, "status": str(v.prospect), "message": v.message} for v in verdicts],
        text,
        names=lambda: (verdict.target for verdict in hold),
    )
    never = [verdict for verdict in verdicts if verdict.prospect is Prospect.NEVER]
    if never:
        context.say(f"stopped waiting, this cannot come without your help: {_missing(never, _EXAMPLES)}")
        return ExitCode.NO
    if len(hold) < len(verdicts):
        context.say(f"timed out after {timeout:g} s: {_missing(verdicts, _EXAMPLES)}")
        return ExitCode.NO
    return ExitCode.OK


def _missing(verdicts: Sequence[GoalVerdict], limit: int) -> str:
    found = [verdict for verdict in verdicts if verdict.prospect is not Prospect.HOLDS]
    texts = [f"{verdict.target}: {verdict.message}" for verdict in found[:limit]]
    return ", ".join(texts) + (f", and {len(found) - limit} more" if len(found) > limit else "")
