"""The plain shell: jobs as processes, each the leader of a session and process group of its own.

The queue id is the pid of the job's script, which is its process group too. ps tells who still runs.
It cannot tell the name of a job, nor how one ended: the job's own files do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.command import CommandResult
from reconciler.execution.qtk import scheduler_io, standard_state
from reconciler.execution.queues.base import Death, Entry, QueueState
from reconciler.execution.queues.texts import all_of, chunks

_GRACE = 2
"""Seconds between asking a process group to end and killing it."""

_YOUNGER = 3600.0
"""Seconds by which a process may seem younger than its submission: two clocks may differ.

To take a stranger for ours only delays; to take ours for a stranger would declare a running job dead.
"""

_STATES: Mapping[str, QueueState] = {
    "RUNNING": QueueState.RUNNING,
    "SUSPENDED": QueueState.SUSPENDED,
}

_ID = re.compile(r"[1-9][0-9]{0,9}")


class ShellQueue:
    """Processes of a plain shell."""

    scheduler_type = "shell"
    id_variable = "$$"
    lost_after = 3.0

    # submitting ---------------------------------------------------------------------------------------

    def submit_command(self, script: str) -> str:
        """Return the command that starts ``script``, a plain file name in the current directory."""
        io, name = scheduler_io("shell"), shlex.quote(script)
        # A pid comes back whatever becomes of the process: so look before whether it can begin at all.
        # The braces keep the `&` of qtoolkit's command from sending that look into the background as well.
        start = f"{{ setsid {io.get_submit_cmd(name)}; }}"
        return f"( [ -r {name} ] && : >{io.stdout_path} && {start} ) </dev/null"

    def submitted_id(self, answer: str) -> str | None:
        """Return the pid, which stands alone on the last line of the answer; None if there is none."""
        last = answer.strip().rpartition("\n")[2].strip()
        return last if _is_ours_to_end(last) else None

    def refused(self, result: CommandResult) -> bool:
        """Return False: a script that did not start may start later; there is no scheduler to say no."""
        return False

    # looking ------------------------------------------------------------------------------------------

    def find_command(self, names: Sequence[str]) -> str:
        """Return a command that does nothing: processes have no name of their job."""
        return ":"

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return nothing; the claim in the run directory tells whether a script has begun."""
        return {}

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that lists these processes, and tells the time of their machine."""
        # Columns without blanks. The heading proves that ps works: with none of the processes it fails too.
        lists = (f"ps -o pid,pgid,etime,state -p {','.join(ids)}" for ids in chunks(_valid(queue_ids)))
        return all_of([*lists, "date +'NOW %s'"])

    def listing(self, queue_ids: Mapping[str, float], result: CommandResult) -> dict[str, Entry]:
        """Return those of these jobs that still run. Zombies do not.

        A process that began after the submission is a stranger that got the same pid.

        Raises
        ------
        TransientError
            ps did not work: nothing is known.
        """
        rows = [line.split() for line in result.stdout.splitlines()]
        headings = sum(row[:2] == ["PID", "PGID"] for row in rows)
        now = next((int(row[1]) for row in rows if row[:1] == ["NOW"] and row[1:] and row[1].isdigit()), None)
        if now is None or headings < len(list(chunks(_valid(queue_ids)))):
            said = " ".join(result.stderr.split())[-300:] or f"exit code {result.exit_code}"
            raise TransientError(f"cannot list processes: {said}")
        processes = [found for found in map(_process, rows) if found and found.pid in queue_ids]
        alive = [process for process in processes if process.is_of(queue_ids[process.pid], now)]
        return {process.pid: entry for process in alive if (entry := process.entry())}

    # cancelling ---------------------------------------------------------------------------------------

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that ends whole process groups: politely at once, by force later."""
        return "\n".join(_ending([f"-{pid}" for pid in pids]) for pids in chunks(_valid(queue_ids))) or ":"

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why process groups could not be ended, by id. One that is gone is no problem.

        Raises
        ------
        TransientError
            The command did not run.
        """
        if result.exit_code != 0:
            said = " ".join(result.stderr.split())[-300:] or f"exit code {result.exit_code}"
            raise TransientError(f"cannot end processes: {said}")
        complaints = re.findall(r"kill: \(-(\d+)\) - (.+)", result.stderr)
        return {pid: text for pid, text in complaints if pid in queue_ids and "No such process" not in text}

    # the dead -----------------------------------------------------------------------------------------

    def autopsy_command(self, queue_id: str) -> str:
        """Return a command that does nothing: the system forgets how a process ended."""
        return ":"

    def autopsy(self, queue_id: str, result: CommandResult) -> Death | None:
        """Return None: nobody knows."""
        return None


class _Process(msgspec.Struct, frozen=True):
    """A line of ps. ``age`` is in seconds, None where ps does not tell it."""

    pid: str
    group: str
    age: int | None
    state: str

    def is_of(self, submitted: float, now: int) -> bool:
        """Whether this is the process that was started then: it leads its group, and is not younger."""
        return self.pid == self.group and (self.age is None or now - self.age <= submitted + _YOUNGER)

    def entry(self) -> Entry | None:
        """Return how it stands; None if it has ended."""
        standard = standard_state("shell", self.state[:1]) or ""
        return None if standard == "DONE" else Entry(_STATES.get(standard, QueueState.UNKNOWN))


def _process(row: Sequence[str]) -> _Process | None:
    if len(row) != 4 or not (row[0].isdigit() and row[1].isdigit()):
        return None
    return _Process(row[0], row[1], _seconds(row[2]), row[3])


def _seconds(elapsed: str) -> int | None:
    """Read ``[[days-]hours:]minutes:seconds``."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", elapsed)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _ending(groups: Sequence[str]) -> str:
    every = " ".join(groups)
    by_force = shlex.quote(f"sleep {_GRACE}; kill -KILL -- {every}")
    return (
        f"( LC_ALL=C; kill -TERM -- {every}\nsetsid nohup bash -c {by_force} </dev/null >/dev/null 2>&1 & )"
    )


def _valid(queue_ids: Iterable[str]) -> list[str]:
    return [queue_id for queue_id in queue_ids if _is_ours_to_end(queue_id)]


def _is_ours_to_end(queue_id: str) -> bool:
    """Never 1, though it is a pid: to end the group -1 is to end everything of the user."""
    return bool(_ID.fullmatch(queue_id)) and queue_id != "1"
