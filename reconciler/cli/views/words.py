"""Short phrases that several views share: counts, times, retries, the state of a worker."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconciler.actual.backup import Contents


def many(number: int, what: str) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def some(names: Sequence[str], limit: int) -> str:
    """Return the first names, and how many more there are: ``a, b and 3 more``."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


LONGEST_LINE = 2000
"""Characters of a value in a table or description; ``-o json`` has all of them."""

_MOST_LINES = 400
"""Lines of an error in a description: the first and the last ones."""


def one_line(text: str) -> str:
    """Return text for people on one line: bounded, and without control characters."""
    more = len(text) - LONGEST_LINE
    if more > 0:
        text = f"{text[:LONGEST_LINE]}... ({more} more characters)"
    text = text.replace("\n", " ")
    return text if text.isprintable() else "".join(map(_visible, text))


def bounded_lines(text: str) -> list[str]:
    """Return the lines of a text for people; of a very long text the first and the last ones."""
    lines = text.rstrip().splitlines()
    if len(lines) > _MOST_LINES:
        half = _MOST_LINES // 2
        left_out = len(lines) - 2 * half
        lines = [*lines[:half], f"... {left_out} more lines (-o json has all) ...", *lines[-half:]]
    return [one_line(line.expandtabs()) for line in lines]


def last_line(text: str) -> str:
    """Return the last line of an error, which names its type and message."""
    lines = text[-100 * LONGEST_LINE :].strip().splitlines()
    return one_line(lines[-1]) if lines else ""


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def contents_text(contents: Contents) -> str:
    """Return what a store holds: ``3 flows, 12 jobs, main@9a07e55``."""
    parts = [many(contents.flows, "flow"), many(contents.jobs, "job")]
    return ", ".join([*parts, contents.revision or "nothing applied yet"])


# times, in seconds since the epoch -------------------------------------------------------------------------

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def time_text(seconds: float) -> str:
    """Return a time in the user's time zone: ``2026-01-31 12:00:00``."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units: ``2.5 s``, ``3 min 20 s``, ``1 d 2 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    units = (*_UNITS, (1, "s"))
    place = next(number for number, (size, _) in enumerate(units) if seconds >= size)
    size, name = units[place]
    lower_size, lower = units[place + 1]
    rest = int(seconds % size) // lower_size
    return f"{int(seconds) // size} {name}" + (f" {rest} {lower}" if rest else "")


def coming_text(when: float | None, now: float) -> str | None:
    """Return ``in 40 s``, or ``due`` when the time has passed, as happens while no reconcile runs."""
    if when is None:
        return None
    return f"in {span_text(when - now)}" if when > now else "due"


def past_text(when: float | None, now: float) -> str | None:
    """Return ``2 min ago``."""
    return None if when is None else f"{span_text(max(0.0, now - when))} ago"


def span_text(seconds: float) -> str:
    """Return a duration in its largest unit that has at least two: ``18 s``, ``90 min``, ``3 h``."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# automatic retries; ``row`` is a job as ``job_data`` returns it ---------------------------------------------


def coming_retry(row: dict[str, Any], now: float) -> str | None:
    """Return ``retry 2 of 3 in 40 s`` for a job that waits for an automatic retry."""
    if row["retry_at"] is None:
        return None
    return f"retry {_count(row)} {coming_text(row['retry_at'], now)}"


def retry_line(row: dict[str, Any], now: float) -> str | None:
    """Return ``2 of 3 in 40 s, after walltime, oom``, with ``made`` for the time if none is to come."""
    if not row["retried"]:
        return None
    when = "made" if row["retry_at"] is None else coming_text(row["retry_at"], now)
    return f"{_count(row)} {when}, after {', '.join(row['retried'])}"


def _count(row: dict[str, Any]) -> str:
    policy = row["retries"]  # a commit may have removed it since the first retry
    limit = policy.get("limit", 0) if isinstance(policy, dict) else 0
    return f"{len(row['retried'])} of {limit}"


def escalation_text(escalated: dict[str, Any]) -> str:
    """Return ``time *2, 2 times, after walltime, walltime``."""
    factors = ", ".join(f"{key} {factor}" for key, factor in escalated["factors"].items())
    times = len(escalated["after"])
    often = f", {times} times" if times > 1 else ""
    return f"{factors}{often}, after {', '.join(escalated['after'])}"


# workers ----------------------------------------------------------------------------------------------------


def readable_worker(row: dict[str, Any], now: float) -> dict[str, Any]:
    """Return the row of a worker for a table: its state in one word, and times relative to ``now``."""
    return row | {
        "status": {True: "Reachable", False: "Unreachable", None: None}[row["reachable"]],
        "reason": row["reason"] or None,
        "next_try": coming_text(row["next_try"], now),
        "last_seen": past_text(row["last_seen"], now),
    }
