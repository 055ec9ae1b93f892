"""The queue of each scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reconciler.execution.queues.base import Queue
from reconciler.execution.queues.pbs import PBSQueue
from reconciler.execution.queues.sge import SGEQueue
from reconciler.execution.queues.shell import ShellQueue
from reconciler.execution.queues.slurm import SlurmQueue
from reconciler.model.schedulers import scheduler_of

_QUEUES: Mapping[str, Callable[[str | None], Queue]] = {
    queue.scheduler.name: queue for queue in (ShellQueue, SlurmQueue, PBSQueue, SGEQueue)
}


def queue_of(scheduler_type: str, username: str | None = None) -> Queue:
    """Return the queue of a scheduler; ``username`` is whose jobs are listed where ids cannot be.

    Raises
    ------
    InputError
        There is no such scheduler.
    """
    return _QUEUES[scheduler_of(scheduler_type).name](username)
