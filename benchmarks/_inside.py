"""For benchmarks of what happens inside of a pass, in one process that has everything imported."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import TypeVar

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer

T = TypeVar("T")


class Silent:
    """Hears what a reconcile narrates."""

    def say(self, line: str) -> None:
        """Take a line."""

    def planned(self, plan: object) -> None:
        """Take a plan."""

    def progress(self, done: int, total: int, running: int) -> None:
        """Take how far the jobs are."""


class TimedStore(Store):
    """A store that remembers the longest write transaction, and the CPU of this process in it."""

    longest = its_cpu = 0.0

    def write(self, change: Callable[[Writer], T]) -> T:
        """Write, with a watch in the hand."""
        started, used = time.perf_counter(), time.process_time()
        try:
            return super().write(change)
        finally:
            took = time.perf_counter() - started
            if took > self.longest:
                self.longest, self.its_cpu = took, time.process_time() - used


def cpu() -> float:
    """Return seconds of CPU of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
