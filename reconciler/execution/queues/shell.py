"""The plain shell: jobs are processes, each the leader of its own session and process group.

The queue id is the pid of the job's script, which is also its process group. ps lists the processes that
still run. The argument that every script gets, the name of its run directory, shows whether a process is the
script of an attempt: after a restart of the machine its pid may belong to any process. ps cannot tell how a
process ended: the job's own files do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

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

_MARK = "reconciler:"
"""What the argument of a script begins with; the name of its run directory follows."""

_END = "END"

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
        """Return the command that lists these processes."""
        # Only the last column may have blanks. The heading proves that ps works: it also fails when none of
        # the processes exists.
        columns = "pid,pgid,state,args"
        lists = (f"ps -ww -o {columns} -p {','.join(ids)}" for ids in chunks(_pids(queue_ids)))
        return all_of([*lists, f"echo '{_END}'"])

    def listing(self, queue_ids: Mapping[str, str], result: CommandResult) -> dict[str, QueueEntry]:
        """Return the jobs that still run; zombies do not.

        A process that is not the script of the attempt is another process with the same pid.
        """
        rows = [line.split(maxsplit=3) for line in result.stdout.splitlines()]
        headings = sum(row[:2] == ["PID", "PGID"] for row in rows)
        if [_END] not in rows or headings < len(list(chunks(_pids(queue_ids)))):
            raise _failed("list", result)
        entries = {}
        for pid, group, state, command in (row for row in rows if len(row) == 4 and row[0] in queue_ids):
            name = standard_state("shell", state[:1]) or ""
            is_script = pid == group and f"{command} ".endswith(f" {_MARK}{queue_ids[pid]} ")
            if is_script and name != "DONE":
                entries[pid] = QueueEntry(_STATES.get(name, QueueState.UNKNOWN))
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
    output = result.stderr.strip() or result.stdout.strip()
    words = " ".join(output.split())[-300:] or f"exit code {result.exit_code}"
    return TransientError(f"cannot {action} processes: {words}")


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
