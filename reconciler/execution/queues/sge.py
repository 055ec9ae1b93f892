"""Grid Engine (Son of Grid Engine 8.1.9; its relatives use the same words).

A job gets no variable of ours: nothing here passes ``-V``, and the host that runs ``qsub`` has a clean
environment. The environment of ``execd`` itself reaches jobs, unless the site sets ``INHERIT_ENV=false``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import unescape

from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.qtk import scheduler_io
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

_SUBMITTED = re.compile(r"(\d+)(?:\.\d+-\d+:\d+)?|Your job(?:-array)? (\d+)[ .].* has been submitted")
_REFUSED = re.compile(r"^Unable to (run job|read script file)", re.MULTILINE)
_OUTAGE = re.compile(
    r"^(Unable to run job: |error: |critical error: |qsub: )*"
    r"(commlib error|unable to (contact|send message to|connect to) qmaster|got no response from .*qmaster"
    r"|can't (connect|resolve) |failed receiving gdi request|.* is (not a|no) submit host|cell directory "
    r"|[Pp]lease set the environment variable SGE_ROOT|SGE_ROOT |sge_gethostbyname|denied: host )",
    re.MULTILINE,
)
"""Messages of Grid Engine that say nothing about a job: the master or the client does not work."""

_RECORD = re.compile(r"<job_list\b[^>]*>(.*?)</job_list>", re.DOTALL)
_CLOSED = re.compile(r"</job_info>\s*\Z")

_VERIFIED = 20
"""Waiting jobs that one listing verifies."""

_VERIFICATION = "-=-verification-=-"
_UNSUITABLE = re.compile(
    rf"^{_VERIFICATION} (\d+) (?:Job \d+ )?(.*?) *verification: no suitable queues", re.MULTILINE
)

_ACCOUNTING_WAIT = 6
"""Seconds after the beginning of a script in which the accounting may still get its record.

