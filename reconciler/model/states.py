"""The states of a job, by the names of jobflow-remote 1.0."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life."""

    WAITING = "WAITING"
    READY = "READY"
    CHECKED_OUT = "CHECKED_OUT"
    UPLOADED = "UPLOADED"
    SUBMITTED = "SUBMITTED"
    RUNNING = "RUNNING"
    RUN_FINISHED = "RUN_FINISHED"
    DOWNLOADED = "DOWNLOADED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    REMOTE_ERROR = "REMOTE_ERROR"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    USER_STOPPED = "USER_STOPPED"


S = JobState

EDITABLE = frozenset({S.READY, S.WAITING, S.COMPLETED, S.FAILED, S.PAUSED, S.REMOTE_ERROR})
"""Only in these may a patch reach a job."""

ACTIVE = frozenset({S.CHECKED_OUT, S.UPLOADED, S.SUBMITTED, S.RUNNING, S.RUN_FINISHED, S.DOWNLOADED})
"""Between leaving the store and coming back to it: the executor works on these."""

ON_WORKER = frozenset({S.SUBMITTED, S.RUNNING})
"""The scheduler of the worker knows (or should know) the job."""

PENDING = frozenset({S.WAITING, S.READY, S.PAUSED})
"""Not started yet."""

FINISHED = frozenset({S.COMPLETED, S.FAILED, S.REMOTE_ERROR, S.STOPPED, S.USER_STOPPED})
"""Nothing will happen to these by itself, unless a retry was decided: see ``JobRecord.ended``."""

KEPT = frozenset({S.COMPLETED, S.STOPPED})
"""History comes back as this when it is wanted again: a result, or what another one has said."""

BROKEN = frozenset({S.FAILED, S.REMOTE_ERROR})
"""Ended, but not as wanted."""

assert frozenset(JobState) == ACTIVE | PENDING | FINISHED, "every state belongs to one group"
assert not (ACTIVE & EDITABLE), "a job on its way is never editable"


class Sync(StrEnum):
    """Does the store hold what the revision wants?"""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    UNKNOWN = "Unknown"


class Health(StrEnum):
    """Is the flow on its way to its results?"""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    SUSPENDED = "Suspended"
    DEGRADED = "Degraded"
