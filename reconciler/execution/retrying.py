"""Automatic retries, carried out. That a job is tried again stands in its record since its attempt died."""

from __future__ import annotations

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.execution.again import Builds, run_again
from reconciler.execution.ready import release_indifferent
from reconciler.execution.transitions import note
from reconciler.model.records import JobRecord
from reconciler.plan.retries import Retry, coming_retry

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
    release_indifferent(writer, job.uuid, now)


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
