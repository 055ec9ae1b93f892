"""Watching the store for changes, at almost no cost while nothing changes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from reconciler.actual.store import Store
from reconciler.actual.view import View

T = TypeVar("T")

_POLL = 0.05
"""Seconds between two checks of the store's version; a check takes some microseconds."""

_REST = 2.0
"""Minimal pause after a look, as a multiple of its duration: frequent changes must not keep a CPU busy."""


def looks(
    store: Store, look: Callable[[View], T], *, seconds: float | None = None, refresh: float | None = None
) -> Iterator[T]:
    """Yield what ``look`` returns: immediately, and after every write to the store.

    No transaction is open while the caller handles a result.

    Parameters
    ----------
    seconds
        Ends after this time, with a last look; None: never.
    refresh
        Yield the last result again after this many seconds without a change; None: never.
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
    """Return the version of the store, the result of ``look``, and how many seconds to pause after it."""
    began = time.monotonic()
    with store.read() as view:
        version, found = view.version(), look(view)
    return version, found, max(_POLL, _REST * (time.monotonic() - began))
