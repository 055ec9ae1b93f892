"""PBS: OpenPBS and PBS Professional, from version 18.1 on.

A job begins in the home directory, so the script changes its directory itself. A job gets no variable of
ours, because nothing here passes ``-V``: only those that PBS sets (``PBS_O_*``) and those of the login on
its node.
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
    Queue,
    QueueEntry,
    QueueState,
    Refusal,
    Termination,
    in_parts,
    no_answer,
    parts_of,
)
from reconciler.model.retries import Cause
from reconciler.model.schedulers import SCHEDULERS

Record = Mapping[str, Any]
"""The attributes of a job, as ``qstat -f`` prints them."""

_ID = re.compile(r"\d+(\[\])?\.(?=.*[A-Za-z])[A-Za-z0-9][\w.-]*", re.ASCII)
"""What ``qsub`` prints: ``12.server``, ``12[].server``. A version or a date in a banner has no letter."""

_OUTAGE = re.compile(
    r"^qsub: (cannot connect to server |could not connect|Communication failure|Batch protocol error"
    r"|Premature end of message|No free connections|Invalid credential|Expired credential|End of File"
    r"|Access from host not allowed|Unknown Host|PBS server internal error|System error: "
    r"|[Ss]erver shutting down|out of memory *$|Connection (refused|timed out|reset by peer)"
    r"|[Ff]ailed to (connect|load security library)|.*\(errno=\d+\))"
    r"|^auth: error returned|^pbs_\w+: |^Connection (refused|timed out)$|^No Permission\.$",
    re.MULTILINE,
)
"""Messages of PBS that say nothing about a job: the server, the network or the client does not work."""

_NOT_NOW = re.compile(r"^qsub: (would exceed .*limit on resource|.* encountered an exception)", re.MULTILINE)
"""Refusals that may pass but do not concern other jobs: a smaller one may fit."""

_UNKNOWN_ID, _HAS_FINISHED = "Unknown Job Id", "Job has finished"
_ANSWERED = (0, 153, 35)
"""PBS ends with the low byte of its error: 15001 is an unknown job, 15139 a job that has finished."""

_FOUND = "-=-found-=-"

_STATES: Mapping[str, QueueState] = {
    "QUEUED": QueueState.PENDING,
    "REQUEUED": QueueState.PENDING,  # what qtoolkit calls moved, or in transit to another queue
    "QUEUED_HELD": QueueState.HELD,
    "RUNNING": QueueState.RUNNING,
    "SUSPENDED": QueueState.SUSPENDED,
}

_EXECUTION_ERRORS: Mapping[int, tuple[str, Cause]] = {
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
"""The JOB_EXEC_* codes of PBS (job.h), which it reports in place of an exit status."""

_SIGNALLED = 256
"""PBS adds this to the signal that ended the script; for a command in it the shell reports 128 + n."""

_OUT_OF_MEMORY = re.compile(
    r"exceeded resource v?mem\b|memory limit exceeded|mem(ory)? limit|out of memory", re.IGNORECASE
)


_KILLED_FOR = re.compile(r"^=>> PBS: job killed: (\w+)", re.MULTILINE)
"""``=>> PBS: job killed: walltime 65 exceeded limit 60``: what it writes to the error output of a job."""


class PBSQueue(Queue):
    """Jobs of a PBS server."""

    scheduler = SCHEDULERS["pbs"]
    id_variable = "$PBS_JOBID"
    target_refused = (
        "qsub: (Queue is not enabled|Maximum number of jobs|would exceed [^:]*limit( of jobs[^:]*)? *$)"
    )

    # submitting ---------------------------------------------------------------------------------------

    def submit_command(self, script: str) -> str:
        """Return the qsub command."""
        # Without -f it leaves a helper behind for a minute, which holds the output and the environment of the
        # first submission.
        return f"{scheduler_io('pbs').SUBMIT_CMD} -f ./{shlex.quote(script)}"

    def submitted_id(self, answer: str) -> str | None:
        """Return the last id in the answer, also that of an array."""
        found = [line.strip() for line in answer.splitlines() if _ID.fullmatch(line.strip())]
        return found[-1] if found else None

    def refusal(self, result: CommandResult) -> Refusal | None:
        """Return why qsub failed; its own messages begin with its name, also those of hooks of the site."""
        text = result.stderr.rstrip()
        if result.exit_code in (126, 127) or _OUTAGE.search(text):
            return None
        if _NOT_NOW.search(text):
            return Refusal.JOB
        if re.search(self.target_refused, text):
            return Refusal.TARGET
        return Refusal.FINAL if re.search(r"^qsub: \S", text, re.MULTILINE) else Refusal.JOB

    def cause_in_output(self, output: str) -> Cause | None:
        """Return the limit that PBS names below the error output: it is known without a history of jobs."""
        found = _KILLED_FOR.findall(output)
        if not found:
            return None
        return {"walltime": Cause.WALLTIME, "mem": Cause.OOM, "vmem": Cause.OOM}.get(found[-1], Cause.KILLED)

    # listing ------------------------------------------------------------------------------------------

    def find_command(self, names: Sequence[str]) -> str:
        """Return the command that prints name and id of each job with one of these names."""
        calls = "\n".join(f"ask {shlex.quote(name)}" for name in names)
        return (
            f'( ask() {{ found=$(qselect -u {self.user} -N "$1") || exit\n'
            f'for id in $found; do printf "%s %s %s\\n" {_FOUND} "$1" "$id"; done; }}\n{calls} )'
        )

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return the job id by name; the first of several."""
        if result.exit_code != 0:
            raise no_answer(result)
        ids: dict[str, str] = {}
        for line in result.stdout.splitlines():
            sign, *words = line.split()
            if sign == _FOUND and len(words) == 2 and words[0] in names and _ID.fullmatch(words[1]):
                ids.setdefault(words[0], words[1])
        return ids

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the qstat command: ``-E`` makes one request to the server for many ids."""
        return in_parts("qstat -E -f -F json", queue_ids)

    def listing(self, queue_ids: Mapping[str, str], result: CommandResult) -> dict[str, QueueEntry]:
        """Return the jobs that have not ended. Of several ids PBS passes over ended ones, or names some."""
        entries: dict[str, QueueEntry] = {}
        for part in parts_of(result):
            errors = [line for line in part.stderr.splitlines() if line.startswith("qstat:")]
            about_jobs = all(_UNKNOWN_ID in line or _HAS_FINISHED in line for line in errors)
            records = _records(part.stdout, queue_ids)
            unanswered = records is None and (part.exit_code == 0 or not errors)
            if part.exit_code not in _ANSWERED or not about_jobs or unanswered:
                raise no_answer(part)
            for queue_id, record in (records or {}).items():
                entry = _entry(record) if queue_id in queue_ids else None
                if entry is not None:
                    entries[queue_id] = entry
        return entries

    # cancelling ---------------------------------------------------------------------------------------

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the qdel command: a running job gets SIGTERM, and some seconds later SIGKILL."""
        return in_parts(scheduler_io("pbs").CANCEL_CMD, queue_ids)

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why jobs could not be cancelled; qdel prints nothing about those that it deletes."""
        problems: dict[str, str] = {}
        for part in parts_of(result):
            complaints = re.findall(r"^qdel: (.*?) +(\S+)$", part.stderr, re.MULTILINE)
            found = {queue_id: text for text, queue_id in complaints if queue_id in set(queue_ids)}
            if part.exit_code != 0 and (not found or "connect to" in part.stderr):
                raise no_answer(part)
            problems |= found
        over = (_UNKNOWN_ID, _HAS_FINISHED)
        return {queue_id: text for queue_id, text in problems.items() if not text.startswith(over)}

    # accounting ---------------------------------------------------------------------------------------

    def accounting_command(self, queue_id: str) -> str:
        """Return the command that asks for a job also in the history, where the server keeps one."""
        return f"qstat -x -f -F json {shlex.quote(queue_id)}"

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return what the server knows of a job; None if it does not answer or keeps no history."""
        record = (_records(result.stdout, [queue_id]) or {}).get(queue_id)
        return _termination(record) if record else None


