"""Slurm: sbatch, squeue, scancel, and what their answers mean.

qtoolkit knows the commands and the states. Its parsers take one odd line for the end of the listing and "no
answer" for "no such job"; so lines are read here, one by one, and only those of our own jobs count.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.qtk import scheduler_io, standard_state
from reconciler.execution.queues.base import QueueEntry, QueueState, Termination, all_of, chunks
from reconciler.model.retries import Cause

# Why a job waits, in the words of Slurm, and which of these reasons can never clear by themselves.


_NEVER: Mapping[str, str] = {
    "PartitionNodeLimit": "it asks for more nodes than its partition has or allows: "
    "ask for less `nodes` or another `partition`",
    "PartitionTimeLimit": "its time limit is longer than its partition allows: "
    "ask for less `time` or another `partition`",
    "PartitionConfig": "its partition has no such nodes or CPUs: ask for less, or another `partition`",
    "DependencyNeverSatisfied": "it depends on a job that ended otherwise: cancel it and run it again",
    "BadConstraints": "no node has what it asks for: change `constraint`, memory or CPUs",
    "AccountNotAllowed": "its account may not use this partition: change `account` or `partition`",
    "QOSNotAllowed": "its QOS may not be used here: change `qos`, `account` or `partition`",
    "InvalidAccount": "Slurm knows no such account: change `account`",
    "InvalidQOS": "Slurm knows no such QOS: change `qos`",
    "MaxMemPerLimit": "it asks for more memory per CPU or node than is allowed: ask for less",
    "QOSTimeLimit": "its QOS has no such time left: ask for less `time` or another `qos`",
    "ReservationDeleted": "its reservation is gone: ask for another one, or none",
}
_LIMIT_OF_A_JOB = re.compile(r"(Assoc|QOS)Max\w*Per(Job|Node)\w*$|QOSMin\w+$|(Assoc|QOS)MaxWall\w+$")
"""Limits that a job breaks all alone, however empty the cluster is."""

_HELD = re.compile(r"held|hold", re.IGNORECASE)
"""JobHeldUser, JobHeldAdmin, JobHoldMaxRequeue, `launch failed requeued held`."""


def reason_of(text: str) -> str:
    """Return the reason, empty if there is none."""
    return "" if text in ("None", "(null)", "N/A") else text


def is_held(reason: str) -> bool:
    """Whether somebody has to release the job."""
    return bool(_HELD.search(reason))


def never(reason: str) -> str:
    """Return, for people, why a job can never start as it is, and what to change; empty if it can."""
    code = re.split(r"[\s,:(]", reason, maxsplit=1)[0]
    text = _NEVER.get(code, "")
    if not text and _LIMIT_OF_A_JOB.fullmatch(code):
        text = "it breaks a limit that its account or QOS sets for every job: ask for less, or another `qos`"
    return f"{text} ({code})" if text else ""


# What Slurm remembers of a job that is over: asked of three places, of which any may know nothing.


_LAUNCH_FAILED = 53
"""The signal that Slurm pretends when it cannot start the script, as when its output cannot be written."""

_CAUSES: Mapping[str, Cause] = {
    "TIMEOUT": Cause.WALLTIME,
    "DEADLINE": Cause.WALLTIME,
    "OUT_OF_MEMORY": Cause.OOM,
    "NODE_FAIL": Cause.NODE_FAIL,
    "BOOT_FAIL": Cause.NODE_FAIL,
    "PREEMPTED": Cause.KILLED,
    "REVOKED": Cause.KILLED,
    "CANCELLED": Cause.KILLED,
    "LAUNCH_FAILED": Cause.NEVER_STARTED,
    "RECONFIG_FAIL": Cause.NEVER_STARTED,
}
_FINISHED_STATES = frozenset(_CAUSES) | {"COMPLETED", "FAILED"}
_TELLING = ("BadConstraints", "JobHoldMaxRequeue", "InvalidAccount", "InvalidQOS", "AccountNotAllowed")
"""Reasons that say more than state and exit code do. JobLaunchFailure is none: a killed script has it too."""


class SlurmRecord(msgspec.Struct, frozen=True):
    """What one of the places says. ``state`` may have more words: ``CANCELLED by 1000``."""

    state: str
    exit_code: str = "0:0"
    time_limit: str = ""
    reason: str = ""


def asking(queue_id: str) -> str:
    """Return the command that asks where something may be known; it never fails."""
    # Not `show job -o`: with a line for each group of values, a name or a directory with blanks in it cannot
    # be taken for one of them. sacct answers where Slurm has a data base, `sacct -c` from the file of ended
    # jobs.
    fields = "State,ExitCode,Timelimit"
    return (
        f"( echo '=scontrol'; scontrol show job {queue_id} && exit 0\n"
        f"echo '=sacct'; sacct -n -P -X -j {queue_id} -o {fields}\n"
        f"echo '=jobcomp'; sacct -c -n -P -j {queue_id} -o {fields}\n"
        f"exit 0 ) 2>/dev/null"
    )


def death(output: str) -> Termination | None:
    """Return what the output of :func:`asking` says; None if nobody knows the job."""
    live, _, rest = output.partition("\n=sacct\n")
    known = _scontrol(live.rpartition("=scontrol\n")[2])
    if known is not None:
        return _death(known)
    # Others may say RUNNING for ever of a job that was lost in a crash of the controller: no news.
    found = [
        facts for facts in map(_sacct, rest.splitlines()) if facts and _word(facts.state) in _FINISHED_STATES
    ]
    return _death(found[0]) if found else None


def _scontrol(text: str) -> SlurmRecord | None:
    """The first lines that look like it: names and directories come first on a line only after these."""
    state = re.search(r"^\s+JobState=(\S+) Reason=(.*?) Dependency=", text, re.MULTILINE)
    code = re.search(r"^\s+Requeue=.* ExitCode=(\d+:\d+)", text, re.MULTILINE)
    limit = re.search(r"^\s+RunTime=\S+ TimeLimit=(\S+)", text, re.MULTILINE)
    if state is None:
        return None
    return SlurmRecord(state[1], code[1] if code else "0:0", limit[1] if limit else "", state[2])


def _sacct(line: str) -> SlurmRecord | None:
    values = line.split("|")
    if len(values) != 3 or not re.fullmatch(r"\d+:\d+", values[1]):
        return None
    minutes = values[2].isdigit()  # `sacct -c` gives a number only
    return SlurmRecord(values[0], values[1], f"{values[2]} min" if minutes else values[2])


def _word(state: str) -> str:
    return re.split(r"[\s+]", state.strip(), maxsplit=1)[0]


def _death(facts: SlurmRecord) -> Termination:
    state = _word(facts.state)
    if state not in _FINISHED_STATES:
        return Termination(f"Slurm: {facts.state}", over=False)
    code, signal = map(int, facts.exit_code.split(":"))
    started = signal != _LAUNCH_FAILED and facts.reason not in _TELLING
    cause = _CAUSES.get(state) if started else Cause.NEVER_STARTED
    exit_code = 128 + signal if signal else code
    if cause is None and exit_code in (128 + 9, 128 + 15):
        cause = Cause.KILLED
    # Of a job that Slurm ended the exit code would only tell how; and a 0 would look like success.
    has_code = state == "COMPLETED" or (state == "FAILED" and started and exit_code != 0)
    return Termination(
        _text(facts, exit_code if has_code else None, cause), cause, exit_code if has_code else None
    )


def _text(facts: SlurmRecord, exit_code: int | None, cause: Cause | None) -> str:
    parts = [re.sub(r"\bby (\d+)$", r"by user \1", facts.state)]
    if cause is Cause.WALLTIME and facts.time_limit:
        parts.append(f"time limit {facts.time_limit}")
    if facts.reason in _TELLING:
        parts.append(facts.reason)
    elif cause is Cause.NEVER_STARTED:
        parts.append("its script could not be started")
    if exit_code:
        parts.append(f"exit code {exit_code}")
    return "Slurm: " + ", ".join(parts)


_STATES: Mapping[str, QueueState] = {
    "QUEUED": QueueState.PENDING,
    "QUEUED_HELD": QueueState.HELD,
    "REQUEUED": QueueState.PENDING,
    "REQUEUED_HELD": QueueState.HELD,
    "RUNNING": QueueState.RUNNING,
    "SUSPENDED": QueueState.SUSPENDED,
}
_OWN_STATES: Mapping[str, QueueState] = {
    "RQ": QueueState.PENDING,  # being requeued
    "RH": QueueState.HELD,  # requeued, and held
    "SE": QueueState.HELD,  # special exit: requeued, and held
    "ST": QueueState.SUSPENDED,  # stopped by SIGSTOP
}
"""States for which qtoolkit has none, or another one."""

_ENDED = ("DONE", "FAILED")

# Variables of the login shell that would make the client leave out jobs, ask on the terminal, or change
# what sbatch must do with every job; they are stronger than the script's own lines.
_ASK = "unset ${!SQUEUE_@}"
_CANCEL = "unset ${!SCANCEL_@}"
_SUBMIT = "unset SBATCH_{ARRAY_INX,ERROR,INPUT,JOB_NAME,NO_REQUEUE,OPEN_MODE,OUTPUT,REQUEUE,WAIT}"

_NO_SUCH_JOB = "Invalid job id specified"
_OVER_ALREADY = (_NO_SUCH_JOB, "already completing or completed")
_OUTAGE = re.compile(
    r"(unable|failed) to contact|timed out|zero bytes|standby|authentication|munge|communication|connection"
    r"|configuration (file|source)|I/O error|temporarily|not available \((inactive|down)|invalid user id",
    re.IGNORECASE,
)
"""Errors that say nothing about a job or a request: the same may work later."""

# The message about policies alone may be about any limit: then it may pass, see _may_pass.
_FULL = (
    "[[ $said =~ (Assoc|QOS)[A-Z][A-Za-z]*Submit || $said == *'unable to accept job'*"
    " || $said == *'job queue full'* || $said == *'accounting/QOS policy'* && ! $said =~ (Assoc|QOS)[A-Z] ]]"
)

_ID = re.compile(r"[1-9][0-9]{0,9}")
_REFUSED = re.compile(r"^sbatch: (error|fatal|unrecognized|invalid|option)\b", re.MULTILINE)


class SlurmQueue:
    """Jobs of Slurm. With ``username`` a listing asks for all jobs of that user, else for ids."""

    scheduler_type = "slurm"
    id_variable = "$SLURM_JOB_ID"
    lost_after = 10.0
    full = _FULL

    def __init__(self, username: str | None = None) -> None:
        self.username = username

    @property
    def _io(self) -> Any:
        return scheduler_io("slurm")

    # submitting ---------------------------------------------------------------------------------------

    def submit_command(self, script: str) -> str:
        """Return the command that submits ``script``, a plain file name in the current directory."""
        return f"( {_SUBMIT}; {self._io.get_submit_cmd(shlex.quote(script))} </dev/null )"

    def submitted_id(self, answer: str) -> str | None:
        """Return the job id in the answer of sbatch, wherever it stands; None if there is none."""
        ids = (self._io.parse_submit_output(0, line, "").job_id for line in answer.splitlines())
        found = [str(queue_id) for queue_id in ids if queue_id]
        return found[-1] if found else None

    def refused(self, result: CommandResult) -> bool:
        """Whether sbatch, or the controller, said no to the script itself; limits on the user may pass."""
        said = result.stderr
        if result.exit_code == 0 or "Unable to open file" in said:
            return False
        return bool(_REFUSED.search(said)) and not _OUTAGE.search(said) and not _may_pass(said)

    # looking ------------------------------------------------------------------------------------------

    def find_command(self, names: Sequence[str]) -> str:
        """Return the command that looks for jobs by their name among those of the user."""
        user = _quoted_user(self.username)
        asks = (f"squeue --noheader -u {user} -o '%i %j' --name={','.join(some)}" for some in chunks(names))
        return all_of(asks, _ASK)

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return the job id of each of these names that is in the queue now; the oldest of several.

        Raises
        ------
        TransientError
            That was no answer.
        """
        _check_answer(result)
        wanted, ids = set(names), dict[str, str]()
        for line in result.stdout.splitlines():
            queue_id, _, name = line.strip().partition(" ")
            if name in wanted and queue_id.isdigit():
                ids[name] = min(queue_id, ids.get(name, queue_id), key=int)
        return ids

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that lists these jobs, or all of the user."""
        if self.username:
            return all_of([self._io.get_jobs_list_cmd(None, self.username)], _ASK)
        # An empty list would mean all jobs of everybody.
        some = chunks(_valid(queue_ids))
        return all_of([self._io.get_jobs_list_cmd(ids, None) for ids in some], _ASK)

    def listing(self, queue_ids: Mapping[str, float], result: CommandResult) -> dict[str, QueueEntry]:
        """Return those of these jobs that have not ended.

        Raises
        ------
        TransientError
            That was no answer: nothing is known.
        """
        _check_answer(result)
        separator = self._io.split_separator
        entries: dict[str, QueueEntry] = {}
        for line in result.stdout.splitlines():
            # The first three values cannot hold the separator; a name, which comes later, can.
            values = [value.strip() for value in line.split(separator)]
            queue_id = _ours(values[0], queue_ids)
            if queue_id is None or len(values) < 3:
                continue
            entry = _entry(values[1], values[2])
            if entry is not None:
                entries.setdefault(queue_id, entry)
        return entries

    # cancelling ---------------------------------------------------------------------------------------

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that cancels these jobs; it does not wait until they are gone."""
        some = chunks(_valid(queue_ids))
        return all_of([f"{self._io.CANCEL_CMD} {' '.join(ids)}" for ids in some], _CANCEL)

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why jobs could not be cancelled, by id. One that is over already is no problem.

        Raises
        ------
        TransientError
            That was no answer.
        """
        # The exit code is 0 for a job that does not exist, and says nothing about which of them failed.
        complaints = dict(_complaints(result.stderr))
        if any(map(_OUTAGE.search, complaints.values())) or (result.exit_code and not complaints):
            raise _no_answer("scancel", result)
        return {
            queue_id: f"Slurm: {text}"
            for queue_id, text in complaints.items()
            if queue_id in queue_ids and not any(over in text for over in _OVER_ALREADY)
        }

    # the dead -----------------------------------------------------------------------------------------

    def accounting_command(self, queue_id: str) -> str:
        """Return the command that asks the controller, the accounting, and the file of ended jobs."""
        valid = _valid([queue_id])
        return asking(valid[0]) if valid else ":"

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return what Slurm knows of a job that is over; None if nothing."""
        return death(result.stdout)


