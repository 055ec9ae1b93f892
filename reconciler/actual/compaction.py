"""Keeping the store small: old events and revisions go, and caches that nothing refers to any more.

LMDB gives freed pages to later writes, so its file stops growing once as much goes as comes. The work is
done in slices: one bounded transaction at most once an hour, or once a minute while a round is not at its
end. A round visits every subject of events once; where it stands is in the store, for the next process.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from reconciler import __version__
from reconciler.actual.keys import big_endian, number_of
from reconciler.actual.record_codec import decode_event, decode_flow, decode_good, decode_revision, encode
from reconciler.actual.store import Store
from reconciler.actual.transaction import Transaction
from reconciler.actual.view import View
from reconciler.actual.writer import Writer

DAY = 86400.0


class Retention(msgspec.Struct, frozen=True):
    """What is kept of a series: its newest ``keep``, and all of the last ``seconds``; never over ``most``."""

    keep: int
    seconds: float
    most: int

    def goes(self, rank: int, age: float) -> bool:
        """Whether an entry goes; the newest has rank 0, ``age`` is in seconds."""
        return rank >= self.most or (rank >= self.keep and age > self.seconds)


EVENTS = Retention(keep=200, seconds=30 * DAY, most=10_000)
"""Of the events about one subject: a job, a flow, a worker."""

EVENTS_OF_GONE = Retention(keep=0, seconds=30 * DAY, most=10_000)
"""Of the events about a flow that is no more, and about its jobs."""

REVISIONS = Retention(keep=1_000, seconds=30 * DAY, most=10_000)

UNUSED_SECONDS = 30 * DAY
"""How long a build or a parsed blob stays after its last reference; to go back costs nothing so long."""

ROUND_SECONDS, SLICE_SECONDS = 3600.0, 60.0
"""Between two rounds, and between two slices of one."""

MOST_REMOVED, MOST_VISITED = 1_000, 20_000
"""Entries that one slice removes or marks, and keys that it looks at."""


class Progress(msgspec.Struct, omit_defaults=True):
    """Where compaction stands. ``after`` is the subject visited last in this round; empty between rounds."""

    at: float = 0.0
    after: bytes = b""
    more: bool = False


decode_progress = msgspec.msgpack.Decoder(Progress).decode


def compact(store: Store, now: float) -> int:
    """Do one slice if it is due; return how many entries were removed. The caller holds the lease.

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
    """Whether the next slice should be done now; a clock that was put back delays none."""
    return abs(now - progress.at) >= (SLICE_SECONDS if progress.more else ROUND_SECONDS)


def progress_of(view: View) -> Progress:
    """Return where compaction stands."""
    raw = view.txn.get("meta", b"compaction")
    return decode_progress(raw) if raw is not None else Progress()


class _Slice:
    """One transaction of compaction, and what it has done so far."""

    def __init__(self, writer: Writer, now: float) -> None:
        self.txn: Transaction = writer.txn
        self.now = now
        self.progress = progress_of(writer)
        self.removed = 0
        self.noted = 0
        self.visited = 0

    @property
    def full(self) -> bool:
        """Whether nothing more may be removed or noted in this slice."""
        return self.removed + self.noted >= MOST_REMOVED

    @property
    def spent(self) -> bool:
        """Whether the rest has to wait for the next slice."""
        return self.full or self.visited >= MOST_VISITED

    def carry_out(self) -> int:
        """Visit what is next, and write down where this ended."""
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
        """Visit subjects; return the last one that is done, or nothing once there is no other."""
        while (subject := _subject_after(self.txn, after)) is not None:
            done = self._subject(subject)
            if done:
                after = subject
            if not done or self.spent:
                return after
        return b""

    def _subject(self, subject: bytes) -> bool:
        """Remove the events about something that need not be kept; return whether no such one is left."""
        keys = list(self.txn.keys("events_about", subject))
        self.visited += len(keys)
        about, _ = self._event(keys[0])
        retention = EVENTS if self._is_there(about) else EVENTS_OF_GONE
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
        """Return what an event is about, and its time; of one that cannot be read nothing, and long ago."""
        raw = self.txn.get("events", key[-8:])
        try:
            event = decode_event(raw) if raw is not None else None
        except msgspec.DecodeError:
            event = None
        return (event.about, event.time) if event is not None else ("", 0.0)

    def _is_there(self, about: str) -> bool:
        """Whether the flow is there that events are about, or about a job of; anything else always is."""
        kind, _, rest = about.partition("/")
        flow = rest.partition("/")[0]
        return kind not in ("flow", "job") or self.txn.get("flows", flow.encode()) is not None

    def _revisions(self) -> None:
        keys = list(self.txn.keys("revisions"))
        for position, key in enumerate(keys):
            age = self.now - self._time_of_revision(key)
            if self.full or not REVISIONS.goes(len(keys) - 1 - position, age):
                return
            self.txn.delete("revisions", key)
            self.removed += 1

    def _time_of_revision(self, key: bytes) -> float:
        try:
            return decode_revision(self.txn.get("revisions", key) or b"").time
        except msgspec.DecodeError:
            return 0.0

    # caches -------------------------------------------------------------------------------------------

    def _unused(self, table: str, in_use: Callable[[bytes], bool]) -> None:
        """Note what has no reference any more, and remove what has had none for long."""
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


def _subject_after(txn: Transaction, subject: bytes) -> bytes | None:
    """Return the first subject of events that comes after another one."""
    key = txn.first_key("events_about", subject + b"\xff" * 9 if subject else b"")
    return key[:-8] if key is not None else None


def _builds_in_use(txn: Transaction) -> Callable[[bytes], bool]:
    """What any flow was built to, removed ones included."""
    return {decode_flow(raw).build_key.encode() for _, raw in txn.scan("flows")}.__contains__


def _blobs_in_use(txn: Transaction) -> Callable[[bytes], bool]:
    """What the last good version of a manifest was parsed from, as this version of the program reads it."""
    blobs = {decode_good(raw).parsed.encode() for _, raw in txn.scan("good")}

    def in_use(key: bytes) -> bool:
        blob, _, reader = key.partition(b":")
        return blob in blobs and reader.startswith(f"{__version__}:".encode())

    return in_use
