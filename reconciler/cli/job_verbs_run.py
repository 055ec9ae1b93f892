"""Carrying out a verb of a job's life: what is selected, shown, asked and done."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click

from reconciler.actual.requests import Requests
from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.cli.context import Context
from reconciler.cli.job_selectors import JobFinder, Selected, read_words
from reconciler.cli.job_verbs import command_text
from reconciler.cli.views.listing import as_json, as_yaml
from reconciler.cli.views.verb_text import (
    left_alone_line,
    refusal_lines,
    step_lines,
    summary_line,
    verb_data,
)
from reconciler.cli.who import who
from reconciler.errors import ExitCode
from reconciler.execution.verbs import VerbActor
from reconciler.model.manifests import Kind, Manifest
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState
from reconciler.model.verbs import Effect, JobVerb
from reconciler.plan.verbs import Refusal, VerbPlan, VerbPlanner

_HARMLESS = (Effect.PAUSE, Effect.RESUME)
_GOES_ON = frozenset({Effect.AGAIN, Effect.CANCEL_THEN_AGAIN, Effect.CANCEL, Effect.RESUME, Effect.SUPERSEDE})


class Call:
    """One call of a verb. ``now`` is in seconds since the epoch."""

    def __init__(
        self, context: Context, verb: str, *, now: float, selectors: Sequence[str], dry_run: bool, yes: bool,
        descendants: bool = False,
    ) -> None:  # fmt: skip
        self.context = context
        self.verb = JobVerb(verb)
        self.now = now
        self.selectors = selectors
        self.dry_run = dry_run
        self.yes = yes
        self.descendants = descendants
        self.by = who(context)

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
                selected = JobFinder(view, past=self.verb is JobVerb.FORGET).find(words)
                plan = self._plan(view, selected.jobs)
            shown = None
            if not self.dry_run and self._must_ask(plan):
                shown = self._show_steps(plan)
                if not click.confirm(f"{self.verb}?", err=True):
                    self.context.say("nothing was changed")
                    return ExitCode.NO
            if not self.dry_run and plan.steps:
                plan = self._carry_out(store, selected)
        if not selected.jobs:
            self.context.say(
                f"no job is selected: {selected.named or 'none'} by name, and none by the filters"
            )
        return self._tell(plan, selected, shown)

    def _plan(self, view: View, jobs: Sequence[JobRecord]) -> VerbPlan:
        config = view.config()
        planner = VerbPlanner(
            view, config.workers if config is not None else (), lambda flow: _suspended_at(view, flow)
        )
        return planner.plan(self.verb, jobs, descendants=self.descendants)

    def _carry_out(self, store: Store, selected: Selected) -> VerbPlan:
        """Decide once more on the records as they are now, and do it, all in one transaction."""
        asked = command_text(self.verb, self.selectors, descendants=self.descendants)

        def write(writer: Writer) -> VerbPlan:
            found = (writer.job(job.id) for job in selected.jobs)
            plan = self._plan(writer, [job for job in found if job is not None])
            VerbActor(writer, plan, self.by, asked, self.now).carry_out()
            return plan

        plan = store.write(write)
        Requests(store.path).poke()
        return plan

    def _must_ask(self, plan: VerbPlan) -> bool:
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

    def _show_steps(self, plan: VerbPlan) -> list[str]:
        lines = list(step_lines(self.context, plan))
        if self.context.options.output in ("table", "wide"):
            for line in lines:
                click.echo(line)
        return lines

    def _tell(self, plan: VerbPlan, selected: Selected, shown: list[str] | None) -> int:
        refused = [one for one in plan.refusals if self._matters(one, plan, selected)]
        left = [one for one in plan.refusals if one not in refused]
        match self.context.options.output:
            case "json":
                click.echo(as_json(self._data(plan, refused, left)))
            case "yaml":
                click.echo(as_yaml(self._data(plan, refused, left)).rstrip())
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

    def _matters(self, one: Refusal, plan: VerbPlan, selected: Selected) -> bool:
        return not one.slight or not plan.steps or one.job.id in selected.exact

    def _data(self, plan: VerbPlan, refused: Sequence[Refusal], left: Sequence[Refusal]) -> dict[str, object]:
        head = {
            "verb": str(self.verb),
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
