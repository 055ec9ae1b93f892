"""What the store knows: records of flows and jobs, events, applied revisions."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.model.flows import job_id
from reconciler.model.manifests import Prune
from reconciler.model.retries import Cause, Continuation
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Layer, Resources
from reconciler.model.states import EDITABLE, FINISHED, JobState


class Change(msgspec.Struct, frozen=True, gc=False):
    """One field that changes, with the provenance of the new value.

    ``commit``, ``author`` and ``time`` (seconds since the epoch) are those of the commit that wrote the new
    value or, if the value was there before, of the commit that removed a stronger one.
    """

    field: str
    old: Any
    new: Any
    provenance: dict[str, Any] | None = None
    commit: str | None = None
    author: str | None = None
    time: float | None = None


class LeftAttempt(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """An attempt that was given up although its script may still run, or start later.

    ``host`` is that of its ``worker`` when it was submitted; None if that was not recorded.
    """

    worker: str
    run_dir: str
    host: str | None = None


class JobAttempt(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The latest attempt of a job; ``number`` is 0 before the first one.

    ``worker`` is where it was submitted, and ``host`` that worker's host at that time (None: not recorded);
    the next attempt may get another worker. ``missing_since`` is when
    the queue was first seen without it. ``stuck`` is why it can never start as it was submitted, in the
    scheduler's words; ``waiting`` is why it waits, in the queue or because it was not accepted now, and
    ``expected_start`` is when the scheduler expects it to start.
    ``heartbeat`` is the latest one that was read while the queue did not list it. ``result_kept``: its result
    could not be stored and is still in the run directory, where a retry collects it again.
    ``started`` and ``ended`` are when it was first seen to run and to have ended, by this machine's clock;
    ``seconds`` is how long it ran, by its own worker's clock; ``cpu`` is the CPU time (seconds) of its
    processes, ``memory`` the most that one of them had in memory (bytes), both on the node of its launcher.
    """

    number: int = 0
    worker: str | None = None
    host: str | None = None
    run_dir: str | None = None
    queue_id: str | None = None
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    seconds: float | None = None
    cpu: float | None = None
    memory: int | None = None
    missing_since: float | None = None
    stuck: str | None = None
    waiting: str | None = None
    expected_start: float | None = None
    heartbeat: str | None = None
    result_kept: bool = False

    @property
    def as_left(self) -> LeftAttempt | None:
        """The attempt as one of those that a job has left; None before the first one."""
        if self.worker is None or self.run_dir is None:
            return None
        return LeftAttempt(worker=self.worker, run_dir=self.run_dir, host=self.host)

    @property
    def settled(self) -> JobAttempt:
        """The attempt once it is known where it is: it neither waits, nor is it missing or stuck."""
        return msgspec.structs.replace(
            self, missing_since=None, stuck=None, waiting=None, expected_start=None
        )


NO_ATTEMPT = JobAttempt()


