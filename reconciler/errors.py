"""What can go wrong, named by what the user should do next.

Every error that a user can cause or meet derives from :class:`ReconcilerError` and carries the exit
code of the command line. Anything else that reaches the top is a bug of ours (exit code 70).
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of every verb."""

    OK = 0
    NO = 1  # the answer is no: changes found, wait timed out, a flow ended Degraded
    USAGE = 2  # the user's input: usage, or an invalid document in the revision
    WORLD = 3  # git, host, scheduler or disk failed
    REFUSED = 4  # a guard, a stale plan, or the lease is held
    BUG = 70
    INTERRUPTED = 130


class ReconcilerError(Exception):
    """Base of all expected errors.

    ``hint`` is one sentence that tells how to get out of the situation.
    """

    exit_code = ExitCode.WORLD

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(ReconcilerError):
    """The user's input is wrong: an option, a selector, a document."""

    exit_code = ExitCode.USAGE


class WorldError(ReconcilerError):
    """Something outside of this program failed: git, a host, a scheduler, the disk."""

    exit_code = ExitCode.WORLD


class TransientError(WorldError):
    """It may work when tried again later; nothing has changed."""


class LostError(WorldError):
    """git does not have an object (any more): asking again gives the same answer."""


class UnfitError(InputError):
    """The code of the repository has what cannot be sent to a worker: a symlink, a submodule."""


class RefusedError(ReconcilerError):
    """A guard refused, the plan is stale, or another process holds the lease."""

    exit_code = ExitCode.REFUSED


class ForeignStateError(RefusedError):
    """The state belongs to another repository: whatever is committed to this one, it stays so."""
