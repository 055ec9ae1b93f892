"""Failures that are alike: 1,000 failed jobs of a campaign usually have four reasons. Pure."""

from __future__ import annotations

import hashlib
import re

from reconciler.model.records import JobRecord
from reconciler.model.retries import Cause
from reconciler.model.states import BROKEN

_VARIABLE = (
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(_\d+)?\b", re.IGNORECASE), "UUID"),
    (re.compile(r"(?<![\w/])~?(/[\w.@+-]+)+/?"), "PATH"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "ADDRESS"),
    (re.compile(r"[-+]?\b\d+(\.\d+)?(e[-+]?\d+)?\b", re.IGNORECASE), "N"),
)
"""What differs between failures that are alike, and what stands for it."""

_LONGEST = 300

_FIXES = {
    Cause.WALLTIME: "give more time: reconcile set resources, or `retries` with `escalate` in a rule",
    Cause.OOM: "give more memory: reconcile set resources, or `retries` with `escalate` in a rule",
    Cause.NODE_FAIL: "retry; `retries` with `on: [node_fail]` does it automatically",
    Cause.PREEMPTED: "retry; `retries` with `on: [preempted]` does it automatically",
    Cause.NEVER_STARTED: "check the worker: reconcile doctor",
    Cause.LOST: "check the worker: reconcile doctor",
    Cause.KILLED: "see what ended it: reconcile logs",
    Cause.EXCEPTION: "correct the code or the arguments, and commit",
}


def error_line(error: str | None) -> str:
    """Return the last line of an error, which names its type and message."""
    lines = (error or "").strip().splitlines() or ["unknown error"]
    return lines[-1].strip()


def failure_pattern(job: JobRecord) -> str | None:
    """Return the last line of a job's error without what differs from job to job; None if it has not failed.

    Paths, uuids, addresses and numbers are replaced by words that stand for them.
    """
    if job.state not in BROKEN:
        return None
    text = error_line(job.error)[: 4 * _LONGEST]
    for pattern, word in _VARIABLE:
        text = pattern.sub(word, text)
    return text[:_LONGEST]


def failure_id(job: JobRecord) -> str | None:
    """Return what failures that are alike have in common: six hexadecimal digits of cause and pattern."""
    pattern = failure_pattern(job)
    if pattern is None:
        return None
    return hashlib.sha256(f"{job.state} {job.cause} {pattern}".encode(errors="replace")).hexdigest()[:6]


def fix_of(cause: str | None) -> str:
    """Return what helps against a cause of failure."""
    return _FIXES[Cause(cause)] if cause in set(Cause) else "see its error: reconcile describe job"
