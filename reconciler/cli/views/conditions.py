"""The conditions of flows and workers, and the result of the last attempt to apply a revision."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from reconciler.cli.context import Context
from reconciler.cli.views.words import coming_text
from reconciler.model.applied import Attempt, AttemptResult
from reconciler.model.conditions import Conditions

READABLE = ("is_ready", "reconciling", "stalled", "last_attempted", "last_applied")
"""The columns that :func:`readable_conditions` adds."""

Data = dict[str, Any]


def conditions_data(found: Conditions) -> Data:
    """Return conditions as the JSON contract has them; the names are those that Flux uses."""
    return {
        "conditions": [
            {
                "type": str(condition.type),
                "status": str(condition.status),
                "reason": condition.reason,
                "message": condition.message,
            }
            for condition in found.conditions
        ],
        "lastAttemptedRevision": found.last_attempted,
        "lastAppliedRevision": found.last_applied,
    }


def readable_conditions(row: Data) -> Data:
    """Return the row of a flow or worker for a table: one column for each condition.

    A status that is not the usual one comes with its reason: ``True``, or ``False (JobsFailed)``.
    """
    columns = {"last_attempted": row["lastAttemptedRevision"], "last_applied": row["lastAppliedRevision"]}
    for condition in row["conditions"]:
        if condition["type"] not in _COLUMNS:
            continue
        column, usual = _COLUMNS[condition["type"]]
        reason = "" if condition["status"] == usual else f" ({condition['reason']})"
        columns[column] = condition["status"] + reason
    return row | columns


_COLUMNS = {
    "Ready": ("is_ready", "True"),
    "Reconciling": ("reconciling", "False"),
    "Stalled": ("stalled", "False"),
}
"""Column and usual status of each type of condition."""


def condition_lines(facts: Data) -> Iterator[str]:
    """Yield the lines of ``describe``: each condition, and the revisions."""
    for condition in facts["conditions"]:
        start = f"  {condition['type']:<12} {condition['status']:<8} {condition['reason']:<15}"
        yield f"{start} {condition['message']}".replace("\n", " ")
    yield f"  last applied {facts['lastAppliedRevision'] or '-'}"
    if facts["lastAttemptedRevision"] != facts["lastAppliedRevision"]:
        yield f"  last attempted {facts['lastAttemptedRevision'] or '-'}"


def say_attempt(context: Context, attempt: Attempt | None) -> None:
    """Print on stderr if the newest revision was not applied completely."""
    if attempt is not None and attempt.result is not AttemptResult.APPLIED:
        context.say(source_line(attempt, time.time()))


def source_line(attempt: Attempt, now: float) -> str:
    """Return ``source: Refused at main@1234567: reason; fix; next try in 40 s``."""
    where = f" at {attempt.revision}" if attempt.revision else ""
    parts = [f"source: {attempt.result}{where}: {attempt.reason}", attempt.fix]
    if attempt.next_try:
        parts.append(f"next try {coming_text(attempt.next_try, now)}")
    return "; ".join(filter(None, parts)).replace("\n", " ")
