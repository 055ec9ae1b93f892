"""Compaction of the store: it removes old events and revisions, and caches that nothing refers to.

LMDB reuses freed pages, so its file stops growing once as much is removed as is added. The work is done in
slices: one bounded transaction at most once an hour, or once a minute while a round is unfinished. A round
visits every subject of events once. The store holds the position, so that the next process continues.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from reconciler import __version__
from reconciler.actual.layout import (
    big_endian,
    decode_event,
    decode_flow,
    decode_good,
    decode_revision,
    decoder,
    encode,
    name_bytes,
    number_of,
    readable,
)
from reconciler.actual.store import Store
from reconciler.actual.transaction import Transaction
from reconciler.actual.view import View
from reconciler.actual.writer import Writer

DAY = 86400.0


class Retention(msgspec.Struct, frozen=True):
    """The entries that are kept: the newest ``keep``, and those of the last ``seconds``, up to ``most``."""

    keep: int
    seconds: float
    most: int

    def goes(self, rank: int, age: float) -> bool:
        """Return whether an entry is removed; the newest has rank 0, ``age`` is in seconds."""
        return rank >= self.most or (rank >= self.keep and age > self.seconds)


EVENTS = Retention(keep=200, seconds=30 * DAY, most=10_000)
"""For events about one subject: a job, a flow, a worker."""

EVENTS_OF_GONE = Retention(keep=0, seconds=30 * DAY, most=10_000)
"""For events about a flow that no longer exists, and about its jobs."""

REVISIONS = Retention(keep=1_000, seconds=30 * DAY, most=10_000)

UNUSED_SECONDS = 30 * DAY
"""How long a build or parsed blob is kept after its last reference: until then, a revert costs nothing."""

ROUND_SECONDS, SLICE_SECONDS = 3600.0, 60.0
"""Seconds between two rounds, and between two slices of a round."""

MOST_REMOVED, MOST_VISITED = 1_000, 20_000
"""Maximum number of entries that a slice removes or marks, and of keys that it reads."""


class Progress(msgspec.Struct, omit_defaults=True):
    """The position of compaction. ``after`` is the last visited subject; empty between rounds."""

    at: float = 0.0
    after: bytes = b""
    more: bool = False


decode_progress = decoder(Progress, "the position of compaction")


def compact(store: Store, now: float) -> int:
    """Do a slice if it is due, and return the number of removed entries. The caller holds the lease.

    Raises
    ------
    WorldError
        The store cannot be read or written; nothing of the slice is kept.
    """
    with store.read() as view:
        if not is_due(progress_of(view), now):
            return 0
    return store.write(lambda writer: _Slice(writer, now).carry_out())


def is_due(progress: Progress, now: float) -> bool:
    """Return whether the next slice is due; a clock that was set back does not delay it."""
    return abs(now - progress.at) >= (SLICE_SECONDS if progress.more else ROUND_SECONDS)


def progress_of(view: View) -> Progress:
    """Return the position of compaction."""
    return readable(decode_progress, view.txn.get("meta", b"compaction")) or Progress()


class _Slice:
    """One transaction of compaction, with the number of entries that it has removed and read."""

    def __init__(self, writer: Writer, now: float) -> None:
        self.txn: Transaction = writer.txn
        self.now = now
        self.progress = progress_of(writer)
        self.removed = 0
        self.noted = 0
        self.visited = 0

    @property
    def full(self) -> bool:
        """Return whether this slice must not remove or mark more entries."""
        return self.removed + self.noted >= MOST_REMOVED

    @property
    def spent(self) -> bool:
        """Return whether the rest must wait for the next slice."""
        return self.full or self.visited >= MOST_VISITED

    def carry_out(self) -> int:
        """Visit the next subjects and caches, and record the position."""
        after = self.progress.after
        if not after:
            self._revisions()
            self._unused("builds", _builds_in_use(self.txn))
            self._unused("parsed", _blobs_in_use(self.txn))
        if not self.spent:
            after = self._events(after)
        ended = Progress(at=self.now, after=after, more=bool(after) or self.spent)
        self.txn.put("meta", b"compaction", encode(ended))
        return self.removed

    # history ------------------------------------------------------------------------------------------

    def _events(self, after: bytes) -> bytes:
        """Visit subjects; return the last one that is done, or nothing at the end of the round."""
        while (key := self.txn.first_key("events_about", after + b"\xff" * 9 if after else b"")) is not None:
            subject = key[:-8]  # without the number of the event
            done = self._subject(subject)
            if done:
                after = subject
            if not done or self.spent:
                return after
        return b""

    def _subject(self, subject: bytes) -> bool:
        """Remove the old events about a subject; return whether all of them are removed."""
        keys = list(self.txn.keys("events_about", subject))
        self.visited += len(keys)
        kind, _, rest = self._event(keys[0])[0].partition("/")
        flow = name_bytes(rest.partition("/")[0])
        gone = kind in ("flow", "job") and self.txn.get("flows", flow) is None
        retention = EVENTS_OF_GONE if gone else EVENTS
        for position, key in enumerate(keys):
            if not retention.goes(len(keys) - 1 - position, self.now - self._event(key)[1]):
                return True
            if self.full:
                return False
            self.txn.delete("events", key[-8:])
            self.txn.delete("events_about", key)
            self.removed += 1
        return True

    def _event(self, key: bytes) -> tuple[str, float]:
        """Return the subject and time of an event; an empty subject and time 0 for an unreadable one."""
        event = readable(decode_event, self.txn.get("events", key[-8:]))
        return (event.about, event.time) if event is not None else ("", 0.0)

    def _revisions(self) -> None:
        keys = list(self.txn.keys("revisions"))
        for position, key in enumerate(keys):
            revision = readable(decode_revision, self.txn.get("revisions", key))
            age = self.now - (revision.time if revision is not None else 0.0)
            if self.full or not REVISIONS.goes(len(keys) - 1 - position, age):
                return
            self.txn.delete("revisions", key)
            self.removed += 1

    # caches -------------------------------------------------------------------------------------------

    def _unused(self, table: str, in_use: Callable[[bytes], bool]) -> None:
        """Mark what nothing refers to, and remove what nothing has referred to for long."""
        for key in list(self.txn.keys(table)):
            if self.full:
                return
            note = table.encode() + b"\0" + key
            since = self.txn.get("unused", note)
            if in_use(key):
                self.noted += since is not None and self.txn.delete("unused", note)
            elif since is None:
                self.txn.put("unused", note, big_endian(int(self.now)))
                self.noted += 1
            elif self.now - number_of(since) > UNUSED_SECONDS:
                self.txn.delete(table, key)
                self.txn.delete("unused", note)
                self.removed += 1


def _builds_in_use(txn: Transaction) -> Callable[[bytes], bool]:
    """Return the keys of the builds of all flows, including removed ones."""
    flows = [readable(decode_flow, raw) for _, raw in txn.scan("flows")]
    keys = {name_bytes(flow.build_key) for flow in flows if flow is not None}
    return keys.__contains__ if None not in flows else lambda key: True  # what a damaged flow uses is unknown


def _blobs_in_use(txn: Transaction) -> Callable[[bytes], bool]:
    """Return the blobs of the last good manifests, as this version of the program parses them."""
    pointers = [readable(decode_good, raw) for _, raw in txn.scan("good")]
    blobs = {name_bytes(pointer.parsed) for pointer in pointers if pointer is not None}

    def in_use(key: bytes) -> bool:
        blob, _, reader = key.partition(b":")
        return blob in blobs and reader.startswith(f"{__version__}:".encode())

    return in_use
