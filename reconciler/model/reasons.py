"""Why a plan does something: a closed set of codes with parameters, and the text of each."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec


class ReasonCode(StrEnum):
    """Why an action is part of a plan. Programs may compare these; their texts may change."""

    # flows
    NEW_FLOW = "new-flow"
    FLOW_WANTED_AGAIN = "flow-wanted-again"
    FLOW_CHANGED = "flow-changed"
    TO_BE_REBUILT = "to-be-rebuilt"
    HELD_BACK = "held-back"
    RERUN_HELD_BACK = "rerun-held-back"
    WAITS = "waits"
    REMOVED = "removed"
    REMOVED_ORPHANED = "removed-orphaned"
    REMOVED_DELETED = "removed-deleted"
    REMOVED_PROTECTED = "removed-protected"
    JOBS_UNKNOWN = "jobs-unknown"
    # jobs
    NEW_JOB = "new-job"
    CONTENT_CHANGED = "content-changed"
    WANTED_AGAIN = "wanted-again"
    RESULT_WANTED_AGAIN = "result-wanted-again"
    ACTIVE_WANTED_AGAIN = "active-wanted-again"
    RERUN = "rerun"
    RUN_CONFIG_CHANGED = "run-config-changed"
    NOT_EDITABLE = "not-editable"
    CHANGE_UNDONE = "change-undone"
    ORIGIN_CHANGED = "origin-changed"
    FLOW_REMOVED = "flow-removed"
    LEFT_FLOW = "left-flow"
    LEFT_FLOW_ENDED = "left-flow-ended"


C = ReasonCode

TEXTS: Mapping[ReasonCode, str] = {
    C.NEW_FLOW: "new flow",
    C.FLOW_WANTED_AGAIN: "the flow is wanted again",
    C.FLOW_CHANGED: "the flow's manifest changed",
    C.TO_BE_REBUILT: "its content, code or files changed: to be rebuilt, then job by job",
    C.HELD_BACK: "the flow changed, and on_change is hold: it keeps running as submitted",
    C.RERUN_HELD_BACK: (
        "the flow changed, and on_change is hold: it keeps running as submitted; it is not run again: {why}"
    ),
    C.WAITS: "waits: {why}",
    C.REMOVED: "removed from git",
    C.REMOVED_ORPHANED: "removed from git; prune: orphan leaves its jobs alone",
    C.REMOVED_DELETED: "removed from git; prune: delete",
    C.REMOVED_PROTECTED: (
        "removed from git, but protected; to remove it, first commit reconciler/prune: enabled for it"
    ),
    C.JOBS_UNKNOWN: "its jobs are known only once it is built, and so what changes for them",
    C.NEW_JOB: "new job",
    C.CONTENT_CHANGED: "its content changed, or that of a job it needs",
    C.WANTED_AGAIN: "wanted again",
    C.RESULT_WANTED_AGAIN: "wanted again; its result is still there",
    C.ACTIVE_WANTED_AGAIN: "wanted again; it is {state} and goes on",
    C.RERUN: "spec.rerun changed, and it is {state}: runs again",
    C.RUN_CONFIG_CHANGED: "its run config changed",
    C.NOT_EDITABLE: "{state} is not editable; applied as soon as it is",
    C.CHANGE_UNDONE: "the deferred change is undone",
    C.ORIGIN_CHANGED: "the same values, from elsewhere",
    C.FLOW_REMOVED: "its flow was removed",
    C.LEFT_FLOW: "no longer part of the flow",
    C.LEFT_FLOW_ENDED: "no longer part of the flow; its record and output stay as history",
}

assert TEXTS.keys() == set(ReasonCode), "every code has a text"


class Reason(msgspec.Struct, frozen=True):
    """Why an action is part of a plan: ``Reason(ReasonCode.NOT_EDITABLE, {"state": "RUNNING"})``.

    ``params`` are what its text needs; ``also`` is what else there is to know about the action.
    """

    code: ReasonCode
    params: dict[str, Any] = {}
    also: tuple[Reason, ...] = ()

    def __str__(self) -> str:
        """Return the text for people."""
        return "; ".join([TEXTS[self.code].format_map(self.params), *map(str, self.also)])
