"""Which waiting jobs may run, and what they wait for. Works inside a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.jobs.job_json import references, resolves
from reconciler.jobs.transitions import move
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState

# Which waiting jobs may run, now that a job they depend on has moved. Works inside a transaction.


def initial_state(view: View, job: JobRecord) -> JobState:
    """Return READY if nothing is missing for the job, else WAITING."""
    return JobState.READY if parents_ready(view, job) else JobState.WAITING


def parents_ready(view: View, job: JobRecord, lost: MissingResults | None = None) -> bool:
    """Whether all that the job refers to is there, or will never be and the job does not mind.

    ``lost`` remembers what was found out for other jobs; nobody may have begun or ended since.
    """
    lost = lost or MissingResults(view)
    # The last first: a job may wait for thousands, is looked at after each, and they mostly end in order.
    return all(_parent_ready(view, parent, job.on_missing, lost) for parent in reversed(job.parents))


def _parent_ready(view: View, uuid: str, on_missing: str, lost: MissingResults) -> bool:
    """The highest index of a uuid counts: a job may have been replaced.

    Not that of a former life: once a job runs again, its former replacements are history.
    """
    last = latest(view, uuid)
    if last is not None and last.state is JobState.COMPLETED:
        return True
    return on_missing != "error" and (last is None or lost.has(uuid))


def latest(view: View, uuid: str) -> JobRecord | None:
    """Return the last generation of a uuid, one of its present life if there is any."""
    generations = view.generations(uuid)
    present = [job for job in generations if job.current] or generations
    return present[-1] if present else None


def reached(view: View, uuids: Iterable[str]) -> list[str]:
    """Return some jobs and those that their outputs refer to, over and over."""
    found = list(dict.fromkeys(uuids))
    for uuid in found:
        last = latest(view, uuid)
        if last is not None and last.state is JobState.COMPLETED:
            found += [more for more in last.refers if more not in found]
    return found


def still_to_come(view: View, uuids: Iterable[str]) -> list[str]:
    """Return those of the reached jobs that have no result so far, but may have one some day."""
    last = {uuid: latest(view, uuid) for uuid in reached(view, uuids)}
    no_more = (JobState.COMPLETED, JobState.STOPPED)
    return [uuid for uuid, job in last.items() if job is not None and job.state not in no_more]


class MissingResults:
    """The jobs that have ended without a result, or wait for one that has and cannot do without.

    What was found out once is not asked again: thousands may wait for each other, in many ways. It stays true
    while jobs only become READY.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[str, bool] = {}

    def has(self, uuid: str) -> bool:
        """Whether the job of a uuid is one of them."""
        asked_by = {uuid: uuid}
        todo = [uuid]
        while todo:
            one = todo.pop()
            job = latest(self._view, one) if one not in self._known else None
            if self._known.get(one) or (
                job is not None and job.ended and job.state is not JobState.COMPLETED
            ):
                self._remember(one, asked_by)
                return True
            if job is not None and job.state is JobState.WAITING and job.on_missing == "error":
                more = [parent for parent in job.parents if parent not in asked_by]
                asked_by |= dict.fromkeys(more, one)
                todo += more
        self._known |= dict.fromkeys(asked_by, False)
        return False

    def _remember(self, uuid: str, asked_by: Mapping[str, str]) -> None:
        """A job is lost, and so is who waits for it."""
        self._known[uuid] = True
        while asked_by[uuid] != uuid:
            uuid = asked_by[uuid]
            self._known[uuid] = True


def release_dependants(writer: Writer, uuid: str, now: float) -> None:
    """Make those of the jobs that wait for ``uuid`` READY that wait for nothing else."""
    lost = MissingResults(writer)
    for job in writer.dependants(uuid):
        if job.state is JobState.WAITING and job.current and parents_ready(writer, job, lost):
            move(writer, job, JobState.READY, now)


def release_tolerant(writer: Writer, uuid: str, now: float) -> None:
    """Make those READY that do not mind that ``uuid`` has no result, or that who needs it will have none."""
    release_all_tolerant(writer, [uuid], now)


def release_all_tolerant(writer: Writer, uuids: Iterable[str], now: float) -> None:
    """Make those READY that do not mind that some jobs have no result; see :func:`release_tolerant`."""
    without = list(dict.fromkeys(uuids))
    seen, lost = set(without), MissingResults(writer)
    for parent in without:
        for job in writer.dependants(parent):
            if job.state is not JobState.WAITING:
                continue
            if job.on_missing != "error":
                if job.current and parents_ready(writer, job, lost):
                    move(writer, job, JobState.READY, now)
            elif job.uuid not in seen:
                seen.add(job.uuid)
                without.append(job.uuid)


