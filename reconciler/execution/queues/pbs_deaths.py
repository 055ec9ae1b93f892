"""What PBS remembers of a job that is over: the record of ``qstat -xf``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reconciler.execution.queues.base import Death
from reconciler.model.retries import Cause

_ENDED = ("F", "X")

_EXECUTION: Mapping[int, tuple[str, Cause]] = {
    -1: ("it could not be started, before its files were there", Cause.NEVER_STARTED),
    -2: ("it could not be started, after its files were there", Cause.NEVER_STARTED),
    -3: ("it could not be started", Cause.NEVER_STARTED),
    -4: ("it was aborted when PBS was started again on its node", Cause.NODE_FAIL),
    -5: ("it was aborted when PBS was started again on its node", Cause.NODE_FAIL),
    -6: ("it was aborted when PBS was started again on its node", Cause.NODE_FAIL),
    -7: ("it could not be started again from its checkpoint", Cause.KILLED),
    -10: ("its user or group is not valid on the node", Cause.NEVER_STARTED),
    -11: ("it was taken from its node, and may not be run again", Cause.NODE_FAIL),
    -12: ("it was killed after a checkpoint", Cause.KILLED),
    -13: ("the password of its user is wrong", Cause.NEVER_STARTED),
    -14: ("one of its nodes failed", Cause.NODE_FAIL),
    -15: ("it was taken from its node for a restart from its checkpoint", Cause.KILLED),
    -16: ("a hook of the site refused to start it", Cause.NEVER_STARTED),
    -17: ("a hook of the site refused to start it", Cause.NEVER_STARTED),
    -18: ("a hook of the site took it from its node", Cause.KILLED),
    -19: ("a hook of the site deleted it", Cause.KILLED),
    -20: ("its first node was lost", Cause.NODE_FAIL),
    -21: ("the directory of PBS on the node is not safe", Cause.NEVER_STARTED),
    -22: ("a hook of the site failed", Cause.NEVER_STARTED),
    -23: ("it has no Kerberos credentials", Cause.NEVER_STARTED),
    -24: ("it used more CPUs than it asked for", Cause.KILLED),
    -25: ("it used more CPUs than it asked for", Cause.KILLED),
    -26: ("it used more virtual memory than it asked for", Cause.OOM),
    -27: ("it used more memory than it asked for", Cause.OOM),
    -28: ("it used more CPU time than it asked for", Cause.KILLED),
    -29: ("it ran longer than its walltime", Cause.WALLTIME),
    -30: ("its nodes could not join the job", Cause.NEVER_STARTED),
}
"""The JOB_EXEC_* codes of PBS (job.h), which it gives instead of an exit status."""

_SIGNALLED = 256
"""PBS adds this to the signal that ended the script; for one of its commands the shell says 128 + n."""

_OUT_OF_MEMORY = re.compile(
    r"exceeded resource v?mem\b|memory limit exceeded|mem(ory)? limit|out of memory", re.IGNORECASE
)


def death(record: Mapping[str, Any]) -> Death | None:
    """Return what a record tells of the end of its job; None if it makes no sense."""
    letter = record.get("job_state")
    if not isinstance(letter, str):
        return None
    if letter not in _ENDED:
        return Death(f"PBS: the job is in state {letter}", over=False)
    comment = str(record.get("comment", ""))
    status = _number(record.get("Exit_status"))
    if status is None:
        return _without_status(record, comment)
    if status < 0:
        words, cause = _EXECUTION.get(status, ("it was ended by PBS", Cause.KILLED))
        return Death(_text(f"Exit_status {status}, {words}", comment), cause)
    code = status - _SIGNALLED + 128 if status >= _SIGNALLED else status
    return Death(_text(f"Exit_status {status}", comment), _cause(record, code, comment), code)


def _without_status(record: Mapping[str, Any], comment: str) -> Death:
    if "stime" in record:
        return Death(_text("it ended without an exit status", comment), Cause.KILLED)
    return Death(_text("it was deleted before it started", comment), Cause.KILLED)


def _cause(record: Mapping[str, Any], code: int, comment: str) -> Cause | None:
    """Which limit was reached; a job that nobody killed has a reason that PBS does not know."""
    if "exceeded resource walltime" in comment:
        return Cause.WALLTIME
    if _OUT_OF_MEMORY.search(comment):
        return Cause.OOM
    if code <= 128:
        return None
    if _reached(record, "walltime", _seconds):
        return Cause.WALLTIME
    return Cause.OOM if _reached(record, "mem", _kilobytes) else Cause.KILLED


def _reached(record: Mapping[str, Any], resource: str, measure: Any) -> bool:
    used, limit = (_of(record, group, resource) for group in ("resources_used", "Resource_List"))
    amounts = measure(used), measure(limit)
    return None not in amounts and amounts[0] >= amounts[1]


def _of(record: Mapping[str, Any], group: str, resource: str) -> str:
    resources = record.get(group)
    return str(resources.get(resource, "")) if isinstance(resources, dict) else ""


def _seconds(text: str) -> int | None:
    """``01:00:00``, or a number of seconds."""
    if not re.fullmatch(r"\d+(:\d+){0,3}", text):
        return None
    total = 0
    for unit, number in zip((1, 60, 3600, 86400), reversed(text.split(":")), strict=False):
        total += unit * int(number)
    return total


def _kilobytes(text: str) -> float | None:
    """``1048576kb``, ``2gb``, or a number of bytes."""
    match = re.fullmatch(r"(\d+)([kmgtp]?)b?", text.lower())
    return int(match[1]) * 1024.0 ** (" kmgtp".index(match[2] or " ") - 1) if match else None


def _number(value: object) -> int | None:
    return int(str(value)) if re.fullmatch(r"-?\d+", str(value)) else None


def _text(what: str, comment: str) -> str:
    return f"PBS: {what}" + (f" ({comment})" if comment else "")
