"""Which Python and jobflow a worker has, as its jobs report them; a difference is told once."""

from __future__ import annotations

from importlib.metadata import version

import msgspec

from reconciler.actual.writer import Writer
from reconciler.execution.result import JobResult
from reconciler.model.records import Event, WorkerStatus

EVENT = "Versions"


def note_versions(writer: Writer, worker: str, result: JobResult, now: float) -> str | None:
    """Remember the versions that a job reports; return a warning if there is one that was never told.

    Jobs of one worker may have several, since the modules of an exec_config can bring a Python along: then
    the last one is remembered, and each is told once all the same.
    """
    status = writer.worker_status(worker) or WorkerStatus(reachable=True, last_seen=now)
    seen = msgspec.structs.replace(status, python=result.python, jobflow=result.jobflow)
    if not result.jobflow or seen == status:
        return None
    writer.put_worker_status(worker, seen)
    message = _difference(result.jobflow)
    about = f"worker/{worker}"
    if message is None or any(event.message == message for event in writer.events(about)):
        return None
    writer.add_event(Event(time=now, type=EVENT, about=about, message=message))
    return f"worker {worker}: {message}"


def _difference(there: str) -> str | None:
    """Return what is to be said of the jobflow of a worker; None if it is about that of this machine."""
    here = version("jobflow")
    if there.split(".")[:2] == here.split(".")[:2]:
        return None
    return (
        f"has jobflow {there}, this machine {here}: flows are built by the one and run by the other; install "
        "the same on both"
    )
