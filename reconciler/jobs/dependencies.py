"""What waiting jobs wait for, and which of them may run. Everything here works inside a transaction.

A job waits for the uuids in ``parents``: jobs that its arguments refer to, jobs that a detour or replacement
has put in between, and jobs that the output of a parent refers to.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.jobs.job_json import references, resolves
from reconciler.jobs.transitions import move
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState

# whether a job may run -------------------------------------------------------------------------------------


def latest(view: View, uuid: str) -> JobRecord | None:
    """Return the last generation of a uuid; superseded ones only count if no generation is current."""
    generations = view.generations(uuid)
    current = [job for job in generations if job.current] or generations
    return current[-1] if current else None


class MissingResults:
    """Which jobs will never have a result: they ended without one, or need a job that will never have one.

    Example: ``a`` is FAILED; ``b`` waits for ``a`` and needs its output; ``c`` waits for ``b`` and tolerates
    missing inputs. ``has(a)`` and ``has(b)`` are true, so ``c`` can run.

    Answers are remembered, because thousands of jobs may wait for each other in many ways. They stay true
    while jobs only become READY, so an instance must not be used after any other change.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[str, bool] = {}

    def has(self, uuid: str) -> bool:
        """Return whether the job of a uuid will never have a result as things are."""
        needed_by: dict[str, str] = {}
        seen, todo = {uuid}, [uuid]
        while todo:  # no recursion: chains have thousands of jobs
            one = todo.pop()
            missing = self._known.get(one)
            if missing is None:
                job = latest(self._view, one)
                missing = job is not None and job.ended and job.state is not JobState.COMPLETED
                if job is not None and job.state is JobState.WAITING and job.on_missing == "error":
                    parents = [parent for parent in job.parents if parent not in seen]
                    needed_by |= dict.fromkeys(parents, one)
                    seen.update(parents)
                    todo += parents
            if missing:
                self._known[one] = True
                while one != uuid:  # so is each job on the way to it
                    one = needed_by[one]
                    self._known[one] = True
                return True
        self._known |= dict.fromkeys(seen, False)
        return False


def initial_state(view: View, job: JobRecord) -> JobState:
    """Return READY if the job waits for nothing, else WAITING."""
    return JobState.READY if parents_ready(view, job) else JobState.WAITING


def parents_ready(view: View, job: JobRecord, missing: MissingResults | None = None) -> bool:
    """Return whether each parent has a result, or will never have one and the job tolerates missing inputs.

    ``missing`` holds what was found out for other jobs of the same transaction.
    """
    missing = missing or MissingResults(view)

    def is_ready(uuid: str) -> bool:
        parent = latest(view, uuid)
        if parent is not None and parent.state is JobState.COMPLETED:
            return True
        return job.on_missing != "error" and (parent is None or missing.has(uuid))

    # Last first: a job may wait for thousands and is checked after each of them; they mostly end in order.
    return all(map(is_ready, reversed(job.parents)))


def release_dependants(writer: Writer, uuid: str, now: float) -> None:
    """Make the jobs READY that wait for ``uuid`` and for nothing else."""
    missing = MissingResults(writer)
    for job in writer.dependants(uuid):
        if job.state is JobState.WAITING and job.current and parents_ready(writer, job, missing):
            move(writer, job, JobState.READY, now)


def release_tolerant(writer: Writer, uuids: Iterable[str], now: float) -> None:
    """Make the jobs READY that tolerate missing inputs and only wait for jobs that will have no result.

    ``uuids`` are jobs that ended without a result. Jobs that need them will have none either, and so on.
    """
    missing = MissingResults(writer)
    todo = deque(dict.fromkeys(uuids))
    seen = set(todo)
    while todo:
        for job in writer.dependants(todo.popleft()):
            if job.state is not JobState.WAITING:
                continue
            if job.on_missing == "error":
                if job.uuid not in seen:
                    seen.add(job.uuid)
                    todo.append(job.uuid)
            elif job.current and parents_ready(writer, job, missing):
                move(writer, job, JobState.READY, now)


def recheck(writer: Writer, jobs: Iterable[JobRecord], now: float) -> None:
    """Make jobs READY or WAITING whose parents may have changed."""
    for job in jobs:
        if job.state in (JobState.WAITING, JobState.READY):
            wanted = initial_state(writer, job)
            if wanted is not job.state:
                move(writer, job, wanted, now)


# waiting for more -----------------------------------------------------------------------------------------


