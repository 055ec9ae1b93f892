"""The expected errors, each with the exit code of the command line.

Every error that a user can cause or meet derives from :class:`ReconcilerError`. Any other exception that
reaches the top is a bug in reconciler (exit code 70).
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of every command."""

    OK = 0
    NO = 1  # not as asked for: changes found, wait timed out, a flow ended Degraded
    USAGE = 2  # the user's input: usage, or an invalid document in the revision
    WORLD = 3  # git, a host, a scheduler or the disk failed
    REFUSED = 4  # by a guard, because of a stale plan, or because the lease is held
    BUG = 70
    INTERRUPTED = 130


class ReconcilerError(Exception):
    """Base of all expected errors.

    ``hint`` is one sentence that says what to do next.
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
    """Something outside reconciler failed: git, a host, a scheduler, the disk."""

    exit_code = ExitCode.WORLD


class TransientError(WorldError):
    """The operation may work later; nothing has changed."""


class BugError(TransientError):
    """An unexpected error, already logged with its traceback. Trying again may work."""


class LostError(WorldError):
    """git does not have an object, or no longer has it: trying again does not help."""


class UnfitError(InputError):
    """The code of the repository cannot be sent to a worker because of a symlink or submodule in it."""


class RefusedError(ReconcilerError):
    """A guard refused, the plan is stale, or another process holds the lease."""

    exit_code = ExitCode.REFUSED


class UnverifiedError(RefusedError):
    """A commit does not have the signature that the policy requires."""


class ForeignStateError(RefusedError):
    """The state belongs to another repository; no commit to this one can change that."""
