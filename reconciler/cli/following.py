"""Looking at the store again and again, at next to no cost while nothing changes there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from reconciler.actual.store import Store
from reconciler.actual.view import View

T = TypeVar("T")

_GLANCE = 0.05
"""Seconds between two looks whether anything was written: each takes some microseconds."""


_SHARE = 2.0
"""So many times as long as it takes to look, it rests: many jobs that move must not keep a processor busy."""


def looks(
    store: Store, look: Callable[[View], T], *, seconds: float | None = None, refresh: float | None = None
) -> Iterator[T]:
    """Yield what ``look`` finds: at once, and after every write to the store.

    Ends after so many ``seconds``, with a last look; None: never. ``refresh``: yield again after so many
    seconds what has not changed. No transaction is open while the caller has the result.
    """
    ends = time.monotonic() + (math.inf if seconds is None else seconds)
    seen, found, rest = _look(store, look)
    yield found
    yielded = time.monotonic()
    while time.monotonic() < ends:
        time.sleep(max(0.0, min(ends - time.monotonic(), rest)))
        with store.read() as view:
            is_new = view.version() != seen
        if is_new:
            seen, found, rest = _look(store, look)
        if is_new or (refresh is not None and time.monotonic() - yielded >= refresh):
            yield found
            yielded = time.monotonic()


def _look(store: Store, look: Callable[[View], T]) -> tuple[int, T, float]:
    """Return the version of the store, what is found there, and for how many seconds to rest after that."""
    began = time.monotonic()
    with store.read() as view:
        version, found = view.version(), look(view)
    return version, found, max(_GLANCE, _SHARE * (time.monotonic() - began))
