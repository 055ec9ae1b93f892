"""Unexpected errors: each ends the turn of one job, or is an outage of one worker; nothing else stops."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.errors import ReconcilerError, TransientError
from reconciler.jobs.transitions import note
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE

_LONGEST = 300


def describe_error(error: BaseException) -> str:
    """Return one line about an unexpected error: type, message, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    message = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())[:_LONGEST]
    return f"{type(error).__name__}{': ' if message else ''}{message}{where}"


@contextmanager
def answer_of(host: str, action: str, *outputs: str) -> Iterator[None]:
    """Turn any error while output of a host is read into an outage of the worker that quotes the output.

    ``action`` is the command in words: ``the listing of the queue``.

    Raises
    ------
    TransientError
        The output has an unexpected form.
    """
    try:
        yield
    except ReconcilerError:
        raise
    except Exception as error:
        words = " ".join(" ".join(outputs).split())[-_LONGEST:] or "nothing"
        raise TransientError(
            f"{host} answered {action} with output that cannot be read: {words} [{describe_error(error)}]",
            hint="check the login files of the account, and run `reconcile doctor`",
        ) from error


def note_problem(store: Store, job: JobRecord, reason: str, now: float) -> None:
    """Record why an active job cannot move on; its other fields stay, and the next pass tries again."""

    def write(writer: Writer) -> None:
        current = writer.job(job.id)
        if current is not None and current.attempt.number == job.attempt.number and current.state in ACTIVE:
            note_stuck(writer, current, reason, now)

    store.write(write)


def note_stuck(writer: Writer, job: JobRecord, reason: str, now: float) -> None:
    """Record why a job cannot start or end, unless that is known; an empty reason ends this."""
    if reason == (job.attempt.stuck or ""):
        return
    stuck = msgspec.structs.replace(job, attempt=job.attempt_with(stuck=reason or None))
    event, message = ("Stuck", reason) if reason else ("Unstuck", "it can start now")
    note(writer, stuck, event, message, now, attempt=job.attempt.number)
    writer.put_job(stuck)
