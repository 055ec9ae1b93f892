"""What every queue does: one scheduler's commands, and what their answers mean.

A queue never runs anything. It returns shell text for a script that runs on the host of the scheduler, and
reads the result.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult, read_sections, sections_script
from reconciler.model.retries import Cause
from reconciler.model.schedulers import Scheduler


class QueueState(StrEnum):
    """The state of a job, as its scheduler reports it. A job that has ended is not listed."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"
    """The job is listed with a state that this version does not know: it counts as not ended."""


class QueueEntry(msgspec.Struct, frozen=True):
    """One job of a listing.

    ``reason`` is why it waits, in the words of the scheduler; ``never`` is why it can never start as it is,
    in words for people. Both may be empty. ``start`` is when the scheduler expects it to start (seconds since
    the epoch). ``unclaimed``: it waits for a slot of a batch, and can be taken back at no cost.
    """

    state: QueueState
    reason: str = ""
    never: str = ""
    start: float | None = None
    unclaimed: bool = False

    @property
    def waiting(self) -> str:
        """Why it does not run now, for people; empty if it runs or the scheduler gives no reason."""
        match self.state:
            case QueueState.HELD:
                return f"held: {self.reason}" if self.reason else "held"
            case QueueState.SUSPENDED:
                return f"suspended: {self.reason}" if self.reason else "suspended"
            case QueueState.PENDING:
                return self.reason
        return ""

    @property
    def is_pending(self) -> bool:
        """Whether the job waits in the queue, perhaps again after its scheduler has requeued it."""
        return self.state in (QueueState.PENDING, QueueState.HELD)


class Refusal(StrEnum):
    """Why a submission was refused, as far as it matters for the next step."""

    FINAL = "final"
    """The scheduler does not accept this job as it is."""
    TARGET = "target"
    """Its queue, partition, QOS or account accepts no jobs now; others may."""
    JOB = "job"
    """This job is not accepted now, or the answer is not clear; other jobs may be accepted."""


class Termination(msgspec.Struct, frozen=True):
    """How a job ended, as far as its scheduler knows. ``text`` is one line for people: ``Slurm: TIMEOUT``.

    ``cause`` is None if the scheduler knows the job but no cause. ``exit_code`` is that of the script: 128 +
    n for signal n. ``over`` is False when the scheduler reports that the job has not ended. ``unstarted``:
    what ran around the job ended before the job began, so that it can start again at no cost.
    """

    text: str
    cause: Cause | None = None
    exit_code: int | None = None
    over: bool = True
    unstarted: bool = False


