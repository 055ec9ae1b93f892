"""The schedulers: one descriptor each, found by the ``scheduler_type`` of a worker."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.schedulers.base import Scheduler
from reconciler.model.schedulers.pbs import PBS
from reconciler.model.schedulers.sge import SGE
from reconciler.model.schedulers.shell import Shell
from reconciler.model.schedulers.slurm import Slurm

__all__ = ["ANY_KEYWORD", "SCHEDULERS", "Scheduler", "scheduler_of"]

SCHEDULERS: Mapping[str, Scheduler] = {one.name: one for one in (Shell(), Slurm(), PBS(), SGE())}

ANY_KEYWORD = frozenset[str]().union(*(scheduler.keywords for scheduler in SCHEDULERS.values()))
"""Every keyword that some scheduler has."""


def scheduler_of(scheduler_type: str) -> Scheduler:
    """Return the descriptor of a scheduler.

    Raises
    ------
    InputError
        There is no such scheduler.
    """
    if scheduler_type not in SCHEDULERS:
        hint = did_you_mean(scheduler_type, SCHEDULERS) or f"known: {', '.join(sorted(SCHEDULERS))}"
        raise InputError(f"there is no scheduler '{scheduler_type}'", hint=hint)
    return SCHEDULERS[scheduler_type]
