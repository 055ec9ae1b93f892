"""Jobs that run again: asked for by hand, by an automatic retry, or because a commit brought them back."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.diagnostics import did_you_mean
from reconciler.jobs.dependencies import recheck, release_tolerant, unhook
from reconciler.jobs.transitions import deferred, move, note
from reconciler.model.actions import JobPlan
from reconciler.model.flows import BuiltJob
from reconciler.model.records import Change, FlowRecord, JobRecord
from reconciler.model.states import ACTIVE, KEPT, JobState
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
    for job in begun:
        recheck(writer, _present(writer, [job, *writer.dependants(job.uuid)]), now)


def begin_again(writer: Writer, job: JobRecord, now: float) -> None:
    """The attempt that was to be cancelled first, or was being cancelled, is over: now the job runs again."""
    config = writer.config()
    why = no_worker(job, config.workers) if config is not None else None
    if why is not None:  # it was generated anew, with a worker that does not exist
        over: dict[str, Any] = {"stuck": None, "missing_since": None, "cancel": None, "again": False}
        end_without_worker(writer, job, why, now, **over)
        return
    run_again(writer, [job], job.cancel or "it was cancelled, and is wanted again", now)


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
    if flow is not None and job.generated_by is None:
        job = _as_built_now(writer, job, *builds.job(flow, job))
    retried = job.retried if as_retry and job.retry_at is not None else []
    return move(
        writer, job, state, now, reason, retried=retried,
        error=None, cause=None, stuck=None, missing_since=None, cancel=None, again=False,
    )  # fmt: skip


def _as_built_now(writer: Writer, job: JobRecord, code: list[str], built: BuiltJob | None) -> JobRecord:
    """Give a job the code and the metadata that its flow has now; a generated one keeps what it was given."""
    if built is None:
        return job
    writer.put_payload(job.id, built.payload)
    more = [parent for parent in job.parents if parent not in built.parents and _generated(writer, parent)]
    return msgspec.structs.replace(job, code=code, files=built.files, parents=[*built.parents, *more])


def _generated(writer: Writer, uuid: str) -> bool:
    """Whether a uuid is that of a job that was born at run time: who waits for a detour goes on doing so."""
    return any(job.current and job.generated_by is not None for job in writer.generations(uuid))


def reborn(old: JobRecord, fresh: JobRecord) -> JobRecord:
    """Return the record of a generated job whose uuid and index a job of a former life has.

    The numbers of attempts go on, so that their run directories differ. If the old one is still on its way
    out, the new one waits until it is gone.
    """
    if old.state not in ACTIVE:
        return msgspec.structs.replace(fresh, attempt=old.attempt)
    return msgspec.structs.replace(
        fresh,
        state=old.state, config=old.config, wanted=fresh.config, attempt=old.attempt, run_dir=old.run_dir,
        run_worker=old.run_worker, queue_id=old.queue_id, submitted=old.submitted,
        missing_since=old.missing_since, stuck=old.stuck, cancel="generated anew", again=True,
    )  # fmt: skip


# Jobs that were history and are wanted again: a commit was reverted, or a flow came back.


def revived(
    view: View,
    old: JobRecord,
    plan: JobPlan,
    changes: Sequence[Change],
    revision: str,
    code: Sequence[str],
    now: float,
) -> JobRecord:
    """Return the record of a job that has a place again: what came of it is kept, anything else starts anew.

    One that has not stopped yet goes on; like any other on its way it waits for a new run config. It may have
    been killed already: then it runs again. ``changes`` are those of its run config, ``code`` are the trees
    that it runs with if it starts anew.
    """
    back = msgspec.structs.replace(
        old, current=True, cancel=None, own=plan.own, key=plan.job.key, name=plan.job.name, error=None,
        cause=None, updated=now, parents=[*plan.job.parents, *_detours(view, old, plan.job.parents)],
    )  # fmt: skip
    if old.state in ACTIVE:
        doubtful = msgspec.structs.replace(back, again=old.cancel is not None)
        if old.config.same_values(plan.config):
            return doubtful
        return deferred(doubtful, plan.config, changes, revision)
    if old.state in KEPT:
        return msgspec.structs.replace(back, config=plan.config)
    return msgspec.structs.replace(
        back, state=JobState.WAITING, config=plan.config, code=list(code), files=plan.job.files, stuck=None,
        missing_since=None, retried=[],
    )  # fmt: skip


def _detours(view: View, old: JobRecord, parents: Sequence[str]) -> list[str]:
    """Return what it had to wait for besides, since a job that it needs generated that."""
    more = (parent for parent in old.parents if parent not in parents)
    return [parent for parent in more if any(job.generated_by for job in view.generations(parent))]


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
                why = f"retry {retry.number} of {retry.limit} after {job.retried[-1]}"
                run_again(writer, [job], why, now, as_retry=True, builds=builds)

    with store.read() as view:
        due = view.due_retries(now, 1)
    if due:
        store.write(begin)
    return bool(due)


def give_up(writer: Writer, job: JobRecord, reason: str, now: float) -> None:
    """Make no more retries of a job that waits for one: it has failed."""
    note(writer, job, "GivenUp", f"no retry: {reason}", now, attempt=job.attempt)
    writer.put_job(msgspec.structs.replace(job, retry_at=None))
    release_tolerant(writer, job.uuid, now)


def drop_unwanted_retry(writer: Writer, job: JobRecord, now: float) -> None:
    """Give up the retry of a job whose run config was changed to one without it."""
    if job.retry_at is not None and coming_retry(job, writer.flow(job.flow)) is None:
        give_up(writer, job, "its run config was changed", now)


def note_retry(writer: Writer, job: JobRecord, retry: Retry, now: float) -> None:
    """Append the event that tells how an attempt died, and what the next one gets."""
    text = (
        f"attempt {job.attempt} died of {job.cause} in {job.run_dir}: "
        f"retry {retry.number} of {retry.limit} in {retry.at - now:g} s"
    )
    base, asked = job.config.resources_value, job.asked
    if base is not None and asked is not None and asked != base:
        grown = {key: value for key, value in asked.values.items() if value != base.values[key]}
        text += f" with {', '.join(f'{key}={value}' for key, value in grown.items())}"
    note(writer, job, "Retrying", text, now, attempt=job.attempt)
