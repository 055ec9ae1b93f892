"""Who has the memory map of an environment in use. Knows nothing of LMDB."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Knows the open transactions of this process; lets a resize in when there are none."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may end an abandoned read at any place, also in here. For the same
        # reason the transactions are entries of a dict, not a number: one step adds or removes one.
        self._changed = threading.Condition(threading.RLock())
        self._open: dict[object, int] = {}  # -> the thread that began it
        self._waiting = 0

    def enter(self) -> object:
        """Note a transaction; wait while others are held off, unless somebody waits for this thread."""
        token, me = object(), threading.get_ident()
        with self._changed:
            if self._waiting and not self.held_here():
                self._changed.wait_for(lambda: not self._waiting)
            self._open[token] = me
        return token

    def leave(self, token: object) -> None:
        """Forget the transaction that :meth:`enter` gave ``token`` for. Any thread may do so."""
        with self._changed:
            self._open.pop(token, None)
            if self._waiting and not self._open:
                self._changed.notify_all()

    def held_here(self) -> bool:
        """Whether this thread has a transaction open."""
        return threading.get_ident() in self._open.values()

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Let no other thread begin, unless it has a transaction open already."""
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
        """Wait up to ``patience`` seconds until no transaction is open; give whether that is so."""
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
