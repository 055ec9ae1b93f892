"""The commands that act on jobs: ``retry``, ``rerun``, ``pause``, ``resume``, ``cancel`` and so on."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from reconciler.actual.daemon_requests import Requests
from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.cli.context import Context, user_identity
from reconciler.cli.formats import emit
from reconciler.cli.job_selectors import JobFinder, read_words
from reconciler.cli.live_names import complete_selectors
from reconciler.cli.options import global_options
from reconciler.cli.views.operation_text import (
    left_alone_line,
    refusal_lines,
    step_lines,
    summary_line,
    verb_data,
)
from reconciler.cli.views.words import many
from reconciler.errors import ExitCode
from reconciler.jobs.operations import OperationRunner
from reconciler.model.manifests import Kind, Manifest
from reconciler.model.operations import Effect, JobOperation
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState
from reconciler.plan.operations import OperationPlan, OperationPlanner

_HELP = """{purpose}

{accepts}

SELECTORs are names and filters. Names: FLOW for all its jobs, FLOW/JOB (globs work in both, as in
'eos-*/relax*'), a uuid or uuid_index. Filters: state:FAILED,REMOTE_ERROR, worker:NAME, flow:LABEL=VALUE,
flowset:SET, and 'item.COLUMN>VALUE' for flows of a FlowSet (also >= < <= = !=; = and != take globs).
A job is selected if it matches one of the names (if you give any), one of the filters of each kind, and
every condition on its item.
{reach}

