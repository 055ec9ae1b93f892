"""PBS: OpenPBS and PBS Professional, from version 18.1 on.

PBS writes values that look like numbers to C (``inf``, ``0x1f``, ``+5``, ``.5``) without quotes, and does not
escape every backslash: a variable of one job makes the answer for all of them invalid. It has one key and its
value in each line, so what it means can be told nevertheless.

A job begins in the home directory, so the script changes its directory itself. It gets no variable of ours,
because nothing here says ``-V``: only those that PBS makes (``PBS_O_*``) and those of the login on its node.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.qtk import scheduler_io, standard_state
from reconciler.execution.queues.base import (
    QueueEntry,
    QueueState,
    Termination,
    in_parts,
    no_answer,
    parts_of,
)
from reconciler.model.retries import Cause

# What ``qstat -f -F json`` prints, also where it is no JSON.


Records = Mapping[str, Mapping[str, Any]]

_BEGINNING = re.compile(r'^\{\s*"timestamp"', re.MULTILINE)
_OBJECT = re.compile(r'"(.*?)":\s*\{')
_PAIR = re.compile(r'"(.*?)":\s*(.*?),?')


def records(output: str, queue_ids: Iterable[str]) -> Records | None:
    """Return jobs by id, as mappings of attributes; None if this is no answer of ``qstat``.

    What stands above the answer is passed over. A job of ``queue_ids`` that is in there, but in no form that
    can be read, has an empty record.
    """
    beginnings = list(_BEGINNING.finditer(output))
    if not beginnings:
        return None
    answer = output[beginnings[-1].start() :]
    found = _jobs(answer)
    jobs = {name: record for name, record in found.items() if isinstance(record, dict)}
    hidden = [queue_id for queue_id in queue_ids if queue_id not in jobs and f'"{queue_id}"' in answer]
    return jobs | {queue_id: {} for queue_id in hidden}


def _jobs(answer: str) -> Mapping[str, Any]:
    try:
        content, _ = json.JSONDecoder(strict=False).raw_decode(answer)
    except ValueError:
        content = _by_lines(answer)
    jobs = content.get("Jobs") if isinstance(content, dict) else None
    return jobs if isinstance(jobs, dict) else {}


def _by_lines(answer: str) -> dict[str, Any]:
    """Read it line by line: a key with a value, the beginning of an object, or its end."""
    root: dict[str, Any] = {}
    nested = [root]
    for line in map(str.strip, answer.splitlines()[1:]):
        if opened := _OBJECT.fullmatch(line):
            inner: dict[str, Any] = {}
            nested[-1][opened[1]] = inner
            nested.append(inner)
        elif line in ("}", "},") and len(nested) > 1:
            nested.pop()
        elif pair := _PAIR.fullmatch(line):
            nested[-1][pair[1]] = _value(pair[2])
    return root


def _value(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return text.removeprefix('"').removesuffix('"')


# What PBS remembers of a job that is over: the record of ``qstat -xf``.


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


def death(record: Mapping[str, Any]) -> Termination | None:
    """Return what a record tells of the end of its job; None if it makes no sense."""
    letter = record.get("job_state")
    if not isinstance(letter, str):
        return None
    if letter not in _ENDED:
        return Termination(f"PBS: the job is in state {letter}", over=False)
    comment = str(record.get("comment", ""))
    status = _number(record.get("Exit_status"))
    if status is None:
        return _without_status(record, comment)
    if status < 0:
        words, cause = _EXECUTION.get(status, ("it was ended by PBS", Cause.KILLED))
        return Termination(_text(f"Exit_status {status}, {words}", comment), cause)
    code = status - _SIGNALLED + 128 if status >= _SIGNALLED else status
    return Termination(_text(f"Exit_status {status}", comment), _cause(record, code, comment), code)


def _without_status(record: Mapping[str, Any], comment: str) -> Termination:
    if "stime" in record:
        return Termination(_text("it ended without an exit status", comment), Cause.KILLED)
    return Termination(_text("it was deleted before it started", comment), Cause.KILLED)


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


_UNKNOWN, _FINISHED = "Unknown Job Id", "Job has finished"
_ANSWERED = (0, 153, 35)
"""PBS ends with the low byte of its error: 15001 is an unknown job, 15139 one that has finished."""

_ID = re.compile(r"\d+(\[\])?\.(?=.*[A-Za-z])[A-Za-z0-9][\w.-]*", re.ASCII)
"""What ``qsub`` prints: ``12.server``, ``12[].server``. A version or a date in a banner has no letter."""

_LATER = re.compile(
    r"cannot connect|could ?n[o']t connect|communication|connection|timed? ?out|errno|errors? *\(|\berror \d"
    r"|out of memory|security library|would exceed|maximum number of jobs|not enabled|system error|internal"
    r"|shutting down",
    re.IGNORECASE,
)
"""A submission that failed like this may work later, or may have worked."""

# A limit on a resource is no limit on jobs: another job may fit.
_FULL = (
    "[[ $said == *'would exceed '*limit* && $said != *'limit on resource'*"
    " || $said == *[Mm]'aximum number of jobs'* ]]"
)

_STATES: Mapping[str, QueueState] = {
    "QUEUED": QueueState.PENDING,
    "REQUEUED": QueueState.PENDING,  # what qtoolkit calls moved, or in transit to another queue
    "QUEUED_HELD": QueueState.HELD,
    "RUNNING": QueueState.RUNNING,
    "SUSPENDED": QueueState.SUSPENDED,
}
_FOUND = "-=-found-=-"


class PBSQueue:
    """The queue of a PBS server. ``username`` is whose jobs are found by name; by default the user's."""

    scheduler_type = "pbs"
    id_variable = "$PBS_JOBID"
    lost_after = 10.0
    full = _FULL

    def __init__(self, username: str | None = None) -> None:
        self._user = shlex.quote(username) if username else '"$(id -un)"'

    def submit_command(self, script: str) -> str:
        """Return the command that submits a script in the current directory."""
        # Without -f it leaves a helper behind for a minute, which holds the output and the environment of the
        # first submission.
        return f"{scheduler_io('pbs').SUBMIT_CMD} -f ./{shlex.quote(script)}"

    def submitted_id(self, answer: str) -> str | None:
        """Return the last id of the answer, also that of an array; None if there is none."""
        found = [line.strip() for line in answer.splitlines() if _ID.fullmatch(line.strip())]
        return found[-1] if found else None

    def refused(self, result: CommandResult) -> bool:
        """Whether the server, or ``qsub`` itself, said no to this very script."""
        said = re.findall(r"^qsub: .*", result.stderr, re.MULTILINE)
        return result.exit_code != 0 and bool(said) and not any(map(_LATER.search, said))

    def find_command(self, names: Sequence[str]) -> str:
        """Return the command that prints name and id of each job with one of these names."""
        calls = "\n".join(f"ask {shlex.quote(name)}" for name in names)
        return (
            f'( ask() {{ found=$(qselect -u {self._user} -N "$1") || exit\n'
            f'for id in $found; do printf "%s %s %s\\n" {_FOUND} "$1" "$id"; done; }}\n{calls} )'
        )

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return the id by name; of a job that was submitted twice the first one.

        Raises
        ------
        TransientError
            ``qselect`` did not work.
        """
        if result.exit_code != 0:
            raise no_answer(result)
        ids: dict[str, str] = {}
        for line in result.stdout.splitlines():
            sign, *words = line.split()
            if sign == _FOUND and len(words) == 2 and words[0] in names and _ID.fullmatch(words[1]):
                ids.setdefault(words[0], words[1])
        return ids

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that lists jobs: one question to the server for many ids (``-E``)."""
        return in_parts("qstat -E -f -F json", queue_ids)

    def listing(self, queue_ids: Mapping[str, float], result: CommandResult) -> dict[str, QueueEntry]:
        """Return the jobs that have not ended.

        Raises
        ------
        TransientError
            The server did not answer, or not for all.
        """
        entries: dict[str, QueueEntry] = {}
        for part in parts_of(result):
            found = _answered(part, queue_ids)
            asked = {queue_id: found[queue_id] for queue_id in queue_ids if queue_id in found}
            listed = {queue_id: _entry(record) for queue_id, record in asked.items()}
            entries |= {queue_id: entry for queue_id, entry in listed.items() if entry is not None}
        return entries

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that ends jobs: a running one by SIGTERM, and some seconds later by SIGKILL."""
        return in_parts(scheduler_io("pbs").CANCEL_CMD, queue_ids)

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why jobs could not be cancelled.

        Raises
        ------
        TransientError
            The server did not answer.
        """
        problems: dict[str, str] = {}
        for part in parts_of(result):
            complaints = _complaints(part, queue_ids)
            if part.exit_code != 0 and not complaints:
                raise no_answer(part)
            problems |= complaints
        over = (_UNKNOWN, _FINISHED)
        return {queue_id: text for queue_id, text in problems.items() if not text.startswith(over)}

    def accounting_command(self, queue_id: str) -> str:
        """Return the command that asks for a job also in the history, where the server keeps one."""
        return f"qstat -x -f -F json {shlex.quote(queue_id)}"

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return what the server knows of a job; None if it does not answer or keeps no history."""
        record = records(result.stdout, [queue_id]) or {}
        return death(record[queue_id]) if record.get(queue_id) else None


def _answered(part: CommandResult, queue_ids: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
    """Return the records of an answer. Of several ids PBS passes over those that are over, or names some."""
    said = [line for line in part.stderr.splitlines() if line.startswith("qstat:")]
    if part.exit_code not in _ANSWERED or not all(_UNKNOWN in line or _FINISHED in line for line in said):
        raise no_answer(part)
    found = records(part.stdout, queue_ids)
    if found is None:
        if part.exit_code == 0 or not said:
            raise no_answer(part)
        return {}
    return found


def _entry(record: Mapping[str, Any]) -> QueueEntry | None:
    """Return the entry of a record; None if the job has ended. One that makes no sense has not ended."""
    name = standard_state("pbs", str(record.get("job_state", "")))
    if name == "DONE":
        return None
    state = _STATES.get(name or "", QueueState.UNKNOWN)
    comment = str(record.get("comment", "")) if state is not QueueState.RUNNING else ""
    never = comment if comment.startswith("Can Never Run") and state is QueueState.PENDING else ""
    return QueueEntry(state, comment, never)


def _complaints(part: CommandResult, queue_ids: Iterable[str]) -> dict[str, str]:
    """Return what ``qdel`` says of jobs by id; it says nothing of those that it deletes."""
    said = re.findall(r"^qdel: (.*?) +(\S+)$", part.stderr, re.MULTILINE)
    asked = set(queue_ids)
    if "connect to" in part.stderr:
        return {}
    return {queue_id: text for text, queue_id in said if queue_id in asked}
