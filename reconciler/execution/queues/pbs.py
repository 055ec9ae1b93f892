"""PBS: OpenPBS and PBS Professional, from version 18.1 on.

A job begins in the home directory, so the script changes its directory itself. It gets no variable of ours,
because nothing here says ``-V``: only those that PBS makes (``PBS_O_*``) and those of the login on its node.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reconciler.execution.hosts.command import CommandResult
from reconciler.execution.qtk import scheduler_io, standard_state
from reconciler.execution.queues.base import Death, Entry, QueueState
from reconciler.execution.queues.parts import in_parts, no_answer, parts_of
from reconciler.execution.queues.pbs_deaths import death
from reconciler.execution.queues.pbs_json import records

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

    def listing(self, queue_ids: Mapping[str, float], result: CommandResult) -> dict[str, Entry]:
        """Return the jobs that have not ended.

        Raises
        ------
        TransientError
            The server did not answer, or not for all.
        """
        entries: dict[str, Entry] = {}
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

    def autopsy_command(self, queue_id: str) -> str:
        """Return the command that asks for a job also in the history, where the server keeps one."""
        return f"qstat -x -f -F json {shlex.quote(queue_id)}"

    def autopsy(self, queue_id: str, result: CommandResult) -> Death | None:
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


def _entry(record: Mapping[str, Any]) -> Entry | None:
    """Return the entry of a record; None if the job has ended. One that makes no sense has not ended."""
    name = standard_state("pbs", str(record.get("job_state", "")))
    if name == "DONE":
        return None
    state = _STATES.get(name or "", QueueState.UNKNOWN)
    comment = str(record.get("comment", "")) if state is not QueueState.RUNNING else ""
    never = comment if comment.startswith("Can Never Run") and state is QueueState.PENDING else ""
    return Entry(state, comment, never)


def _complaints(part: CommandResult, queue_ids: Iterable[str]) -> dict[str, str]:
    """Return what ``qdel`` says of jobs by id; it says nothing of those that it deletes."""
    said = re.findall(r"^qdel: (.*?) +(\S+)$", part.stderr, re.MULTILINE)
    asked = set(queue_ids)
    if "connect to" in part.stderr:
        return {}
    return {queue_id: text for text, queue_id in said if queue_id in asked}
