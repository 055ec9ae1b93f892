"""The summary of a flow: what its status depends on, kept beside the flow so that no job has to be read.

Every write of a job changes the summary of its flow in the same transaction. To leave the first job of a
group costs nothing: the next one is then unknown, and whoever needs it looks at the jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from reconciler.model.failures import error_line
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE, BROKEN, FINISHED, ON_WORKER, JobState


class FirstJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The oldest job of a group; ``text`` says why it is in the group."""

    sequence: int
    key: str
    text: str = ""


class JobGroup(msgspec.Struct, frozen=True, array_like=True):
    """Jobs of a flow with something in common; ``first`` is the oldest, None if it must be looked up."""

    number: int
    first: FirstJob | None


class FlowSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the status of a flow depends on.

    ``states`` counts its current jobs by state, ``retries`` those of them that wait for a retry. ``ready``
    has, by worker, those that could start, ``broken`` those that ended with a failure, ``stuck`` those that
    can never start. ``explained`` counts those whose record says why they wait. ``deferred`` counts active
    jobs with a deferred patch, ``leaving`` superseded jobs that are still active.
    """

    states: dict[str, int] = {}
    retries: dict[str, int] = {}
    ready: dict[str, JobGroup] = {}
    broken: JobGroup | None = None
    stuck: JobGroup | None = None
    explained: int = 0
    deferred: int = 0
    leaving: int = 0

    @property
    def jobs(self) -> int:
        """The number of current jobs."""
        return sum(self.states.values())

    @property
    def ended(self) -> int:
        """The number of current jobs that have finished and do not wait for a retry."""
        return sum(self.states.get(state, 0) - self.retries.get(state, 0) for state in FINISHED)

    @property
    def active(self) -> bool:
        """Whether a job is active, superseded ones included."""
        return bool(self.leaving) or not ACTIVE.isdisjoint(self.states)

    @property
    def moves(self) -> bool:
        """Whether a current job is active, or becomes active without help."""
        return bool(self.retries) or JobState.READY in self.states or not ACTIVE.isdisjoint(self.states)

    @property
    def names_troubles(self) -> bool:
        """Whether the first broken and the first stuck job are known, if there are such jobs."""
        return all(group is None or group.first is not None for group in (self.broken, self.stuck))

    def agrees_with(self, counted: FlowSummary) -> bool:
        """Return whether this is the summary of the same jobs; a first job may be unknown here."""
        return self == _as_unknown(counted, self)


def summary_of(jobs: Iterable[JobRecord]) -> FlowSummary:
    """Return the summary of a flow; ``jobs`` are all its records, including superseded ones."""
    tally = Tally()
    for job in jobs:
        tally.change(None, job)
    return tally.summary()


class _Part(NamedTuple):
    """What one job contributes to the summary of its flow. ``state`` is None for a superseded job."""

    sequence: int
    key: str
    state: str | None
    retried: bool = False
    ready_on: str | None = None
    broken: str | None = None
    stuck: str | None = None
    explained: bool = False
    deferred: bool = False
    leaving: bool = False


def _part(job: JobRecord) -> _Part:
    state = job.state
    active = state in ACTIVE
    deferred = active and job.deferred is not None
    if not job.current:
        return _Part(job.sequence, job.key, None, deferred=deferred, leaving=active)
    ready = state is JobState.READY
    return _Part(
        job.sequence,
        job.key,
        state.value,
        job.retry.at is not None,
        job.config.worker_name if ready else None,
        _why_broken(job) if state in BROKEN and job.ended else None,
        job.attempt.stuck if state in ON_WORKER else None,
        (ready or state is JobState.SUBMITTED) and bool(job.attempt.waiting),
        deferred,
    )


def _why_broken(job: JobRecord) -> str:
    return f"{job.state}: {error_line(job.error)}" if job.error else str(job.state)


class Tally:
    """The summary of a flow while its jobs change."""

    def __init__(self, summary: FlowSummary | None = None) -> None:
        known = summary or FlowSummary()
        self._states = Counter(known.states)
        self._retries = Counter(known.retries)
        self._ready = dict(known.ready)
        self._troubles = {"broken": known.broken, "stuck": known.stuck}
        self._numbers = Counter(explained=known.explained, deferred=known.deferred, leaving=known.leaving)

    def change(self, old: JobRecord | None, new: JobRecord | None) -> None:
        """Replace the record of a job; None is a job that does not exist before, or after."""
        before, after = (_part(job) if job is not None else None for job in (old, new))
        if before == after:
            return
        if before is not None:
            self._count(before, -1)
        if after is not None:
            self._count(after, 1)

    def _count(self, part: _Part, step: int) -> None:
        for name in ("explained", "deferred", "leaving"):
            if getattr(part, name):
                self._numbers[name] += step
        if part.state is None:
            return
        self._states[part.state] += step
        if part.retried:
            self._retries[part.state] += step
        if part.ready_on is not None:
            group = _changed(self._ready.pop(part.ready_on, None), part, "", step)
            if group is not None:
                self._ready[part.ready_on] = group
        for name in ("broken", "stuck"):
            text = getattr(part, name)
            if text:
                self._troubles[name] = _changed(self._troubles[name], part, text, step)

    def summary(self) -> FlowSummary:
        """Return the summary of the jobs as they are now."""
        return FlowSummary(
            states={state: number for state, number in sorted(self._states.items()) if number > 0},
            retries={state: number for state, number in sorted(self._retries.items()) if number > 0},
            ready=dict(sorted(self._ready.items())),
            broken=self._troubles["broken"],
            stuck=self._troubles["stuck"],
            explained=max(0, self._numbers["explained"]),
            deferred=max(0, self._numbers["deferred"]),
            leaving=max(0, self._numbers["leaving"]),
        )


def _changed(group: JobGroup | None, part: _Part, text: str, step: int) -> JobGroup | None:
    """Return a group after a job has joined (``step`` 1) or left it (-1)."""
    this = FirstJob(part.sequence, part.key, text)
    if group is None:
        return JobGroup(1, this) if step > 0 else None
    number, first = group.number + step, group.first
    if number <= 0:
        return None
    if step < 0:
        return JobGroup(number, None if first == this else first)
    return JobGroup(number, min(first, this, key=_age) if first is not None else None)


def _age(job: FirstJob) -> tuple[int, str, str]:
    return job.sequence, job.key, job.text


def _as_unknown(counted: FlowSummary, like: FlowSummary) -> FlowSummary:
    """Return a counted summary without the first jobs that another summary does not know either."""

    def forget(group: JobGroup | None, other: JobGroup | None) -> JobGroup | None:
        unknown = group is not None and other is not None and other.first is None
        return JobGroup(group.number, None) if unknown and group is not None else group

    ready = {worker: forget(group, like.ready.get(worker)) for worker, group in counted.ready.items()}
    return msgspec.structs.replace(
        counted,
        ready=ready,
        broken=forget(counted.broken, like.broken),
        stuck=forget(counted.stuck, like.stuck),
    )
