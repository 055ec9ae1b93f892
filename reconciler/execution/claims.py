"""The claim of an attempt, in shell: of all scripts and commands that meet in a run directory, one wins.

The script that runs the attempt, or the command that withdraws it, makes ``claim/``. ``claim/queue_id`` names
the owner, or is ``withdrawn``. A scheduler that requeues a job starts the same script again; each such start,
and the command that gives an ended attempt up, creates the next ``claim/turn.<n>`` (n from 2): its content is
``closed``, or ``run`` with the process that runs. All these files are created exclusively, so that one wins
and no clocks are compared. ``claim/ended.<n>`` has the exit code of a turn.
"""

from __future__ import annotations

from reconciler.execution.queues.registry import queue_of
from reconciler.model.flows import is_run_dir
from reconciler.model.records import JobRecord, LeftAttempt

CLAIM = "claim"
DOCUMENTS = f"{CLAIM}/documents"
"""The large documents of a result, by the sha256 of their bytes."""
RESULT = f"{CLAIM}/result.json"
EXIT_CODE = f"{CLAIM}/exit_code"
RUNS, TOO_EARLY = 22, 23
"""Exit codes of :data:`WITHDRAW`."""

CREATE = """\
reconciler_create() { ( set -C; printf '%s\\n' "$2" > "$1" ) 2>/dev/null; }
"""
"""Create a file with one line, unless it exists."""

_LAST_TURN = f"""\
turn=1; while [ -e {CLAIM}/turn.$((turn + 1)) ]; do turn=$((turn + 1)); done
"""


def claim_lines(scheduler_type: str, marker: str) -> str:
    """Return the lines of a script that claim its attempt, or end the script.

    A script that its scheduler starts again waits while its first process lives on this machine. It goes on
    when that is certainly gone: it left no result, and was ended by a signal or without a trace. ``marker``
    is the quoted path of the marker that the first process may have left.
    """
    queue = queue_of(scheduler_type)
    if not queue.scheduler.is_batch:
        again = "exit 0"
    else:
        again = f"""\
[ "$(head -n 1 {CLAIM}/queue_id 2>/dev/null)" = "$reconciler_id" ] || exit 0
{_LAST_TURN}\
if [ $turn = 1 ]; then read -r machine boot process < {CLAIM}/process 2>/dev/null
else read -r word machine boot process < {CLAIM}/turn.$turn && [ "$word" = run ] || exit 0; fi
ended={CLAIM}/ended.$turn
# While the first process lives, the scheduler must not see the job end: it would count as lost.
while [ ! -s $ended ] && [ "$machine $boot" = "$reconciler_machine" ] && kill -0 "$process" 2>/dev/null
do [ $turn = 1 ] && [ -s {EXIT_CODE} ] && break; sleep 1; done
[ ! -e {RESULT} ] && [ ! -e {CLAIM}/withdrawn ] || exit 0
[ $turn = 1 ] && [ ! -e $ended ] && ended={EXIT_CODE}  # as earlier versions of this script wrote it
if [ -s $ended ]; then
  [ "$(cat $ended)" -gt 128 ] 2>/dev/null && {queue.restarted} || exit 0
fi
turn=$((turn + 1))
reconciler_create {CLAIM}/turn.$turn "run $reconciler_machine $$" || exit 0
rm -f {EXIT_CODE} {marker}"""
    return f"""\
{CREATE}\
reconciler_id="{queue.id_variable}"
reconciler_machine="$(hostname) $(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -)"
turn=1
if mkdir {CLAIM} 2>/dev/null; then
  # The file exists if the attempt was withdrawn in between; it is empty if the disk is full.
  reconciler_create {CLAIM}/queue_id "$reconciler_id" || {{
    [ -s {CLAIM}/queue_id ] && exit 0; rm -f {CLAIM}/queue_id; exit 1; }}
else
{again}
fi
echo "$reconciler_machine $$" > {CLAIM}/process"""


CLAIMED_BY_AGENT = f"""\
{CREATE}\
turn=1
reconciler_machine="$(hostname) $(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -)"
reconciler_create {CLAIM}/process "$reconciler_machine $$" || exit 137"""
"""The lines of a script whose attempt the agent of an allocation has claimed.

Whoever creates ``claim/process`` first decides: this script, or an agent or a command that gives the attempt
up.
"""


WITHDRAW = f"""\
{CREATE}\
reconciler_withdraw() {{
if mkdir {CLAIM} 2>/dev/null; then reconciler_create {CLAIM}/queue_id withdrawn; fi
[ -e {CLAIM}/withdrawn ] || reconciler_create {CLAIM}/queue_id withdrawn
owner=$(head -n 1 {CLAIM}/queue_id 2>/dev/null)
if [ -e {CLAIM}/withdrawn ] || [ "$owner" = withdrawn ]; then return 0; fi
if [ -z "$owner" ]; then
  # Its script is about to write the queue id, or died before it could: then that is so next time too.
  mkdir {CLAIM}/nameless 2>/dev/null && return {TOO_EARLY}
  : > {CLAIM}/withdrawn; return 0
fi
if [ -n "$1" ]; then
  {_LAST_TURN.strip()}
  [ $turn -gt 1 ] && [ "$(cat {CLAIM}/turn.$turn)" = closed ] && return 0
  [ $turn = "$1" ] && reconciler_create {CLAIM}/turn.$((turn + 1)) closed && return 0
fi
printf '%s\\n' "$owner" >&2
return {RUNS}
}}
"""
"""Take the claim in the current directory, so that no script can run the attempt (again).

``$1`` is the turn that has ended, or empty for an attempt that has not started. Exit code :data:`RUNS`: a
script has the claim; its queue id is on stderr. :data:`TOO_EARLY`: that is not known yet.
"""


LEAVE = f"""\
{CREATE}\
reconciler_leave() {{
[ -d "$1" ] || {{ [ -d "${{1%/*/*/*/*}}" ] && echo absent; return 0; }}
mkdir "$1/{CLAIM}" 2>/dev/null
[ -e "$1/{EXIT_CODE}" ] || : > "$1/{CLAIM}/withdrawn"
reconciler_create "$1/{CLAIM}/queue_id" withdrawn
if [ -e "$1/{EXIT_CODE}" ] || [ "$(head -n 1 "$1/{CLAIM}/queue_id" 2>/dev/null)" = withdrawn ]; then echo left
elif [ -e "$1/{CLAIM}/withdrawn" ]; then echo ending; fi
}}
"""
"""Take the claim of the attempt in directory ``$1``, which was given up, whatever it does.

Its script does not start any more, and ends if it runs: its heartbeat sees ``claim/withdrawn``. So it does
not go on beside the next attempt. It prints ``left``; ``ending`` while a script that has started has left no
exit code; ``absent`` if there is no such directory in its ``work_dir``; or nothing if that does not exist,
or the disk is full.
"""


def left_attempts(job: JobRecord) -> list[LeftAttempt]:
    """Return the attempts that a job has left. Only directories of its own attempts are ever written to."""
    return [one for one in job.left if is_run_dir(one.run_dir, job.id, _number(one.run_dir))]


def _number(directory: str) -> int:
    _, dot, number = directory.rpartition("/")[2].partition(".")
    return int(number) if dot and number.isdigit() else 1
