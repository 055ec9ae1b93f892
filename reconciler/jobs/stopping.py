"""What ``stop_children`` and ``stop_jobflow`` of a response stop. Works inside a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import msgspec

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.jobs.dependencies import latest, recheck, release_tolerant
from reconciler.jobs.job_json import references
from reconciler.jobs.restarts import give_up
from reconciler.jobs.transitions import move
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import PENDING, JobState


def stop_children(writer: Writer, job: JobRecord, now: float) -> None:
    """Stop the children of a job, their children, and all jobs that can then never run.

    As in jobflow, children are jobs of the same Flow object. A job of another flow in git is never stopped:
    with a result to read it runs, otherwise it waits. A job that only waits for the end of a detour is not a
    child: it continues once nothing of the detour is left to run. Neither is a job that refers to a job of a
    flow around its own.
    """
    todo, stopped = [job], []
    while todo:
        parent = todo.pop(0)
        for child in writer.dependants(parent.uuid):
            if child.state not in PENDING:
                continue
            same_flow = child.flow == parent.flow
            stops = same_flow and _created_together(writer, child, parent.uuid)
            if not stops and parent is not job:
                refers = parent.uuid in references(json.loads(writer.payload(child.id) or b"{}"))
                has_output = _has_output(writer, parent.uuid)
                stops = same_flow and refers and child.on_missing == "error" and not has_output
                if not stops:
                    if has_output or not refers:
                        child = _wait_for_parents_of(writer, child, parent)
                    recheck(writer, [child], now)
            if stops:
                stopped.append(move(writer, child, JobState.STOPPED, now, f"stop_children of {job.path}"))
                todo.append(stopped[-1])
    release_tolerant(writer, (one.uuid for one in stopped), now)


def stop_flow(writer: Writer, flow: FlowRecord, job: JobRecord, now: float) -> None:
    """Stop all jobs of a flow that have not started, and all that its running jobs will generate."""
    writer.put_flow(msgspec.structs.replace(flow, stopped=True))
    why, others = f"stop_jobflow of {job.path}", writer.jobs_of(flow.name)
    pending = [other for other in others if other.current and other.state in PENDING]
    for other in pending:
        move(writer, other, JobState.STOPPED, now, why)
    for other in others:
        if other.retry.at is not None and other.state not in PENDING:
            give_up(writer, other, why, now)
    # In this flow nothing is left to release, but jobs of other flows may tolerate the missing inputs.
    release_tolerant(writer, (other.uuid for other in pending), now)


def stopped_parent(view: View, parents: Iterable[str]) -> JobRecord | None:
    """Return the first job of some uuids that was stopped before it had any output; None without one."""
    return next((job for job in _stopped(view, parents) if not _has_output(view, job.uuid)), None)


def without_stopped(view: View, parents: Iterable[str]) -> list[str]:
    """Return some uuids without jobs that were stopped after a generation with an output.

    That output counts: there will not be another one.
    """
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


def _created_together(view: View, child: JobRecord, parent: str) -> bool:
    """Return whether a job was created together with a generation of another one."""
    return any(_origin(job) == _origin(child) for job in view.generations(parent))


def _origin(job: JobRecord) -> tuple[str, int, int] | None:
    by = job.generated_by
    return (by.uuid, by.index, by.attempt) if by is not None else None


def _wait_for_parents_of(writer: Writer, child: JobRecord, stopped: JobRecord) -> JobRecord:
    """Make a job wait for what a stopped one has waited for, in its place: more of that may still run."""
    before: list[str] = []
    todo, seen = [stopped], {stopped.uuid}
    while todo:
        one = todo.pop()
        for uuid in one.parents:
            if uuid in seen or (last := latest(writer, uuid)) is None:
                continue
            if not _created_together(writer, one, uuid):
                continue
            seen.add(uuid)
            if last.state is JobState.STOPPED:
                todo.append(last)
            else:
                before.append(uuid)
    rest = [uuid for uuid in child.parents if uuid != stopped.uuid]
    child = msgspec.structs.replace(child, parents=list(dict.fromkeys([*rest, *before])))
    writer.put_job(child)
    return child