def _valid(queue_ids: Iterable[str]) -> list[str]:
    """One that is none would make squeue refuse all the others."""
    return [queue_id for queue_id in queue_ids if _ID.fullmatch(queue_id)]


def _quoted_user(username: str | None) -> str:
    return shlex.quote(username) if username else '"$(id -un)"'


def _may_pass(said: str) -> bool:
    """Whether a limit on how many jobs a user may submit was met; a limit that is named tells which it is."""
    named = re.findall(r"\b(?:Assoc|QOS)[A-Z]\w+", said)
    if named:
        return any("Submit" in name or "Grp" in name for name in named)
    return "accounting/QOS policy" in said


def _entry(code: str, text: str) -> QueueEntry | None:
    """Return how a job stands; None if it has ended."""
    standard = standard_state("slurm", code)
    state = _OWN_STATES.get(code) or _STATES.get(standard or "", QueueState.UNKNOWN)
    if standard in _ENDED and code not in _OWN_STATES:
        return None
    if state not in (QueueState.PENDING, QueueState.HELD):
        return QueueEntry(state)
    reason = reason_of(text)
    if is_held(reason):
        state = QueueState.HELD
    return QueueEntry(state, reason, never(reason))


def _ours(listed: str, queue_ids: Mapping[str, float]) -> str | None:
    """Return which of our ids a line is of; parts of a job (``12+0``, ``12_3``) stand for the whole."""
    if listed in queue_ids:
        return listed
    whole = re.split(r"[+_]", listed, maxsplit=1)[0]
    return whole if whole in queue_ids else None


def _check_answer(result: CommandResult) -> None:
    """Tell "there is no such job" from "there is no answer".

    Raises
    ------
    TransientError
        It is the latter.
    """
    errors = [line for line in result.stderr.splitlines() if re.search(r"error:|fatal:", line)]
    # A user that cannot be looked up gives an empty list, with exit code 0.
    if result.exit_code == 0 and not any("Invalid user" in line for line in errors):
        return
    if not errors or not all(_NO_SUCH_JOB in line for line in errors):
        raise _no_answer("squeue", result)


def _no_answer(command: str, result: CommandResult) -> TransientError:
    said = " ".join(result.stderr.split())[-300:] or "no message"
    return TransientError(f"{command} gave no answer (exit code {result.exit_code}): {said}")


def _complaints(errors: str) -> Iterator[tuple[str, str]]:
    """Yield (job id, what is wrong) of the complaints of scancel; an empty id if it is about no job."""
    for line in errors.splitlines():
        _, found, text = line.partition("error: ")
        if not found:
            continue
        about = re.search(r"\bjob(?: id)? (\d+)\S*: (.+)", text)
        yield (about[1], about[2]) if about else ("", text)
