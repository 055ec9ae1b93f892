"""What the store knows: records of flows and jobs, events, applied revisions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from reconciler.diagnostics import Diagnostic
from reconciler.model.flows import BuiltFlow, job_id
from reconciler.model.manifests import ExecConfigSpec, Prune, WorkerSpec
from reconciler.model.notifications import NotifyRule
from reconciler.model.policy import SourceRules
from reconciler.model.retries import Cause, Continuation
from reconciler.model.run_config import Rule, RunConfig
from reconciler.model.settings import Layer, Resources, Setting
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


class AttemptResult(StrEnum):
    """What came of the last attempt to apply a revision."""

    APPLIED = "Applied"
    INVALID = "Invalid"
    REFUSED = "Refused"
    FAILED = "Failed"


class Attempt(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The last attempt to apply a revision; ``revision`` is empty if the source could not even be read.

    ``result`` is ``Invalid`` if a part of it was not applied, since a document is wrong. ``failures`` counts
    attempts that failed in a row, and ``next_try`` is when the next one follows automatically. It is
    ``unverified`` if the revision lacks the signature that the policy requires.
    """

    time: float
    result: AttemptResult
    revision: str = ""
    message: str = ""
    fix: str = ""
    failures: int = 0
    next_try: float = 0.0
    unverified: bool = False

    @property
    def reason(self) -> str:
        """Why it was not applied, for after the word that says what came of it."""
        return self.message.removeprefix("refused: ")


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


class AppliedFlowSet(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """One FlowSet as last applied: how many items it has, and why nothing of it is removed, if so."""

    items: int = 0
    frozen: str | None = None


class AppliedConfig(msgspec.Struct, kw_only=True):
    """What the executor needs of the last applied revision, so that it never has to read manifests.

    A worker that was removed from git stays here until its last job has ended. ``commands`` maps the digests
    of ExecConfigs to their content: of those in this revision, and of those that jobs on their way were given
    by an earlier one. ``out_of_sync`` tells, by its name, why a flow is not what the revision wants.
    On ``closed_workers`` no job starts; the value is the reason. It is ``unconfirmed`` after a restore, and
    then has neither workers nor commands: they come from git with the next revision that is applied.
    ``policy`` is that of the user when the revision was applied: generated jobs must keep it, too.
    ``signer`` is who signed the revision, and ``committed`` when it was committed, if the policy asks for
    that.
    """

    revision: str
    commit: str = ""
    project_name: str = ""
    jobstore: dict[str, Any] | None = None
    workers: dict[str, WorkerSpec] = {}
    closed_workers: dict[str, str] = {}
    exec_configs: dict[str, ExecConfigSpec] = {}
    commands: dict[str, ExecConfigSpec] = {}
    rules: list[Rule] = []
    project_layer: Layer = {}
    worker_defaults: dict[str, Setting] = {}
    out_of_sync: dict[str, str] = {}
    unconfirmed: bool = False
    flowsets: dict[str, AppliedFlowSet] = {}
    notify: list[NotifyRule] = []
    policy: SourceRules | None = None
    signer: str = ""
    committed: float = 0.0

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each ExecConfig of the revision, by its name."""
        return {name: spec.digest for name, spec in self.exec_configs.items()}


class FlowActions(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """What a revision did to one flow: the action on the flow itself, and how many on its jobs, by action.

    ``was`` is the name that the flow had before, if the revision renamed it.
    """

    action: str | None = None
    jobs: dict[str, int] = {}
    was: str | None = None


class AppliedRevision(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One revision that was applied, and what it did.

    ``author`` and ``subject`` are those of its commit, which git may have forgotten since. ``flows`` are
    those that it changed; ``errors`` counts the problems that kept a part of it from being applied.
    """

    time: float
    branch: str
    commit: str
    path: str
    summary: dict[str, int]
    author: str | None = None
    subject: str | None = None
    flows: dict[str, FlowActions] = {}
    errors: int = 0

    def __str__(self) -> str:
        return f"{self.branch}@{self.commit[:7]}"


class Outcome(msgspec.Struct, kw_only=True):
    """How the last reconcile ended, and the key under which it need not be repeated.

    ``warnings`` of the revision do not block anything; they are shown again each time. ``cleanup_at`` is when
    the next run directory is to be removed, ``retry_at`` when the next failed job is tried again, both in
    seconds since the epoch.
    """

    key: str
    change_counter: int
    idle: bool
    clean: bool
    degraded: list[str]
    revision: str
    flows: int
    jobs: int
    warnings: list[Diagnostic] = []
    cleanup_at: float | None = None
    retry_at: float | None = None


# The actual state, as the planner sees it.


class ActualState(msgspec.Struct, kw_only=True):
    """What the store holds.

    ``base`` is the revision that was applied last. ``built`` has, by flow name, the built form of each
    desired flow that has been built with exactly these inputs; a flow that is missing must be built first.
    For such a flow ``previous`` has the digests of its jobs as their manifest was when it was applied last.
    ``former`` are the builds with which flows were applied last, if they have another one now, or none.
    ``live_elsewhere`` counts the flows outside of the scope whose records are not removed, by FlowSet (None:
    flows of documents), ``baseline`` is the commit of the baseline.
    ``unseen`` are flows that ``built`` has only for show, while their jobs are unknown. ``rewritten``: the
    revision does not descend from ``base``, because history was rewritten. ``change_counter`` is that of the
    store when this was read.
    """

    base: str | None = None
    flows: dict[str, FlowRecord] = {}
    jobs: dict[str, list[JobRecord]] = {}
    built: dict[str, BuiltFlow] = {}
    previous: dict[str, dict[str, str]] = {}
    former: dict[str, BuiltFlow] = {}
    unseen: set[str] = set()
    rewritten: bool = False
    live_elsewhere: Mapping[str | None, int] = {}
    baseline: str = ""
    change_counter: int = 0
