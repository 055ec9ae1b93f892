"""Allocations: how many a batch worker needs, their scripts, and what is known of each.

Their records are in the status of the worker. An allocation is recorded before it is submitted, and its
directory keeps the answer of the scheduler and the id that its script knows. So an interrupted submission is
found and not repeated; at worst an allocation too many waits for jobs and ends.
"""

from __future__ import annotations

import itertools
import json
import math
import secrets
import shlex
from collections.abc import Mapping, Sequence

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.execution.batch.queue import BatchQueue
from reconciler.execution.batch.tickets import (
    RUNNING,
    allocation_resources,
    batch_dir,
    program_path,
    time_limit,
)
from reconciler.execution.claims import CREATE
from reconciler.execution.headers import queue_name, submission_header
from reconciler.execution.hosts.base import CommandResult, read_sections, sections_script
from reconciler.execution.queues.base import QueueEntry
from reconciler.execution.run_files import SCRIPT, WorkerPaths, shell_path
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import Allocation, WorkerStatus
from reconciler.model.retries import back_off
from reconciler.model.states import ACTIVE

ANSWER = "queue_answer"
_RESTARTS = 20
"""How often the script of an allocation starts an agent again that was killed."""
_MARGIN = 15
"""Seconds before the end of an allocation in which its agent ends the jobs and records that."""
_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 5.0, 600.0
"""Seconds until another allocation is tried when the agents of the latest ones could not start."""
_DOUBT = 600.0
"""Seconds for which the queue is still asked for an allocation that counts as ended."""
_KEPT = 20
"""Ended allocations that are remembered, for people."""


def allocations_wanted(spec: WorkerSpec, unfinished: int, allocations: Sequence[Allocation]) -> int:
    """Return how many more allocations a worker needs for its unfinished jobs.

    Those that take no more jobs still count for ``max_jobs``.
    """
    if spec.batch is None or unfinished == 0:
        return 0
    there = [one for one in allocations if one.ended is None]
    open_slots = sum(not one.closed for one in there) * spec.batch.parallel_jobs
    busy = sum(one.busy for one in there if one.closed)
    needed = math.ceil(max(0, unfinished - busy - open_slots) / spec.batch.parallel_jobs)
    return max(0, min(needed, (spec.max_jobs or 1) - len(there)))


def allocation_script(
    worker: str, spec: WorkerSpec, paths: WorkerPaths, allocation: Allocation, id_variable: str
) -> str:
    """Return the script of an allocation: it starts the agent, again if something kills it.

    Raises
    ------
    InputError
        The scheduler cannot give the resources of the worker.
    """
    header = submission_header(spec.scheduler_type, allocation_resources(spec), name_of(worker, allocation))
    return f"""\
{header}
cd -- {shell_path(f"{batch_dir(paths, worker)}/{allocation.name}")} || exit 1
# Of two submissions of one allocation the first to begin goes on, and so does one that is started again.
{CREATE}\
reconciler_create id "{id_variable}" || [ "$(head -n 1 id)" = "{id_variable}" ] || exit 0
date +%s > begun
stopping=
trap 'stopping=1; kill -TERM "$agent" 2>/dev/null' TERM USR1 XCPU INT
for turn in $(seq {_RESTARTS}); do
  {shell_path(paths.python)} {program_path(paths, "agent.py")} agent.json >> log 2>&1 </dev/null &
  agent=$!
  [ -z "$stopping" ] || kill -TERM $agent
  while :; do wait $agent; code=$?; kill -0 $agent 2>/dev/null || break; done
  [ $code -ne 0 ] && [ -z "$stopping" ] || break
  sleep 1
done
exit $code
"""


