"""Jobs that run again: by hand, by an automatic retry, or because a commit wants them again.

Everything here except :func:`begin_due` works inside a transaction.
"""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.diagnostics import did_you_mean
from reconciler.errors import ReconcilerError
from reconciler.jobs.dependencies import drop_superseded_parents, recheck, release_tolerant
from reconciler.jobs.transitions import move, note
from reconciler.model.flows import BuiltJob
from reconciler.model.records import (
    NOT_CANCELLED,
    Cancellation,
    DeferredPatch,
    FlowRecord,
    JobAttempt,
    JobRecord,
)
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.interpreter import begun_again
from reconciler.plan.retries import Retry, coming_retry

# a new attempt --------------------------------------------------------------------------------------------


REFUSED = b"{}"
"""The payload of a generated job that is not valid: it can never run."""


class CurrentBuilds:
    """The builds of some flows as last applied, each read once. For one transaction."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._known: dict[str, tuple[list[str], dict[tuple[str, int], BuiltJob]]] = {}

    def job(self, flow: FlowRecord, job: JobRecord) -> tuple[list[str], BuiltJob | None]:
        """Return the code trees of a flow, and a job as it is built."""
        if flow.build_key not in self._known:
            built = self._writer.build(flow.build_key)
            jobs = {(one.uuid, one.index): one for one in built.jobs} if built is not None else {}
            self._known[flow.build_key] = (built.trees if built is not None else [], jobs)
        code, jobs = self._known[flow.build_key]
        return code, jobs.get((job.uuid, job.index))


def run_again(
    writer: Writer,
    jobs: Iterable[JobRecord],
    reason: str,
    now: float,
    *,
    as_retry: bool = False,
    builds: CurrentBuilds | None = None,
) -> None:
    """Run jobs again whose last attempt is over, as soon as what they need is available.

    They get the present run config and code. Jobs that need them and have not ended wait for them again.
    ``jobs`` may need each other. With ``as_retry``, a job with an automatic retry to come gets that one now,
    with what it escalates; otherwise retries are counted anew. ``builds`` are for callers that call this
    often in one transaction.
    """
    builds = builds or CurrentBuilds(writer)
    begun = []
    for job in jobs:
        if job.generated_by is not None and writer.payload(job.id) == REFUSED:
            note(writer, job, "Refused", f"it cannot run: {job.error}", now)
            continue
        if as_retry and job.has_uncollected_result:
            collected = msgspec.structs.replace(
                job, error=None, cause=None, attempt=job.attempt_with(result_kept=False)
            )
            begun.append(move(writer, collected, JobState.RUN_FINISHED, now, f"{reason}: collected again"))
            continue
        if job.attempt.result_kept:
            job = msgspec.structs.replace(job, attempt=job.attempt_with(result_kept=False))
        flow = writer.flow(job.flow)
        state = JobState.PAUSED if flow is not None and flow.suspended else JobState.WAITING
        code, built = builds.job(flow, job) if flow is not None else ((), None)
        if built is not None:
            writer.put_payload(job.id, built.payload)
        generated = generated_among(writer, job.parents, current=True)
        fresh = begun_again(job, built, code, generated, as_retry=as_retry)
        begun.append(move(writer, fresh, state, now, reason))
    drop_superseded_parents(writer, begun, now)
    stored = (writer.job(job.id) for job in begun)
    recheck(writer, [job for job in stored if job is not None and job.current], now)
    # Jobs further down that tolerate missing inputs may get the missing one after all.
    todo = deque(dict.fromkeys(job.uuid for job in begun))
    seen = set(todo)
    while todo:
        for child in writer.dependants(todo.popleft()):
            if not child.current:
                continue
            recheck(writer, [child], now)
            if child.state is JobState.WAITING and child.uuid not in seen:
                seen.add(child.uuid)
                todo.append(child.uuid)


def begin_again(writer: Writer, job: JobRecord, now: float) -> None:
    """Run a job again now that its cancelled attempt has ended."""
    config = writer.config()
    why = no_worker(job, config.workers) if config is not None else None
    if why is not None:  # it was generated anew, with a worker that does not exist
        end_without_worker(writer, job, why, now, attempt=job.attempt.settled, cancellation=NOT_CANCELLED)
        return
    run_again(writer, [job], job.cancellation.reason or "it was cancelled, and is wanted again", now)


def give_back(writer: Writer, job: JobRecord, reason: str, now: float) -> None:
    """Make a job ready again whose attempt has certainly not begun and never will."""
    begin_again(
        writer, msgspec.structs.replace(job, cancellation=Cancellation(reason=reason, rerun=True)), now
    )


def generated_among(view: View, uuids: Iterable[str], *, current: bool = False) -> set[str]:
    """Return which uuids are of generated jobs: a job that waits for a detour keeps waiting for it.

    ``current``: only those with a current generation.
    """
    return {
        uuid
        for uuid in uuids
        if any(job.generated_by and (job.current or not current) for job in view.generations(uuid))
    }


def recreated(old: JobRecord, fresh: JobRecord) -> JobRecord:
    """Return the record of a generated job for which an earlier one with this uuid and index exists.

    The numbers of attempts continue, so that run directories differ. If the old job is still active, it is
    cancelled first.
    """
    if old.state not in ACTIVE:
        attempt = JobAttempt(number=old.attempt.number)
        return msgspec.structs.replace(fresh, attempt=attempt, left=old.left)
    return msgspec.structs.replace(
        fresh,
        state=old.state, config=old.config, attempt=old.attempt, left=old.left,
        deferred=DeferredPatch(config=fresh.config),
        cancellation=Cancellation(reason="generated anew", rerun=True),
    )  # fmt: skip


# automatic retries ----------------------------------------------------------------------------------------

DUE_BATCH = 200
"""Due retries that one transaction starts."""


def begin_due(store: Store, now: float) -> bool:
    """Start the retries that are due, and return whether there were any.

    That a job is to be retried is in its record since its attempt failed. A process that is killed before or
    after this transaction leaves a job that waits for its retry or has started it. A job whose retry fails
    unexpectedly gets no retry, and holds up no other job.
    """

    def begin(writer: Writer, due: Sequence[JobRecord]) -> None:
        builds = CurrentBuilds(writer)  # a large flow takes long to read, and may have many jobs to retry
        for job in due:
            retry = coming_retry(job, writer.flow(job.flow))
            if retry is None:
                give_up(writer, job, "it is not wanted any more", now)
            else:
                why = f"retry {retry.number} of {retry.limit} after {job.retry.causes[-1]}"
                run_again(writer, [job], why, now, as_retry=True, builds=builds)

    with store.read() as view:
        due = view.due_retries(now, DUE_BATCH)
    if not due:
        return False
    try:
        store.write(lambda writer: begin(writer, writer.due_retries(now, DUE_BATCH)))
    except ReconcilerError:
        raise
    except Exception:
        for job in due:
            _begin_alone(store, job.id, begin, now)
    return True


def _begin_alone(
    store: Store, job_id: str, begin: Callable[[Writer, Sequence[JobRecord]], None], now: float
) -> None:
    """Start one due retry in a transaction of its own; drop it if that fails unexpectedly."""

    def begin_one(writer: Writer) -> None:
        begin(writer, [job for job in writer.due_retries(now, DUE_BATCH) if job.id == job_id])

    def drop(writer: Writer, problem: str) -> None:
        job = writer.job(job_id)
        if job is not None and job.retry.at is not None:
            note(writer, job, "GivenUp", f"no retry: {problem}", now, attempt=job.attempt.number)
            writer.put_job(msgspec.structs.replace(job, retry=job.retry.not_due))

    try:
        store.write(begin_one)
    except ReconcilerError:
        raise
    except Exception as error:
        problem = f"it cannot be started, a bug in reconciler: {type(error).__name__}: {str(error)[:200]}"
        store.write(lambda writer: drop(writer, problem))


def give_up(writer: Writer, job: JobRecord, reason: str, now: float) -> None:
    """Drop the retry that a failed job waits for."""
    note(writer, job, "GivenUp", f"no retry: {reason}", now, attempt=job.attempt.number)
    writer.put_job(msgspec.structs.replace(job, retry=job.retry.not_due))
    release_tolerant(writer, [job.uuid], now)


def drop_unwanted_retry(writer: Writer, job: JobRecord, now: float) -> None:
    """Drop the retry of a job if its run config was changed to one without it."""
    if job.retry.at is not None and coming_retry(job, writer.flow(job.flow)) is None:
        give_up(writer, job, "its run config was changed", now)


def note_retry(writer: Writer, job: JobRecord, retry: Retry, now: float) -> None:
    """Append the event that says why an attempt failed, and what the next one gets."""
    text = (
        f"attempt {job.attempt.number} died of {job.cause} in {job.attempt.run_dir}: "
        f"retry {retry.number} of {retry.limit} in {retry.at - now:g} s"
    )
    base, asked = job.config.resources_value, job.asked
    if base is not None and asked is not None and asked != base:
        grown = {key: value for key, value in asked.values.items() if value != base.values[key]}
        text += f" with {', '.join(f'{key}={value}' for key, value in grown.items())}"
    if job.continues is not None:
        text += ", which continues from there"
    note(writer, job, "Retrying", text, now, attempt=job.attempt.number)


# jobs without a worker ------------------------------------------------------------------------------------


def no_worker(job: JobRecord, workers: Collection[str]) -> str | None:
    """Return why a job has no worker, and what to do, on one line; None if it is one of ``workers``."""
    name = (job.wanted or job.config).worker_name
    if name in workers:
        return None
    problem = f"there is no Worker named '{name}'" if name else "no level of the run config gives it a worker"
    guess = did_you_mean(name, workers) if name else None
    add = "add that Worker, or " if name else ""
    other = shlex.quote(f"{job.flow}/{job.name}")
    return (
        f"{problem}{f' ({guess})' if guess else ''}: {add}give the job another one, as with "
        f"`reconcile set worker {other} NAME`; then `reconcile retry {shlex.quote(job.path)}`"
    )


def end_without_worker(writer: Writer, job: JobRecord, why: str, now: float, **fields: Any) -> None:
    """End a job that has no worker; jobs that tolerate missing inputs continue without its result."""
    move(writer, job, JobState.REMOTE_ERROR, now, why, error=why, cause=None, **fields)
    release_tolerant(writer, [job.uuid], now)
