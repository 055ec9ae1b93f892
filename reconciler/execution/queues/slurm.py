"""Slurm: sbatch, squeue, scancel, scontrol, sacct, and what their answers mean.

qtoolkit knows the states. Its parsers take one odd line for the end of the listing and "no answer" for "no
such job", so the lines are read here, one by one, and only those of our own jobs count.

With several clusters (``--clusters``) the number of a job says nothing without its cluster: then a queue id
is ``12;cluster``, as `sbatch --parsable` prints it, and every command asks that cluster.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.qtk import standard_state
from reconciler.execution.queues.base import (
    Queue,
    QueueEntry,
    QueueState,
    Refusal,
    Termination,
    all_of,
    chunks,
    no_answer,
)
from reconciler.model.retries import Cause
from reconciler.model.schedulers import SCHEDULERS

# Variables of the login shell that make a client leave out jobs, ask on the terminal, or change what sbatch
# must do with every job. They are stronger than the lines of the script.
_CLEAN_LISTING = "unset ${!SQUEUE_@}"
_CLEAN_CANCEL = "unset ${!SCANCEL_@}"
_CLEAN_SUBMIT = "unset SBATCH_{ARRAY_INX,ERROR,INPUT,JOB_NAME,NO_REQUEUE,OPEN_MODE,OUTPUT,REQUEUE,WAIT}"

_ID = re.compile(r"([1-9][0-9]{0,9})(?:;([A-Za-z0-9][\w.-]*))?", re.ASCII)
_SUBMITTED = re.compile(
    r"(?:.*:\s*)?(?:[Gg]ranted job allocation|[Ss]ubmitted batch job)\s+([1-9]\d*)(?: on cluster ([\w.-]+))?"
    r"|([1-9]\d*);([A-Za-z0-9][\w.-]*)",
    re.ASCII,
)
_COLUMNS, _SEPARATOR = "%i<><> %t<><> %r<><> %S", "<><>"
"""Of squeue: id, state, reason, and the time of the start, which may lie in the future."""
_NO_COMMAND = (126, 127)
"""Exit codes of the shell for a command that is not there or cannot be run."""

_OUTAGE = re.compile(
    r"Unable to contact slurm controller|Socket timed out on send/recv operation"
    r"|Zero Bytes were transmitted|Slurm backup controller in standby mode"
    r"|Protocol authentication error|Invalid authentication credential"
    r"|(Communication|Transport) (connection|shutdown) failure|Message (send|receive) failure"
    r"|Connection (refused|timed out|reset by peer)|No route to host|Transport endpoint is not connected"
    r"|Incompatible versions of client and server code|I/O error writing script/environment to file"
    r"|Invalid user id|Unable to process configuration file|Could not establish a configuration source"
    r"|(_establish_config_source|fetch_config|resolve_ctls_from_dns_srv|s_p_parse_file|slurm_conf_\w+): "
    r"|Munge encode failed|If munged is up|(auth_g_create|auth_g_pack|slurm_send_node_msg): "
)
"""Messages of Slurm that say nothing about a job: the controller, the network or the client does not work."""

_SUBMISSION_FAILED = re.compile(r"^sbatch: error: Batch job submission failed: (.*)", re.MULTILINE)
_CLIENT_FAILED = re.compile(r"^sbatch: (?:error|fatal): (.*)", re.MULTILINE)
_REFUSED = re.compile(r"^sbatch: (error|fatal|unrecognized|invalid|option)\b", re.MULTILINE)
_NOT_NOW = ("Required node not available", "Requested partition configuration not available now")
_POLICY = "Job violates accounting/QOS policy"

_NO_SUCH_JOB = "Invalid job id specified"
_ALREADY_OVER = (_NO_SUCH_JOB, "already completing or completed")

_STATES: Mapping[str, QueueState] = {
    "QUEUED": QueueState.PENDING,
    "QUEUED_HELD": QueueState.HELD,
    "REQUEUED": QueueState.PENDING,
    "REQUEUED_HELD": QueueState.HELD,
    "RUNNING": QueueState.RUNNING,
    "SUSPENDED": QueueState.SUSPENDED,
}
"""The standard states of qtoolkit; DONE and FAILED are jobs that have ended."""

_STATES_OF_CODES: Mapping[str, QueueState] = {
    "RQ": QueueState.PENDING,  # being requeued
    "RH": QueueState.HELD,  # requeued, and held
    "SE": QueueState.HELD,  # special exit: requeued, and held
    "ST": QueueState.SUSPENDED,  # stopped by SIGSTOP
}
"""Codes of Slurm for which qtoolkit has no state, or another one."""

_HELD = re.compile(r"held|hold", re.IGNORECASE)
"""JobHeldUser, JobHeldAdmin, JobHoldMaxRequeue, `launch failed requeued held`."""

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
    "InvalidAccount": "Slurm does not know its account: change `account`",
    "InvalidQOS": "Slurm does not know its QOS: change `qos`",
    "MaxMemPerLimit": "it asks for more memory per CPU or node than is allowed: ask for less",
    "QOSTimeLimit": "its QOS does not allow its time limit: ask for less `time` or another `qos`",
    "ReservationDeleted": "its reservation was deleted: ask for another one, or none",
}
"""Why a job can never start as it is, by the reason that Slurm gives, and what to change."""

_LIMIT_OF_ONE_JOB = re.compile(r"(Assoc|QOS)Max\w*Per(Job|Node)\w*$|QOSMin\w+$|(Assoc|QOS)MaxWall\w+$")
"""Limits that a single job exceeds, however empty the cluster is."""

_CAUSES: Mapping[str, Cause] = {
    "TIMEOUT": Cause.WALLTIME,
    "DEADLINE": Cause.WALLTIME,
    "OUT_OF_MEMORY": Cause.OOM,
    "NODE_FAIL": Cause.NODE_FAIL,
    "BOOT_FAIL": Cause.NODE_FAIL,
    "PREEMPTED": Cause.PREEMPTED,
    "REVOKED": Cause.KILLED,
    "CANCELLED": Cause.KILLED,
    "LAUNCH_FAILED": Cause.NEVER_STARTED,
    "RECONFIG_FAIL": Cause.NEVER_STARTED,
}
_FINAL_STATES = frozenset(_CAUSES) | {"COMPLETED", "FAILED"}

_LAUNCH_FAILED = 53
"""The signal that Slurm reports when it cannot start the script, for example to write its output."""

_TELLING_REASONS = (
    "BadConstraints",
    "JobHoldMaxRequeue",
    "InvalidAccount",
    "InvalidQOS",
    "AccountNotAllowed",
)
"""Reasons that say more than state and exit code; not JobLaunchFailure, which a killed script has too."""


class SlurmQueue(Queue):
    """Jobs of Slurm. With ``username`` a listing asks for all jobs of that user, otherwise for ids."""

    scheduler = SCHEDULERS["slurm"]
    id_variable = "$SLURM_JOB_ID"
    restarted = '[ "${SLURM_RESTART_COUNT:-0}" != 0 ]'
    target_refused = (
        "sbatch: error: (Assoc|QOS)[A-Za-z]*Submit[A-Za-z]*"
        "|sbatch: error: (Batch job submission failed: )?Slurm temporarily unable to accept job"
        r"|Batch job submission failed: (Job queue full|Required partition not available \(inactive)"
    )

    # submitting ---------------------------------------------------------------------------------------

    def submit_command(self, script: str) -> str:
        """Return the sbatch command."""
        return f"( {_CLEAN_SUBMIT}; sbatch {shlex.quote(script)} </dev/null )"

    def submitted_id(self, answer: str) -> str | None:
        """Return the job id in the answer of sbatch, on any of its lines, and the cluster if it names one."""
        found = [match for line in answer.splitlines() if (match := _SUBMITTED.match(line.strip()))]
        if not found:
            return None
        number, cluster = found[-1][1] or found[-1][3], found[-1][2] or found[-1][4]
        return f"{number};{cluster}" if cluster else number

    def same_job(self, one: str, other: str) -> bool:
        """Return whether two ids are of one job: inside a job Slurm gives the number alone."""
        return one.partition(";")[0] == other.partition(";")[0]

    def refusal(self, result: CommandResult) -> Refusal | None:
        """Return why sbatch failed.

        The controller's own message follows "Batch job submission failed"; the lines before it may be from a
        plugin of the site. Without it sbatch itself failed.
        """
        text = result.stderr
        if result.exit_code in _NO_COMMAND:
            return None
        if re.search(self.target_refused, text):
            return Refusal.TARGET
        found = _SUBMISSION_FAILED.findall(text)
        if found:
            message = found[-1]
            if _OUTAGE.match(message):
                return None
            if message.startswith(_POLICY):
                # Slurm names the limit in the line before. Without a name it can be any limit.
                named = re.findall(r"^sbatch: error: ((?:Assoc|QOS)[A-Z]\w+)", text, re.MULTILINE)
                if not named:
                    return Refusal.TARGET
                return Refusal.JOB if any("Grp" in name for name in named) else Refusal.FINAL
            return Refusal.JOB if message.startswith(_NOT_NOW) else Refusal.FINAL
        if any(map(_OUTAGE.match, _CLIENT_FAILED.findall(text))):
            return None
        if "Unable to open file" in text or not _REFUSED.search(text):
            return Refusal.JOB
        return Refusal.FINAL

    def cause_in_output(self, output: str) -> Cause | None:
        """Return the limit that slurmstepd names at the end of the error output."""
        if re.search(r"^slurmstepd: error: .* CANCELLED AT .* DUE TO TIME LIMIT", output, re.MULTILINE):
            return Cause.WALLTIME
        oom = r"^slurmstepd: error: Detected \d+ oom[-_]kill event"
        return Cause.OOM if re.search(oom, output, re.MULTILINE) else None

    # listing ------------------------------------------------------------------------------------------

    def find_command(self, names: Sequence[str]) -> str:
        """Return the squeue command that looks for names among the jobs of the user, on all clusters."""
        commands = []
        for some in chunks(names):
            ask = f"-u {self.user} -o '%i %j' --name={','.join(some)}"
            commands.append(f"squeue --noheader {ask}")
            # Fails where there is no data base of clusters. The names of the clusters belong to the headers.
            commands.append(f"{{ squeue -M all {ask} 2>/dev/null || :; }}")
        return all_of(commands, _CLEAN_LISTING)

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return the job id by name: on the usual cluster if it is there, and the lowest of several."""
        _check_answer(result)
        found: dict[str, tuple[str, int]] = {}
        cluster = ""
        for line in result.stdout.splitlines():
            number, _, name = line.strip().partition(" ")
            if number == "CLUSTER:":
                cluster = f";{name.strip()}"
            elif name in names and number.isdigit():
                found[name] = min(found.get(name, (cluster, int(number))), (cluster, int(number)))
        return {name: f"{number}{cluster}" for name, (cluster, number) in found.items()}

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the squeue command for these jobs, or for all jobs of the user; one for each cluster."""
        ask = f"squeue --noheader -o '{_COLUMNS}'"
        commands = []
        for cluster, numbers in sorted(_by_cluster(queue_ids).items()):
            if cluster:
                commands.append(f"echo 'CLUSTER: {cluster}'")
            if self.username:
                commands.append(f"{ask}{_on(cluster)} -u {self.user}")
            else:  # an empty list would mean all jobs of all users; of one job the exit code tells too much
                some = [ids if len(ids) > 1 else ids * 2 for ids in chunks(numbers)]
                commands += [f"{ask}{_on(cluster)} --jobs={','.join(ids)}" for ids in some]
        return all_of(commands, f"{_CLEAN_LISTING}; export SLURM_TIME_FORMAT=%s")

    def listing(self, queue_ids: Mapping[str, str], result: CommandResult) -> dict[str, QueueEntry]:
        """Return the jobs that have not ended; ``12+0`` and ``12_3`` are parts of job 12 and stand for it."""
        _check_answer(result)
        entries: dict[str, QueueEntry] = {}
        cluster = ""
        for line in result.stdout.splitlines():
            if line.startswith("CLUSTER:"):
                name = line.partition(":")[2].strip()
                cluster = f";{name}" if name else ""
                continue
            values = [value.strip() for value in line.split(_SEPARATOR)]
            queue_id = values[0] + cluster
            if queue_id not in queue_ids:
                queue_id = re.split(r"[+_]", values[0], maxsplit=1)[0] + cluster
            if queue_id not in queue_ids or len(values) < 3:
                continue
            entry = _entry(values[1], values[2], values[3] if len(values) > 3 else "")
            if entry is not None:
                entries.setdefault(queue_id, entry)
        return entries

    # cancelling ---------------------------------------------------------------------------------------

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the scancel command."""
        commands = [
            f"scancel -v{_on(cluster)} {' '.join(ids)}"  # without -v it says nothing
            for cluster, numbers in _by_cluster(queue_ids).items()
            for ids in chunks(numbers)
        ]
        return all_of(commands, _CLEAN_CANCEL)

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why jobs could not be cancelled, from the error output.

        The exit code is 0 for a job that does not exist, and does not tell which job failed.
        """
        complaints = dict(_complaints(result.stderr))
        if any(map(_OUTAGE.search, complaints.values())) or (result.exit_code and not complaints):
            raise no_answer(result, "scancel")
        return {
            queue_id: f"Slurm: {complaints[number]}"
            for queue_id in queue_ids
            if (number := queue_id.partition(";")[0]) in complaints
            and not any(over in complaints[number] for over in _ALREADY_OVER)
        }

    # accounting ---------------------------------------------------------------------------------------

    def accounting_command(self, queue_id: str) -> str:
        """Return the command that asks the controller, the accounting, and the file of ended jobs."""
        if not (match := _ID.fullmatch(queue_id)):
            return ":"
        number, on = match[1], _on(match[2] or "")
        # Not `show job -o`: with a line for each group of values, a name or a directory with blanks cannot be
        # taken for one of them. sacct answers where Slurm has a database, `sacct -c` from the file of ended
        # jobs.
        fields = "State,ExitCode,Timelimit"
        return (
            f"( echo '=scontrol'; scontrol{on} show job {number} && exit 0\n"
            f"echo '=sacct'; sacct{on} -n -P -X -j {number} -o {fields}\n"
            f"echo '=jobcomp'; sacct -c -n -P -j {number} -o {fields}\n"
            f"exit 0 ) 2>/dev/null"
        )

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return what the first place that knows the job reports."""
        controller, _, rest = result.stdout.partition("\n=sacct\n")
        record = _scontrol_record(controller.rpartition("=scontrol\n")[2])
        if record is not None:
            return _termination(record)
        # The others may report RUNNING forever for a job that was lost in a crash of the controller.
        records = [record for record in map(_sacct_record, rest.splitlines()) if record is not None]
        ended = [record for record in records if record.word in _FINAL_STATES]
        return _termination(ended[0]) if ended else None


