"""The command of every pass: tidy up what is done with, list the outbox, ask the queue."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult, sections_script
from reconciler.execution.queues.base import Queue, QueueEntry
from reconciler.execution.run_files import WorkerPaths, shell_path

_AT_ONCE = 500
"""Names on one command line; a line has at most 128 KiB."""


class PollResult(msgspec.Struct, frozen=True):
    """What a poll saw. ``entries`` are jobs in the queue by queue id; None if it was not asked."""

    markers: set[str]
    entries: dict[str, QueueEntry] | None = None


def script(
    place: WorkerPaths,
    queue: Queue,
    sign: str,
    *,
    forget: Sequence[str],
    discard: Sequence[str],
    ask: Mapping[str, float],
) -> str:
    """Return the script. ``forget`` are markers, ``discard`` run directories to remove."""
    commands = {}
    outbox = shell_path(place.outbox)
    if forget:
        commands["forget"] = f"cd -- {outbox} && {_removing('rm -f', map(shlex.quote, forget))}"
    if discard:  # it may take long: nothing waits for it
        removing = shlex.quote(_removing("rm -rf", map(shell_path, discard)))
        commands["discard"] = f"nohup bash -c {removing} >/dev/null 2>&1 </dev/null &"
    commands["outbox"] = f"ls -1A -- {outbox}"
    if ask:
        commands["queue"] = queue.listing_command(list(ask))
    return sections_script(commands, sign)


def _removing(command: str, names: Iterable[str]) -> str:
    return "\n".join(f"{command} -- {' '.join(batch)}" for batch in _batches(list(names)))


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


def seen(
    answers: Mapping[str, CommandResult], queue: Queue, ask: Mapping[str, float], place: WorkerPaths
) -> PollResult:
    """Read the answers.

    Raises
    ------
    TransientError
        The outbox or the queue gave no answer: nothing is known.
    """
    outbox = answers.get("outbox")
    if outbox is None or outbox.exit_code != 0:
        said = outbox.stderr.strip() if outbox is not None else "the script was cut off"
        raise TransientError(f"cannot list {place.outbox}: {said}")
    markers = set(outbox.stdout.splitlines())
    if not ask:
        return PollResult(markers)
    if "queue" not in answers:
        raise TransientError("the queue was not asked: the script was cut off")
    return PollResult(markers, queue.listing(ask, answers["queue"]))
