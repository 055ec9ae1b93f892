"""The checks of a snapshot: indexes and counters against the records, and records against each other."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.actual import layout as records
from reconciler.actual.compressed import compressed
from reconciler.actual.fsck.snapshot import RESTORE, Edit, Job, Problem, Snapshot, shown
from reconciler.actual.layout import (
    about_key,
    big_endian,
    decode_build,
    encode,
    name_bytes,
    number_of,
    readable,
)
from reconciler.actual.outputs import COLLECTION, has_document
from reconciler.model.flows import is_run_dir
from reconciler.model.states import ACTIVE, ON_WORKER, JobState
from reconciler.model.summaries import FlowSummary


def job_index(facts: Snapshot, table: str) -> Iterator[Problem]:
    """Compare an index of jobs with the job records."""
    entries, found = facts.entries[table], set(facts.txn.keys(table))
    for key in sorted(entries.keys() - found):
        yield _missing(table, key, f"job/{entries[key]}")
    if facts.jobs_complete:
        for key in sorted(found - entries.keys()):
            yield _dangling(table, key)


def _missing(table: str, key: bytes, subject: str) -> Problem:
    return Problem(subject, f"is missing in {table}", edits=(Edit(table, key, b""),))


def _dangling(table: str, key: bytes) -> Problem:
    return Problem(f"{table}/{shown(key)}", "the entry leads nowhere", edits=(Edit(table, key),))


def summaries(facts: Snapshot) -> Iterator[Problem]:
    """Compare the summary of each flow with its jobs; one that is missing is counted when it is needed."""
    if not facts.jobs_complete:
        return
    counted = {name_bytes(flow): tally.summary() for flow, tally in facts.tallies.items()}
    for key, raw in facts.txn.scan("summaries"):
        known = readable(records.decode_summary, raw)
        if known is None:  # reported already
            continue
        right = counted.get(key, FlowSummary())
        if not known.agrees_with(right):
            edits = (Edit("summaries", key, encode(right) if key in counted else None),)
            yield Problem(f"flow/{shown(key)}", "its summary is not that of its jobs", edits=edits)


def events_about(facts: Snapshot) -> Iterator[Problem]:
    """Compare the index of events with the events; each is decoded once, none is kept in memory."""
    right = 0
    for number, event in facts.decoded("events", records.decode_event):
        key = about_key(event.about) + number
        if facts.txn.get("events_about", key) is None:
            yield _missing("events_about", key, f"events/{number_of(number)}")
        else:
            right += 1
    if right == facts.txn.count("events_about"):
        return
    for key in facts.txn.keys("events_about"):
        if not _leads_to_event(facts, key):
            yield _dangling("events_about", key)


def _leads_to_event(facts: Snapshot, key: bytes) -> bool:
    raw = facts.txn.get("events", key[-8:])
    if raw is None:
        return False
    try:
        return about_key(records.decode_event(raw).about) == key[:-8]
    except Exception:  # reported already, and removed together with this entry
        return False


def counters(facts: Snapshot) -> Iterator[Problem]:
    """Check that the next number of each counter is higher than all numbers in use."""
    used = {
        "event": _last(facts, "events"),
        "revision": _last(facts, "revisions"),
        "sequence": max((job.sequence for job in facts.jobs.values()), default=0),
    }
    for name, highest in used.items():
        key = f"next/{name}".encode()
        raw = facts.txn.get("meta", key)
        at = number_of(raw) if raw is not None and len(raw) == 8 else 0
        if at < highest:
            edit = Edit("meta", key, big_endian(highest))
            yield Problem(f"meta/next/{name}", f"is at {at}, but {highest} is in use", edits=(edit,))


def _last(facts: Snapshot, table: str) -> int:
    last = next(iter(facts.txn.keys(table, reverse=True)), None)
    return number_of(last) if last is not None and len(last) == 8 else 0


def unused(facts: Snapshot) -> Iterator[Problem]:
    """Check that everything marked as unused still exists."""
    for key in facts.txn.keys("unused"):
        table, _, target = key.partition(b"\0")
        if table not in (b"parsed", b"builds") or facts.txn.get(table.decode(), target) is None:
            yield _dangling("unused", key)


_APPLIED = "the next `reconcile --once` records it, or " + RESTORE
_REBUILT = "the next `reconcile --once` builds it again"


def configuration(facts: Snapshot) -> Iterator[Problem]:
    """Check that a revision was applied if there are jobs."""
    if facts.jobs and facts.config is None and facts.txn.get("meta", b"config") is None:
        yield Problem("meta/config", "there are jobs, but no applied configuration", _APPLIED)


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
    edits = (Edit("payloads", job.id.encode(), compressed(built)),) if built is not None else ()
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
            fix = "the next `reconcile --once` submits the flow again and keeps its results, or " + RESTORE
            yield Problem(job.subject, f"its flow '{job.flow}' is missing", fix)


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
    if facts.config is not None and facts.config.unconfirmed:
        return
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


def run_directories(facts: Snapshot) -> Iterator[Problem]:
    """Check that run directories are derived from their jobs: files are written and removed there."""
    for job in facts.jobs.values():
        if job.run_dir is not None and not is_run_dir(job.run_dir, job.id, job.attempt):
            message = (
                f"{shown(job.run_dir.encode())} cannot be the run directory of its attempt {job.attempt}"
            )
            yield Problem(job.subject, message, RESTORE)


def outputs(facts: Snapshot) -> Iterator[Problem]:
    """Check that the embedded store, if it is in use, has the outputs of all completed current jobs."""
    if facts.config is None or facts.config.jobstore is not None or facts.config.unconfirmed:
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
        place = path.decode("utf-8", "surrogateescape")
        job = facts.jobs.get(attempt[0]) if attempt is not None else None
        if attempt is None or not path:
            edits = (Edit("cleanups", key),)
            yield Problem(f"cleanups/{shown(key)}", "does not name an attempt of a job", edits=edits)
        elif not is_run_dir(place, *attempt):
            edits = (Edit("cleanups", key),)
            message = f"{shown(path)} is to be removed, but is not the run directory of {attempt[0]}"
            yield Problem(f"cleanups/{shown(key)}", message, edits=edits)
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
