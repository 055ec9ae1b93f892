"""The plain shell: jobs as processes, each the leader of a session and process group of its own.

The queue id is the pid of the job's script, which is its process group too. ps tells who still runs, and by
the argument that every script gets, whether that is a script of ours: after a restart of the machine its pid
may be anybody's. ps cannot tell how one ended: the job's own files do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.qtk import scheduler_io, standard_state
from reconciler.execution.queues.base import QueueEntry, QueueState, Termination, all_of, chunks

_GRACE = 2
"""Seconds between asking a process group to end and killing it."""

_YOUNGER = 3600.0
"""Seconds by which a process may seem younger than its submission: two clocks may differ.

To take a stranger for ours only delays; to take ours for a stranger would declare a running job dead.
"""

_MARK = "reconciler:"
"""What the argument of a script begins with; the name of its run directory follows."""

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
    full = ""

    # submitting ---------------------------------------------------------------------------------------

    def submit_command(self, script: str) -> str:
        """Return the command that starts ``script``, a plain file name in the current directory."""
        io, name = scheduler_io("shell"), shlex.quote(script)
        # A pid comes back whatever becomes of the process: so look before whether it can begin at all.
        # The braces keep the `&` of qtoolkit's command from sending that look into the background as well.
        marked = f'{name} "{_MARK}${{PWD##*/}}"'
        start = f"{{ setsid {io.get_submit_cmd(marked)}; }}"
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
        # Blanks only in the last column. The heading proves that ps works: with no such process it fails too.
        columns = "pid,pgid,etime,state,args"
        lists = (f"ps -ww -o {columns} -p {','.join(ids)}" for ids in chunks(_valid(queue_ids)))
        return all_of([*lists, "date +'NOW %s'"])

    def listing(self, queue_ids: Mapping[str, float], result: CommandResult) -> dict[str, QueueEntry]:
        """Return those of these jobs that still run. Zombies do not.

        A process that is no script of ours, or began after the submission, is a stranger with the same pid.

        Raises
        ------
        TransientError
            ps did not work: nothing is known.
        """
        rows = [line.split(maxsplit=4) for line in result.stdout.splitlines()]
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
        """Return the command that ends whole process groups: politely at once, by force later.

        One that is led by a stranger is let be; one whose leader has ended is still ours.
        """
        return "\n".join(map(_ending, chunks(_valid(queue_ids)))) or ":"

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

    def accounting_command(self, queue_id: str) -> str:
        """Return a command that does nothing: the system forgets how a process ended."""
        return ":"

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return None: nobody knows."""
        return None


class _Process(msgspec.Struct, frozen=True):
    """A line of ps. ``age`` is in seconds, None where ps does not tell it."""

    pid: str
    group: str
    age: int | None
    state: str
    command: str

    def is_of(self, submitted: float, now: int) -> bool:
        """Whether this is the script that was started then: it leads its group, and is not younger."""
        is_script = self.pid == self.group and f" {_MARK}" in self.command
        return is_script and (self.age is None or now - self.age <= submitted + _YOUNGER)

    def entry(self) -> QueueEntry | None:
        """Return how it stands; None if it has ended."""
        standard = standard_state("shell", self.state[:1]) or ""
        return None if standard == "DONE" else QueueEntry(_STATES.get(standard, QueueState.UNKNOWN))


def _process(row: Sequence[str]) -> _Process | None:
    if len(row) != 5 or not (row[0].isdigit() and row[1].isdigit()):
        return None
    return _Process(row[0], row[1], _seconds(row[2]), row[3], row[4])


def _seconds(elapsed: str) -> int | None:
    """Read ``[[days-]hours:]minutes:seconds``."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", elapsed)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _ending(pids: Sequence[str]) -> str:
    by_force = shlex.quote(f"sleep {_GRACE}; kill -KILL -- $*")
    return f"""( LC_ALL=C
strangers=" $(ps -ww -o pid=,state=,args= -p {",".join(pids)} |
  sed -n '/^ *[0-9]* *Z/d; / {_MARK}/d; s/^ *\\([0-9]*\\) .*/\\1/p' | tr '\\n' ' ')"
set --
for pid in {" ".join(pids)}; do
  case $strangers in *" $pid "*) ;; *) set -- "$@" "-$pid" ;; esac
done
[ $# -gt 0 ] || exit 0
kill -TERM -- "$@"
setsid nohup bash -c {by_force} bash "$@" </dev/null >/dev/null 2>&1 & )"""


def _valid(queue_ids: Iterable[str]) -> list[str]:
    return [queue_id for queue_id in queue_ids if _is_ours_to_end(queue_id)]


def _is_ours_to_end(queue_id: str) -> bool:
    """Never 1, though it is a pid: to end the group -1 is to end everything of the user."""
    return bool(_ID.fullmatch(queue_id)) and queue_id != "1"
