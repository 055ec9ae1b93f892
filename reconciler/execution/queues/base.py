"""What a queue is: how a scheduler is asked, and what its answer means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from reconciler.execution.hosts.command import CommandResult
from reconciler.model.retries import Cause


class QueueState(StrEnum):
    """Where a job is, as its scheduler says. A job that has ended is not listed."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"
    """It is listed, with a state that this version does not know: it has not ended as far as we know."""


class Entry(msgspec.Struct, frozen=True):
    """One job of a listing. ``reason`` is why it waits, in the scheduler's words; empty if it says nothing.

    ``never`` tells, in words for people, why it can never start as it is; empty if it can.
    """

    state: QueueState
    reason: str = ""
    never: str = ""


class Death(msgspec.Struct, frozen=True):
    """What a scheduler knows of a job that is over. ``text`` is one line for people, e.g. ``Slurm: TIMEOUT``.

    ``cause`` is None if it knows the job but no reason; ``exit_code`` is that of the script: 128 + n for
    signal n.
    ``over`` is False when the scheduler says that the job has not ended.
    """

    text: str
    cause: Cause | None = None
    exit_code: int | None = None
    over: bool = True


class Queue(Protocol):
    """One kind of scheduler.

    Every ``*_command`` returns shell text for a bash script on the host of the scheduler; the method beside
    it reads the result. A result that is no answer (controller down, command not found) raises
    ``TransientError``, never looks like an empty listing.

    ``id_variable`` is the shell expression that holds the id inside of a job: ``$SLURM_JOB_ID``.
    ``lost_after`` is how many seconds a job must be missing from two listings before its files decide.
    ``full`` is a bash condition on ``$said``, what a submission that failed has printed on its standard
    error: whether so many jobs of this user are in the queue that it takes no more now. Empty: never.
    """

    scheduler_type: str
    id_variable: str
    lost_after: float
    full: str

    def submit_command(self, script: str) -> str:
        """Return the command that submits ``script``, a plain file name in the current directory.

        It prints the scheduler's answer; it does not wait and does not keep the standard output open.
        """
        ...

    def submitted_id(self, answer: str) -> str | None:
        """Return the queue id in the answer to a submission, also below a banner; None if there is none."""
        ...

    def refused(self, result: CommandResult) -> bool:
        """Whether a submission that failed was certainly refused: the scheduler answered, and said no.

        False when it may work later, or may even have worked: controller down, no answer in time.
        """
        ...

    def find_command(self, names: Sequence[str]) -> str:
        """Return the command that looks for jobs by their name in the queue."""
        ...

    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return the queue id of each of these names that is in the queue now.

        Raises
        ------
        TransientError
            That was no answer.
        """
        ...

    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that lists these jobs (ids of any number; at least one)."""
        ...

    def listing(self, queue_ids: Mapping[str, float], result: CommandResult) -> dict[str, Entry]:
        """Return those of these jobs that have not ended; what is missing is not in the queue.

        ``queue_ids`` maps each to when it was submitted (seconds since the epoch).

        Raises
        ------
        TransientError
            That was no answer: nothing is known.
        """
        ...

    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that ends these jobs (at least one); it does not wait until they are gone."""
        ...

    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why jobs could not be cancelled, by id. One that is over already is no problem.

        Raises
        ------
        TransientError
            That was no answer.
        """
        ...

    def autopsy_command(self, queue_id: str) -> str:
        """Return the command that asks why a job ended, and tolerates that nobody knows."""
        ...

    def autopsy(self, queue_id: str, result: CommandResult) -> Death | None:
        """Return what the scheduler knows of a job that is over; None if nothing."""
        ...