# reading answers --------------------------------------------------------------------------------------------


def _by_cluster(queue_ids: Iterable[str]) -> dict[str, list[str]]:
    """Return the job numbers by cluster, "" being the usual one. An odd id would make squeue refuse all."""
    found: dict[str, list[str]] = {}
    for queue_id in queue_ids:
        if match := _ID.fullmatch(queue_id):
            found.setdefault(match[2] or "", []).append(match[1])
    return found


def _on(cluster: str) -> str:
    return f" -M {cluster}" if cluster else ""


def _check_answer(result: CommandResult) -> None:
    """Tell "there is no such job" from "there is no answer", for which this raises TransientError."""
    errors = [line for line in result.stderr.splitlines() if re.search(r"error:|fatal:", line)]
    # A user that cannot be looked up gives an empty list, with exit code 0.
    if result.exit_code == 0 and not any("Invalid user" in line for line in errors):
        return
    if not errors or not all(_NO_SUCH_JOB in line for line in errors):
        raise no_answer(result, "squeue")


def _entry(code: str, reason: str, start: str) -> QueueEntry | None:
    """Return the entry for a state code (``PD``), a reason and a start; None if the job has ended."""
    standard = standard_state("slurm", code)
    if standard in ("DONE", "FAILED") and code not in _STATES_OF_CODES:
        return None
    state = _STATES_OF_CODES.get(code) or _STATES.get(standard or "", QueueState.UNKNOWN)
    if state not in (QueueState.PENDING, QueueState.HELD):
        return QueueEntry(state)
    expected = float(start) if start.isdigit() else None
    if reason in ("None", "(null)", "N/A"):
        reason = ""
    if _HELD.search(reason):
        state = QueueState.HELD
    word = re.split(r"[\s,:(]", reason, maxsplit=1)[0]
    never = _NEVER.get(word, "")
    if not never and _LIMIT_OF_ONE_JOB.fullmatch(word):
        never = "it exceeds a limit that its account or QOS sets for each job: ask for less, or another `qos`"
    return QueueEntry(state, reason, f"{never} ({word})" if never else "", expected)


