"""What the store knows: records of flows and jobs, events, applied revisions."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from reconciler.diagnostics import Diagnostic
from reconciler.model.flows import BuiltFlow, job_id
from reconciler.model.manifests import ExecConfigSpec, Prune, WorkerSpec
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


class JobRecord(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One job, small and hot; its arguments lie in the payload table.

    Times are seconds since the epoch. ``sequence`` orders jobs by age. ``wanted`` is a deferred patch,
    ``wanted_changes`` what it changes, ``wanted_by`` the revision that asked for it.
    ``run_dir`` and ``run_worker`` are of the latest attempt; the next one may get another worker.
    ``current`` is False once a newer content of the flow has no place for the job: it is history then.
    ``cancel`` is the reason why an active job is being cancelled, and ``again`` tells that it runs again once
    that is done. ``again`` without ``cancel``: it was being cancelled, and is wanted again; if it still ends
    with a result, that counts, else it runs again. ``held`` is who paused it by hand: then the end of
    ``spec.suspend`` does not resume it.
    ``missing_since`` is when the queue was first seen without it. ``stuck`` is why it can never start as it
    was submitted, as its scheduler says; ``cause`` is the kind of reason for which it died: ``walltime``,
    ``oom``, ``exception`` and so on. ``retry_at`` is when a job that failed is tried again by itself, and
    ``retried`` are the causes for which that was decided since it was last begun by hand, one each time.
    ``generated_by`` and ``generator_index`` are the job that generated it,
    ``generator_attempt`` is the attempt that did; ``inherits`` is False if that passes nothing on. ``refers``
    are the jobs that its output refers to and that had none when it completed: who reads it needs theirs.
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
    wanted: RunConfig | None = None
    wanted_changes: list[Change] = []
    wanted_by: str | None = None
    parents: list[str] = []
    on_missing: str = "error"
    sequence: int = 0
    created: float = 0.0
    updated: float = 0.0
    current: bool = True
    attempt: int = 0
    run_dir: str | None = None
    run_worker: str | None = None
    queue_id: str | None = None
    submitted: float | None = None
    missing_since: float | None = None
    cancel: str | None = None
    again: bool = False
    held: str | None = None
    stuck: str | None = None
    error: str | None = None
    cause: str | None = None
    retry_at: float | None = None
    retried: list[str] = []
    generated_by: str | None = None
    generator_index: int = 1
    generator_attempt: int = 0
    inherits: bool = True
    files: list[tuple[str, str]] = []
    code: list[str] = []
    stored_data: Any = None
    refers: list[str] = []

    @property
    def id(self) -> str:
        """``<uuid>_<index>``."""
        return job_id(self.uuid, self.index)

    @property
    def generator(self) -> str | None:
        """``<uuid>_<index>`` of the job that generated it; None for a job of the built flow."""
        return job_id(self.generated_by, self.generator_index) if self.generated_by is not None else None

    @property
    def path(self) -> str:
        """``flow/job``, the name that users type."""
        return f"{self.flow}/{self.key}"

    @property
    def editable(self) -> bool:
        """Whether it can be patched now."""
        return self.state in EDITABLE

    @property
    def ended(self) -> bool:
        """Whether it has finished and waits for no retry."""
        return has_ended(self.state, self.retry_at)

    @property
    def asked(self) -> Resources | None:
        """The resources of its last attempt, or of the retry that is to come: as retries escalated them."""
        policy = self.config.policy if self.retried else None
        base = self.config.resources_value
        return policy.escalated(base, len(self.retried)) if policy is not None else base


class JobGlance(msgspec.Struct, kw_only=True, gc=False):
    """The part of a :class:`JobRecord` that the status of its flow depends on; quick to read."""

    key: str
    state: JobState
    sequence: int = 0
    current: bool = True
    stuck: str | None = None
    error: str | None = None
    retry_at: float | None = None

    @property
    def ended(self) -> bool:
        """Whether it has finished and waits for no retry."""
        return has_ended(self.state, self.retry_at)


def has_ended(state: JobState, retry_at: float | None) -> bool:
    """Return whether a job has finished and waits for no retry."""
    return state in FINISHED and retry_at is None


class FlowRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One flow as last applied.

    ``layer`` is the flow's own level of the run config, for jobs that are generated later. ``removed`` is
    True once its manifest has gone; ``orphaned`` once nothing looks after it any more. ``rerun`` is the last
    ``spec.rerun`` that was followed.
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


class WorkerStatus(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How a worker was when last used.

    ``reason`` is why it could not be used, ``fix`` what a person can do about that; ``next_try`` is when it
    is tried again by itself. ``python`` and ``jobflow`` are the versions that its last finished job had.
    """

    reachable: bool
    last_seen: float | None = None
    reason: str = ""
    fix: str = ""
    failures: int = 0
    next_try: float = 0.0
    python: str = ""
    jobflow: str = ""


class AttemptResult(StrEnum):
    """What came of the last attempt to apply a revision."""

    APPLIED = "Applied"
    INVALID = "Invalid"
    REFUSED = "Refused"
    FAILED = "Failed"


class Attempt(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The last attempt to apply a revision; ``revision`` is empty if the source could not even be read.

    ``result`` is ``Invalid`` if a part of it was not applied, since a document is wrong. ``failures`` counts
    attempts that failed in a row, and ``next_try`` is when the next follows by itself.
    """

    time: float
    result: AttemptResult
    revision: str = ""
    message: str = ""
    fix: str = ""
    failures: int = 0
    next_try: float = 0.0

    @property
    def reason(self) -> str:
        """Why it was not applied, for after the word that says what came of it."""
        return self.message.removeprefix("refused: ")


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One thing that happened; append-only. ``by`` is the person who asked for it with a verb."""

    time: float
    type: str
    about: str
    message: str
    revision: str | None = None
    changes: list[Change] = []
    attempt: int | None = None
    by: str | None = None


class AppliedConfig(msgspec.Struct, kw_only=True):
    """What the executor needs of the last applied revision, so that it never has to read manifests.

    A worker that was removed from git stays here until its last job has ended. ``commands`` maps the digests
    of ExecConfigs to their content: of those in this revision, and of those that jobs on their way were given
    by an earlier one. ``out_of_sync`` tells, by its name, why a flow is not what the revision wants.
    """

    revision: str
    commit: str = ""
    project_name: str = ""
    jobstore: dict[str, Any] | None = None
    workers: dict[str, WorkerSpec] = {}
    exec_configs: dict[str, ExecConfigSpec] = {}
    commands: dict[str, ExecConfigSpec] = {}
    rules: list[Rule] = []
    project_layer: Layer = {}
    worker_defaults: dict[str, Setting] = {}
    out_of_sync: dict[str, str] = {}

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
    ``unseen`` are flows that ``built`` has only for show, while their jobs are unknown. ``rewritten``: the
    revision does not descend from ``base``, because history was rewritten. ``change_counter`` is that of the
    store when this was read.
    """

    base: str | None = None
    flows: dict[str, FlowRecord] = {}
    jobs: dict[str, list[JobRecord]] = {}
    built: dict[str, BuiltFlow] = {}
    previous: dict[str, dict[str, str]] = {}
    unseen: set[str] = set()
    rewritten: bool = False
    change_counter: int = 0
