"""Runs ``reconcile`` and kills it at a named step: ``RECONCILER_TEST_KILL_AT=write:after:3``.

The step is a call of the store's ``write``, or of an operation on a worker; the process dies by SIGKILL
before or after the n-th one. Only tests know this script.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from reconciler.actual.store import Store
from reconciler.cli.main import main
from reconciler.execution.worker.access import WorkerAccess

ON_WORKER = ("upload", "submit", "collect", "poll")
STEPS: dict[str, type] = {"write": Store} | dict.fromkeys(ON_WORKER, WorkerAccess)


def deadly(call: Callable[..., Any], moment: str, number: int) -> Callable[..., Any]:
    """Return a function that kills the process around its ``number``-th call."""
    calls = 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapper


if __name__ == "__main__":
    step, moment, number = os.environ.pop("RECONCILER_TEST_KILL_AT").split(":")
    setattr(STEPS[step], step, deadly(getattr(STEPS[step], step), moment, int(number)))
    sys.exit(main())
