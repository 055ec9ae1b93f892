"""Changes of a job's state: record, deferred patch and event together. All of them go through here."""

from __future__ import annotations

from typing import Any

from reconciler.actual.writer import Writer
from reconciler.model.records import Event, JobRecord
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.interpreter import moved, superseded_job


def move(
    writer: Writer, job: JobRecord, state: JobState, now: float, message: str = "", **fields: Any
) -> JobRecord:
    """Move a job to a state, and return the new record.

    A deferred patch is applied as soon as the new state is editable; see :func:`moved`. ``fields`` are other
    fields of the record that change.
    """
    new = moved(job, state, now, **fields)
    text = f"{job.state} -> {state}" + (f": {message}" if message else "")
    note(writer, new, "State", text, now, attempt=new.attempt.number or None)
    patch = job.deferred
    if patch is not None and new.deferred is None:
        note(
            writer, new, "Patched", "the deferred change is applied", now,
            revision=patch.revision, changes=patch.changes,
        )  # fmt: skip
    writer.put_job(new)
    return new


def leave(writer: Writer, job: JobRecord, reason: str, now: float, revision: str | None = None) -> None:
    """Make a job superseded, and cancel it unless it has finished."""
    left = superseded_job(job, reason, now)
    if left.state is not job.state:
        text = f"{job.state} -> {left.state}: {reason}"
        note(writer, left, "State", text, now, attempt=left.attempt.number or None)
    elif job.state in ACTIVE:
        note(writer, left, "Cancelling", reason, now, revision=revision)
    writer.put_job(left)


def note(writer: Writer, job: JobRecord, kind: str, message: str, now: float, **fields: Any) -> None:
    """Append an event about a job."""
    writer.add_event(
        Event(time=now, type=kind, about=f"job/{job.path}", job=job.id, message=message, **fields)
    )


def note_flow(writer: Writer, flow: str, kind: str, message: str, now: float, **fields: Any) -> None:
    """Append an event about a flow."""
    writer.add_event(Event(time=now, type=kind, about=f"flow/{flow}", message=message, **fields))
