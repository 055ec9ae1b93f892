"""The plain shell: jobs are processes, each the leader of its own session and process group.

The queue id is the pid of the job's script, which is also its process group. ps lists the processes that
still run, and shows by the argument that every script gets whether a process is one of our scripts: after a
restart of the machine its pid may belong to any process. ps cannot tell how a process ended: the job's own
files do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.qtk import scheduler_io, standard_state
from reconciler.execution.queues.base import (
    Queue,
    QueueEntry,
    QueueState,
    Refusal,
    Termination,
    all_of,
    chunks,
)
from reconciler.model.schedulers import SCHEDULERS

_GRACE = 2
"""Seconds between asking a process group to end and killing it."""

_YOUNGER = 3600.0
"""Seconds by which a process may seem younger than its submission: two clocks may differ.

To take another process for our script only delays; to take our script for another process would declare a
running job dead.
"""

_MARK = "reconciler:"
"""What the argument of a script begins with; the name of its run directory follows."""

_STATES: Mapping[str, QueueState] = {
    "RUNNING": QueueState.RUNNING,
    "SUSPENDED": QueueState.SUSPENDED,
}


class ShellQueue(Queue):
    """Processes of a plain shell."""

    scheduler = SCHEDULERS["shell"]
    id_variable = "$$"
    lost_after = 3.0

    # submitting ---------------------------------------------------------------------------------------

    def submit_command(self, script: str) -> str:
        """Return the command that starts a script in the background and prints its pid."""
        io, name = scheduler_io("shell"), shlex.quote(script)
        # A pid comes back whatever becomes of the process, so look first whether the script can be read.
        # The braces keep the `&` of qtoolkit's command from sending that look to the background as well.
        marked = f'{name} "{_MARK}${{PWD##*/}}"'
        start = f"{{ setsid {io.get_submit_cmd(marked)}; }}"
        return f"( [ -r {name} ] && : >{io.stdout_path} && {start} ) </dev/null"

    def submitted_id(self, answer: str) -> str | None:
        """Return the pid, which stands alone on the last line of the answer."""
        last = answer.strip().rpartition("\n")[2].strip()
        return last if _is_pid(last) else None

    def refusal(self, result: CommandResult) -> Refusal | None:
        """Return None: there is no scheduler, so the machine did not start the script."""
        return None

    # listing ------------------------------------------------------------------------------------------

    def find_command(self, names: Sequence[str]) -> str:
        """Return a command that does nothing: processes do not have the name of their job."""
        return ":"

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return nothing; the claim in the run directory tells whether a script has begun."""
        return {}

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that lists these processes and prints the time of their machine."""
        # Only the last column may have blanks. The heading proves that ps works: it also fails when none of
        # the processes exists.
        columns = "pid,pgid,etime,state,args"
        lists = (f"ps -ww -o {columns} -p {','.join(ids)}" for ids in chunks(_pids(queue_ids)))
        return all_of([*lists, "date +'NOW %s'"])

    def listing(self, queue_ids: Mapping[str, float], result: CommandResult) -> dict[str, QueueEntry]:
        """Return the jobs that still run; zombies do not.

        A process that is not one of our scripts, or that began after the submission, is another process with
        the same pid.
        """
        rows = [line.split(maxsplit=4) for line in result.stdout.splitlines()]
        headings = sum(row[:2] == ["PID", "PGID"] for row in rows)
        now = next((int(row[1]) for row in rows if row[:1] == ["NOW"] and row[1:] and row[1].isdigit()), None)
        if now is None or headings < len(list(chunks(_pids(queue_ids)))):
            raise _failed("list", result)
        entries = {}
        for row in rows:
            process = _process(row)
            if process is None or process.pid not in queue_ids:
                continue
            state = standard_state("shell", process.state[:1]) or ""
            if state != "DONE" and process.is_script_of(queue_ids[process.pid], now):
                entries[process.pid] = QueueEntry(_STATES.get(state, QueueState.UNKNOWN))
        return entries

    # cancelling ---------------------------------------------------------------------------------------

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that ends whole process groups: SIGTERM at once, SIGKILL later.

        A group that is led by another process is not touched; a group whose leader has ended is still ours.
        """
        return "\n".join(map(_end_groups, chunks(_pids(queue_ids)))) or ":"

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why process groups could not be ended."""
        if result.exit_code != 0:
            raise _failed("end", result)
        complaints = re.findall(r"kill: \(-(\d+)\) - (.+)", result.stderr)
        return {pid: text for pid, text in complaints if pid in queue_ids and "No such process" not in text}

    # accounting ---------------------------------------------------------------------------------------

    def accounting_command(self, queue_id: str) -> str:
        """Return a command that does nothing: the system forgets how a process ended."""
        return ":"

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return None: the system forgets how a process ended."""
        return None


def _is_pid(queue_id: str) -> bool:
    """Return whether this is a pid whose group may be ended: the group -1 is everything of the user."""
    return bool(re.fullmatch(r"[1-9][0-9]{0,9}", queue_id)) and queue_id != "1"


def _pids(queue_ids: Iterable[str]) -> list[str]:
    return [queue_id for queue_id in queue_ids if _is_pid(queue_id)]


def _failed(action: str, result: CommandResult) -> TransientError:
    words = " ".join(result.stderr.split())[-300:] or f"exit code {result.exit_code}"
    return TransientError(f"cannot {action} processes: {words}")


class _Process(msgspec.Struct, frozen=True):
    """A line of ps. ``age`` is in seconds, None where ps does not tell it."""

    pid: str
    group: str
    age: int | None
    state: str
    command: str

    def is_script_of(self, submitted: float, now: int) -> bool:
        """Return whether this is the script that was started then: it leads its group, and is not younger."""
        is_script = self.pid == self.group and f" {_MARK}" in self.command
        return is_script and (self.age is None or now - self.age <= submitted + _YOUNGER)


def _process(row: Sequence[str]) -> _Process | None:
    if len(row) != 5 or not (row[0].isdigit() and row[1].isdigit()):
        return None
    age = None
    if elapsed := re.fullmatch(
        r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", row[2]
    ):  # [[days-]hours:]minutes:seconds
        days, hours, minutes, seconds = (int(number or 0) for number in elapsed.groups())
        age = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return _Process(row[0], row[1], age, row[3], row[4])


def _end_groups(pids: Sequence[str]) -> str:
    by_force = shlex.quote(f"sleep {_GRACE}; kill -KILL -- $*")
    return f"""( LC_ALL=C
strangers=" $(ps -ww -o pid=,state=,args= -p {",".join(pids)} |
  sed -n '/^ *[0-9]* *Z/d; / {_MARK}/d; s/^ *\\([0-9]*\\) .*/\\1/p' | tr '\\n' ' ')"
groups=()
for pid in {" ".join(pids)}; do
  case $strangers in *" $pid "*) ;; *) groups+=("-$pid") ;; esac
done
[ ${{#groups[@]}} -gt 0 ] || exit 0
kill -TERM -- "${{groups[@]}}"
setsid nohup bash -c {by_force} bash "${{groups[@]}}" </dev/null >/dev/null 2>&1 & )"""
