"""Small pieces of text that several views share."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.actual.backup import Contents
from typing import Any


def many(number: int, what: str) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def some(names: Sequence[str], limit: int) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def contents_text(contents: Contents) -> str:
    """Return what a store holds: ``3 flows, 12 jobs, main@9a07e55``."""
    parts = [many(contents.flows, "flow"), many(contents.jobs, "job")]
    return ", ".join([*parts, contents.revision or "nothing applied yet"])


# Automatic retries for people: how many were made, of what attempts died, and when the next one comes.


def coming_retry(row: dict[str, Any], now: float) -> str | None:
    """Return ``retry 2 of 3 in 40 s`` for a job, as ``job_data`` gives it, that waits for it; else None."""
    if row["retry_at"] is None:
        return None
    return f"retry {_count(row)} {coming_text(row['retry_at'], now)}"


def retry_line(row: dict[str, Any], now: float) -> str | None:
    """Return ``2 of 3 in 40 s, after walltime, oom``, or that they are made; None if there are none."""
    if not row["retried"]:
        return None
    when = "made" if row["retry_at"] is None else coming_text(row["retry_at"], now)
    return f"{_count(row)} {when}, after {', '.join(row['retried'])}"


def _count(row: dict[str, Any]) -> str:
    """The policy may have been changed since."""
    policy = row["retries"]
    limit = policy.get("limit", 0) if isinstance(policy, dict) else 0
    return f"{len(row['retried'])} of {limit}"


def escalation_text(found: dict[str, Any]) -> str:
    """Return ``time *2, 2 times, after walltime, walltime``."""
    factors = ", ".join(f"{key} {factor}" for key, factor in found["factors"].items())
    times = len(found["after"])
    often = f", {times} times" if times > 1 else ""
    return f"{factors}{often}, after {', '.join(found['after'])}"


# How a worker is, for people: one word, and times as they count for somebody who waits.


_STANDING = {True: "Reachable", False: "Unreachable", None: None}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def readable_worker(row: dict[str, Any], now: float) -> dict[str, Any]:
    """Return the row of a worker for a table; ``now`` is in seconds since the epoch."""
    return row | {
        "status": _STANDING[row["reachable"]],
        "reason": row["reason"] or None,
        "next_try": coming_text(row["next_try"], now),
        "last_seen": past_text(row["last_seen"], now),
    }


def coming_text(when: float | None, now: float) -> str | None:
    """Return ``in 40 s``; ``due`` if it should have been already, as while no reconcile runs."""
    if when is None:
        return None
    return f"in {_span_text(when - now)}" if when > now else "due"


def time_text(seconds: float) -> str:
    """Return a time as the user's clock shows it."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def past_text(when: float | None, now: float) -> str | None:
    """Return ``2 min ago``."""
    return None if when is None else f"{_span_text(max(0.0, now - when))} ago"


def _span_text(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
