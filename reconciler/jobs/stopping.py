"""What ``stop_children`` and ``stop_jobflow`` of a response stop. Works inside a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import msgspec

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.jobs.dependencies import latest, recheck, release_all_tolerant
from reconciler.jobs.job_json import references
from reconciler.jobs.restarts import give_up
from reconciler.jobs.transitions import move
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import PENDING, JobState


def stop_children(writer: Writer, job: JobRecord, now: float) -> None:
    """Stop the children of a job, theirs, and whatever else can then never run.

    A child in jobflow's sense is a job of the same Flow object. Who only waits for a detour to be over is
    none, and goes on once nothing of it is to come; nor is who refers to a job of a flow around its own.
    """
    stopped = [job]
    for parent in stopped:
        for child in writer.dependants(parent.uuid):
            if child.state not in PENDING:
                continue
            if _together(writer, child, parent.uuid) or (parent is not job and _needs(writer, child, parent)):
                stopped.append(move(writer, child, JobState.STOPPED, now, f"stop_children of {job.path}"))
            elif parent is not job:
                _go_on_without(writer, child, parent, now)
    release_all_tolerant(writer, (one.uuid for one in stopped[1:]), now)


def stop_flow(writer: Writer, flow: FlowRecord, job: JobRecord, now: float) -> None:
    """Stop all jobs of a flow that have not started, and what its running ones will ask for."""
    writer.put_flow(msgspec.structs.replace(flow, stopped=True))
    why, others = f"stop_jobflow of {job.path}", writer.jobs_of(flow.name)
    pending = [other for other in others if other.current and other.state in PENDING]
    for other in pending:
        move(writer, other, JobState.STOPPED, now, why)
    for other in others:
        if other.retry.at is not None and other.state not in PENDING:
            give_up(writer, other, why, now)
    # Of its own flow all are stopped: who does not mind, and goes on, is of another one.
    release_all_tolerant(writer, (other.uuid for other in pending), now)


def stopped_parent(view: View, parents: Iterable[str]) -> JobRecord | None:
    """Return one of the jobs of some uuids that was stopped before it had any output, if there is one."""
    return next((job for job in _stopped(view, parents) if not _has_output(view, job.uuid)), None)


def without_stopped(view: View, parents: Iterable[str]) -> list[str]:
    """Leave out what was stopped after a generation with an output: there will be no other."""
    given = list(parents)
    gone = {job.uuid for job in _stopped(view, given) if _has_output(view, job.uuid)}
    return [uuid for uuid in given if uuid not in gone]


def _stopped(view: View, uuids: Iterable[str]) -> Iterator[JobRecord]:
    for uuid in uuids:
        last = latest(view, uuid)
        if last is not None and last.state is JobState.STOPPED:
            yield last


def _has_output(view: View, uuid: str) -> bool:
    return any(job.current and job.state is JobState.COMPLETED for job in view.generations(uuid))


def _together(view: View, child: JobRecord, parent: str) -> bool:
    """Whether a job came into being together with a generation of another one."""
    return any(_origin(job) == _origin(child) for job in view.generations(parent))


def _origin(job: JobRecord) -> tuple[str, int, int] | None:
    by = job.generated_by
    return (by.uuid, by.index, by.attempt) if by is not None else None


def _needs(view: View, child: JobRecord, parent: JobRecord) -> bool:
    """Whether a job cannot run without an output of another one, and there is none."""
    minds = child.on_missing == "error" and not _has_output(view, parent.uuid)
    return minds and _refers(view, child, parent)


def _refers(view: View, child: JobRecord, parent: JobRecord) -> bool:
    return parent.uuid in references(json.loads(view.payload(child.id) or b"{}"))


def _go_on_without(writer: Writer, child: JobRecord, parent: JobRecord, now: float) -> None:
    """Who only waits for a stopped job waits for what that has waited for: more of it may still run."""
    if _has_output(writer, parent.uuid) or not _refers(writer, child, parent):
        rest = [uuid for uuid in child.parents if uuid != parent.uuid]
        child = msgspec.structs.replace(child, parents=list(dict.fromkeys([*rest, *_before(writer, parent)])))
        writer.put_job(child)
    recheck(writer, [child], now)


def _before(view: View, stopped: JobRecord) -> Iterator[str]:
    """Yield what a stopped job has waited for and what was not stopped, in its own flow."""
    todo, seen = [stopped], {stopped.uuid}
    while todo:
        one = todo.pop()
        for uuid in one.parents:
            if uuid in seen or (last := latest(view, uuid)) is None or not _together(view, one, uuid):
                continue
            seen.add(uuid)
            if last.state is JobState.STOPPED:
                todo.append(last)
            else:
                yield uuid