def agent_config(spec: WorkerSpec, allocation: Allocation) -> str:
    """Return ``agent.json``."""
    assert spec.batch is not None
    seconds = time_limit(spec)
    config = {
        "name": allocation.name,
        "seconds": max(seconds - _MARGIN, seconds // 2) if seconds is not None else None,
        **msgspec.to_builtins(spec.batch),
    }
    return json.dumps(config)


def name_of(worker: str, allocation: Allocation) -> str:
    """Return the name of an allocation in the queue."""
    return queue_name(f"batch-{worker}", allocation.name)


def submission_script(
    worker: str,
    spec: WorkerSpec,
    paths: WorkerPaths,
    queue: BatchQueue,
    wanted: Sequence[Allocation],
    sentinel: str,
) -> str:
    """Return the script that submits allocations, each at most once."""
    function = f"""\
reconciler_allocate() {{
mkdir -p -- "$1/{RUNNING}" && cd -- "$1" || exit 9
if [ -s id ]; then exit 22; fi
if [ -s {ANSWER} ]; then cat {ANSWER}; exit 0; fi
printf '%s\\n' "$2" > {SCRIPT} && printf '%s\\n' "$3" > agent.json || exit 9
answer=$( {queue.submit_command(SCRIPT)} ) || exit
printf '%s\\n' "$answer" > .{ANSWER}.partial && mv -f .{ANSWER}.partial {ANSWER}
printf '%s\\n' "$answer"
exit 0
}}
"""
    calls = {}
    for one in wanted:
        directory = shell_path(f"{batch_dir(paths, worker)}/{one.name}")
        script = allocation_script(worker, spec, paths, one, queue.id_variable)
        calls[one.name] = (
            f"reconciler_allocate {directory} {shlex.quote(script)} {shlex.quote(agent_config(spec, one))}"
        )
    return function + sections_script(calls, sentinel)


def read_submissions(
    queue: BatchQueue, wanted: Sequence[Allocation], output: str, sentinel: str
) -> tuple[dict[str, str], str]:
    """Return the queue ids of allocations by name, and why others were not submitted.

    One whose script has begun already has no id here: the next listing shows it.
    """
    answers = read_sections(output, sentinel)
    ids, problem = {}, ""
    for one in wanted:
        answer = answers.get(one.name, CommandResult(1, "", "the script was cut off"))
        queue_id = queue.submitted_id(answer.stdout) if answer.exit_code == 0 else None
        if queue_id is not None:
            ids[one.name] = queue_id
        elif answer.exit_code != 22:
            text = answer.stderr.strip() or answer.stdout.strip() or f"exit code {answer.exit_code}"
            problem = problem or text[-500:]
    return ids, problem


class AllocationKeeper:
    """Keeps the allocations of one worker: records what becomes of them, and asks for more when needed."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self._noted = 0.0

    @property
    def known(self) -> list[Allocation]:
        """The allocations of the worker, oldest first."""
        with self.store.read() as view:
            status = view.worker_status(self.name)
        return status.allocations if status is not None else []

    def alive(self) -> list[Allocation]:
        """Return the allocations that have not ended."""
        return [one for one in self.known if one.ended is None]

    def asked(self, now: float) -> dict[str, str]:
        """Return the names of the allocations to ask the queue for, by queue id.

        Those that ended lately are among them: a listing can have omitted one that still runs.
        """
        return {
            one.queue_id: one.name
            for one in self.known
            if one.queue_id and (one.ended is None or 0 <= now - one.ended < _DOUBT)
        }

    def observe(
        self, queue: BatchQueue, entries: Mapping[str, QueueEntry], now: float
    ) -> tuple[list[str], set[str]]:
        """Record what a listing shows.

        Return the names of the allocations that ended without an agent, and of those that are forgotten.
        """
        before = self.known
        seen = queue.handed_over
        known = {one.name: one for one in before}
        for name, queue_id in seen.ids.items():
            if name not in known and queue_id:  # an earlier state of the store, or none, submitted it
                known[name] = Allocation(name=name, queue_id=queue_id, submitted=now)
        after, failed = [], []
        for one in known.values():
            if one.ended is not None and one.queue_id in entries:
                one = msgspec.structs.replace(one, ended=None, missing_since=None)
            if one.ended is None:
                one = _observed(one, queue, entries, now)
                if one.ended is not None and not one.node:
                    failed.append(one.name)
            after.append(one)
        running = set(seen.running.values())
        ended = [one for one in after if one.ended is not None and one.name not in running]
        forgotten = {one.name for one in ended[:-_KEPT]}
        after = [one for one in after if one.name not in forgotten]
        lasting = [msgspec.structs.replace(one, busy=0, done=0) for one in after]
        changed = lasting != [msgspec.structs.replace(one, busy=0, done=0) for one in before]
        if changed or (after != before and not 0 <= now - self._noted < 2.0):
            self._noted = now
            self._put(after)
        return failed, forgotten

    def failed(self, name: str, log: str) -> None:
        """Record why the agent of an allocation did not start."""
        said = " ".join(log.split())[-300:] or "it said nothing"
        reason = f"allocation {name} ended before its agent could start: {said}"
        self._put(
            [msgspec.structs.replace(one, waiting=reason) if one.name == name else one for one in self.known]
        )

    def backs_off(self, now: float) -> str | None:
        """Return why no allocation is submitted now: the latest ones could not start their agents."""
        latest = [one for one in self.known if one.ended is not None]
        failures = list(itertools.takewhile(lambda one: not one.node, reversed(latest)))
        if not failures or len(latest) < len(self.known):
            return None
        wait = back_off(len(failures), _FIRST_BACK_OFF, _LONGEST_BACK_OFF)
        return failures[0].waiting if 0 <= now - (failures[0].ended or 0.0) < wait else None

    def intend(self, spec: WorkerSpec, now: float) -> list[Allocation]:
        """Record and return the allocations to submit: new ones, and those never confirmed."""
        with self.store.read() as view:
            unfinished = sum(view.count_in_state(state, self.name) for state in ACTIVE)
        known = self.known
        doubtful = [one for one in known if one.ended is None and one.queue_id is None]
        count = allocations_wanted(spec, unfinished, known)
        fresh = [Allocation(name=f"a{secrets.token_hex(5)}", submitted=now) for _ in range(count)]
        if fresh:
            self._put([*known, *fresh])
        return [*doubtful, *fresh]

    def submitted(self, ids: Mapping[str, str], given_up: Sequence[str] = ()) -> None:
        """Record the queue ids of allocations; forget those that the scheduler has refused."""
        self._put(
            [
                msgspec.structs.replace(one, queue_id=ids.get(one.name, one.queue_id))
                for one in self.known
                if one.name not in given_up
            ]
        )

    def _put(self, allocations: Sequence[Allocation]) -> None:
        def write(writer: Writer) -> None:
            status = writer.worker_status(self.name) or WorkerStatus(reachable=True)
            writer.put_worker_status(
                self.name, msgspec.structs.replace(status, allocations=list(allocations))
            )

        self.store.write(write)


def _observed(
    one: Allocation, queue: BatchQueue, entries: Mapping[str, QueueEntry], now: float
) -> Allocation:
    """Return an allocation as a listing shows it.

    It has ended when two listings omit it, or one does and its agent has said that it is about to end.
    """
    seen = queue.handed_over
    fields: dict[str, object] = {}
    if one.queue_id is None and seen.ids.get(one.name):
        fields["queue_id"] = seen.ids[one.name]
    if (report := seen.reports.get(one.name)) is not None:
        fields |= msgspec.structs.asdict(report)
    has_left = report is not None and report.closed and report.busy == 0
    if one.queue_id is not None and one.name in queue.allocations:
        entry = entries.get(one.queue_id)
        if entry is not None:
            running = not entry.is_pending
            fields |= {"missing_since": None, "running": running, "waiting": entry.waiting}
        elif not has_left and (one.missing_since is None or one.missing_since > now):
            fields["missing_since"] = now
        elif has_left or now - (one.missing_since or now) >= queue.lost_after:
            fields |= {"ended": now, "running": False, "busy": 0, "waiting": ""}
    return msgspec.structs.replace(one, **fields)
