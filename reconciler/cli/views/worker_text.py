"""How a worker is, for people: one word, and times as they count for somebody who waits."""

from __future__ import annotations

from typing import Any

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


def past_text(when: float | None, now: float) -> str | None:
    """Return ``2 min ago``."""
    return None if when is None else f"{_span_text(max(0.0, now - when))} ago"


def _span_text(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
