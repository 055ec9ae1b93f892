"""All checks of one snapshot, and the repair of what can be made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from reconciler.actual.fsck import indexes, links
from reconciler.actual.fsck.problem import Problem, Report, StoreCheck
from reconciler.actual.fsck.snapshot import JOB_INDEXES, Snapshot
from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer

Look = Callable[[Snapshot], Iterable[Problem]]


def examine(view: View) -> Report:
    """StoreCheck every invariant of a snapshot; changes nothing, and needs no lease.

    Raises
    ------
    WorldError
        The store itself is damaged, so that not even its records can be found.
    """
    facts = Snapshot(view)
    checks = [StoreCheck(name, count(facts), list(look(facts))) for name, count, look in CHECKS]
    records = StoreCheck("records", facts.looked_at, facts.unreadable)  # events are read by their own check
    keys = StoreCheck("keys", len(facts.jobs) + len(facts.flows), facts.misplaced)
    return Report([records, keys, *checks])


def repair(store: Store) -> Report:
    """Put right what can be, in one transaction; return what was found. The caller holds the lease.

    Raises
    ------
    WorldError
        The store is damaged, or cannot be written.
    """

    def write(writer: Writer) -> Report:
        report = examine(writer)
        for edit in report.edits():
            if edit.value is None:
                writer.txn.delete(edit.table, edit.key)
            else:
                writer.txn.put(edit.table, edit.key, edit.value)
        writer.touch()  # a reconcile that had nothing to do may have something now
        return report

    return store.write(write)


def _entries(table: str) -> Callable[[Snapshot], int]:
    return lambda facts: facts.txn.count(table)


def _jobs(facts: Snapshot) -> int:
    return len(facts.jobs)


def _active(facts: Snapshot) -> int:
    return sum(1 for job in facts.jobs.values() if job.run_worker is not None)


def _of_indexes() -> Iterator[tuple[str, Callable[[Snapshot], int], Look]]:
    for table in JOB_INDEXES:
        yield f"index {table}", _entries(table), partial(indexes.job_index, table=table)


CHECKS: tuple[tuple[str, Callable[[Snapshot], int], Look], ...] = (
    *_of_indexes(),
    ("index events_about", _entries("events"), indexes.events_about),
    ("counters", lambda facts: 3, indexes.counters),
    ("configuration", lambda facts: 1, links.configuration),
    ("payloads", _entries("payloads"), links.payloads),
    ("flows of jobs", _jobs, links.flows),
    ("generators", _jobs, links.generators),
    ("builds of flows", _entries("flows"), links.builds),
    ("workers of jobs", _active, links.workers),
    ("outputs", _jobs, links.outputs),
    ("cleanups", _entries("cleanups"), links.cleanups),
    ("unused", _entries("unused"), indexes.unused),
)
"""Every check of what the records say, in order: name, how many entries there are, what is wrong."""
