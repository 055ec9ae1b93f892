"""The commands that act on jobs: ``retry``, ``rerun``, ``pause``, ``resume``, ``cancel`` and ``forget``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import click

from reconciler.actual.daemon_requests import Requests
from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.cli.context import Context, user_identity
from reconciler.cli.job_selectors import JobFinder, Selected, read_words
from reconciler.cli.options import global_options
from reconciler.cli.views.listing import echo_data
from reconciler.cli.views.operation_text import (
    left_alone_line,
    refusal_lines,
    step_lines,
    summary_line,
    verb_data,
)
from reconciler.errors import ExitCode
from reconciler.jobs.operations import OperationRunner
from reconciler.model.manifests import Kind, Manifest
from reconciler.model.operations import Effect, JobOperation
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState
from reconciler.plan.operations import OperationPlan, OperationPlanner, Refusal

_HELP = """{purpose}

{accepts}

SELECTORs are names and filters. Names: FLOW for all its jobs, FLOW/JOB (globs work in both, as in
'eos-*/relax*'), a uuid or uuid_index. Filters: state:FAILED,REMOTE_ERROR, worker:NAME, flow:LABEL=VALUE.
A job is selected if it matches one of the names (if you give any) and one of the filters of each kind.
{reach}

Jobs in other states are left alone. Exit code 4: no selected job was in a suitable state, a job that you
named exactly (FLOW/JOB or uuid) was not, or the operation was refused for another reason."""

_CURRENT_ONLY = "Globs never select jobs that are history."


class _Operation(NamedTuple):
    """What ``--help`` says of one command: its purpose, the states that it accepts, what globs reach."""

    purpose: str
    accepts: str
    reach: str = _CURRENT_ONLY
    descendants: bool = False


_OPERATIONS = {
    JobOperation.RETRY: _Operation(
        "Run failed jobs again.",
        "Accepts FAILED and REMOTE_ERROR. Each job gets a new attempt in a directory of its own, with its "
        "current run config. A job that waits for an automatic retry starts now.",
    ),
    JobOperation.RERUN: _Operation(
        "Run jobs again, whatever their result.",
        "Accepts COMPLETED, FAILED, REMOTE_ERROR, STOPPED, USER_STOPPED and active jobs; an active job is "
        "cancelled first and starts again once its old attempt has ended. An output is kept until there is a "
        "new one. Finished jobs that depend on the job keep their results unless you give "
        "--with-descendants; while one of them is active, the job is refused. Jobs that the job had "
        "generated become history.",
        descendants=True,
    ),
    JobOperation.PAUSE: _Operation(
        "Keep jobs from starting.",
        "Accepts READY and WAITING jobs, and failed jobs that wait for an automatic retry. They stay PAUSED "
        "until `reconcile resume`.",
    ),
    JobOperation.RESUME: _Operation(
        "Let paused jobs start.", "Accepts PAUSED jobs, unless spec.suspend suspends their flow."
    ),
    JobOperation.CANCEL: _Operation(
        "End jobs, or keep them from starting.",
        "Accepts jobs that have not ended: active jobs are ended on their worker, the others never start. "
        "They become USER_STOPPED; `reconcile rerun` brings them back. A failed job that waits for an "
        "automatic retry is not retried and keeps its state.",
    ),
    JobOperation.FORGET: _Operation(
        "Delete records and outputs of jobs that are history.",
        "Accepts jobs that have ended and belong to no flow any more: jobs that newer content or a rerun has "
        "replaced, and jobs of flows that were removed from git. Run directories stay.",
        reach="Globs select only such jobs, never a job of a flow that git still has.",
    ),
}


def _command(operation: JobOperation) -> click.Command:
    about = _OPERATIONS[operation]

    @click.argument("selectors", metavar="SELECTOR...", nargs=-1, required=True)
    @click.option("--dry-run", is_flag=True, help="Show what would happen and change nothing.")
    @click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    @global_options
    def run(context: Context, **given: Any) -> None:
        sys.exit(Call(context, operation, now=time.time(), **given).run())

    if about.descendants:
        run = click.option(
            "--with-descendants", "descendants", is_flag=True,
            help="Also run every job that depends on these again, in any flow; active ones are cancelled.",
        )(run)  # fmt: skip
    text = _HELP.format(**about._asdict())
    return click.command(name=operation, help=text, short_help=about.purpose)(run)


def command_text(operation: str, selectors: Sequence[str], *, descendants: bool) -> str:
    """Return the command as it was typed, for the record."""
    import shlex

    return shlex.join(["reconcile", operation, *selectors, *(["--with-descendants"] if descendants else [])])


# Carrying out a verb of a job's life: what is selected, shown, asked and done.


_HARMLESS = (Effect.PAUSE, Effect.RESUME)
_GOES_ON = frozenset({Effect.AGAIN, Effect.CANCEL_THEN_AGAIN, Effect.CANCEL, Effect.RESUME, Effect.SUPERSEDE})


class Call:
    """One call of a verb. ``now`` is in seconds since the epoch."""

    def __init__(
        self,
        context: Context,
        operation: str,
        *,
        now: float,
        selectors: Sequence[str],
        dry_run: bool,
        yes: bool,
        descendants: bool = False,
    ) -> None:
        self.context = context
        self.operation = JobOperation(operation)
        self.now = now
        self.selectors = selectors
        self.dry_run = dry_run
        self.yes = yes
        self.descendants = descendants
        self.by = user_identity(context)

    def run(self) -> int:
        """Do it, and return the exit code.

        Raises
        ------
        InputError
            A selector is wrong.
        """
        words = read_words(self.selectors)
        with self.context.store(must_exist=True) as store:
            with store.read() as view:
                selected = JobFinder(view, past=self.operation is JobOperation.FORGET).find(words)
                plan = self._plan(view, selected.jobs)
            shown = None
            if not self.dry_run and self._must_ask(plan):
                shown = self._show_steps(plan)
                if not click.confirm(f"{self.operation}?", err=True):
                    self.context.say("nothing was changed")
                    return ExitCode.NO
            if not self.dry_run and plan.steps:
                plan = self._carry_out(store, selected)
        if not selected.jobs:
            self.context.say(
                f"no job is selected: {selected.named or 'none'} by name, and none by the filters"
            )
        return self._tell(plan, selected, shown)

    def _plan(self, view: View, jobs: Sequence[JobRecord]) -> OperationPlan:
        config = view.config()
        planner = OperationPlanner(
            view, config.workers if config is not None else (), lambda flow: _suspended_at(view, flow)
        )
        return planner.plan(self.operation, jobs, descendants=self.descendants)

    def _carry_out(self, store: Store, selected: Selected) -> OperationPlan:
        """Decide once more on the records as they are now, and do it, all in one transaction."""
        asked = command_text(self.operation, self.selectors, descendants=self.descendants)

        def write(writer: Writer) -> OperationPlan:
            found = (writer.job(job.id) for job in selected.jobs)
            plan = self._plan(writer, [job for job in found if job is not None])
            OperationRunner(writer, plan, self.by, asked, self.now).carry_out()
            return plan

        plan = store.write(write)
        Requests(store.path).poke()
        return plan

    def _must_ask(self, plan: OperationPlan) -> bool:
        """Ask people, not scripts, and only before what is not undone by a word."""
        if self.yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        harmless = all(
            step.effect in _HARMLESS
            or (step.effect is Effect.AGAIN and step.job.state is not JobState.COMPLETED)
            for step in plan.steps
        )
        return len(plan.steps) > 1 or not harmless

    # showing ------------------------------------------------------------------------------------------

    def _show_steps(self, plan: OperationPlan) -> list[str]:
        lines = list(step_lines(self.context, plan))
        if self.context.options.output in ("table", "wide"):
            for line in lines:
                click.echo(line)
        return lines

    def _tell(self, plan: OperationPlan, selected: Selected, shown: list[str] | None) -> int:
        refused = [one for one in plan.refusals if self._matters(one, plan, selected)]
        left = [one for one in plan.refusals if one not in refused]
        match self.context.options.output:
            case "json" | "yaml":
                echo_data(self.context, self._data(plan, refused, left))
            case "name":
                _echo(step.job.path for step in plan.steps)
            case _:
                if shown != list(step_lines(self.context, plan)):
                    self._show_steps(plan)
                if plan.steps:
                    click.echo(summary_line(self.context, plan, dry_run=self.dry_run))
        for line in refusal_lines(refused):
            click.echo(line, err=True)
        if left:
            self.context.say(left_alone_line(left))
        if not self.dry_run and any(step.effect in _GOES_ON for step in plan.steps):
            self.context.say("a reconcile that is at work takes it up by itself; else: reconcile --once")
        return ExitCode.REFUSED if refused else ExitCode.OK

    def _matters(self, one: Refusal, plan: OperationPlan, selected: Selected) -> bool:
        return not one.slight or not plan.steps or one.job.id in selected.exact

    def _data(
        self, plan: OperationPlan, refused: Sequence[Refusal], left: Sequence[Refusal]
    ) -> dict[str, object]:
        head = {
            "verb": str(self.operation),
            "selectors": list(self.selectors),
            "dry_run": self.dry_run,
            "by": self.by,
        }
        return head | verb_data(plan, refused, left)


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _suspended_at(view: View, flow: str) -> str:
    """Return ``file:line`` of ``spec.suspend`` of a flow in the last revision; empty if unknown."""
    good = view.good_manifests().get(f"{Kind.FLOW}/{flow}")
    parsed = view.parsed(good.parsed) if good is not None else None
    if good is None or parsed is None or good.position >= len(parsed.documents):
        return ""
    place = Manifest(good.file, parsed.documents[good.position]).location("/spec/suspend")
    return f"{place.file}:{place.line}"


retry, rerun, pause, resume, cancel, forget = map(_command, JobOperation)
