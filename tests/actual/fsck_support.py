"""A store with one of everything, all of it right, and random right changes of it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from reconciler.actual.fsck.examine import examine
from reconciler.actual.fsck.snapshot import Report
from reconciler.actual.outputs import COLLECTION, put_document, take_documents
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.model.applied import AppliedConfig, AppliedRevision, Outcome
from reconciler.model.flows import BuiltFlow, BuiltJob, run_dir
from reconciler.model.manifests import GoodManifest, ParsedFile, WorkerSpec
from reconciler.model.records import Event, FlowRecord, GeneratedBy, JobAttempt, JobRecord, WorkerStatus
from reconciler.model.states import ACTIVE, JobState
from tests.actual.test_store import config, job

UUIDS = [f"uuid{number}" for number in range(8)]
FLOWS = ["f", "ff", "g"]
WORKERS = ["w", "w2"]


def built(flow: str, *jobs: JobRecord) -> BuiltFlow:
    """Return the build of a flow."""
    entries = [
        BuiltJob(
            key=one.key, uuid=one.uuid, index=one.index, name=one.name, function=one.function,
            content=one.content, parents=one.parents, on_missing="error", own={}, files=[], hosts=[],
            payload=b'{"built": 1}',
        )
        for one in jobs
    ]  # fmt: skip
    return BuiltFlow(build_key=f"build-{flow}", jobs=entries, jobflow_version="0.2")


def put_base(writer: Writer) -> None:
    """Write what every state has."""
    workers = {
        name: WorkerSpec(type="local", scheduler_type="shell", work_dir=f"/scratch/{name}")
        for name in WORKERS
    }
    writer.put_config(AppliedConfig(revision="main@1", workers=workers))
    writer.put_lineage({"project": "p", "root": "a" * 40})
    writer.put_outcome(
        Outcome(
            key="k", change_counter=0, idle=False, clean=True, degraded=[], revision="main@1", flows=0, jobs=0
        )
    )
    for name in WORKERS:
        writer.put_worker_status(name, WorkerStatus(reachable=True))


def put_flow(writer: Writer, name: str, *jobs: JobRecord) -> None:
    """Write a flow with its build."""
    writer.put_build(built(name, *jobs))
    writer.put_flow(FlowRecord(name=name, identity="i", build_key=f"build-{name}"))


def put_job(writer: Writer, record: JobRecord) -> None:
    """Write a job with all that belongs to it."""
    writer.put_job(record)
    writer.put_payload(record.id, b"{}")
    if record.state is JobState.COMPLETED:
        put_document(writer.txn, COLLECTION, {"uuid": record.uuid, "index": record.index, "output": 1})


def record(writer: Writer, uuid: str, index: int = 1, **fields: Any) -> JobRecord:
    """Return a job whose fields agree with each other."""
    state = fields.get("state", JobState.WAITING)
    if state in ACTIVE:
        attempt = JobAttempt(
            number=1, worker="w", run_dir=run_dir("/scratch/w", uuid, index, 1), queue_id="1"
        )
        fields = {"attempt": attempt} | fields
    return job(uuid, index, sequence=writer.next_number("sequence"), **fields)


def furnish(store: Store) -> None:
    """Fill a store with one of everything."""

    def write(writer: Writer) -> None:
        put_base(writer)
        done = record(writer, "uuid0", state=JobState.COMPLETED, attempt=JobAttempt(number=1))
        runs = record(writer, "uuid1", state=JobState.RUNNING, parents=["uuid0"])
        born = record(
            writer, "uuid2", generated_by=GeneratedBy(uuid="uuid0"), parents=["uuid1"], state=JobState.WAITING
        )
        put_flow(writer, "f", done, runs)
        for one in (done, runs, born):
            put_job(writer, one)
            writer.add_event(Event(time=1.0, type="T", about=f"job/{one.path}", message="m"))
        writer.add_cleanup(
            "w", 5.0, job("uuid0", attempt=JobAttempt(run_dir=run_dir("/scratch/w", "uuid0", 1, 1), number=1))
        )
        writer.add_revision(AppliedRevision(time=1.0, branch="main", commit="1" * 40, path="", summary={}))
        writer.put_good("Flow/f", GoodManifest("flows/f.yaml", "blob", 0))
        writer.put_parsed("blob:0:1", ParsedFile([], [], True, []))

    store.write(write)


def problems(store: Store) -> list[str]:
    """Return ``check: subject: message`` of all that is wrong."""
    return [
        f"{check.name}: {problem.subject}: {problem.message}"
        for check in report(store).checks
        for problem in check.problems
    ]


def report(store: Store) -> Report:
    """Examine a snapshot."""
    with store.read() as view:
        return examine(view)


def random_change(writer: Writer, dice: Random) -> None:
    """Make one right change of a store that :func:`put_base` has begun."""
    uuid, flow = dice.choice(UUIDS), dice.choice(FLOWS)
    known = writer.job(f"{uuid}_1")
    match dice.randrange(6):
        case 0 | 1 | 2:
            parents = dice.sample(UUIDS, dice.randrange(3))
            settings = config(dice.choice(WORKERS), dice.randrange(-5, 5))
            state = dice.choice(list(JobState))
            fresh = record(writer, uuid, flow=flow, state=state, parents=parents, config=settings)
            if writer.flow(flow) is None:
                put_flow(writer, flow)
            put_job(writer, fresh)
            writer.add_event(Event(time=1.0, type="T", about=f"job/{fresh.path}", message="m" * 50))
        case 3 if known is not None:
            writer.delete_job(known)
            take_documents(writer.txn, COLLECTION, known.uuid, known.index)
        case 4 if not writer.jobs_of(flow):
            writer.delete_flow(flow)
        case 5:
            writer.add_cleanup(
                "w",
                dice.random() * 100,
                job(uuid, attempt=JobAttempt(run_dir=run_dir("/x", uuid, 1, 0), number=0)),
            )
            writer.delete_cleanups(list(writer.due_cleanups("w", 50.0, 3)))
            writer.put_parsed(f"{dice.randrange(20)}:0:1", ParsedFile([], [], True, []))
            writer.add_revision(
                AppliedRevision(time=1.0, branch="main", commit="1" * 40, path="", summary={})
            )


def open_furnished(path: Path) -> Store:
    """Return a store with one of everything."""
    store = Store(path)
    furnish(store)
    return store