Jobs in other states are left alone. Exit code 4: no selected job was in a suitable state, a job that you
named exactly (FLOW/JOB or uuid) was not, or the operation was refused for another reason."""

_CURRENT_ONLY = "Globs never select superseded jobs."


class _Help(NamedTuple):
    """What ``--help`` says of one operation: its purpose, the states that it accepts, what globs reach."""

    purpose: str
    accepts: str
    reach: str = _CURRENT_ONLY
    descendants: bool = False


_OPERATIONS = {
    JobOperation.RETRY: _Help(
        "Run failed jobs again.",
        "Accepts FAILED and REMOTE_ERROR. Each job gets a new attempt in a directory of its own, with its "
        "current run config. A job that waits for an automatic retry starts now.",
    ),
    JobOperation.RERUN: _Help(
        "Run jobs again, whatever their result.",
        "Accepts COMPLETED, FAILED, REMOTE_ERROR, STOPPED, USER_STOPPED and active jobs; an active job is "
        "cancelled first and starts again once its old attempt has ended. An output is kept until there is a "
        "new one. Finished jobs that depend on the job keep their results unless you give "
        "--with-descendants; while one of them is active, the job is refused. Jobs that the job had "
        "generated become history.",
        descendants=True,
    ),
    JobOperation.PAUSE: _Help(
        "Keep jobs from starting.",
        "Accepts READY and WAITING jobs, and failed jobs that wait for an automatic retry. They stay PAUSED "
        "until `reconcile resume`.",
    ),
    JobOperation.RESUME: _Help(
        "Allow paused jobs to start.", "Accepts PAUSED jobs, unless spec.suspend suspends their flow."
    ),
    JobOperation.CANCEL: _Help(
        "End jobs, or keep them from starting.",
        "Accepts jobs that have not ended: active jobs are ended on their worker, the others never start. "
        "They become USER_STOPPED; `reconcile rerun` brings them back. A failed job that waits for an "
        "automatic retry is not retried and keeps its state.",
    ),
    JobOperation.FORGET: _Help(
        "Delete records and outputs of superseded jobs.",
        "Accepts jobs that have ended and belong to no flow any more: jobs that newer content or a rerun has "
        "replaced, and jobs of flows that were removed from git. Run directories stay.",
        reach="Globs select only such jobs, never a job of a flow that git still has.",
    ),
    JobOperation.ABANDON: _Help(
        "Stop waiting for attempts on a worker that does not answer.",
        "Accepts active jobs, whose attempt counts as lost from now on, and jobs that wait because an "
        "earlier attempt may still run. Make sure that nothing of these attempts runs any more: otherwise "
        "the job runs twice.",
    ),
}

_STARTS_OR_ENDS = frozenset(
    {
        Effect.AGAIN,
        Effect.CANCEL_THEN_AGAIN,
        Effect.CANCEL,
        Effect.RESUME,
        Effect.SUPERSEDE,
        Effect.ABANDON,
    }
)
"""The effects that a reconcile completes: it starts or ends the jobs."""


def _command(operation: JobOperation) -> click.Command:
    about = _OPERATIONS[operation]

    @click.argument(
        "selectors", metavar="SELECTOR...", nargs=-1, required=True, shell_complete=complete_selectors
    )
    @click.option("--dry-run", is_flag=True, help="Show what would happen and change nothing.")
    @click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    @global_options
    def run(context: Context, **given: Any) -> None:
        sys.exit(_run(context, operation, now=time.time(), **given))

    if about.descendants:
        run = click.option(
            "--with-descendants", "descendants", is_flag=True,
            help="Also run every job that depends on these again, in any flow; active ones are cancelled.",
        )(run)  # fmt: skip
    text = _HELP.format(**about._asdict())
    return click.command(name=operation, help=text, short_help=about.purpose)(run)


class PlannedOperation:
    """An operation on the jobs that selectors name: planned first, then carried out in one transaction.

    Raises
    ------
    InputError
        A selector is wrong.
    """

    def __init__(
        self, store: Store, operation: JobOperation, selectors: Sequence[str], *, descendants: bool = False
    ) -> None:
        self._store = store
        self._operation = operation
        self._descendants = descendants
        words = read_words(selectors)
        with store.read() as view:
            self.selected = JobFinder(view, past=operation is JobOperation.FORGET).find(words)
            self.plan = self._planned(view, self.selected.jobs)

    def _planned(self, view: View, jobs: Sequence[JobRecord]) -> OperationPlan:
        config = view.config()
        workers = config.workers if config is not None else ()
        planner = OperationPlanner(view, workers, lambda flow: _suspended_at(view, flow))
        return planner.plan(self._operation, jobs, descendants=self._descendants)

    def carry_out(self, user: str, command: str, now: float) -> OperationPlan:
        """Change the records and wake the daemon; return the plan as carried out.

        ``user`` and ``command`` are recorded in the events; ``now`` is in seconds since the epoch.
        """

        def change(writer: Writer) -> OperationPlan:
            """Plan again on the records as they are now, in the transaction that changes them."""
            found = (writer.job(job.id) for job in self.selected.jobs)
            plan = self._planned(writer, [job for job in found if job is not None])
            OperationRunner(writer, plan, user, command, now).carry_out()
            return plan

        plan = self._store.write(change)
        Requests(self._store.path).poke()
        return plan


def _run(
    context: Context,
    operation: JobOperation,
    *,
    now: float,
    selectors: Sequence[str],
    dry_run: bool,
    yes: bool,
    descendants: bool = False,
) -> int:
    """Select jobs, plan the operation, confirm, carry it out and print it; return the exit code.

    ``now`` is in seconds since the epoch.

    Raises
    ------
    InputError
        A selector is wrong.
    """
    user = user_identity(context)
    command = shlex.join(
        ["reconcile", operation, *selectors, *(["--with-descendants"] if descendants else [])]
    )
    shown: list[str] | None = None
    with context.store(must_exist=True) as store:
        planned = PlannedOperation(store, operation, selectors, descendants=descendants)
        selected, plan = planned.selected, planned.plan
        # Only people are asked, not scripts, and only before what cannot be undone simply.
        harmless = all(
            step.effect in (Effect.PAUSE, Effect.RESUME)
            or (step.effect is Effect.AGAIN and step.job.state is not JobState.COMPLETED)
            for step in plan.steps
        )
        interactive = sys.stdin.isatty() and sys.stderr.isatty()
        if interactive and not dry_run and not yes and (len(plan.steps) > 1 or not harmless):
            shown = _show_steps(context, plan)
            if not click.confirm(f"{operation} {many(len(plan.steps), 'job')}?", err=True):
                context.say("nothing was changed")
                return ExitCode.NO
        if not dry_run and plan.steps:
            plan = planned.carry_out(user, command, now)
    if not selected.jobs:
        context.say(f"no job is selected: {selected.named or 'none'} by name, and none by the filters")

    # A job that was only reached by a glob, in an unsuitable state, matters if nothing else is to do.
    refused = [
        one for one in plan.refusals if not one.slight or not plan.steps or one.job.id in selected.exact
    ]
    left = [one for one in plan.refusals if one not in refused]

    def data() -> dict[str, object]:
        head = {"verb": str(operation), "selectors": list(selectors), "dry_run": dry_run, "by": user}
        return head | verb_data(plan, refused, left)

    def text() -> None:
        if shown != list(step_lines(context, plan)):
            _show_steps(context, plan)
        if plan.steps:
            click.echo(summary_line(context, plan, dry_run=dry_run))

    emit(context, data, text, names=lambda: (step.job.path for step in plan.steps))
    for line in refusal_lines(refused):
        click.echo(line, err=True)
    if left:
        context.say(left_alone_line(left))
    if not dry_run and any(step.effect in _STARTS_OR_ENDS for step in plan.steps):
        context.say("a running reconcile picks this up; otherwise run: reconcile --once")
    return ExitCode.REFUSED if refused else ExitCode.OK


def _show_steps(context: Context, plan: OperationPlan) -> list[str]:
    """Print the steps for people, and return their lines."""
    lines = list(step_lines(context, plan))
    if context.options.output in ("table", "wide"):
        for line in lines:
            click.echo(line)
    return lines


def _suspended_at(view: View, flow: str) -> str:
    """Return ``file:line`` of ``spec.suspend`` of a flow in the last revision; empty if unknown."""
    good = view.good_manifests().get(f"{Kind.FLOW}/{flow}")
    parsed = view.parsed(good.parsed) if good is not None else None
    if good is None or parsed is None or good.position >= len(parsed.documents):
        return ""
    place = Manifest(good.file, parsed.documents[good.position]).location("/spec/suspend")
    return f"{place.file}:{place.line}"


retry, rerun, pause, resume, cancel, forget, abandon = map(_command, JobOperation)
