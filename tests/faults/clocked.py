"""Runs ``reconcile`` with a clock that a test moves: ``RECONCILER_TEST_CLOCK=FILE``, see :class:`MovedClock`.

What waits in the daemon waits by this clock, too. Only tests know this script.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import time
from pathlib import Path
from queue import Empty

_NUMBERS = struct.Struct("<dd")
_GLANCE = 0.02

_real = time.time


class MovedClock:
    """A file of two numbers: seconds that went by beside the real ones, and by how many the clock was set.

    Who waits notices the first, as if the time had passed; who reads the time of day notices both.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        if not file.exists():
            file.write_bytes(_NUMBERS.pack(0.0, 0.0))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _NUMBERS.size)

    def time(self) -> float:
        """Return the time of day by this clock, in seconds since the epoch."""
        return _real() + sum(_NUMBERS.unpack(self._memory[:]))

    def monotonic(self) -> float:
        """Return a time that nobody sets back."""
        return time.monotonic() + float(_NUMBERS.unpack(self._memory[:])[0])

    def elapse(self, seconds: float) -> None:
        """Let so much time go by at once."""
        self._add(seconds, 0.0)

    def jump(self, seconds: float) -> None:
        """Set the clock, as an administrator does."""
        self._add(0.0, seconds)

    def _add(self, elapsed: float, jumped: float) -> None:
        before = _NUMBERS.unpack(self._memory[:])
        self._memory[:] = _NUMBERS.pack(before[0] + elapsed, before[1] + jumped)


def main() -> None:
    """Run the program by this clock."""
    clock = MovedClock(Path(os.environ.pop("RECONCILER_TEST_CLOCK")))
    time.time = clock.time  # type: ignore[assignment]
    sys.executable = os.environ.pop("RECONCILER_TEST_PYTHON", sys.executable)

    from reconciler.cli.main import main as reconcile
    from reconciler.watch.signals import WakeUp

    really_wait = WakeUp.wait

    def wait(self: WakeUp, seconds: float | None) -> frozenset[str]:
        if seconds is None:
            return really_wait(self, None)
        deadline = clock.monotonic() + seconds
        while (left := deadline - clock.monotonic()) > 0:
            with contextlib.suppress(Empty):
                self._calls.put(self._calls.get(timeout=min(_GLANCE, left)))
                break
        return really_wait(self, 0.0)

    WakeUp.wait = wait  # type: ignore[method-assign]
    sys.exit(reconcile())


if __name__ == "__main__":
    main()
