"""Jobs that run again: asked for by hand, by an automatic retry, or because a commit brought them back."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.diagnostics import did_you_mean
from reconciler.jobs.dependencies import recheck, release_tolerant, unhook
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

# A job whose worker the applied revision does not have: nobody would ever take it, so it must say so.


def no_worker(job: JobRecord, workers: Collection[str]) -> str | None:
    """Return why nobody can take a job, and what to do, on one line; None if one of ``workers`` can."""
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
    """End a job that nobody can take; one that does not mind goes on without its result."""
    move(writer, job, JobState.REMOTE_ERROR, now, why, error=why, cause=None, **fields)
    release_tolerant(writer, job.uuid, now)


# A job that has run, or was to run, begins once more. Works inside a transaction.


def run_again(
    writer: Writer,
    jobs: Iterable[JobRecord],
    reason: str,
    now: float,
    *,
    as_retry: bool = False,
    builds: Builds | None = None,
) -> None:
    """Let jobs whose last attempt is over run again, as soon as what they need is there.

    They get the present run config and code. Jobs that need them wait for them again, unless they have
    ended. ``jobs`` may need each other. ``as_retry``: those that wait for an automatic retry get that one
    now, with what it escalates; else retries are counted anew. ``builds`` are those of this transaction, for
    who calls this many times in it.
    """
    builds = builds or Builds(writer)
    begun = [_begin(writer, builds, job, reason, now, as_retry=as_retry) for job in jobs]
    unhook(writer, begun, now)
    recheck(writer, _present(writer, begun), now)
    seen = {job.uuid for job in begun}
    todo = list(seen)
    for uuid in todo:
        for child in _present(writer, writer.dependants(uuid)):
            recheck(writer, [child], now)
            # Jobs further down that tolerate missing inputs may get the missing one after all.
            if child.state is JobState.WAITING and child.uuid not in seen:
                seen.add(child.uuid)
                todo.append(child.uuid)


def begin_again(writer: Writer, job: JobRecord, now: float) -> None:
    """The attempt that was to be cancelled first, or was being cancelled, is over: now the job runs again."""
    config = writer.config()
    why = no_worker(job, config.workers) if config is not None else None
    if why is not None:  # it was generated anew, with a worker that does not exist
        end_without_worker(writer, job, why, now, attempt=job.attempt.settled, cancellation=NOT_CANCELLED)
        return
    run_again(writer, [job], job.cancellation.reason or "it was cancelled, and is wanted again", now)


def _present(writer: Writer, jobs: Iterable[JobRecord]) -> list[JobRecord]:
    found = (writer.job(job.id) for job in jobs)
    return [job for job in found if job is not None and job.current]


class Builds:
    """The flows of some jobs as they are built now, each read once. For one transaction."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._known: dict[str, tuple[list[str], dict[tuple[str, int], BuiltJob]]] = {}

    def job(self, flow: FlowRecord, job: JobRecord) -> tuple[list[str], BuiltJob | None]:
        """Return the code trees of a flow, and a job as it is built."""
        if flow.build_key not in self._known:
            built = self._writer.build(flow.build_key)
            jobs = {(one.uuid, one.index): one for one in built.jobs} if built is not None else {}
            self._known[flow.build_key] = (built.code if built is not None else [], jobs)
        code, jobs = self._known[flow.build_key]
        return code, jobs.get((job.uuid, job.index))


def _begin(
    writer: Writer, builds: Builds, job: JobRecord, reason: str, now: float, *, as_retry: bool
) -> JobRecord:
    flow = writer.flow(job.flow)
    state = JobState.PAUSED if flow is not None and flow.suspended else JobState.WAITING
    code, built = builds.job(flow, job) if flow is not None and job.generated_by is None else ((), None)
    if built is not None:
        writer.put_payload(job.id, built.payload)
    generated = generated_among(writer, job.parents, current=True)
    return move(writer, begun_again(job, built, code, generated, as_retry=as_retry), state, now, reason)


def generated_among(view: View, uuids: Iterable[str], *, current: bool = False) -> set[str]:
    """Return those uuids that generated jobs have: a job that waits for a detour goes on doing so.

    ``current``: only those of jobs that are current.
    """
    return {
        uuid
        for uuid in uuids
        if any(job.generated_by and (job.current or not current) for job in view.generations(uuid))
    }


def reborn(old: JobRecord, fresh: JobRecord) -> JobRecord:
    """Return the record of a generated job whose uuid and index a job of a former life has.

    The numbers of attempts go on, so that their run directories differ. If the old one is still on its way
    out, the new one waits until it is gone.
    """
    if old.state not in ACTIVE:
        return msgspec.structs.replace(fresh, attempt=JobAttempt(number=old.attempt.number))
    return msgspec.structs.replace(
        fresh,
        state=old.state, config=old.config, attempt=old.attempt, deferred=DeferredPatch(config=fresh.config),
        cancellation=Cancellation(reason="generated anew", rerun=True),
    )  # fmt: skip


# Automatic retries, carried out. That a job is tried again stands in its record since its attempt died.


AT_ONCE = 200
"""Jobs that one transaction begins again."""


def begin_due(store: Store, now: float) -> bool:
    """Begin the retries whose time has come; return whether there were any.

    A process that dies before or after this leaves a job that waits for its retry, or one that has begun it.
    """

    def begin(writer: Writer) -> None:
        builds = Builds(writer)  # a large flow takes long to read, and may have many jobs to be retried
        for job in writer.due_retries(now, AT_ONCE):
            retry = coming_retry(job, writer.flow(job.flow))
            if retry is None:
                give_up(writer, job, "it is not wanted any more", now)
            else:
                why = f"retry {retry.number} of {retry.limit} after {job.retry.causes[-1]}"
                run_again(writer, [job], why, now, as_retry=True, builds=builds)

    with store.read() as view:
        due = view.due_retries(now, 1)
    if due:
        store.write(begin)
    return bool(due)


def give_up(writer: Writer, job: JobRecord, reason: str, now: float) -> None:
    """Make no more retries of a job that waits for one: it has failed."""
    note(writer, job, "GivenUp", f"no retry: {reason}", now, attempt=job.attempt.number)
    writer.put_job(msgspec.structs.replace(job, retry=job.retry.not_due))
    release_tolerant(writer, job.uuid, now)


def drop_unwanted_retry(writer: Writer, job: JobRecord, now: float) -> None:
    """Give up the retry of a job whose run config was changed to one without it."""
    if job.retry.at is not None and coming_retry(job, writer.flow(job.flow)) is None:
        give_up(writer, job, "its run config was changed", now)


def note_retry(writer: Writer, job: JobRecord, retry: Retry, now: float) -> None:
    """Append the event that tells how an attempt died, and what the next one gets."""
    text = (
        f"attempt {job.attempt.number} died of {job.cause} in {job.attempt.run_dir}: "
        f"retry {retry.number} of {retry.limit} in {retry.at - now:g} s"
    )
    base, asked = job.config.resources_value, job.asked
    if base is not None and asked is not None and asked != base:
        grown = {key: value for key, value in asked.values.items() if value != base.values[key]}
        text += f" with {', '.join(f'{key}={value}' for key, value in grown.items())}"
    note(writer, job, "Retrying", text, now, attempt=job.attempt.number)
