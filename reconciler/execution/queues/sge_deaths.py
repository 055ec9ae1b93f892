"""What Grid Engine remembers of a job that is over: its record in the accounting (``qacct``)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from reconciler.execution.queues.base import Death
from reconciler.model.retries import Cause

_WAIT = 6
"""Seconds after the beginning of a script in which the accounting may still get its record.

The master writes it some seconds after the end of a job (15, if the site has not changed it), and a job is
missing for some already when it is asked for. All questions of one script share this time.
"""

_ALIVE = "-=-in-the-queue-=-"

_NEVER_STARTED = frozenset({1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 26, 27, 28, 29})
_NODE_FAIL = frozenset({19, 21})
_LIMIT, _AFTER = 37, 100
"""Of the codes in sge_status(5): the master enforced a limit; the job was killed, by whomever."""

_SLACK = 1
"""Seconds by which a job may be younger than its limit when it is killed: both are cut to whole ones."""


def asking(queue_id: str) -> str:
    """Return the command that asks for a job that may be over; it never fails."""
    if not queue_id.isdecimal():  # qacct and qstat take names and patterns too
        return ":"
    return (
        f"if qstat -j {queue_id} >/dev/null 2>&1; then echo '{_ALIVE}'; else\n"
        f"until qacct -j {queue_id} 2>/dev/null || [ $SECONDS -ge {_WAIT} ]; do sleep 1; done; fi"
    )


def death(queue_id: str, output: str) -> Death | None:
    """Return what the output of :func:`asking` tells; None if nobody knows the job."""
    if _ALIVE in output.splitlines():
        return Death("Grid Engine: the job is in the queue", over=False)
    blocks = [_fields(block) for block in re.split(r"^={20,}$", output, flags=re.MULTILINE)]
    ours = [fields for fields in blocks if fields.get("jobnumber") == queue_id]
    return _death(ours[-1]) if ours else None  # one that was run again has a record of each run


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(" ") for line in block.splitlines())
    return {key: value.strip() for key, _, value in pairs if key}


def _death(fields: Mapping[str, str]) -> Death:
    failed, status = _number(fields.get("failed", "")), _number(fields.get("exit_status", ""))
    code = status if failed in (0, _LIMIT, _AFTER, None) else None
    words = " ".join(fields.get("failed", "").replace(":", " ").split())
    text = f"Grid Engine: failed {words}, exit_status {fields.get('exit_status', '')}".rstrip()
    return Death(" ".join(text.split()), _cause(failed or 0, code or 0, fields), code)


def _cause(failed: int, code: int, fields: Mapping[str, str]) -> Cause | None:
    if failed in _NEVER_STARTED:
        return Cause.NEVER_STARTED
    if failed in _NODE_FAIL:
        return Cause.NODE_FAIL
    if code > 128 or failed in (_LIMIT, _AFTER):
        return _limit(failed, fields)
    return Cause.KILLED if failed else None


def _limit(failed: int, fields: Mapping[str, str]) -> Cause:
    """Which limit a killed job had reached; the accounting names three at once, or none."""
    asked = _requests(fields.get("category", ""))
    limits = [_seconds(asked[name]) for name in ("h_rt", "s_rt") if name in asked]
    ran = _number(fields.get("ru_wallclock", ""))
    if ran is not None and any(limit is not None and ran + _SLACK >= limit for limit in limits):
        return Cause.WALLTIME
    memory = [_bytes(asked[name]) for name in ("h_vmem", "s_vmem") if name in asked]
    used = _bytes(fields.get("maxvmem", "")) or 0.0
    if any(limit is not None and used >= limit for limit in memory):
        return Cause.OOM
    # A queue has limits of its own, which no record tells.
    return Cause.WALLTIME if failed == _LIMIT and not {"h_cpu", "h_vmem"} & asked.keys() else Cause.KILLED


def _requests(category: str) -> dict[str, str]:
    """Return what was requested by ``-l``: ``-l h_rt=60,h_vmem=1G -pe smp 4``."""
    pairs = (item.partition("=") for item in re.findall(r"[\w.]+=[^,\s]+", category))
    return {key: value for key, _, value in pairs}


def _seconds(text: str) -> int | None:
    """``3600``, ``1:00:00``, or ``:30:``, as Grid Engine takes it."""
    if not re.fullmatch(r"\d+|\d*:\d*:\d*", text):
        return None
    total = 0
    for number in text.split(":"):
        total = 60 * total + int(number or 0)
    return total


_UNITS = {"k": 1000.0, "K": 1024.0, "m": 1e6, "M": 1024.0**2, "g": 1e9, "G": 1024.0**3, "T": 1024.0**4}


def _bytes(text: str) -> float | None:
    """A request, ``300M``, or a usage, ``4.812MB``: for the accounting these units are powers of 1024 too."""
    match = re.fullmatch(r"([\d.]+)([kKmMgGT]?)B?", text)
    return float(match[1]) * _UNITS.get(match[2], 1.0) if match else None


def _number(text: str) -> int | None:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None
