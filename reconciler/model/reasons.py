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
    ITEM_CHANGED = "item-changed"
    PROJECT_CHANGED = "project-changed"
    MAKER_CHANGED = "maker-changed"
    CODE_CHANGED = "code-changed"
    FILES_CHANGED = "files-changed"
    UPSTREAM_CHANGED = "upstream-changed"
    BUILD_CHANGED = "build-changed"
    OLD_RESULTS_KEPT = "old-results-kept"
    FAILED_WITH_OLD_CODE = "failed-with-old-code"
    MAY_END_JOBS = "may-end-jobs"
    TO_BE_REBUILT = "to-be-rebuilt"
    HELD_BACK = "held-back"
    RERUN_HELD_BACK = "rerun-held-back"
    WAITS = "waits"
    BUILD_FAILED = "build-failed"
    NOT_APPLIED = "not-applied"
    REMOVED = "removed"
    REMOVED_ENDED = "removed-ended"
    REMOVED_ORPHANED = "removed-orphaned"
    REMOVED_DELETED = "removed-deleted"
    REMOVED_PROTECTED = "removed-protected"
    SET_FROZEN = "set-frozen"
    JOBS_UNKNOWN = "jobs-unknown"
    # jobs
    NEW_JOB = "new-job"
    CONTENT_CHANGED = "content-changed"
    OWN_CONTENT_CHANGED = "own-content-changed"
    NEEDED_JOB_CHANGED = "needed-job-changed"
    WANTED_AGAIN = "wanted-again"
    RESULT_WANTED_AGAIN = "result-wanted-again"
    ACTIVE_WANTED_AGAIN = "active-wanted-again"
    RERUN = "rerun"
    RERUN_NEW_CODE = "rerun-new-code"
    RUN_CONFIG_CHANGED = "run-config-changed"
    RUN_CONFIG_STORED = "run-config-stored"
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
    C.FLOW_CHANGED: "its manifest changed",
    C.ITEM_CHANGED: "its item changed",
    C.PROJECT_CHANGED: "a default of the Project changed",
    C.MAKER_CHANGED: "a Maker that it uses changed ({makers})",
    C.CODE_CHANGED: "its code changed ({code})",
    C.FILES_CHANGED: "files that it names changed ({files})",
    C.UPSTREAM_CHANGED: "a flow that it refers to changed ({flows})",
    C.BUILD_CHANGED: "its content, code or files changed",
    C.OLD_RESULTS_KEPT: "kept: {count} of older code (on_code_change: {policy})",
    C.FAILED_WITH_OLD_CODE: "FAILED with older code: {jobs}; to run again: {command}",
    C.MAY_END_JOBS: "may end running jobs: {jobs}",
    C.TO_BE_REBUILT: "{why}: to be rebuilt, then job by job",
    C.HELD_BACK: "the flow changed, and on_change is hold: it keeps running as submitted",
    C.RERUN_HELD_BACK: (
        "the flow changed, and on_change is hold: it keeps running as submitted; it is not run again: {why}"
    ),
    C.WAITS: "waits: {why}",
    C.BUILD_FAILED: "cannot be built: {why}",
    C.NOT_APPLIED: "not applied: {why}",
    C.REMOVED: "removed from git",
    C.REMOVED_ENDED: "removed from git; its jobs have ended, and their records and outputs stay",
    C.REMOVED_ORPHANED: "removed from git; prune: orphan leaves its jobs alone",
    C.REMOVED_DELETED: "removed from git; prune: delete",
    C.REMOVED_PROTECTED: (
        "removed from git, but protected; to remove it, first commit reconciler/prune: enabled for it"
    ),
    C.SET_FROZEN: "its item is gone, but nothing of FlowSet '{flowset}' is removed: {why}",
    C.JOBS_UNKNOWN: "its jobs, and what changes for them, are known only after it is built",
    C.NEW_JOB: "new job",
    C.CONTENT_CHANGED: "its content changed, or that of a job it needs",
    C.OWN_CONTENT_CHANGED: "its content changed",
    C.NEEDED_JOB_CHANGED: "a job that it needs changed",
    C.WANTED_AGAIN: "wanted again",
    C.RESULT_WANTED_AGAIN: "wanted again; its result is still there",
    C.ACTIVE_WANTED_AGAIN: "wanted again; it is {state} and continues",
    C.RERUN: "spec.rerun changed, and it is {state}: runs again",
    C.RERUN_NEW_CODE: "{state} with older code: runs again with the new code",
    C.RUN_CONFIG_CHANGED: "its run config changed",
    C.RUN_CONFIG_STORED: "its run config changed; it is COMPLETED, so this is for a rerun and generated jobs",
    C.NOT_EDITABLE: "{state} is not editable; applied as soon as it is",
    C.CHANGE_UNDONE: "the deferred change is undone",
    C.ORIGIN_CHANGED: "the same values from another place",
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
