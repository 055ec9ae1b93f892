"""Grid Engine (Son of Grid Engine 8.1.9; the same words in its relatives).

A job gets no variable of ours: nothing here says ``-V``, and the host that runs ``qsub`` has a clean
environment. What ``execd`` itself was started with reaches jobs, unless the site sets ``INHERIT_ENV=false``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import unescape

from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.qtk import scheduler_io
from reconciler.execution.queues.base import (
    QueueEntry,
    QueueState,
    Termination,
    in_parts,
    no_answer,
    parts_of,
)
from reconciler.model.retries import Cause

# What Grid Engine remembers of a job that is over: its record in the accounting (``qacct``).


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


def death(queue_id: str, output: str) -> Termination | None:
    """Return what the output of :func:`asking` tells; None if nobody knows the job."""
    if _ALIVE in output.splitlines():
        return Termination("Grid Engine: the job is in the queue", over=False)
    blocks = [_fields(block) for block in re.split(r"^={20,}$", output, flags=re.MULTILINE)]
    ours = [fields for fields in blocks if fields.get("jobnumber") == queue_id]
    return _death(ours[-1]) if ours else None  # one that was run again has a record of each run


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(" ") for line in block.splitlines())
    return {key: value.strip() for key, _, value in pairs if key}


def _death(fields: Mapping[str, str]) -> Termination:
    failed, status = _number(fields.get("failed", "")), _number(fields.get("exit_status", ""))
    code = status if failed in (0, _LIMIT, _AFTER, None) else None
    words = " ".join(fields.get("failed", "").replace(":", " ").split())
    text = f"Grid Engine: failed {words}, exit_status {fields.get('exit_status', '')}".rstrip()
    return Termination(" ".join(text.split()), _cause(failed or 0, code or 0, fields), code)


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


_SUBMITTED = re.compile(r"(\d+)(?:\.\d+-\d+:\d+)?|Your job(?:-array)? (\d+)[ .].* has been submitted")
_REFUSED = re.compile(r"^Unable to (run job|read script file)", re.MULTILINE)
_LATER = re.compile(
    r"qmaster|commlib|jobs are allowed per user|more jobs|maximum number of|timeout|SGE_ROOT|submit host",
    re.IGNORECASE,
)
"""A submission that failed like this may work later, or may have worked."""

_FULL = "[[ $said == *'jobs are allowed per '* || $said == *'no more jobs'* ]]"

_RECORD = re.compile(r"<job_list\b[^>]*>(.*?)</job_list>", re.DOTALL)
_CLOSED = re.compile(r"</job_info>\s*\Z")


class SGEQueue:
    """The queue of a Grid Engine cell.

    ``username`` is whose jobs are listed; by default the user's. Grid Engine cannot list by id.
    """

    scheduler_type = "sge"
    id_variable = "$JOB_ID"
    lost_after = 10.0
    full = _FULL

    def __init__(self, username: str | None = None) -> None:
        self._user = shlex.quote(username) if username else '"$(id -un)"'

    def submit_command(self, script: str) -> str:
        """Return the command that submits a script in the current directory; it prints only the id."""
        return f"{scheduler_io('sge').SUBMIT_CMD} -terse ./{shlex.quote(script)}"

    def submitted_id(self, answer: str) -> str | None:
        """Return the last id of the answer, also that of an array; None if there is none."""
        found = [_SUBMITTED.fullmatch(line.strip()) for line in answer.splitlines()]
        ids = [match[1] or match[2] for match in found if match]
        return ids[-1] if ids else None

    def refused(self, result: CommandResult) -> bool:
        """Whether the master, or ``qsub`` itself, said no to this very script."""
        said = result.stderr + result.stdout
        return result.exit_code != 0 and bool(_REFUSED.search(said)) and not _LATER.search(said)

    def find_command(self, names: Sequence[str]) -> str:
        """Return the command that lists the user's jobs, with their whole names."""
        return self._listing

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return the id by name; of a job that was submitted twice the first one.

        Raises
        ------
        TransientError
            That was no answer.
        """
        ids: dict[str, str] = {}
        for queue_id, record in _records(result):
            name = _tag(record, "JB_name")
            if name in names:
                ids.setdefault(name, queue_id)
        return ids

    @property
    def _listing(self) -> str:
        return f"qstat -u {self._user} -xml"

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that lists all jobs of the user."""
        return self._listing

    def listing(self, queue_ids: Mapping[str, float], result: CommandResult) -> dict[str, QueueEntry]:
        """Return the jobs that have not ended.

        Raises
        ------
        TransientError
            That was no answer, or not a whole one.
        """
        entries: dict[str, QueueEntry] = {}
        for queue_id, record in _records(result):
            entry = _entry(queue_id, _tag(record, "state"))
            if queue_id in queue_ids and entry is not None:
                entries.setdefault(queue_id, entry)  # of an array running tasks come first
        return entries

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that ends jobs. It takes names and patterns too: only numbers are ids."""
        return in_parts(
            scheduler_io("sge").CANCEL_CMD, [one for one in queue_ids if one.isdecimal()] or ["0"]
        )

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why jobs could not be cancelled.

        Raises
        ------
        TransientError
            The master did not answer.
        """
        said: dict[str, str] = {}
        parts = parts_of(result)
        for part in parts:
            lines = [*part.stdout.splitlines(), *part.stderr.splitlines()]
            said |= {match[1]: line for line in lines if (match := re.search(r'\bjob "?(\d+)\b', line))}
        failed = next((part for part in parts if part.exit_code != 0), None)
        silent = [queue_id for queue_id in queue_ids if queue_id.isdecimal() and queue_id not in said]
        if failed is not None and silent:
            raise no_answer(failed)
        return {queue_id: said[queue_id] for queue_id in queue_ids if _is_problem(said.get(queue_id, ""))}

    def accounting_command(self, queue_id: str) -> str:
        """Return the command that asks the queue and, if it has forgotten the job, the accounting."""
        return asking(queue_id)

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return what Grid Engine knows of a job; None if nothing."""
        return death(queue_id, result.stdout)


def _is_problem(said: str) -> bool:
    return bool(re.search(r"privileges|^denied|^error", said)) and not said.endswith("does not exist")


def _records(result: CommandResult) -> Iterator[tuple[str, str]]:
    """Yield (id, XML) of every job. Each is read by itself: one that is no XML spoils no other."""
    _, root, answer = result.stdout.rpartition("<?xml")
    if result.exit_code != 0 or not root or not _CLOSED.search(answer):
        raise no_answer(result)
    for match in _RECORD.finditer(answer):
        queue_id = _tag(match[1], "JB_job_number")
        if queue_id:
            yield queue_id, match[1]


def _tag(record: str, name: str) -> str:
    match = re.search(f"<{name}>(.*?)</{name}>", record, re.DOTALL)
    return unescape(match[1].strip()) if match else ""


_LETTERS = frozenset("qwhrRtsSTdEz")


def _entry(queue_id: str, letters: str) -> QueueEntry | None:
    """Return the entry of a job by the letters of its state, which come in many combinations.

    The strongest first: E error, d being deleted, s S T suspended (by its user, its queue, an alarm), h held,
    r and t running and about to, R only tells that it runs once more.
    """
    given = frozenset(letters)
    if not given or not given <= _LETTERS:
        return QueueEntry(QueueState.UNKNOWN)
    if given == {"z"}:
        return None
    if "E" in given:
        return QueueEntry(QueueState.PENDING, "error state", _error_state(queue_id, letters))
    return QueueEntry(_state(given), "it is being deleted" if "d" in given else "")


def _state(given: frozenset[str]) -> QueueState:
    if given & frozenset("sST"):
        return QueueState.SUSPENDED
    if given & frozenset("rt"):
        return QueueState.RUNNING
    if "h" in given:
        return QueueState.HELD
    if given & frozenset("qw"):
        return QueueState.PENDING
    return QueueState.RUNNING if "d" in given else QueueState.UNKNOWN


def _error_state(queue_id: str, letters: str) -> str:
    return (
        f"Grid Engine put it into the error state ({letters}): `qstat -j {queue_id}` tells why; "
        f"it starts only after `qmod -cj {queue_id}`"
    )