def _complaints(errors: str) -> Iterator[tuple[str, str]]:
    """Yield (job id, what is wrong) of the complaints of scancel; the id is empty if it is about no job."""
    for line in errors.splitlines():
        _, found, text = line.partition("error: ")
        if found:
            about = re.search(r"\bjob(?: id)? (\d+)\S*: (.+)", text)
            yield (about[1], about[2]) if about else ("", text)


class _Record(msgspec.Struct, frozen=True):
    """What Slurm remembers of a job. ``state`` may have more words: ``CANCELLED by 1000``."""

    state: str
    exit_code: str = "0:0"
    time_limit: str = ""
    reason: str = ""

    @property
    def word(self) -> str:
        """The state alone."""
        return re.split(r"[\s+]", self.state.strip(), maxsplit=1)[0]


def _scontrol_record(text: str) -> _Record | None:
    """Read `scontrol show job`, by the first lines that fit: names and directories come after them."""
    state = re.search(r"^\s+JobState=(\S+) Reason=(.*?) Dependency=", text, re.MULTILINE)
    code = re.search(r"^\s+Requeue=.* ExitCode=(\d+:\d+)", text, re.MULTILINE)
    limit = re.search(r"^\s+RunTime=\S+ TimeLimit=(\S+)", text, re.MULTILINE)
    if state is None:
        return None
    return _Record(state[1], code[1] if code else "0:0", limit[1] if limit else "", state[2])