class Queue(ABC):
    """The jobs of one scheduler. ``username`` is whose jobs are listed; by default those of the user.

    Each ``*_command`` returns shell text for a bash script; the method after it reads the result. A result
    that is not an answer (controller down, command not found) raises ``TransientError`` and never looks like
    an empty listing.

    ``id_variable`` is the shell expression for the queue id inside a job: ``$SLURM_JOB_ID``.
    ``restarted`` is a shell condition: whether the scheduler says that it has started this script before.
    ``lost_after`` is for how many seconds a job must be missing from two listings before its files decide.
    ``target_refused`` is an extended regular expression, for bash and for Python, with the known messages of
    a submission for :attr:`Refusal.TARGET`. Empty: there are none.
    """

    scheduler: Scheduler
    id_variable: str
    restarted: str = "true"
    lost_after: float = 10.0
    target_refused: str = ""

    def __init__(self, username: str | None = None) -> None:
        self.username = username

    @property
    def user(self) -> str:
        """The user whose jobs are listed, as a word of a shell script."""
        return shlex.quote(self.username) if self.username else '"$(id -un)"'

    @abstractmethod
    def submit_command(self, script: str) -> str:
        """Return the command that submits ``script``, a plain file name in the current directory.

        It prints the scheduler's answer; it does not wait and does not keep the standard output open.
        """

    @abstractmethod
    def submitted_id(self, answer: str) -> str | None:
        """Return the queue id in the answer to a submission, also below a banner; None without one."""

    @abstractmethod
    def refusal(self, result: CommandResult) -> Refusal | None:
        """Return why a submission failed; None if the scheduler did not answer: then the worker is down.

        Only known forms of the scheduler's own messages count as "no answer", never single words: the text
        can come from a hook of the site.
        """

    def same_job(self, one: str, other: str) -> bool:
        """Return whether two queue ids are of one job; ``one`` may be the id that the job itself knows."""
        return one == other

    def cause_in_output(self, output: str) -> Cause | None:
        """Return why a job was killed, by what its scheduler wrote at the end of the error output."""
        return None

    @abstractmethod
    def find_command(self, names: Sequence[str]) -> str:
        """Return the command that looks for jobs by their name in the queue."""

    @abstractmethod
    def found(self, names: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return the queue id of each of these names that is in the queue now; the oldest of several.

        Raises
        ------
        TransientError
            That was not an answer.
        """

    @abstractmethod
    def listing_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that lists these jobs (any number of ids, at least one)."""

    @abstractmethod
    def listing(self, queue_ids: Mapping[str, str], result: CommandResult) -> dict[str, QueueEntry]:
        """Return the jobs that have not ended; what is missing is not in the queue.

        ``queue_ids`` maps each to the time of its submission (seconds since the epoch).

        Raises
        ------
        TransientError
            That was not an answer: nothing is known.
        """

    @abstractmethod
    def cancel_command(self, queue_ids: Sequence[str]) -> str:
        """Return the command that cancels these jobs (at least one); it does not wait until they are gone."""

    @abstractmethod
    def cancelled(self, queue_ids: Sequence[str], result: CommandResult) -> dict[str, str]:
        """Return why jobs could not be cancelled, by id. A job that has already ended is not a problem.

        Raises
        ------
        TransientError
            That was not an answer.
        """

    @abstractmethod
    def accounting_command(self, queue_id: str) -> str:
        """Return the command that asks how a job ended; it succeeds also where nothing is known."""

    @abstractmethod
    def accounting(self, queue_id: str, result: CommandResult) -> Termination | None:
        """Return what the scheduler knows of a job that has ended; None if nothing."""


# Shell text for many ids ------------------------------------------------------------------------------------

LONGEST_ARGUMENT = 60_000
"""Bytes. Linux takes 128 KiB in one argument, however long the whole command may be."""

_PART_SIZE = 500
"""Words in one command: a line has room for many more, but the scheduler answers them in one message."""

_SIGN = "-=-part-of-the-queue-=-"
"""Separates the answers of the parts: names of jobs cannot hold a line break, so no answer has this line."""


def chunks(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield all words in lists, each short enough for one argument with a byte between two words."""
    longest = max((len(word) for word in words), default=0) + 1
    size = max(1, LONGEST_ARGUMENT // longest)
    for begin in range(0, len(words), size):
        yield list(words[begin : begin + size])


def all_of(commands: Iterable[str], prepare: str = ":") -> str:
    """Return text that runs every command, also after a failed one, and ends with the last failure."""
    lines = "\n".join(f"{command} || failed=$?" for command in commands)
    return f"(\n{prepare}\nfailed=0\n{lines}\nexit $failed\n)"


def in_parts(command: str, words: Sequence[str]) -> str:
    """Return text that runs ``command`` with all words, some at a time; :func:`parts_of` reads the result."""
    pieces = [words[start : start + _PART_SIZE] for start in range(0, len(words), _PART_SIZE)]
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


def no_answer(result: CommandResult, command: str = "the scheduler") -> TransientError:
    """Return the error for a scheduler's command that reported nothing about jobs."""
    words = " ".join(result.stderr.split())
    if not words and result.exit_code == 0:  # something else answered in the name of the command
        words = " ".join(result.stdout.split())
    return TransientError(
        f"{command} gave no answer (exit code {result.exit_code}): {words[-300:] or 'no message'}",
        hint="the worker is asked again later; `reconcile doctor` tells more",
    )