def wait_for_leaves(writer: Writer, job: JobRecord, new: Sequence[JobRecord]) -> None:
    """Make the dependants of a job also wait for the leaves of the jobs that it has put in between."""
    coming = [
        record
        for record in new
        if (stored := writer.job(record.id)) is None or stored.state is not JobState.STOPPED
    ]
    needed = {parent for record in coming for parent in record.parents}
    leaves = [record.uuid for record in coming if record.uuid not in needed]
    if leaves:
        for child in _waiting_dependants(writer, job):
            _add_parents(writer, child, leaves)


def wait_for_references(writer: Writer, job: JobRecord, refers: Iterable[str]) -> None:
    """Make the readers of a job's output also wait for the outputs that it refers to.

    The record of the job keeps them, for readers that are created later.
    """
    pending = still_to_come(writer, refers)
    if not pending:
        return
    writer.put_job(msgspec.structs.replace(job, refers=pending))
    for child in _waiting_dependants(writer, job):
        payload = json.loads(writer.payload(child.id) or b"{}")
        # A dependant that does not read the output only runs after the job.
        if resolves(payload) and job.uuid in _reached(writer, references(payload)):
            _add_parents(writer, child, pending)


def still_to_come(view: View, uuids: Iterable[str]) -> list[str]:
    """Return which of some jobs, and of all that they refer to, have no result yet but may have one later."""
    last = {uuid: latest(view, uuid) for uuid in _reached(view, uuids)}
    final = (JobState.COMPLETED, JobState.STOPPED)
    return [uuid for uuid, job in last.items() if job is not None and job.state not in final]


def _reached(view: View, uuids: Iterable[str]) -> list[str]:
    """Return some jobs, the jobs that their outputs refer to, the jobs that those refer to, and so on."""
    todo = deque(uuids)
    found: dict[str, None] = {}
    while todo:
        uuid = todo.popleft()
        if uuid in found:
            continue
        found[uuid] = None
        job = latest(view, uuid)
        if job is not None and job.state is JobState.COMPLETED:
            todo += job.refers
    return list(found)


def _waiting_dependants(writer: Writer, job: JobRecord) -> Iterator[JobRecord]:
    """Yield the jobs that wait for a job, except those that its present attempt has generated."""
    for child in writer.dependants(job.uuid):
        by = child.generated_by
        new = by is not None and (by.uuid, by.index, by.attempt) == (job.uuid, job.index, job.attempt.number)
        if not new and child.state in (JobState.WAITING, JobState.PAUSED):
            yield child


def _add_parents(writer: Writer, child: JobRecord, more: Iterable[str]) -> None:
    parents = list(dict.fromkeys([*child.parents, *more]))
    writer.put_job(msgspec.structs.replace(child, parents=parents))


# waiting for less -----------------------------------------------------------------------------------------


def drop_superseded_parents(writer: Writer, jobs: Iterable[JobRecord], now: float) -> None:
    """Make jobs without a result stop waiting for superseded jobs that their parents had generated.

    What the parents generate in their present attempt adds the parents that count now.
    """
    for job in jobs:
        if job.state is JobState.COMPLETED:
            continue
        parents = [parent for parent in job.parents if not _is_obsolete(writer, job, parent)]
        if parents != job.parents:
            fewer = msgspec.structs.replace(job, parents=parents)
            writer.put_job(fewer)
            recheck(writer, [fewer], now)


def stop_waiting_for(writer: Writer, superseded: Iterable[JobRecord], now: float) -> None:
    """Make all jobs stop waiting for superseded generated jobs; see :func:`drop_superseded_parents`."""
    uuids = {job.uuid for job in superseded if job.generated_by is not None}
    children = {child.id: child for uuid in uuids for child in writer.dependants(uuid) if child.current}
    drop_superseded_parents(writer, children.values(), now)


def _is_obsolete(view: View, job: JobRecord, parent: str) -> bool:
    """Return whether a parent was generated and superseded, and the job does not need it any more.

    Example: ``gen`` has generated the detour ``d``, so ``use`` waits for ``gen`` and ``d``. When ``gen`` is
    run again, ``d`` is superseded, and ``use`` waits for ``gen`` alone until that generates its next detour.
    But when ``gen`` is superseded together with ``d``, and ``use`` belongs to a flow that is held and still
    refers to the old ``gen``, it still needs ``d``.
    """
    generations = view.generations(parent)
    if not generations or any(one.current for one in generations) or generations[0].generated_by is None:
        return False
    origin, seen = generations[0], set()  # follow the generators to a job of the built flow
    while (by := origin.generated_by) is not None:
        seen.add(origin.uuid)
        generations = view.generations(by.uuid) if by.uuid not in seen else []
        if not generations:  # its record, or that of the first of several generations, was forgotten
            break
        origin = generations[0]
    return origin.uuid not in job.parents or any(one.current for one in generations)
