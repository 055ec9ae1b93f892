"""The command of every pass: remove what is no longer needed, list the outbox, ask the queue."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.batch.queue import BatchQueue
from reconciler.execution.batch.tickets import CANCEL, RUNNING, WAITING, is_marker
from reconciler.execution.hosts.base import CommandResult, sections_script
from reconciler.execution.queues.base import QueueEntry
from reconciler.execution.run_files import WorkerPaths, shell_path
from reconciler.execution.worker.prepare import remove_unused_documents

_BATCH = 500
"""Names on one command line; a line has at most 128 KiB."""


class PollResult(msgspec.Struct, frozen=True):
    """The markers in the outbox, and the jobs in the queue by queue id; None if the queue was not asked."""

    markers: set[str]
    entries: dict[str, QueueEntry] | None = None


def script(
    paths: WorkerPaths,
    queue: BatchQueue,
    sentinel: str,
    *,
    forget: Sequence[str],
    discard: Sequence[str],
    ask: Mapping[str, str],
) -> str:
    """Return the script. ``forget`` are markers and ``discard`` run directories to remove."""
    commands = {}
    outbox = shell_path(paths.outbox)
    if forget:
        commands["forget"] = f"cd -- {outbox} && {_remove('rm -f', map(shlex.quote, forget))}"
        if queue.has_batches:
            names = [f"{CANCEL}/{name} */{RUNNING}/{name}" for name in forget if is_marker(name)]
            known = queue.handed_over.tickets
            names += [f"{WAITING}/{known[name]}" for name in forget if name in known]
            commands["batch"] = (
                f"cd -- {shell_path(queue.directory)} 2>/dev/null && {_remove('rm -f', names)}"
            )
    if discard:  # in the background, since it can take long
        directories = _remove("rm -rf", map(shell_path, discard))
        documents = f"cd -- {shell_path(paths.work_dir)} && {remove_unused_documents()}"
        remove = shlex.quote(f"{directories}\n{documents}")
        commands["discard"] = f"nohup bash -c {remove} >/dev/null 2>&1 </dev/null &"
    commands["outbox"] = f"ls -1A -- {outbox}"
    if ask:
        commands["queue"] = queue.listing_command(list(ask))
    return sections_script(commands, sentinel)


def _remove(command: str, names: Iterable[str]) -> str:
    words = list(names)
    batches = (words[start : start + _BATCH] for start in range(0, len(words), _BATCH))
    return "\n".join(f"{command} -- {' '.join(batch)}" for batch in batches)


def read_poll(
    answers: Mapping[str, CommandResult], queue: BatchQueue, ask: Mapping[str, str], paths: WorkerPaths
) -> PollResult:
    """Return the result of a poll from the sections that its script printed.

    Raises
    ------
    TransientError
        The outbox could not be listed, or the queue did not answer: nothing is known.
    """
    outbox = answers.get("outbox")
    if outbox is None or outbox.exit_code != 0:
        reason = outbox.stderr.strip() if outbox is not None else "the script was cut off"
        raise TransientError(f"cannot list {paths.outbox}: {reason}")
    markers = set(outbox.stdout.splitlines())
    if not ask:
        return PollResult(markers)
    if "queue" not in answers:
        raise TransientError("the queue was not asked: the script was cut off")
    return PollResult(markers, queue.listing(ask, answers["queue"]))
