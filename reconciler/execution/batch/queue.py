"""The queue of a worker whose jobs may run in allocations.

The queue id of such a job is the name of its marker, and the hand-over directory is its queue: a job with a
ticket waits, a job in the ``running/`` of an allocation runs as long as the scheduler has the allocation. The
ids of allocations, and those of jobs that were submitted without ``batch``, belong to the scheduler's queue.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.batch.tickets import (
    CANCEL,
    RUNNING,
    WAITING,
    batch_dir,
    is_marker,
    marker_of,
    run_dir_of,
)
from reconciler.execution.claims import CLAIM, CREATE, WITHDRAW
from reconciler.execution.hosts.base import CommandResult, read_sections, sections_script
from reconciler.execution.queues.base import (
    Queue,
    QueueEntry,
    QueueState,
    Refusal,
    Termination,
    no_answer,
)
from reconciler.execution.run_files import WorkerPaths, shell_path
from reconciler.model.retries import Cause
from reconciler.model.types_ready import make_ready

_SIGN = "-=-part-of-the-batch-queue-=-"
_UNSTARTED = "unstarted"


class AgentReport(msgspec.Struct, frozen=True):
    """What an agent reports of its allocation; ``until`` is in seconds since the epoch."""

    node: str = ""
    slots: int = 0
    busy: int = 0
    done: int = 0
    until: float | None = None
    closed: bool = False


make_ready(AgentReport)


class HandOver(msgspec.Struct, frozen=True):
    """The hand-over directory: tickets by marker, the allocation of each running job, and allocations.

    ``ids`` are the queue ids of allocations whose scripts have begun, ``reports`` those of their agents.
    """

    tickets: dict[str, str] = {}
    running: dict[str, str] = {}
    ids: dict[str, str] = {}
    reports: dict[str, AgentReport] = {}


class BatchQueue(Queue):
    """The queue of a worker: ``inner`` is that of its scheduler, ``directory`` the one of the hand-over.

    ``allocations`` are the queue ids of the known allocations by name, which the caller sets before a
    listing; ``handed_over`` is what the last listing has shown.
    """

    def __init__(self, inner: Queue, paths: WorkerPaths, worker: str) -> None:
        super().__init__(inner.username)
        self.inner = inner
        self.scheduler = inner.scheduler
        self.id_variable = inner.id_variable
        self.restarted = inner.restarted
        self.lost_after = inner.lost_after
        self.target_refused = inner.target_refused
        self.allocations: dict[str, str] = {}
        self.handed_over = HandOver()
        self.directory = batch_dir(paths, worker)
        self._paths = paths
        self._alive: set[str] = set()

    @property
    def has_batches(self) -> bool:
        """Whether the worker has, or had, jobs in allocations."""
        return bool(self.allocations or self.handed_over.ids)

    @property
    def _batch(self) -> str:
        return shell_path(self.directory)

    # submitting: tickets are handed over by a script of their own ----------------------------------------

    def submit_command(self, script: str) -> str:
        """Return the command of the scheduler's queue."""
        return self.inner.submit_command(script)

    def submitted_id(self, answer: str) -> str | None:
        """Return the queue id in the answer of the scheduler."""
        return self.inner.submitted_id(answer)

    def refusal(self, result: CommandResult) -> Refusal | None:
        """Return why the scheduler refused a submission."""
        return self.inner.refusal(result)

    def same_job(self, one: str, other: str) -> bool:
        """Return whether two queue ids are of one job."""
        return one == other or (
            not is_marker(one) and not is_marker(other) and self.inner.same_job(one, other)
        )

    def cause_in_output(self, output: str) -> Cause | None:
        """Return the cause that the scheduler names in the error output."""
        return self.inner.cause_in_output(output)

    def find_command(self, names: Sequence[str]) -> str:
        """Return the command of the scheduler's queue."""
        return self.inner.find_command(names)

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return the queue ids by name."""
        return self.inner.found(names, result)

    # listing ------------------------------------------------------------------------------------------

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that lists the hand-over directory, and asks the scheduler for the others."""
        others = [queue_id for queue_id in queue_ids if not is_marker(queue_id)]
        if len(others) == len(queue_ids) and not self.allocations:
            return self.inner.listing_command(queue_ids)
        # Tickets first: a job that is taken in between is seen twice, and never in neither place.
        look = f"""\
cd -- {self._batch} && echo =waiting && ls -1A -- {WAITING} || exit 9
for running in */{RUNNING}; do
  [ -d "$running" ] || continue
  name=${{running%/{RUNNING}}} id= report=
  [ -f "$name/id" ] && read -r id < "$name/id"
  [ -f "$name/status" ] && read -r report < "$name/status"
  echo "=allocation $name $id"; echo "=report $report"; ls -1A -- "$running"
done
echo =end"""
        commands = {"batch": look}
        if others:
            commands["queue"] = self.inner.listing_command(others)
        return sections_script(commands, _SIGN)

    def listing(self, queue_ids: Mapping[str, str], result: CommandResult) -> dict[str, QueueEntry]:
        """Return the jobs that have not ended, and the allocations.

        Raises
        ------
        TransientError
            The directory could not be listed, or the scheduler did not answer.
        """
        others = {queue_id: name for queue_id, name in queue_ids.items() if not is_marker(queue_id)}
        if len(others) == len(queue_ids) and not self.allocations:
            return self.inner.listing(others, result)
        sections = read_sections(result.stdout, _SIGN)
        if "batch" not in sections or (others and "queue" not in sections):
            raise no_answer(result, "the listing of tickets")
        entries = self.inner.listing(others, sections["queue"]) if others else {}
        self.handed_over = read_hand_over(sections["batch"])
        self._alive = {name for name, queue_id in self.allocations.items() if queue_id in entries}
        waits = [entries[self.allocations[name]] for name in self._alive]
        for queue_id in queue_ids.keys() - others.keys():
            entry = self._entry(queue_id, waits)
            if entry is not None:
                entries[queue_id] = entry
        return entries

    def _entry(self, marker: str, allocations: Sequence[QueueEntry]) -> QueueEntry | None:
        name = self.handed_over.running.get(marker)
        if name is not None and name in self._alive:
            return QueueEntry(QueueState.RUNNING)
        if name is not None and name not in self.allocations:
            return QueueEntry(QueueState.UNKNOWN)  # the next pass knows this allocation
        if marker not in self.handed_over.tickets:
            return None
        reason = "waits for a slot of an allocation"
        if allocations and all(entry.is_pending for entry in allocations):
            first = allocations[0]
            reason = (
                f"waits for an allocation: {first.waiting}" if first.waiting else "waits for an allocation"
            )
            return QueueEntry(QueueState.PENDING, reason, first.never, first.start, unclaimed=True)
        return QueueEntry(QueueState.PENDING, reason, unclaimed=True)

    # cancelling ---------------------------------------------------------------------------------------

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that takes jobs back which have not started, and has agents end the others."""
        markers = [queue_id for queue_id in queue_ids if is_marker(queue_id)]
        others = [queue_id for queue_id in queue_ids if not is_marker(queue_id)]
        if not markers:
            return self.inner.cancel_command(queue_ids)
        lines = [
            WITHDRAW,
            "reconciler_cancel() {",
            f'( cd -- "$2" && reconciler_withdraw "" ) 2>/dev/null || : > {self._batch}/{CANCEL}/"$1"',
            "}",
        ]
        for marker in markers:
            directory = shell_path(run_dir_of(self._paths.work_dir, marker))
            lines.append(f"reconciler_cancel {marker} {directory} || exit 9")
        tickets = [self.handed_over.tickets[m] for m in markers if m in self.handed_over.tickets]
        if tickets:
            lines.append(f"cd -- {self._batch}/{WAITING} && rm -f -- {shlex.join(tickets)}")
        commands = {"batch": "\n".join([*lines, "exit 0"])}
        if others:
            commands["queue"] = self.inner.cancel_command(others)
        return sections_script(commands, _SIGN)

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why jobs of the scheduler could not be cancelled.

        Raises
        ------
        TransientError
            The hand-over directory could not be written, or the scheduler did not answer.
        """
        others = [queue_id for queue_id in queue_ids if not is_marker(queue_id)]
        if len(others) == len(queue_ids):
            return self.inner.cancelled(queue_ids, result)
        sections = read_sections(result.stdout, _SIGN)
        if "batch" not in sections or sections["batch"].exit_code != 0:
            raise no_answer(sections.get("batch", result), "a cancellation")
        if not others:
            return {}
        if "queue" not in sections:
            raise no_answer(result, "a cancellation")
        return self.inner.cancelled(others, sections["queue"])

    # how jobs ended -----------------------------------------------------------------------------------

    def accounting_command(self, queue_id: str) -> str:
        """Return the command that asks why an agent ended a job, and what became of its allocation.

        If the allocation is gone and the job was claimed but never began, it can never begin after this
        command.
        """
        if not is_marker(queue_id):
            return self.inner.accounting_command(queue_id)
        directory = shell_path(run_dir_of(self._paths.work_dir, queue_id))
        marker = shell_path(f"{self._paths.outbox}/{queue_id}")
        name = self.handed_over.running.get(queue_id)
        is_gone = name in self.allocations and name not in self._alive
        look = [
            CREATE,
            f"[ -e {marker} ] && echo =marker",
            f"cd -- {directory}/{CLAIM} 2>/dev/null || exit 0",
            '[ -f end ] && read -r line < end && echo "=end $line"',
        ]
        if is_gone:
            look.append(f'[ -s queue_id ] && reconciler_create process "- - -" && echo ={_UNSTARTED}')
            look.append(_STILL_RUNS)
        commands = {"batch": "\n".join([*look, "exit 0"])}
        if is_gone and name is not None:
            commands["queue"] = self.inner.accounting_command(self.allocations[name])
        return sections_script(commands, _SIGN)

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return what is known of a job that has ended, or whose allocation has."""
        if not is_marker(queue_id):
            return self.inner.accounting(queue_id, result)
        sections = read_sections(result.stdout, _SIGN)
        known = sections["batch"].stdout.splitlines() if "batch" in sections else []
        name = self.handed_over.running.get(queue_id)
        if "=marker" not in known and (name in self._alive or "=alive" in known):
            return Termination("its allocation", over=False)
        for line in known:
            word, _, rest = line.partition(" ")
            cause, _, detail = rest.partition(" ")
            if word == "=end" and cause == Cause.WALLTIME:
                return Termination(f"batch: its time limit of {detail} s has passed", Cause.WALLTIME)
            if word == "=end" and cause == Cause.NEVER_STARTED:
                return Termination(f"batch: {detail}", Cause.NEVER_STARTED, unstarted=True)
        of_allocation = None
        if "queue" in sections and name is not None:
            of_allocation = self.inner.accounting(self.allocations[name], sections["queue"])
        if f"={_UNSTARTED}" in known:
            text = of_allocation.text if of_allocation is not None else "its allocation has ended"
            return Termination(f"batch: {text}", Cause.NEVER_STARTED, unstarted=True)
        if of_allocation is not None and not of_allocation.over and "=marker" in known:
            return None
        return of_allocation


# A plain shell cannot tell what became of the processes of an allocation that was killed.
_STILL_RUNS = """\
read -r machine boot process _ < process 2>/dev/null
if [ "$machine $boot" = "$(hostname) $(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -)" ]; then
  case $process in [1-9]*) kill -0 -- "-$process" 2>/dev/null && echo =alive ;; esac
fi"""


def read_hand_over(result: CommandResult) -> HandOver:
    """Return the hand-over directory as its listing shows it.

    Raises
    ------
    TransientError
        It was not listed to its end.
    """
    lines = result.stdout.splitlines()
    if result.exit_code != 0 or "=end" not in lines:
        raise TransientError(f"the tickets of jobs could not be listed: {result.stderr.strip()[-300:]}")
    found = HandOver({}, {}, {}, {})
    name = None
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "=allocation":
            name, _, queue_id = rest.partition(" ")
            if queue_id:
                found.ids[name] = queue_id
            else:
                found.ids.setdefault(name, "")
        elif word == "=report" and name is not None:
            try:
                found.reports[name] = msgspec.convert(json.loads(rest), AgentReport)
            except (ValueError, msgspec.ValidationError):
                continue
        elif name is None and is_marker(marker_of(line)):
            found.tickets[marker_of(line)] = line
        elif name is not None and is_marker(line):
            found.running[line] = name
    return found
