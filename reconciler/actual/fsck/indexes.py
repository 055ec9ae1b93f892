"""Checks of what can be recreated from the records: indexes and counters."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.actual import record_codec as records
from reconciler.actual.fsck.problem import Edit, Problem, shown
from reconciler.actual.fsck.snapshot import Snapshot
from reconciler.actual.keys import about_key, big_endian, number_of


def job_index(facts: Snapshot, table: str) -> Iterator[Problem]:
    """Compare an index of jobs with the job records."""
    entries, found = facts.entries[table], set(facts.txn.keys(table))
    for key in sorted(entries.keys() - found):
        yield _missing(table, key, f"job/{entries[key]}")
    if facts.jobs_complete:
        for key in sorted(found - entries.keys()):
            yield _dangling(table, key)


def _missing(table: str, key: bytes, subject: str) -> Problem:
    return Problem(subject, f"is missing in {table}", edits=(Edit(table, key, b""),))


def _dangling(table: str, key: bytes) -> Problem:
    return Problem(f"{table}/{shown(key)}", "the entry leads nowhere", edits=(Edit(table, key),))


def events_about(facts: Snapshot) -> Iterator[Problem]:
    """Compare the index of events with the events; each is decoded once, none is kept in memory."""
    right = 0
    for number, event in facts.decoded("events", records.decode_event):
        key = about_key(event.about) + number
        if facts.txn.get("events_about", key) is None:
            yield _missing("events_about", key, f"events/{number_of(number)}")
        else:
            right += 1
    if right == facts.txn.count("events_about"):
        return
    for key in facts.txn.keys("events_about"):
        if not _leads_to_event(facts, key):
            yield _dangling("events_about", key)


def _leads_to_event(facts: Snapshot, key: bytes) -> bool:
    raw = facts.txn.get("events", key[-8:])
    if raw is None:
        return False
    try:
        return about_key(records.decode_event(raw).about) == key[:-8]
    except Exception:  # reported already, and removed together with this entry
        return False


def counters(facts: Snapshot) -> Iterator[Problem]:
    """Check that the next number of each counter is higher than all numbers in use."""
    used = {
        "event": _last(facts, "events"),
        "revision": _last(facts, "revisions"),
        "sequence": max((job.sequence for job in facts.jobs.values()), default=0),
    }
    for name, highest in used.items():
        key = f"next/{name}".encode()
        raw = facts.txn.get("meta", key)
        at = number_of(raw) if raw is not None and len(raw) == 8 else 0
        if at < highest:
            edit = Edit("meta", key, big_endian(highest))
            yield Problem(f"meta/next/{name}", f"is at {at}, but {highest} is in use", edits=(edit,))


def _last(facts: Snapshot, table: str) -> int:
    last = next(iter(facts.txn.keys(table, reverse=True)), None)
    return number_of(last) if last is not None and len(last) == 8 else 0


def unused(facts: Snapshot) -> Iterator[Problem]:
    """Check that everything marked as unused still exists."""
    for key in facts.txn.keys("unused"):
        table, _, target = key.partition(b"\0")
        if table not in (b"parsed", b"builds") or facts.txn.get(table.decode(), target) is None:
            yield _dangling("unused", key)
