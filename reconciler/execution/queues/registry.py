"""Which queue a worker has."""

from __future__ import annotations

from reconciler.errors import InputError
from reconciler.execution.queues.base import Queue


def queue_of(scheduler_type: str, username: str | None = None) -> Queue:
    """Return the queue of a scheduler; ``username`` is whose jobs are listed where ids cannot be.

    Raises
    ------
    InputError
        There is no such scheduler.
    """
    match scheduler_type:
        case "shell":
            from reconciler.execution.queues.shell import ShellQueue

            return ShellQueue()
        case "slurm":
            from reconciler.execution.queues.slurm import SlurmQueue

            return SlurmQueue(username)
        case "pbs":
            from reconciler.execution.queues.pbs import PBSQueue

            return PBSQueue(username)
        case "sge":
            from reconciler.execution.queues.sge import SGEQueue

            return SGEQueue(username)
    raise InputError(f"there is no scheduler '{scheduler_type}'")
