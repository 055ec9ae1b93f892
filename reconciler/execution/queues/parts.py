"""Long lists of ids as several commands, each with its own exit code and error output."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from reconciler.errors import TransientError
from reconciler.execution.hosts.command import CommandResult
from reconciler.execution.hosts.sections import combined, split

_AT_ONCE = 500
"""Words of one command: a line has room for many more, but a scheduler has to answer them in one message."""

_SIGN = "-=-part-of-the-queue-=-"
"""Never on a line of its own in an answer: names of jobs hold no line break there."""


def in_parts(command: str, words: Sequence[str]) -> str:
    """Return text that runs ``command`` with all words, a piece of them at a time."""
    pieces = [words[start : start + _AT_ONCE] for start in range(0, len(words), _AT_ONCE)]
    return combined({f"part{n}": f"{command} {shlex.join(piece)}" for n, piece in enumerate(pieces)}, _SIGN)


def parts_of(result: CommandResult) -> list[CommandResult]:
    """Return how each command of :func:`in_parts` ended.

    Raises
    ------
    TransientError
        Not all of them ran to their end.
    """
    parts = list(split(result.stdout, _SIGN).values())
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
