"""What was applied last, how that ended, and the state from which the next plan starts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from reconciler.diagnostics import Diagnostic
from reconciler.model.flows import BuiltFlow
from reconciler.model.manifests import ExecConfigSpec, WorkerSpec
from reconciler.model.notifications import NotifyRule
from reconciler.model.policy import SourceRules
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.run_config import Rule
from reconciler.model.settings import Layer, Setting


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
