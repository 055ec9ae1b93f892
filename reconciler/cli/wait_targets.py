"""What `reconcile wait` waits for: conditions, the records that selectors name, and their progress."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from reconciler.actual.view import View
from reconciler.cli.job_selectors import JobFinder, check_filters, is_uuid, read_words, require_worker
from reconciler.cli.views.data import is_gone
from reconciler.desired.source.git import Source
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.jobs.flow_health import blocks, health_of
from reconciler.model.applied import AttemptResult
from reconciler.model.goals import (
    Doom,
    Goal,
    GoalKind,
    GoalVerdict,
    Prospect,
    flow_verdict,
    job_verdict,
    worker_verdict,
)
from reconciler.model.health import flow_sync
from reconciler.model.records import FlowRecord, JobRecord

_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_PLAIN = [str(kind) for kind in GoalKind if kind not in (GoalKind.STATE, GoalKind.REVISION)]


def read_goal(text: str) -> Goal:
    """Parse the value of ``--for``.

    Raises
    ------
    InputError
        It is not a condition.
    """
    kind, equals, value = text.partition("=")
    if kind in _PLAIN and not equals:
        return Goal(GoalKind(kind))
    if kind == GoalKind.STATE and value:
        return Goal(GoalKind.STATE, states=frozenset(read_words([f"state:{value}"]).states))
    if kind == GoalKind.REVISION and value:
        return Goal(GoalKind.REVISION, revision=value)
    forms = [*_PLAIN, "state=STATE,...", "revision=REV"]
    hint = did_you_mean(kind, [*_PLAIN, "state", "revision"])
    raise InputError(f"'{text}' is not something to wait for", hint=hint or f"known: {', '.join(forms)}")


class RevisionGoal:
    """A commit to wait for; a descendant of it is as good."""

    def __init__(self, name: str, open_source: Callable[[], Source]) -> None:
        """Resolve ``name``: any revision that git understands, or ``main@1234567``.

        Raises
        ------
        InputError
            There is no such commit.
        """
        short = name.rpartition("@")[2] if _COMMIT.fullmatch(name.rpartition("@")[2]) else name
        self.name = name
        self._source: Source | None = None
        try:
            self._source = open_source()
            self.commit = self._source.revision(short).commit
        except InputError:
            if not _COMMIT.fullmatch(short):
                raise
            self.commit = short  # not fetched yet, or there is no repository here

    @functools.lru_cache(maxsize=8)  # noqa: B019 - lives as long as the process
    def is_part_of(self, applied: str) -> bool:
        """Return whether an applied commit is this one or a descendant."""
        if not applied or applied.startswith(self.commit):
            return bool(applied)
        return self._source is not None and self._source.follows(applied, self.commit)

    def is_meant(self, revision: str) -> bool:
        """Return whether ``main@1234567`` is this commit."""
        short = revision.rpartition("@")[2]
        return bool(short) and (self.commit.startswith(short) or short.startswith(self.commit))


class Targets:
    """What one call waits for. The first look checks that each selector names something."""

    def __init__(self, selectors: Sequence[str], goal: Goal | None, revision: RevisionGoal | None) -> None:
        """Read the selectors; filters on flows restrict those that the names select, all without names.

        Raises
        ------
        InputError
            A selector is wrong, or selects jobs by what they change into while they are waited for.
        """
        workers = [word for word in selectors if word.startswith("worker:")]
        filters = read_words([word for word in selectors if word not in workers])
        if filters.states or filters.failures:
            raise InputError(
                "state: and failure: do not say what to wait for, because jobs change them meanwhile",
                hint="select jobs by name, label or FlowSet, and write --for state=STATE",
            )
        self._filters = filters
        self._selectors = [word for word in selectors if word in workers or word in filters.names]
        self._selectors += ["*"] * (filters.filters_flows and not filters.names)
        self._goal = goal
        self._revision = revision
        self._known = False

    def verdicts(self, view: View) -> list[GoalVerdict]:
        """Return for each target whether its condition holds.

        Raises
        ------
        InputError
            A selector names nothing, or something that never has this condition.
        """
        if self._revision is not None:
            coming = self._of_revision(view, self._revision)
            if coming.prospect is not Prospect.HOLDS or not self._selectors:
                return [coming]
        found = {
            verdict.target: verdict
            for selector in self._selectors
            for verdict in self._of_selector(view, selector)
        }
        self._known = True
        return list(found.values())

    def _of_selector(self, view: View, word: str) -> Iterator[GoalVerdict]:
        kind, _, name = word.partition(":")
        look = {"worker": self._of_workers}.get(kind) if name else None
        is_job = "/" in word or is_uuid(word)
        try:
            yield from look(view, name) if look else (self._of_jobs if is_job else self._of_flows)(view, word)
        except InputError:
            if not self._known:
                raise
            done = self._goal is not None and self._goal.kind is GoalKind.DELETED
            yield GoalVerdict(word, Prospect.HOLDS if done else Prospect.NEVER, "it is gone")

    def _of_workers(self, view: View, names: str) -> Iterator[GoalVerdict]:
        self._goal_of("a worker", names, GoalKind.REACHABLE, ())
        for name in names.split(","):
            require_worker(view, name)
            yield worker_verdict(name, view.worker_status(name))

    def _of_jobs(self, view: View, word: str) -> Iterator[GoalVerdict]:
        also = (GoalKind.STATE, GoalKind.IDLE, GoalKind.DELETED)
        goal = self._goal_of("a job", word, GoalKind.COMPLETED, also)
        for job in JobFinder(view).find(replace(self._filters, names=[word])).jobs:
            yield job_verdict(goal, job, _doom_of(view))

    def _of_flows(self, view: View, word: str) -> Iterator[GoalVerdict]:
        also = tuple(kind for kind in GoalKind if kind is not GoalKind.REACHABLE)
        goal = self._goal_of("a flow", word, GoalKind.HEALTHY, also)
        config = view.config()
        held = config.out_of_sync if config is not None else {}
        flows = {flow.name: flow for flow in view.flows()}
        names = {name for name in (*flows, *held) if name == word or fnmatch.fnmatchcase(name, word)}
        if self._filters.filters_flows:
            check_filters(self._filters, view, flows.values())
            names = {name for name in names if name in flows and self._passes(flows[name])}
        if goal.kind is not GoalKind.DELETED and word not in names:
            names = {name for name in names if name not in flows or not _is_over(view, flows[name])}
        if not names:
            if goal.kind is GoalKind.DELETED and view.events(f"flow/{word}", limit=1):
                yield GoalVerdict(f"flow/{word}", Prospect.HOLDS, "it is gone")
                return
            hint = did_you_mean(word, {*flows, *held}) or "list them with `reconcile get flows`"
            among = " among those that the filters select" if self._filters.filters_flows else ""
            raise InputError(f"no flow matches '{word}'{among}", hint=hint)
        for name in sorted(names):
            flow, why = flows.get(name), held.get(name)
            yield (
                self._of_flow(view, goal, flow)
                if flow
                else GoalVerdict(f"flow/{name}", Prospect.NEVER, f"it cannot be submitted: {why}")
            )

    def _passes(self, flow: FlowRecord) -> bool:
        return self._filters.pass_flow(flow.labels, flow.flowset, flow.item)

    def _of_flow(self, view: View, goal: Goal, flow: FlowRecord) -> GoalVerdict:
        config = view.config()
        target = f"flow/{flow.name}"
        if goal.kind is GoalKind.REVISION:
            why = config.out_of_sync.get(flow.name) if config is not None else None
            revision = config.revision if config is not None else ""
            return GoalVerdict(
                target, Prospect.NEVER if why else Prospect.HOLDS, why or f"as {revision} wants it"
            )
        if _is_over(view, flow):
            done = goal.kind is GoalKind.DELETED
            return GoalVerdict(target, Prospect.HOLDS if done else Prospect.NEVER, "it is gone from git")
        if goal.kind is GoalKind.DELETED:
            text = "its last jobs are being cancelled" if flow.removed else "it is in git"
            return GoalVerdict(target, Prospect.PENDING, text)
        summary = view.summary(flow.name)
        status, sync = health_of(view, flow, summary), flow_sync(flow, summary, config)

        def current_jobs() -> list[JobRecord]:
            return [job for job in view.jobs_of(flow.name) if job.current]

        return flow_verdict(goal, flow.name, status, sync, summary, current_jobs, _doom_of(view))

    def _of_revision(self, view: View, revision: RevisionGoal) -> GoalVerdict:
        config, attempt = view.config(), view.counted_attempt()
        applied = config.revision if config is not None else "nothing"
        if config is not None and revision.is_part_of(config.commit):
            return GoalVerdict("source", Prospect.HOLDS, f"{applied} is applied")
        if attempt is not None and revision.is_meant(attempt.revision):
            text = f"{attempt.result}: {attempt.reason}"
            refused = attempt.result is AttemptResult.REFUSED
            return GoalVerdict("source", Prospect.NEVER if refused else Prospect.PENDING, text)
        return GoalVerdict("source", Prospect.PENDING, f"{applied} is applied")

    def _goal_of(self, what: str, name: str, default: GoalKind, also: Sequence[GoalKind]) -> Goal:
        if self._goal is None:
            return Goal(default)
        if self._goal.kind not in (default, *also):
            hint = f"conditions for {what}: {', '.join(sorted({default, *also}))}"
            raise InputError(f"'{name}' is {what}: it is never {self._goal}", hint=hint)
        return self._goal


def _is_over(view: View, flow: FlowRecord) -> bool:
    return flow.orphaned or is_gone(view, flow)


def _doom_of(view: View) -> Doom:
    """Return a function that tells why a job can never start; None if it can."""
    block_of = blocks(view)

    def doom(job: JobRecord) -> str | None:
        block = block_of(job)
        return str(block) if block is not None else None

    return doom
