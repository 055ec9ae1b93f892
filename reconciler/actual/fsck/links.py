"""Checks of references between records: everything that a record refers to exists."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.actual.fsck.problem import RESTORE, Edit, Problem, shown
from reconciler.actual.fsck.snapshot import Job, Snapshot
from reconciler.actual.outputs import COLLECTION, has_document
from reconciler.actual.record_codec import decode_build
from reconciler.model.states import ACTIVE, ON_WORKER, JobState

_REBUILT = "the next `reconcile --once` builds it again"


def configuration(facts: Snapshot) -> Iterator[Problem]:
    """Check that a revision was applied if there are jobs."""
    if facts.jobs and facts.config is None and facts.txn.get("meta", b"config") is None:
        yield Problem("meta/config", "there are jobs, but no applied configuration", RESTORE)


def payloads(facts: Snapshot) -> Iterator[Problem]:
    """Check that every job has a payload, and every payload a job."""
    for key, job in facts.jobs.items():
        if facts.txn.get("payloads", key.encode()) is None:
            yield _without_payload(facts, job)
    if not facts.jobs_complete:
        return
    for raw in facts.txn.keys("payloads"):
        if facts.txn.get("jobs", raw) is None:
            edits = (Edit("payloads", raw),)
            yield Problem(f"payloads/{shown(raw)}", "the payload of no job", edits=edits)


def _without_payload(facts: Snapshot, job: Job) -> Problem:
    built = _built_payload(facts, job)
    edits = (Edit("payloads", job.id.encode(), built),) if built is not None else ()
    fix = "" if edits else "let the job that generated it run again: `reconcile rerun`, or " + RESTORE
    return Problem(job.subject, "its payload is missing", fix, edits)


def _built_payload(facts: Snapshot, job: Job) -> bytes | None:
    flow = facts.flows.get(job.flow)
    raw = facts.txn.get("builds", flow.build_key.encode()) if flow is not None else None
    try:
        built = decode_build(raw).jobs if raw is not None else []
    except Exception:  # reported already
        return None
    return next((one.payload for one in built if (one.uuid, one.index) == (job.uuid, job.index)), None)


def flows(facts: Snapshot) -> Iterator[Problem]:
    """Check that the flow of each job exists."""
    for job in facts.jobs.values():
        if job.flow not in facts.flows:
            yield Problem(job.subject, f"its flow '{job.flow}' is missing", RESTORE)


def builds(facts: Snapshot) -> Iterator[Problem]:
    """Check that the build of each present flow exists."""
    for name, flow in facts.flows.items():
        kept = flow.removed or flow.orphaned or not flow.build_key
        if not kept and facts.txn.get("builds", flow.build_key.encode()) is None:
            yield Problem(f"flow/{name}", "its build is missing", _REBUILT)


def generators(facts: Snapshot) -> Iterator[Problem]:
    """Check that the generator of each current job exists; that of a superseded one may be forgotten."""
    for job in facts.jobs.values():
        flow = facts.flows.get(job.flow)
        wanted = job.current and flow is not None and not flow.removed
        if wanted and job.generator is not None and job.generator not in facts.jobs:
            fix = "remove the flow from the repository and add it again, or " + RESTORE
            yield Problem(job.subject, f"the job that generated it, {job.generator}, is missing", fix)


def workers(facts: Snapshot) -> Iterator[Problem]:
    """Check that the place of every active job is known."""
    known = facts.config.workers if facts.config is not None else {}
    for job in facts.jobs.values():
        if job.state not in ACTIVE:
            continue
        if not job.run_worker or not job.run_dir or job.attempt < 1:
            message = f"it is {job.state}, but its record does not say where"
            yield Problem(job.subject, message, RESTORE)
        elif job.run_worker not in known:
            fix = f"commit the manifest of worker '{job.run_worker}' again"
            yield Problem(job.subject, f"it is {job.state} on worker '{job.run_worker}', unknown here", fix)


def outputs(facts: Snapshot) -> Iterator[Problem]:
    """Check that the embedded store, if it is in use, has the outputs of all completed current jobs."""
    if facts.config is None or facts.config.jobstore is not None:
        return
    for job in facts.jobs.values():
        if job.state is not JobState.COMPLETED or not job.current:
            continue
        if not has_document(facts.txn, COLLECTION, job.uuid, job.index):
            fix = f"`reconcile rerun {job.path}`, or {RESTORE}"
            yield Problem(job.subject, "it is COMPLETED, but its output is missing", fix)


def cleanups(facts: Snapshot) -> Iterator[Problem]:
    """Check that each run directory to be removed has a name, and that no job is using it."""
    for key, path in facts.txn.scan("cleanups"):
        attempt = _attempt_of(key)
        job = facts.jobs.get(attempt[0]) if attempt is not None else None
        if attempt is None or not path:
            edits = (Edit("cleanups", key),)
            yield Problem(f"cleanups/{shown(key)}", "does not name an attempt of a job", edits=edits)
        elif job is not None and job.attempt == attempt[1] and job.state in ON_WORKER:
            edits = (Edit("cleanups", key),)
            message = f"attempt {job.attempt} is {job.state}, but its directory is to be removed"
            yield Problem(job.subject, message, edits=edits)


def _attempt_of(key: bytes) -> tuple[str, int] | None:
    """Return job id and attempt from a key ``worker NUL, 8 bytes of time, id.attempt``."""
    _, found, rest = key.partition(b"\0")
    job_id, dot, number = rest[8:].rpartition(b".")
    if not (found and dot and job_id and number.isdigit()):
        return None
    return job_id.decode(errors="replace"), int(number)
