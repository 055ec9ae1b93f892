"""Every change of a job's state goes through here: record, deferred patch and event together."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.actual.store import Writer
from reconciler.model.records import Change, Event, JobRecord
from reconciler.model.run_config import FIELDS, RunConfig
from reconciler.model.settings import Resources, Setting
from reconciler.model.states import EDITABLE, JobState


def move(
    writer: Writer, job: JobRecord, state: JobState, now: float, message: str = "", **fields: Any
) -> JobRecord:
    """Move a job to a state and return the new record.

    A deferred patch is applied as soon as the new state is editable.
    """
    moved = msgspec.structs.replace(job, state=state, updated=now, **fields)
    text = f"{job.state} -> {state}" + (f": {message}" if message else "")
    note(writer, moved, "State", text, now, attempt=moved.attempt or None)
    if state in EDITABLE and moved.wanted is not None:
        moved = apply_config(writer, moved, moved.wanted, now, "the deferred change is applied")
    else:
        writer.put_job(moved)
    return moved


def apply_config(
    writer: Writer, job: JobRecord, config: RunConfig, now: float, message: str, revision: str | None = None
) -> JobRecord:
    """Give a job a new run config, with an event of old and new values."""
    changes = [
        Change(field, plain(job.config.setting(field)), plain(config.setting(field)), _origin(config, field))
        for field in FIELDS
        if job.config.value(field) != config.value(field)
    ]
    patched = msgspec.structs.replace(job, config=config, wanted=None, updated=now)
    note(writer, patched, "Patched", message, now, changes=changes, revision=revision)
    writer.put_job(patched)
    return patched


def note(writer: Writer, job: JobRecord, kind: str, message: str, now: float, **fields: Any) -> None:
    """Append an event about a job."""
    writer.add_event(Event(time=now, type=kind, about=f"job/{job.path}", message=message, **fields))


def note_flow(writer: Writer, flow: str, kind: str, message: str, now: float, **fields: Any) -> None:
    """Append an event about a flow."""
    writer.add_event(Event(time=now, type=kind, about=f"flow/{flow}", message=message, **fields))


def plain(setting: Setting | None) -> Any:
    """Return the value of a setting as plain data."""
    if setting is None:
        return None
    if isinstance(setting.value, Resources):
        return {"qresources": setting.value.values} if setting.value.generic else setting.value.values
    return setting.value


def _origin(config: RunConfig, field: str) -> dict[str, Any] | None:
    setting = config.setting(field)
    return msgspec.structs.asdict(setting.origin) if setting is not None else None
