"""All checks of a snapshot, and the repair of everything that can be recreated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from reconciler.actual.fsck import checks
from reconciler.actual.fsck.snapshot import JOB_INDEXES, Problem, Report, Snapshot, StoreCheck
from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.actual.writer import Writer

Look = Callable[[Snapshot], Iterable[Problem]]


def examine(view: View) -> Report:
    """Run all checks on a snapshot; changes nothing, and needs no lease.

    Raises
    ------
    WorldError
        The store is so damaged that its records cannot be found.
    """
    facts = Snapshot(view)
    checks = [StoreCheck(name, count(facts), list(look(facts))) for name, count, look in CHECKS]
    records = StoreCheck("records", facts.looked_at, facts.unreadable)  # events are read by their own check
    keys = StoreCheck("keys", len(facts.jobs) + len(facts.flows), facts.misplaced)
    return Report([records, keys, *checks])


def repair(store: Store, now: float) -> Report:
    """Repair in one transaction what can be repaired; return what was found. The caller holds the lease.

    Raises
    ------
    WorldError
        The store is damaged, or cannot be written.
    """

    def write(writer: Writer) -> Report:
        report = examine(writer)
        edits = list(report.edits())
        if any(edit.table == "jobs" for edit in edits):
            writer.put_restored(now)  # workers have attempts of deleted records
        for _ in range(_ROUNDS):
            for edit in edits:
                if edit.value is None:
                    writer.txn.delete(edit.table, edit.key)
                else:
                    writer.txn.put(edit.table, edit.key, edit.value)
            edits = list(examine(writer).edits())
        writer.forget_baseline()
        writer.touch()  # a reconcile that had nothing to do can have something to do now
        return report

    return store.write(write)


_ROUNDS = 3
"""An edit can uncover another problem: index entries of a deleted record."""


def _entries(table: str) -> Callable[[Snapshot], int]:
    return lambda facts: facts.txn.count(table)


def _jobs(facts: Snapshot) -> int:
    return len(facts.jobs)


CHECKS: tuple[tuple[str, Callable[[Snapshot], int], Look], ...] = (
    *((f"index {table}", _entries(table), partial(checks.job_index, table=table)) for table in JOB_INDEXES),
    ("summaries", _entries("summaries"), checks.summaries),
    ("index events_about", _entries("events"), checks.events_about),
    ("counters", lambda facts: 3, checks.counters),
    ("configuration", lambda facts: 1, checks.configuration),
    ("payloads", _entries("payloads"), checks.payloads),
    ("flows of jobs", _jobs, checks.flows),
    ("generators", _jobs, checks.generators),
    ("builds of flows", _entries("flows"), checks.builds),
    (
        "workers of jobs",
        lambda facts: sum(1 for job in facts.jobs.values() if job.run_worker),
        checks.workers,
    ),
    ("run directories", _jobs, checks.run_directories),
    ("outputs", _jobs, checks.outputs),
    ("cleanups", _entries("cleanups"), checks.cleanups),
    ("unused", _entries("unused"), checks.unused),
)
"""Every check of the records, in order: name, number of entries, problems."""
