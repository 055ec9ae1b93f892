"""Jobs of flows made by hand, for views that only read records."""

from __future__ import annotations

from typing import Any

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.model.records import FlowRecord, GeneratedBy, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import JobState

_ORIGIN = Origin(Level.PROJECT, "Project", "p", "/spec/defaults")
CONFIG = RunConfig(worker=Setting("w1", _ORIGIN), priority=Setting(0, _ORIGIN))


def member(key: str, *needs: str, by: str | None = None, flow: str = "f", **fields: Any) -> JobRecord:
    """Return a completed job with its key as uuid, or with the part before ``@``, and then the index."""
    uuid, _, index = key.partition("@")
    given: dict[str, Any] = {"state": JobState.COMPLETED, "name": uuid, "index": int(index or 1)}
    if by is not None:
        generator, _, generator_index = by.partition("@")
        given["generated_by"] = GeneratedBy(uuid=generator, index=int(generator_index or 1))
    return JobRecord(
        uuid=fields.pop("uuid", uuid), flow=flow, key=key, function="m.f", config=CONFIG, content=key,
        parents=list(needs), **(given | fields),
    )  # fmt: skip


def put(store: Store, *jobs: JobRecord) -> None:
    """Write jobs, oldest first, and their flows."""

    def write(writer: Writer) -> None:
        for name in {job.flow for job in jobs}:
            writer.put_flow(FlowRecord(name=name, identity="i", build_key="b", revision="main@1234567"))
        for number, job in enumerate(jobs):
            job.sequence = number
            writer.put_job(job)

    store.write(write)