def recheck(writer: Writer, jobs: Iterable[JobRecord], now: float) -> None:
    """Look again at jobs whose parents may have changed."""
    for job in jobs:
        if job.state in (JobState.WAITING, JobState.READY):
            wanted = initial_state(writer, job)
            if wanted is not job.state:
                move(writer, job, wanted, now)


def unhook(writer: Writer, jobs: Iterable[JobRecord], now: float) -> None:
    """Let jobs that have no result yet wait no longer for what their parents generated in a former life.

    Who is to be waited for now was said, or will be, by the present one.
    """
    for job in jobs:
        if job.state is JobState.COMPLETED:
            continue
        parents = [parent for parent in job.parents if not _is_lost(writer, job, parent)]
        if parents != job.parents:
            left = msgspec.structs.replace(job, parents=parents)
            writer.put_job(left)
            recheck(writer, [left], now)


def unhook_from(writer: Writer, left: Iterable[JobRecord], now: float) -> None:
    """Let nobody wait any longer for generated jobs that have become history; see :func:`unhook`."""
    uuids = {job.uuid for job in left if job.generated_by is not None}
    children = {child.id: child for uuid in uuids for child in writer.dependants(uuid) if child.current}
    unhook(writer, children.values(), now)


def _is_lost(view: View, job: JobRecord, parent: str) -> bool:
    """Whether a parent was generated, is history, and the job has nothing to do any more with that life.

    A job of a flow that is held may still want the result of a generator that is history itself.
    """
    generations = view.generations(parent)
    if not generations or any(one.current for one in generations):
        return False
    first = generations[0]
    if first.generated_by is None:
        return False
    seen = {parent}
    while generations and (by := (first := generations[0]).generated_by) is not None:
        if by.uuid in seen:  # it replaced itself, and its first generation was forgotten
            generations = []
            break
        seen.add(by.uuid)
        generations = view.generations(by.uuid)
    return first.uuid not in job.parents or any(one.current for one in generations)


# Who waits for a completed job may have to wait for more than that. Works inside a transaction.


def wait_for_leaves(writer: Writer, job: JobRecord, new: Sequence[JobRecord]) -> None:
    """Let who waits for a job wait for the leaves of what it has put in between, too."""
    coming = [record for record in new if not _is_stopped(writer, record)]
    referred = {parent for record in coming for parent in record.parents}
    leaves = [record.uuid for record in coming if record.uuid not in referred]
    for child in _dependants(writer, job) if leaves else ():
        _wait(writer, child, leaves)


def wait_for_references(writer: Writer, job: JobRecord, refers: Iterable[str]) -> None:
    """Let who reads the output of a job wait for the outputs that it refers to; who comes later will, too."""
    open_uuids = still_to_come(writer, refers)
    if not open_uuids:
        return
    writer.put_job(msgspec.structs.replace(job, refers=open_uuids))
    for child in _dependants(writer, job):
        if _reads(writer, child, job.uuid):
            _wait(writer, child, open_uuids)


def _reads(writer: Writer, child: JobRecord, uuid: str) -> bool:
    """Whether a job needs an output for its arguments; it may also just come after it."""
    payload = json.loads(writer.payload(child.id) or b"{}")
    return resolves(payload) and uuid in reached(writer, references(payload))


def _is_stopped(writer: Writer, record: JobRecord) -> bool:
    now = writer.job(record.id)
    return now is not None and now.state is JobState.STOPPED


def _dependants(writer: Writer, job: JobRecord) -> Iterator[JobRecord]:
    """Yield who waits for a job, but not what it has asked for itself just now."""
    for child in writer.dependants(job.uuid):
        by = child.generated_by
        new = by is not None and (by.uuid, by.index, by.attempt) == (job.uuid, job.index, job.attempt.number)
        if not new and child.state in (JobState.WAITING, JobState.PAUSED):
            yield child


def _wait(writer: Writer, child: JobRecord, more: Iterable[str]) -> None:
    parents = list(dict.fromkeys([*child.parents, *more]))
    writer.put_job(msgspec.structs.replace(child, parents=parents))
