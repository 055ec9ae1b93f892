"""Looking at the store again and again, at next to no cost while nothing changes there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from reconciler.actual.store import Store, View

T = TypeVar("T")

_GLANCE = 0.05
"""Seconds between two looks whether anything was written: each takes some microseconds."""


def looks(
    store: Store, look: Callable[[View], T], *, seconds: float | None = None, refresh: float | None = None
) -> Iterator[T]:
    """Yield what ``look`` finds: at once, and after every write to the store.

    Ends after so many ``seconds``, with a last look; None: never. ``refresh``: look anew after so many
    seconds, too. No transaction is open while the caller has the result.
    """
    started = looked = time.monotonic()
    seen = -1
    while True:
        now = time.monotonic()
        over = seconds is not None and now - started >= seconds
        with store.read() as view:
            version = view.version()
            found = [look(view)] if _is_due(seen != version, over, now - looked, refresh) else []
        if found:
            seen, looked = version, now
            yield found[0]
        if over:
            return
        left = _GLANCE if seconds is None else min(_GLANCE, started + seconds - time.monotonic())
        time.sleep(max(0.0, left))


def _is_due(changed: bool, over: bool, age: float, refresh: float | None) -> bool:
    return changed or over or (refresh is not None and age >= refresh)
