"""Which waiting jobs may run, now that a job they depend on has moved. Works inside a transaction."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.execution.transitions import move
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState


def initial_state(view: View, job: JobRecord) -> JobState:
    """Return READY if nothing is missing for the job, else WAITING."""
    return JobState.READY if parents_ready(view, job) else JobState.WAITING


def parents_ready(view: View, job: JobRecord) -> bool:
    """Whether all that the job refers to is there, or will never be and the job does not mind."""
    # The last first: a job may wait for thousands, is looked at after each, and they mostly end in order.
    return all(_parent_ready(view, parent, job.on_missing) for parent in reversed(job.parents))


def _parent_ready(view: View, uuid: str, on_missing: str) -> bool:
    """The highest index of a uuid counts: a job may have been replaced.

    Not that of a former life: once a job runs again, its former replacements are history.
    """
    last = latest(view, uuid)
    if last is not None and last.state is JobState.COMPLETED:
        return True
    return on_missing != "error" and (last is None or _without_result(view, last))


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


def _without_result(view: View, job: JobRecord) -> bool:
    """Whether a job has ended without a result, or waits for one that has and cannot do without."""
    if job.state is not JobState.WAITING:
        return job.ended and job.state is not JobState.COMPLETED
    if job.on_missing != "error":
        return False
    parents = (latest(view, uuid) for uuid in job.parents if uuid != job.uuid)
    return any(_without_result(view, parent) for parent in parents if parent is not None)


def release_dependants(writer: Writer, uuid: str, now: float) -> None:
    """Make those of the jobs that wait for ``uuid`` READY that wait for nothing else."""
    for job in writer.dependants(uuid):
        if job.state is JobState.WAITING and job.current and parents_ready(writer, job):
            move(writer, job, JobState.READY, now)


def release_indifferent(writer: Writer, uuid: str, now: float) -> None:
    """Make those READY that do not mind that ``uuid`` has no result, or that who needs it will have none."""
    release_all_indifferent(writer, [uuid], now)


def release_all_indifferent(writer: Writer, uuids: Iterable[str], now: float) -> None:
    """Make those READY that do not mind that some jobs have no result; see :func:`release_indifferent`."""
    without = list(dict.fromkeys(uuids))
    seen = set(without)
    for parent in without:
        for job in writer.dependants(parent):
            if job.state is not JobState.WAITING:
                continue
            if job.on_missing != "error":
                if job.current and parents_ready(writer, job):
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
    while generations and (first := generations[0]).generated_by is not None:
        generations = view.generations(first.generated_by)
    return first.uuid not in job.parents or any(one.current for one in generations)