class Cancellation(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """How an active job is being cancelled: the ``reason``, and whether to ``rerun`` it once that is done.

    ``rerun`` without a ``reason`` means that a job was being cancelled and is wanted again. If it still ends
    with a result, the result counts; otherwise the job runs again.
    """

    reason: str | None = None
    rerun: bool = False


NOT_CANCELLED = Cancellation()


class RetryStatus(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The automatic retries of a job.

    ``at`` is when the next one starts; None if none is due. ``causes`` are the causes of the failed attempts
    that have led to a retry since the job was last started by a person, and ``run_dirs`` their run
    directories; a retry that continues begins with files of the last one.
    """

    at: float | None = None
    causes: list[str] = []
    run_dirs: list[str] = []

    @property
    def not_due(self) -> RetryStatus:
        """The same causes, with no retry due."""
        return self if self.at is None else msgspec.structs.replace(self, at=None)


NO_RETRY = RetryStatus()


class DeferredPatch(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A patch that waits because its job is not editable: the new run config, and what asked for it."""

    config: RunConfig
    changes: list[Change] = []
    revision: str | None = None


class GeneratedBy(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The generator of a job, and the attempt of it that created the job.

    ``inherits`` is False if the generator does not pass its run config on.
    """

    uuid: str
    index: int = 1
    attempt: int = 0
    inherits: bool = True


_LATEST = 7 * 86400.0
"""Seconds for which the result of an attempt that counted as lost is looked for."""


class JobRecord(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One job, small and read often; its arguments are in the payload table.

    Times are seconds since the epoch. ``sequence`` orders jobs by age. ``current`` is False for a superseded
    job. ``held`` names the person who paused the job; the end of ``spec.suspend`` does not resume such a job.
    ``cause`` is the kind of failure: ``walltime``, ``oom``, ``exception`` and so on. ``refers`` are the jobs
    that the output refers to and that had no output when this job completed: a job that reads the output
    needs theirs too. ``left`` are attempts whose claims must be withdrawn before the next one starts.
    """

    uuid: str
    index: int
    flow: str
    key: str
    name: str
    function: str
    state: JobState
    config: RunConfig
    content: str
    own: Layer = {}
    deferred: DeferredPatch | None = None
    generated_by: GeneratedBy | None = None
    parents: list[str] = []
    on_missing: str = "error"
    sequence: int = 0
    created: float = 0.0
    updated: float = 0.0
    current: bool = True
    attempt: JobAttempt = NO_ATTEMPT
    cancellation: Cancellation = NOT_CANCELLED
    retry: RetryStatus = NO_RETRY
    held: str | None = None
    error: str | None = None
    cause: str | None = None
    files: list[tuple[str, ...]] = []
    code: list[str] = []
    stored_data: Any = None
    refers: list[str] = []
    left: list[LeftAttempt] = []

    @property
    def id(self) -> str:
        """``<uuid>_<index>``."""
        return job_id(self.uuid, self.index)

    @property
    def generator(self) -> str | None:
        """``<uuid>_<index>`` of the generator; None for a job of the built flow."""
        by = self.generated_by
        return job_id(by.uuid, by.index) if by is not None else None

    @property
    def path(self) -> str:
        """``flow/job``, the name that users type."""
        return f"{self.flow}/{self.key}"

    @property
    def editable(self) -> bool:
        """Whether a patch can be applied now."""
        return self.state in EDITABLE

    @property
    def ended(self) -> bool:
        """Whether the job has finished and no retry is due."""
        return has_ended(self.state, self.retry.at)

    @property
    def has_uncollected_result(self) -> bool:
        """Whether its last attempt has a result that could not be stored, so that no other one is needed."""
        here = self.attempt.worker == self.config.worker_name
        return self.state is JobState.REMOTE_ERROR and self.attempt.result_kept and here

    @property
    def cancelling(self) -> bool:
        """Whether the job is being cancelled."""
        return self.cancellation.reason is not None

    @property
    def wanted(self) -> RunConfig | None:
        """The run config of the deferred patch, if there is one."""
        return self.deferred.config if self.deferred is not None else None

    @property
    def deferred_changes(self) -> list[Change]:
        """What the deferred patch changes."""
        return self.deferred.changes if self.deferred is not None else []

    @property
    def asked(self) -> Resources | None:
        """The resources of the last attempt or of the retry that is due: as retries escalated them."""
        policy = self.config.policy if self.retry.causes else None
        base = self.config.resources_value
        return policy.escalated(base, len(self.retry.causes)) if policy is not None else base

    @property
    def continuation(self) -> Continuation | None:
        """How its retries continue earlier attempts; None if they start from the beginning."""
        policy = self.config.policy
        return policy.continuation if policy is not None else None

    @property
    def continues(self) -> str | None:
        """The run directory of the failed attempt that its latest or next attempt continues."""
        return self.retry.run_dirs[-1] if self.retry.run_dirs and self.continuation is not None else None

    def leaving(self, attempt: JobAttempt) -> list[LeftAttempt]:
        """Return ``left`` with an attempt of this job added."""
        one = attempt.as_left
        return self.left if one is None or one in self.left else [*self.left, one]

    def without(self, attempt: JobAttempt) -> list[LeftAttempt]:
        """Return ``left`` without an attempt of this job."""
        return [one for one in self.left if one != attempt.as_left]

    def may_deliver(self, now: float) -> bool:
        """Whether its last attempt, which counted as lost, may still deliver a result."""
        is_lost = self.state in FINISHED and self.cause == Cause.LOST and bool(self.left)
        return is_lost and now - self.updated < _LATEST

    def attempt_with(self, **fields: Any) -> JobAttempt:
        """Return the latest attempt with other values."""
        return msgspec.structs.replace(self.attempt, **fields)


class JobMark(msgspec.Struct, gc=False):
    """The part of a :class:`JobRecord` that tells where its output belongs; quick to read."""

    flow: str
    key: str
    current: bool = True


def has_ended(state: JobState, retry_at: float | None) -> bool:
    """Return whether a job has finished and no retry is due."""
    return state in FINISHED and retry_at is None


class FlowRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One flow as last applied.

    ``layer`` is the flow's own level of the run config, for jobs that are generated later. ``removed`` is
    True once its manifest has gone; ``orphaned`` once nothing looks after it any more. ``rerun`` is the last
    ``spec.rerun`` that was followed. ``flowset`` is the FlowSet that the flow comes from, ``item`` the values
    of its item there.
    """

    name: str
    identity: str
    build_key: str
    labels: dict[str, str] = {}
    layer: Layer = {}
    revision: str = ""
    suspended: bool = False
    suspend_reason: str | None = None
    removed: bool = False
    orphaned: bool = False
    protected: bool = False
    prune: Prune = Prune.CANCEL
    created: float = 0.0
    stopped: bool = False
    rerun: str | None = None
    flowset: str | None = None
    item: dict[str, Any] = {}


class Allocation(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """One allocation of a batch worker: a job in the queue in which an agent runs jobs of ours.

    ``queue_id`` is None until its submission is confirmed. ``waiting`` is why it waits in the queue. The
    agent reports ``node``, ``slots``, ``busy`` slots, jobs ``done``, the time ``until`` which the allocation
    lasts, and ``closed`` when it takes no more jobs. Times are seconds since the epoch.
    """

    name: str
    queue_id: str | None = None
    submitted: float = 0.0
    missing_since: float | None = None
    ended: float | None = None
    waiting: str = ""
    running: bool = False
    node: str = ""
    slots: int = 0
    busy: int = 0
    done: int = 0
    until: float | None = None
    closed: bool = False


class WorkerStatus(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How a worker was when last used.

    ``reason`` is why it could not be used, ``fix`` what a person can do about that; ``next_try`` is when it
    is tried again automatically. ``python`` and ``jobflow`` are the versions that its last finished job had.
    ``allocations`` are those of a batch worker, oldest first.
    """

    reachable: bool
    last_seen: float | None = None
    reason: str = ""
    fix: str = ""
    failures: int = 0
    next_try: float = 0.0
    python: str = ""
    jobflow: str = ""
    allocations: list[Allocation] = []


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One event; append-only. ``by`` is the user whose command caused it, ``job`` the id of the job."""

    time: float
    type: str
    about: str
    message: str
    revision: str | None = None
    changes: list[Change] = []
    attempt: int | None = None
    by: str | None = None
    job: str | None = None
