"""The states of a job, by the names of jobflow-remote 1.0."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """The state of a job."""

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

ACTIVE = frozenset({S.CHECKED_OUT, S.UPLOADED, S.SUBMITTED, S.RUNNING, S.RUN_FINISHED, S.DOWNLOADED})
"""On its way through a worker: the executor works on these jobs."""

ON_WORKER = frozenset({S.SUBMITTED, S.RUNNING})
"""The scheduler of the worker knows, or should know, the job."""

EDITABLE = frozenset(S) - ACTIVE
"""Only in these states can a job be patched: not while an attempt is on its way."""

PENDING = frozenset({S.WAITING, S.READY, S.PAUSED})
"""Not started yet."""

FINISHED = frozenset({S.COMPLETED, S.FAILED, S.REMOTE_ERROR, S.STOPPED, S.USER_STOPPED})
"""Ended. Nothing more happens without your help, unless the job waits for a retry."""

KEPT = frozenset({S.COMPLETED, S.STOPPED})
"""A superseded job that is wanted again keeps these states; from any other it starts anew."""

BROKEN = frozenset({S.FAILED, S.REMOTE_ERROR})
"""Ended with a failure."""

assert frozenset(JobState) == ACTIVE | PENDING | FINISHED, "every state belongs to one group"


class Sync(StrEnum):
    """Whether a flow is as the revision wants it."""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    UNKNOWN = "Unknown"


class Health(StrEnum):
    """How the jobs of a flow do."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    SUSPENDED = "Suspended"
    DEGRADED = "Degraded"