def _entry(record: Record) -> QueueEntry | None:
    """Return the entry of a record; None if it has ended. A record that makes no sense has not ended."""
    name = standard_state("pbs", str(record.get("job_state", "")))
    if name == "DONE":
        return None
    state = _STATES.get(name or "", QueueState.UNKNOWN)
    comment = str(record.get("comment", "")) if state is not QueueState.RUNNING else ""
    never = comment if comment.startswith("Can Never Run") and state is QueueState.PENDING else ""
    return QueueEntry(state, comment, never)


# reading `qstat -f -F json` ---------------------------------------------------------------------------------
#
# PBS writes values that look like numbers to C (`inf`, `0x1f`, `+5`, `.5`) without quotes, and does not
# escape every backslash: a variable of one job makes the answer for all of them invalid JSON. But it writes
# one key and its value per line, so that the answer can still be read.

_BEGINNING = re.compile(r'^\{\s*"timestamp"', re.MULTILINE)


def _records(output: str, queue_ids: Iterable[str]) -> Mapping[str, Record] | None:
    """Return the records by id; None if this is not an answer of ``qstat``.

    What stands above the answer is passed over. A job of ``queue_ids`` that is in the answer, but cannot be
    read, has an empty record.
    """
    beginnings = list(_BEGINNING.finditer(output))
    if not beginnings:
        return None
    answer = output[beginnings[-1].start() :]
    try:
        content, _ = json.JSONDecoder(strict=False).raw_decode(answer)
    except ValueError:
        content = _read_lines(answer)
    jobs = content.get("Jobs") if isinstance(content, dict) else None
    found = {name: job for name, job in (jobs or {}).items() if isinstance(job, dict)}
    hidden = [queue_id for queue_id in queue_ids if queue_id not in found and f'"{queue_id}"' in answer]
    return found | {queue_id: {} for queue_id in hidden}


