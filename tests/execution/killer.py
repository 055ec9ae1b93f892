"""Runs ``reconcile`` and kills it at a named step: ``RECONCILER_TEST_KILL_AT=write:after:3``.

The process dies by SIGKILL at the n-th call of that step: ``before`` it, ``after`` it, or, of a write,
``within`` its transaction, when all is changed and nothing committed. ``write`` is any write of the store,
``write@JobStarter.check_out`` those that this function makes. It serves ``--once``, ``watch`` and every other
verb. ``RECONCILER_TEST_PYTHON`` is the Python of build processes, if it is another one. Only tests know this
script.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any

from reconciler.actual.daemon_requests import Requests
from reconciler.actual.store import Store
from reconciler.build.builder import FlowBuilder
from reconciler.cli.main import main
from reconciler.execution.worker.access import WorkerAccess
from reconciler.jobs.apply import PlanApplication
from reconciler.loop import Session

STEPS: dict[str, tuple[type, str]] = {
    "write": (Store, "write"),
    "build": (FlowBuilder, "next"),
    "reconcile": (Session, "reconcile"),
    "apply": (PlanApplication, "carry_out"),
    "answer": (Requests, "answer"),
    **{
        name: (WorkerAccess, name)
        for name in ("prepare", "upload", "submit", "find", "poll", "collect", "cancel", "withdraw")
    },
}


def deadly(call: Callable[..., Any], moment: str, number: int, kind: str = "") -> Callable[..., Any]:
    """Return a function that kills the process around its ``number``-th call; ``kind``: of that caller."""
    calls = itertools.count(1)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if kind and sys._getframe(1).f_code.co_qualname != kind:
            return call(*args, **kwargs)
        if next(calls) != number:
            return call(*args, **kwargs)
        if moment == "before":
            die()
        if moment == "within":
            args = (args[0], _then_die(args[1]), *args[2:])
        result = call(*args, **kwargs)
        if isinstance(result, GeneratorType):
            return _die_at_the_end(result)
        return die()

    return wrapper


def die() -> None:
    """End as a power failure would."""
    os.kill(os.getpid(), signal.SIGKILL)


def _then_die(change: Callable[..., Any]) -> Callable[..., Any]:
    def changed(*args: Any) -> Any:
        change(*args)
        die()

    return changed


def _die_at_the_end(items: Iterator[Any]) -> Iterator[Any]:
    yield from items
    die()


if __name__ == "__main__":
    sys.executable = os.environ.pop("RECONCILER_TEST_PYTHON", sys.executable)
    if kill_at := os.environ.pop("RECONCILER_TEST_KILL_AT", ""):
        step, moment, number = kill_at.split(":")
        step, _, kind = step.partition("@")
        owner, name = STEPS[step]
        setattr(owner, name, deadly(getattr(owner, name), moment, int(number), kind))
    sys.exit(main())
