"""``reconcile wait``: until flows, jobs, workers or the source are as somebody wants them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from reconciler.actual.state_dir import Lease
from reconciler.cli.context import Context
from reconciler.cli.following import looks
from reconciler.cli.options import global_options
from reconciler.cli.views.listing import cut, echo_data
from reconciler.cli.views.words import many
from reconciler.cli.wait_targets import RevisionGoal, Waiting, read_goal
from reconciler.errors import ExitCode, InputError
from reconciler.model.goals import Goal, GoalKind, GoalVerdict, Prospect

_HELP = """Wait until all of it is so.

SELECTORs: FLOW and FLOW/JOB, both may be globs; a uuid; worker:NAME. What to wait for, with --for:

\b
  healthy         flows: all jobs have completed (the default of flows)
  completed       jobs, or all jobs of flows (the default of jobs)
  synced          flows: as the last applied revision wants them
  idle            jobs, flows: nothing runs and nothing could
  state=STATE,... jobs, or all jobs of flows
  deleted         flows, jobs: gone, with the last job of the flow ended
  revision=REV    REV or one that follows it is applied; with flows: to these
  reachable       workers (their default)

Exit code 0: all of it is so. 1: the time is over, or it can never be so unless somebody does something. 2: a
SELECTOR names nothing."""

_FEW = 10
_EXAMPLES = 3


@click.command(name="wait", help=_HELP, short_help="Wait until flows, jobs or workers are as you say.")
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--for", "wanted", metavar="WHAT", help="What to wait for, see above.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="How long.  [default: no limit]"
)
@global_options
def command(
    context: Context, *, selectors: tuple[str, ...], wanted: str | None, timeout: float | None
) -> None:
    """Wait; the answer is on stdout, what is missing on stderr."""
    goal = read_goal(wanted) if wanted is not None else None
    revision = _revision(context, goal)
    if not selectors and revision is None:
        raise InputError("name what to wait for", hint="all flows: `reconcile wait '*'`")
    waiting = Waiting(selectors, goal, revision)
    with context.store(must_exist=True, read_only=True) as store:
        progress = _Progress(context)
        verdicts: list[GoalVerdict] = []
        try:
            for number, verdicts in enumerate(looks(store, waiting.verdicts, seconds=timeout)):
                if _is_decided(verdicts):
                    break
                if number == 0:
                    _note_nobody(context, Lease(store.path))
                progress.show(verdicts)
        finally:
            progress.clear()
    sys.exit(_answer(context, verdicts, timeout))


def _revision(context: Context, goal: Goal | None) -> RevisionGoal | None:
    if goal is None or goal.kind is not GoalKind.REVISION:
        return None
    return RevisionGoal(goal.revision, context.source)


def _is_decided(verdicts: Sequence[GoalVerdict]) -> bool:
    prospects = {verdict.prospect for verdict in verdicts}
    return Prospect.NEVER in prospects or prospects == {Prospect.HOLDS}


def _note_nobody(context: Context, lease: Lease) -> None:
    if lease.holder() is None:
        context.say(
            "note: no reconcile is at work on this state, so nothing changes: start `reconcile watch`, "
            "or run `reconcile --once --wait`"
        )


class _Progress:
    """A line on a terminal that tells what is missing."""

    def __init__(self, context: Context) -> None:
        self._on = sys.stderr.isatty() and not context.options.quiet
        self._shown = False

    def show(self, verdicts: Sequence[GoalVerdict]) -> None:
        """Draw the line anew."""
        if self._on:
            import shutil

            hold = sum(verdict.prospect is Prospect.HOLDS for verdict in verdicts)
            line = f"{hold} of {len(verdicts)}; {_missing(verdicts, 1)}".replace("\n", " ")
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{cut(line, width)}", err=True, nl=False)
            self._shown = True

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def _answer(context: Context, verdicts: Sequence[GoalVerdict], timeout: float | None) -> ExitCode:
    _print(context, verdicts)
    never = [verdict for verdict in verdicts if verdict.prospect is Prospect.NEVER]
    if never:
        context.say(f"not waiting on, this does not come by itself: {_missing(never, _EXAMPLES)}")
        return ExitCode.NO
    if any(verdict.prospect is not Prospect.HOLDS for verdict in verdicts):
        context.say(f"timed out after {timeout:g} s: {_missing(verdicts, _EXAMPLES)}")
        return ExitCode.NO
    return ExitCode.OK


def _print(context: Context, verdicts: Sequence[GoalVerdict]) -> None:
    """Print what has come, for people only if it is not too much of it."""
    if context.options.output in ("json", "yaml"):
        data = [{"target": v.target, "status": str(v.prospect), "message": v.message} for v in verdicts]
        echo_data(context, data)
        return
    hold = [verdict for verdict in verdicts if verdict.prospect is Prospect.HOLDS]
    if context.options.output == "name":
        lines = [verdict.target for verdict in hold]
    elif len(hold) > _FEW:
        lines = [f"{many(len(hold), 'target')}: as wanted"]
    else:
        lines = [f"{verdict.target}: {verdict.message}" for verdict in hold]
    for line in lines:
        click.echo(line)


def _missing(verdicts: Sequence[GoalVerdict], limit: int) -> str:
    found = [verdict for verdict in verdicts if verdict.prospect is not Prospect.HOLDS]
    texts = [f"{verdict.target}: {verdict.message}" for verdict in found[:limit]]
    return ", ".join(texts) + (f", and {len(found) - limit} more" if len(found) > limit else "")