def _read_lines(answer: str) -> dict[str, Any]:
    """Read line by line: a key with a value, the beginning of an object, or its end."""
    root: dict[str, Any] = {}
    nested = [root]
    for line in map(str.strip, answer.splitlines()[1:]):
        if opened := re.fullmatch(r'"(.*?)":\s*\{', line):
            inner: dict[str, Any] = {}
            nested[-1][opened[1]] = inner
            nested.append(inner)
        elif line in ("}", "},") and len(nested) > 1:
            nested.pop()
        elif pair := re.fullmatch(r'"(.*?)":\s*(.*?),?', line):
            try:
                value = json.loads(pair[2], strict=False)
            except ValueError:
                value = pair[2].removeprefix('"').removesuffix('"')
            nested[-1][pair[1]] = value
    return root


# reading how a job ended ------------------------------------------------------------------------------------


def _termination(record: Record) -> Termination | None:
    """Return what a record tells of the end of its job; None if it makes no sense."""
    letter = record.get("job_state")
    if not isinstance(letter, str):
        return None
    if letter not in ("F", "X"):
        return Termination(f"PBS: the job is in state {letter}", over=False)
    comment = str(record.get("comment", ""))
    after = f" ({comment})" if comment else ""
    status = str(record.get("Exit_status"))
    if not re.fullmatch(r"-?\d+", status):
        started = "stime" in record
        text = "it ended without an exit status" if started else "it was deleted before it started"
        return Termination(f"PBS: {text}{after}", Cause.KILLED if started else Cause.NEVER_STARTED)
    number = int(status)
    if number < 0:
        words, cause = _EXECUTION_ERRORS.get(number, ("it was ended by PBS", Cause.KILLED))
        return Termination(f"PBS: Exit_status {number}, {words}{after}", cause)
    code = number - _SIGNALLED + 128 if number >= _SIGNALLED else number
    return Termination(f"PBS: Exit_status {number}{after}", _cause(record, code, comment), code)


def _cause(record: Record, code: int, comment: str) -> Cause | None:
    """Return which limit was reached; None for a job that was not killed, of which PBS knows no cause."""
    if "exceeded resource walltime" in comment:
        return Cause.WALLTIME
    if _OUT_OF_MEMORY.search(comment):
        return Cause.OOM
    if code <= 128:
        return None
    if _reached(record, "walltime", _seconds):
        return Cause.WALLTIME
    return Cause.OOM if _reached(record, "mem", _kilobytes) else Cause.KILLED


def _reached(record: Record, resource: str, measure: Any) -> bool:
    amounts = []
    for group in ("resources_used", "Resource_List"):
        resources = record.get(group)
        amounts.append(measure(str(resources.get(resource, "")) if isinstance(resources, dict) else ""))
    used, limit = amounts
    return used is not None and limit is not None and used >= limit


def _seconds(text: str) -> int | None:
    """Return the seconds of ``01:00:00``, or of a number of seconds."""
    if not re.fullmatch(r"\d+(:\d+){0,3}", text):
        return None
    units = (1, 60, 3600, 86400)
    return sum(unit * int(number) for unit, number in zip(units, reversed(text.split(":")), strict=False))


def _kilobytes(text: str) -> float | None:
    """Return the amount of ``1048576kb``, ``2gb``, or of a number of bytes."""
    match = re.fullmatch(r"(\d+)([kmgtp]?)b?", text.lower())
    return int(match[1]) * 1024.0 ** (" kmgtp".index(match[2] or " ") - 1) if match else None
