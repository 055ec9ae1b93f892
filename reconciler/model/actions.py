"""Plan actions: plain values that one actor carries out and every view explains."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from reconciler.diagnostics import Diagnostic
from reconciler.model.desired import DesiredFlow
from reconciler.model.flows import BuiltJob
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Change, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Layer
from reconciler.model.states import ACTIVE, JobState


class ActionType(StrEnum):
    """What an action does."""

    SUBMIT = "Submit"
    PATCH = "Patch"
    REPLACE = "Replace"
    CANCEL = "Cancel"
    FORGET = "Forget"
    DEFER = "Defer"
    KEEP = "Keep"

    @property
    def done(self) -> str:
        """The type of the event that records the action: ``Submitted``."""
        return DONE[self]


DONE = {
    ActionType.SUBMIT: "Submitted",
    ActionType.REPLACE: "Replaced",
    ActionType.PATCH: "Patched",
    ActionType.DEFER: "Deferred",
    ActionType.CANCEL: "Cancelled",
    ActionType.FORGET: "Forgotten",
    ActionType.KEEP: "Kept",
}


RUNNING = frozenset({JobState.RUNNING, JobState.RUN_FINISHED, JobState.DOWNLOADED})

SYMBOLS = {
    ActionType.SUBMIT: "+",
    ActionType.PATCH: "~",
    ActionType.REPLACE: "-/+",
    ActionType.CANCEL: "-",
    ActionType.FORGET: "-",
    ActionType.DEFER: "!",
    ActionType.KEEP: "=",
}


class Subject(StrEnum):
    """What an action is about."""

    FLOW = "Flow"
    JOB = "Job"


class JobPlan(msgspec.Struct, frozen=True, gc=False):
    """A job as the plan wants it."""

    job: BuiltJob
    own: Layer
    config: RunConfig


class Action(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One step of a plan.

    ``build``: the code of the flow must run first. On a flow it means that its jobs are not known yet, on a
    job that the action is only foreseen from the manifest. ``flow`` and ``wanted`` are flow and job as
    wanted, ``record`` is the job as it was when planning.
    """

    type: ActionType
    subject: Subject
    key: str
    reason: Reason
    changes: tuple[Change, ...] = ()
    build: bool = False
    flow: DesiredFlow | None = None
    build_key: str | None = None
    wanted: JobPlan | None = None
    record: JobRecord | None = None

    @property
    def is_deferred(self) -> bool:
        """Whether it is a patch that waits until its job is editable: new, or from an earlier plan."""
        waits_already = self.type is ActionType.KEEP and self.subject is Subject.JOB
        return self.type is ActionType.DEFER or waits_already

    @property
    def ends(self) -> JobRecord | None:
        """The active job whose attempt the action cancels; None if it ends no work."""
        record = self.record
        cancels = self.type in (ActionType.REPLACE, ActionType.CANCEL) and self.subject is Subject.JOB
        if not cancels or record is None or record.state not in ACTIVE:
            return None
        return record if not record.cancelling or record.cancellation.rerun else None

    @property
    def ends_running(self) -> bool:
        """Whether the action ends a job that runs, or that has run and whose result is on its way."""
        return self.ends is not None and self.ends.state in RUNNING

    @property
    def keeps_result(self) -> bool:
        """Whether the action brings a superseded job back with its result, so that nothing runs."""
        return self.reason.code is ReasonCode.RESULT_WANTED_AGAIN


def started(job: JobRecord) -> float:
    """Return when the attempt of an active job started to run, or else when it was submitted."""
    submitted = job.attempt.submitted if job.attempt.submitted is not None else job.updated
    return job.updated if job.state is JobState.RUNNING else submitted


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The ordered difference between desired and actual state.

    ``base`` is the revision that was applied last. ``refusals`` are the guards that refuse the plan.
    ``restated`` are jobs whose values stay and come from another place now: that is recorded without an
    action, since it decides what they pass on to the jobs that they generate. ``renames`` are flows (old name
    -> new name) whose records move to the new name before anything else is done. ``frozen`` are the FlowSets
    of which nothing is removed, with the reason.
    """

    revision: str
    base: str | None
    actions: tuple[Action, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    refusals: tuple[str, ...] = ()
    restated: tuple[Action, ...] = ()
    renames: dict[str, str] = {}
    unsettled: tuple[str, ...] = ()
    frozen: dict[str, str] = {}
    witnesses: dict[str, str] = {}

    @property
    def effective(self) -> tuple[Action, ...]:
        """The actions that change something."""
        return tuple(action for action in self.actions if action.type is not ActionType.KEEP)

    @property
    def waiting(self) -> tuple[Action, ...]:
        """The deferred patches that an earlier plan made and that still wait."""
        return tuple(
            action for action in self.actions if action.is_deferred and action.type is ActionType.KEEP
        )

    @property
    def ends_running(self) -> int:
        """The number of jobs that run and whose attempt the plan ends."""
        return sum(action.ends_running for action in self.actions)

    @property
    def to_build(self) -> tuple[str, ...]:
        """The flows whose code must run before the plan is complete."""
        return tuple(a.key for a in self.actions if a.build and a.subject is Subject.FLOW)

    @property
    def has_errors(self) -> bool:
        """Whether a document of the revision, or what it asks for, is invalid."""
        return any(diagnostic.is_error for diagnostic in self.diagnostics)

    def count(self, action_type: ActionType, subject: Subject) -> int:
        """Return how many actions of a type there are on a subject."""
        return sum(1 for action in self.actions if action.type is action_type and action.subject is subject)

    def summary(self) -> dict[str, int]:
        """Return the number of effective actions by type, flows and jobs together."""
        counts = {str(action_type): 0 for action_type in ActionType if action_type is not ActionType.KEEP}
        for action in self.effective:
            counts[str(action.type)] += 1
        return counts


class DryBuild(msgspec.Struct, frozen=True):
    """What was built for a plan only, by running code of the repository.

    ``flows`` had to be built. Of these, ``failed`` cannot be built, and ``blocked`` were not tried, because
    they refer to such flows.
    """

    flows: int
    failed: list[str]
    blocked: list[str]

    @property
    def built(self) -> int:
        """The number of flows that were built."""
        return self.flows - len(self.failed) - len(self.blocked)