The master writes the record some seconds after the end of a job (15 by default), and a job has been missing
for some already when it is looked up. All lookups of one script share this time.
"""

_IN_QUEUE = "-=-in-the-queue-=-"

# The codes of sge_status(5).
_NEVER_STARTED = frozenset({1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 26, 27, 28, 29})
_NODE_FAIL = frozenset({19, 21})
_LIMIT_ENFORCED, _KILLED = 37, 100

_SLACK = 1
"""Seconds by which a job may be younger than its limit when it is killed: both are cut to whole seconds."""


class SGEQueue(Queue):
    """Jobs of a Grid Engine cell, which cannot list by id: the listing has all jobs of the user."""

    scheduler = SCHEDULERS["sge"]
    id_variable = "$JOB_ID"
    restarted = '[ "${RESTARTED:-0}" != 0 ]'
    target_refused = "Unable to run job: (job rejected: )?(Only [0-9]+ jobs are allowed per |no more jobs)"

    @property
    def _list(self) -> str:
        return f"qstat -u {self.user} -xml"

    # submitting ---------------------------------------------------------------------------------------

    def submit_command(self, script: str) -> str:
        """Return the qsub command; it prints only the id."""
        return f"{scheduler_io('sge').SUBMIT_CMD} -terse ./{shlex.quote(script)}"

    def submitted_id(self, answer: str) -> str | None:
        """Return the last id in the answer, also that of an array."""
        found = [_SUBMITTED.fullmatch(line.strip()) for line in answer.splitlines()]
        ids = [match[1] or match[2] for match in found if match]
        return ids[-1] if ids else None

    def refusal(self, result: CommandResult) -> Refusal | None:
        """Return why qsub failed."""
        text = result.stderr + result.stdout
        if result.exit_code in (126, 127) or _OUTAGE.search(text):
            return None
        if re.search(self.target_refused, text):
            return Refusal.TARGET
        return Refusal.FINAL if _REFUSED.search(text) else Refusal.JOB

    # listing ------------------------------------------------------------------------------------------

    def find_command(self, names: Sequence[str]) -> str:
        """Return the command that lists the user's jobs, with their whole names."""
        return self._list

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return the job id by name; the first of several."""
        ids: dict[str, str] = {}
        for queue_id, record in _records(result):
            name = _tag(record, "JB_name")
            if name in names:
                ids.setdefault(name, queue_id)
        return ids

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that lists all jobs of the user, after verifying the first waiting ones.

        These are the oldest: those that can never run are among them sooner or later.
        """
        return (
            f"qstat -u {self.user} 2>/dev/null | awk '$5 == \"qw\" {{ print $1 }}' | head -n {_VERIFIED} | "
            f"while read -r id; do verified=$(qalter -w v $id 2>&1 | tr '\\n' ' ')\n"
            f'echo "{_VERIFICATION} $id $verified"; done\n'
            f"{self._list}"
        )

    def listing(self, queue_ids: Mapping[str, str], result: CommandResult) -> dict[str, QueueEntry]:
        """Return the jobs that have not ended."""
        entries: dict[str, QueueEntry] = {}
        for queue_id, record in _records(result):
            entry = _entry(queue_id, _tag(record, "state"))
            if queue_id in queue_ids and entry is not None:
                entries.setdefault(queue_id, entry)  # the running tasks of an array come first
        for queue_id, reason in _UNSUITABLE.findall(result.stdout):
            if queue_id in entries and entries[queue_id].state is QueueState.PENDING:
                never = f"no queue can run it: {reason.strip()[:300]}; ask for less, or for another `queue`"
                entries[queue_id] = QueueEntry(QueueState.PENDING, "no suitable queues", never)
        return entries

    # cancelling ---------------------------------------------------------------------------------------

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the qdel command. It also takes names and patterns: only numbers are ids."""
        ids = [queue_id for queue_id in queue_ids if queue_id.isdecimal()]
        return in_parts(scheduler_io("sge").CANCEL_CMD, ids or ["0"])

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why jobs could not be cancelled."""
        messages: dict[str, str] = {}
        parts = parts_of(result)
        for part in parts:
            lines = [*part.stdout.splitlines(), *part.stderr.splitlines()]
            messages |= {match[1]: line for line in lines if (match := re.search(r'\bjob "?(\d+)\b', line))}
        failed = next((part for part in parts if part.exit_code != 0), None)
        silent = [queue_id for queue_id in queue_ids if queue_id.isdecimal() and queue_id not in messages]
        if failed is not None and silent:
            raise no_answer(failed)
        return {
            queue_id: messages[queue_id]
            for queue_id in queue_ids
            if re.search(r"privileges|^denied|^error", messages.get(queue_id, ""))
            and not messages[queue_id].endswith("does not exist")
        }

    # accounting ---------------------------------------------------------------------------------------

    def accounting_command(self, queue_id: str) -> str:
        """Return the command that asks the queue and, if it has forgotten the job, the accounting."""
        if not queue_id.isdecimal():  # qacct and qstat also take names and patterns
            return ":"
        return (
            f"if qstat -j {queue_id} >/dev/null 2>&1; then echo '{_IN_QUEUE}'; else\n"
            f"until qacct -j {queue_id} 2>/dev/null || [ $SECONDS -ge {_ACCOUNTING_WAIT} ]\n"
            "do sleep 1; done; fi"
        )

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return what Grid Engine knows of a job; one that was run again has a record of each run."""
        if _IN_QUEUE in result.stdout.splitlines():
            return Termination("Grid Engine: the job is in the queue", over=False)
        last = None
        for block in re.split(r"^={20,}$", result.stdout, flags=re.MULTILINE):
            pairs = (line.partition(" ") for line in block.splitlines())
            record = {key: value.strip() for key, _, value in pairs if key}
            if record.get("jobnumber") == queue_id:
                last = record
        return _termination(last) if last is not None else None


# reading the listing ----------------------------------------------------------------------------------------


def _records(result: CommandResult) -> Iterator[tuple[str, str]]:
    """Yield (id, XML) of every job. Each is read alone: one that is not XML does not affect the others."""
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


def _entry(queue_id: str, letters: str) -> QueueEntry | None:
    """Return the entry of a job by the letters of its state, which come in many combinations.

    The strongest first: E error, d being deleted, s S T suspended (by its user, its queue, an alarm), h held,
    r and t running and about to run, q and w waiting; R only means that it runs once more.
    """
    given = frozenset(letters)
    if not given or not given <= frozenset("qwhrRtsSTdEz"):
        return QueueEntry(QueueState.UNKNOWN)
    if given == {"z"}:
        return None
    if "E" in given:
        never = (
            f"Grid Engine put it into the error state ({letters}): `qstat -j {queue_id}` shows why; "
            f"it starts only after `qmod -cj {queue_id}`"
        )
        return QueueEntry(QueueState.PENDING, "error state", never)
    if given & frozenset("sST"):
        state = QueueState.SUSPENDED
    elif given & frozenset("rt"):
        state = QueueState.RUNNING
    elif "h" in given:
        state = QueueState.HELD
    elif given & frozenset("qw"):
        state = QueueState.PENDING
    else:
        state = QueueState.RUNNING if "d" in given else QueueState.UNKNOWN
    return QueueEntry(state, "it is being deleted" if "d" in given else "")


# reading how a job ended ------------------------------------------------------------------------------------


def _termination(record: Mapping[str, str]) -> Termination:
    failed, status = _number(record.get("failed", "")), _number(record.get("exit_status", ""))
    code = status if failed in (0, _LIMIT_ENFORCED, _KILLED, None) else None
    words = " ".join(record.get("failed", "").replace(":", " ").split())
    text = f"Grid Engine: failed {words}, exit_status {record.get('exit_status', '')}".rstrip()
    return Termination(" ".join(text.split()), _cause(failed or 0, code or 0, record), code)


def _cause(failed: int, code: int, record: Mapping[str, str]) -> Cause | None:
    """Return which limit a killed job had reached; the accounting names three at once, or none."""
    if failed in _NEVER_STARTED:
        return Cause.NEVER_STARTED
    if failed in _NODE_FAIL:
        return Cause.NODE_FAIL
    if code <= 128 and failed not in (_LIMIT_ENFORCED, _KILLED):
        return Cause.KILLED if failed else None
    pairs = (item.partition("=") for item in re.findall(r"[\w.]+=[^,\s]+", record.get("category", "")))
    asked = {key: value for key, _, value in pairs}  # of `-l h_rt=60,h_vmem=1G -pe smp 4`
    limits = [_seconds(asked[name]) for name in ("h_rt", "s_rt") if name in asked]
    ran = _number(record.get("ru_wallclock", ""))
    if ran is not None and any(limit is not None and ran + _SLACK >= limit for limit in limits):
        return Cause.WALLTIME
    memory = [_bytes(asked[name]) for name in ("h_vmem", "s_vmem") if name in asked]
    used = _bytes(record.get("maxvmem", "")) or 0.0
    if any(limit is not None and used >= limit for limit in memory):
        return Cause.OOM
    # A queue has limits of its own, which no record shows.
    of_queue = failed == _LIMIT_ENFORCED and not {"h_cpu", "h_vmem"} & asked.keys()
    return Cause.WALLTIME if of_queue else Cause.KILLED


def _seconds(text: str) -> int | None:
    """Return the seconds of ``3600``, ``1:00:00``, or ``:30:``, as Grid Engine takes them."""
    if not re.fullmatch(r"\d+|\d*:\d*:\d*", text):
        return None
    total = 0
    for number in text.split(":"):
        total = 60 * total + int(number or 0)
    return total


_UNITS = {"k": 1000.0, "K": 1024.0, "m": 1e6, "M": 1024.0**2, "g": 1e9, "G": 1024.0**3, "T": 1024.0**4}


def _bytes(text: str) -> float | None:
    """Return the bytes of a request, ``300M``, or of a usage, ``4.812MB``; both count in powers of 1024."""
    match = re.fullmatch(r"([\d.]+)([kKmMgGT]?)B?", text)
    return float(match[1]) * _UNITS.get(match[2], 1.0) if match else None


def _number(text: str) -> int | None:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None
