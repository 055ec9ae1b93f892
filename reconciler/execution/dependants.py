"""Who waits for a completed job may have to wait for more than that. Works inside a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from reconciler.actual.writer import Writer
from reconciler.execution.job_json import references, resolves
from reconciler.execution.ready import reached, still_to_come
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState


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
        new = child.generator == job.id and child.generator_attempt == job.attempt
        if not new and child.state in (JobState.WAITING, JobState.PAUSED):
            yield child


def _wait(writer: Writer, child: JobRecord, more: Iterable[str]) -> None:
    parents = list(dict.fromkeys([*child.parents, *more]))
    writer.put_job(msgspec.structs.replace(child, parents=parents))
