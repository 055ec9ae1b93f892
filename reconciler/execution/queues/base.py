"""What a queue is: how a scheduler is asked, and what its answer means."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult, read_sections, sections_script
from reconciler.model.retries import Cause

# Small pieces of the shell text that queues write.


LONGEST_ARGUMENT = 60_000
"""Bytes. Linux takes 128 KiB in one argument, however long the whole command may be."""


def chunks(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield all words in lists, each short enough for one argument with a byte between two words."""
    longest = max((len(word) for word in words), default=0) + 1
    size = max(1, LONGEST_ARGUMENT // longest)
    for begin in range(0, len(words), size):
        yield list(words[begin : begin + size])


def all_of(commands: Iterable[str], prepare: str = ":") -> str:
    """Return text that runs every command, also after one that failed, and ends with the last failure."""
    lines = "\n".join(f"{command} || failed=$?" for command in commands)
    return f"(\n{prepare}\nfailed=0\n{lines}\nexit $failed\n)"


# Long lists of ids as several commands, each with its own exit code and error output.


_AT_ONCE = 500
"""Words of one command: a line has room for many more, but a scheduler has to answer them in one message."""

_SIGN = "-=-part-of-the-queue-=-"
"""Never on a line of its own in an answer: names of jobs hold no line break there."""


def in_parts(command: str, words: Sequence[str]) -> str:
    """Return text that runs ``command`` with all words, a piece of them at a time."""
    pieces = [words[start : start + _AT_ONCE] for start in range(0, len(words), _AT_ONCE)]
    return sections_script(
        {f"part{n}": f"{command} {shlex.join(piece)}" for n, piece in enumerate(pieces)}, _SIGN
    )


def parts_of(result: CommandResult) -> list[CommandResult]:
    """Return how each command of :func:`in_parts` ended.

    Raises
    ------
    TransientError
        Not all of them ran to their end.
    """
    parts = list(read_sections(result.stdout, _SIGN).values())
    if result.exit_code != 0 or not parts:
        raise no_answer(result)
    return parts


def no_answer(result: CommandResult) -> TransientError:
    """Return the error for a command of a scheduler that told nothing about jobs."""
    said = result.stderr.strip() or result.stdout.strip() or "no message"
    return TransientError(
        f"the scheduler gave no answer (exit code {result.exit_code}): {said[-300:]}",
        hint="the worker is asked again later; `reconcile doctor` tells more",
    )


class QueueState(StrEnum):
    """Where a job is, as its scheduler says. A job that has ended is not listed."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"
    """It is listed, with a state that this version does not know: it has not ended as far as we know."""


class QueueEntry(msgspec.Struct, frozen=True):
    """One job of a listing. ``reason`` is why it waits, in the scheduler's words; empty if it says nothing.

    ``never`` tells, in words for people, why it can never start as it is; empty if it can.
    """

    state: QueueState
    reason: str = ""
    never: str = ""


class Termination(msgspec.Struct, frozen=True):
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

    def listing(self, queue_ids: Mapping[str, float], result: CommandResult) -> dict[str, QueueEntry]:
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

    def accounting_command(self, queue_id: str) -> str:
        """Return the command that asks why a job ended, and tolerates that nobody knows."""
        ...

    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return what the scheduler knows of a job that is over; None if nothing."""
        ...
