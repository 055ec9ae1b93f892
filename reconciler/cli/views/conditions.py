"""Conditions as data and as text, and what came of the last attempt to apply a revision."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from reconciler.actual.view import View
from reconciler.cli.context import Context
from reconciler.cli.views.words import coming_text
from reconciler.model.conditions import Conditions
from reconciler.model.records import Attempt, AttemptResult

READABLE = ("is_ready", "reconciling", "stalled", "last_attempted", "last_applied")
"""The columns that :func:`readable_conditions` adds."""

Data = dict[str, Any]


def conditions_data(found: Conditions) -> Data:
    """Return conditions as the JSON contract has them; the names are those of Flux."""
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
    """Return the row of a flow or worker for a table: a column for each condition, in a word or two."""
    words = {
        _COLUMNS[condition["type"]]: condition["status"]
        + (f" ({condition['reason']})" if condition["status"] != _USUAL[condition["type"]] else "")
        for condition in row["conditions"]
    }
    revisions = {"last_attempted": row["lastAttemptedRevision"], "last_applied": row["lastAppliedRevision"]}
    return row | words | revisions


_COLUMNS = {"Ready": "is_ready", "Reconciling": "reconciling", "Stalled": "stalled"}
_USUAL = {"Ready": "True", "Reconciling": "False", "Stalled": "False"}


def condition_lines(facts: Data) -> Iterator[str]:
    """Yield the lines of a description: each condition, and the revisions."""
    for condition in facts["conditions"]:
        known = f"{condition['type']:<12} {condition['status']:<8} {condition['reason']:<15}"
        yield f"  {known} {condition['message']}".replace("\n", " ")
    yield f"  last applied {facts['lastAppliedRevision'] or '-'}"
    if facts["lastAttemptedRevision"] != facts["lastAppliedRevision"]:
        yield f"  last attempted {facts['lastAttemptedRevision'] or '-'}"


def counted_attempt(view: View) -> Attempt | None:
    """Return a daemon's last attempt to apply a revision, unless another program has applied one since."""
    attempt = view.attempt()
    last = view.last_revision()
    if attempt is None or (last is not None and last.time > attempt.time):
        return None
    return attempt


def say_attempt(context: Context, attempt: Attempt | None) -> None:
    """Say on stderr if the newest revision could not be applied, or not all of it."""
    if attempt is not None and attempt.result is not AttemptResult.APPLIED:
        context.say(source_line(attempt, time.time()))


def source_line(attempt: Attempt, now: float) -> str:
    """Return ``source: Refused at main@1234567: why; what to do; next try in 40 s``."""
    where = f" at {attempt.revision}" if attempt.revision else ""
    again = coming_text(attempt.next_try or None, now)
    more = [attempt.fix, f"next try {again}" if again else ""]
    text = f"source: {attempt.result}{where}: {attempt.reason}"
    return "; ".join([text, *filter(None, more)]).replace("\n", " ")
