"""Transactions and resizes take turns on the memory map of an environment. Independent of LMDB."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Knows the open transactions of this process; a resize runs when there are none."""

    def __init__(self) -> None:
        # Reentrant, because the garbage collector can end an abandoned read anywhere, even in here. For the
        # same reason transactions are entries of a dict and not a number: adding or removing is one step.
        self._changed = threading.Condition(threading.RLock())
        self._open: dict[object, int] = {}  # -> the thread that began it
        self._waiting = 0

    def enter(self) -> object:
        """Register a transaction; wait while a resize keeps others out, unless it waits for this thread."""
        token, me = object(), threading.get_ident()
        with self._changed:
            if self._waiting and not self.held_here():
                self._changed.wait_for(lambda: not self._waiting)
            self._open[token] = me
        return token

    def leave(self, token: object) -> None:
        """Remove the transaction for which :meth:`enter` returned ``token``. Any thread can call this."""
        with self._changed:
            self._open.pop(token, None)
            if self._waiting and not self._open:
                self._changed.notify_all()

    def held_here(self) -> bool:
        """Return whether this thread has an open transaction."""
        return threading.get_ident() in self._open.values()

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Keep other threads from beginning, except those that already have an open transaction."""
        with self._changed:
            self._waiting += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, patience: float) -> Iterator[bool]:
        """Wait up to ``patience`` seconds until no transaction is open; yield whether that is the case."""
        with self._changed:
            if self.held_here():
                yield False
                return
            self._waiting += 1
            try:
                yield self._changed.wait_for(lambda: not self._open, patience)
            finally:
                self._waiting -= 1
                self._changed.notify_all()
