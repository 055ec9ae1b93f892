"""Transactions on named tables, and the gate that keeps them apart from a resize of the memory map.

Nothing here opens an environment of LMDB.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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


Rows = Iterator[tuple[bytes, bytes]]

LONGEST_KEY = 511
"""Bytes; LMDB accepts neither longer keys nor empty ones."""


class Transaction:
    """One transaction: get, put, delete and ordered scans on named tables.

    A scan reads while it is consumed: do not change its table until then.
    """

    def __init__(self, raw: Any, tables: dict[str, Any]) -> None:
        self._raw = raw
        self._tables = tables

    @property
    def number(self) -> int:
        """The number of the last transaction that this one sees; every write of any process increases it."""
        return int(self._raw.id())

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value at ``key``, or None."""
        if not 0 < len(key) <= LONGEST_KEY:
            return None
        found: bytes | None = self._raw.get(key, db=self._tables[table])
        return found

    def put(self, table: str, key: bytes, value: bytes = b"") -> None:
        """Set the value at ``key``.

        Raises
        ------
        ValueError
            The key is empty or longer than 511 bytes.
        """
        if not 0 < len(key) <= LONGEST_KEY:
            raise ValueError(f"a key of table {table!r} has {len(key)} bytes, not 1 to {LONGEST_KEY}")
        self._raw.put(key, value, db=self._tables[table])

    def delete(self, table: str, key: bytes) -> bool:
        """Remove ``key``; return whether it was there."""
        return bool(key and self._raw.delete(key, db=self._tables[table]))

    def scan(self, table: str, prefix: bytes = b"", *, reverse: bool = False) -> Rows:
        """Yield (key, value) of the keys that begin with ``prefix``, in order; see the class for writes."""
        with self._raw.cursor(db=self._tables[table]) as cursor:
            if len(prefix) > LONGEST_KEY or not _place(cursor, prefix, reverse):
                return
            for key, value in cursor.iterprev() if reverse else cursor.iternext():
                if not key.startswith(prefix):
                    return
                yield key, value

    def keys(self, table: str, prefix: bytes = b"", *, reverse: bool = False) -> Iterator[bytes]:
        """Yield the keys that begin with ``prefix``, in order, without copying values."""
        with self._raw.cursor(db=self._tables[table]) as cursor:
            if len(prefix) > LONGEST_KEY or not _place(cursor, prefix, reverse):
                return
            move = cursor.iterprev if reverse else cursor.iternext
            for key in move(keys=True, values=False):
                if not key.startswith(prefix):
                    return
                yield key

    def first_key(self, table: str, start: bytes) -> bytes | None:
        """Return the first key that is not before ``start``."""
        with self._raw.cursor(db=self._tables[table]) as cursor:
            return bytes(cursor.key()) if cursor.set_range(start) else None

    def count(self, table: str) -> int:
        """Return the number of entries of a table."""
        return int(self._raw.stat(db=self._tables[table])["entries"])


def _place(cursor: Any, prefix: bytes, reverse: bool) -> bool:
    """Move to the first key that may begin with ``prefix``, or to the last; return whether there is one."""
    if not reverse:
        return bool(cursor.set_range(prefix))
    end = _successor(prefix)
    return bool(cursor.prev() if end and cursor.set_range(end) else cursor.last())


def _successor(prefix: bytes) -> bytes:
    """Return the first key after all that begin with ``prefix``; empty if there is no such key."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b""
