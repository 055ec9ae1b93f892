"""Every change of a job's state goes through here: record, deferred patch and event together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from reconciler.actual.writer import Writer
from reconciler.model.records import Change, Event, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.states import ACTIVE, EDITABLE, PENDING, JobState


def move(
    writer: Writer, job: JobRecord, state: JobState, now: float, message: str = "", **fields: Any
) -> JobRecord:
    """Move a job to a state and return the new record.

    A deferred patch is applied as soon as the new state is editable. Who paused the job, and that it was to
    be retried, is forgotten once it moves on.
    """
    forgotten: dict[str, Any] = {"held": None, "retry_at": None}
    moved = msgspec.structs.replace(job, state=state, updated=now, **(forgotten | fields))
    text = f"{job.state} -> {state}" + (f": {message}" if message else "")
    note(writer, moved, "State", text, now, attempt=moved.attempt or None)
    if state in EDITABLE and moved.wanted is not None:
        return _apply_deferred(writer, moved, now)
    writer.put_job(moved)
    return moved


def _apply_deferred(writer: Writer, job: JobRecord, now: float) -> JobRecord:
    assert job.wanted is not None
    return apply_config(
        writer, job, job.wanted, now, "the deferred change is applied",
        revision=job.wanted_by, changes=job.wanted_changes,
    )  # fmt: skip


def apply_config(
    writer: Writer, job: JobRecord, config: RunConfig, now: float, message: str, **event: Any
) -> JobRecord:
    """Give a job a new run config; ``event`` is the revision that wants it, and the changes."""
    patched = deferred(msgspec.structs.replace(job, config=config, updated=now), None)
    note(writer, patched, "Patched", message, now, **event)
    writer.put_job(patched)
    return patched


def deferred(
    job: JobRecord, config: RunConfig | None, changes: Sequence[Change] = (), revision: str | None = None
) -> JobRecord:
    """Return the job with another deferred patch, or with none."""
    return msgspec.structs.replace(job, wanted=config, wanted_changes=list(changes), wanted_by=revision)


def leave(writer: Writer, job: JobRecord, reason: str, now: float, revision: str | None = None) -> None:
    """Make a job history, since it has no place any more; what has not finished is cancelled."""
    left = deferred(msgspec.structs.replace(job, current=False, again=False, retry_at=None), None)
    if job.state in PENDING:
        move(writer, left, JobState.USER_STOPPED, now, reason)
    elif job.state in ACTIVE:
        note(writer, left, "Cancelling", reason, now, revision=revision)
        writer.put_job(msgspec.structs.replace(left, cancel=reason))
    else:
        writer.put_job(left)


def note(writer: Writer, job: JobRecord, kind: str, message: str, now: float, **fields: Any) -> None:
    """Append an event about a job."""
    writer.add_event(Event(time=now, type=kind, about=f"job/{job.path}", message=message, **fields))


def note_flow(writer: Writer, flow: str, kind: str, message: str, now: float, **fields: Any) -> None:
    """Append an event about a flow."""
    writer.add_event(Event(time=now, type=kind, about=f"flow/{flow}", message=message, **fields))