def _sacct_record(line: str) -> _Record | None:
    values = line.split("|")
    if len(values) != 3 or not re.fullmatch(r"\d+:\d+", values[1]):
        return None
    is_minutes = values[2].isdigit()  # `sacct -c` gives a number only
    return _Record(values[0], values[1], f"{values[2]} min" if is_minutes else values[2])


def _termination(record: _Record) -> Termination:
    state = record.word
    if state not in _FINAL_STATES:
        return Termination(f"Slurm: {record.state}", over=False)
    code, signal = map(int, record.exit_code.split(":"))
    started = signal != _LAUNCH_FAILED and record.reason not in _TELLING_REASONS
    cause = _CAUSES.get(state) if started else Cause.NEVER_STARTED
    exit_code: int | None = 128 + signal if signal else code
    if cause is None and exit_code in (128 + 9, 128 + 15):
        cause = Cause.KILLED
    # The exit code of a job that Slurm ended only tells how it did that, and 0 would look like success.
    if not (state == "COMPLETED" or (state == "FAILED" and started and exit_code != 0)):
        exit_code = None
    parts = [re.sub(r"\bby (\d+)$", r"by user \1", record.state)]
    if cause is Cause.WALLTIME and record.time_limit:
        parts.append(f"time limit {record.time_limit}")
    if record.reason in _TELLING_REASONS:
        parts.append(record.reason)
    elif cause is Cause.NEVER_STARTED:
        parts.append("its script could not be started")
    if exit_code:
        parts.append(f"exit code {exit_code}")
    return Termination("Slurm: " + ", ".join(parts), cause, exit_code)
