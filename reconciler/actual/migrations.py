"""The schema of the store: its version, and the migrations from older versions.

A migration converts the store from one version to the next. All necessary ones run in one transaction, under
the lease, after the store was copied. The first writer migrates; until then readers refuse to open it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reconciler import __version__
from reconciler.actual.backup import save_copy
from reconciler.actual.db import Database, Transaction, close_database, open_database
from reconciler.actual.layout import (
    about_key,
    big_endian,
    decode_job,
    encode,
    name_bytes,
    number_of,
    readable,
)
from reconciler.actual.state_dir import Lease, lmdb_dir, time_stamp
from reconciler.errors import InputError
from reconciler.model.lineage import Lineage
from reconciler.model.summaries import Tally

Migration = Callable[[Transaction], None]

SCHEMA_VERSION = 3


def _index_paths(txn: Transaction) -> None:
    """1 -> 2: add the index of current jobs by path."""
    for key, job in _raw_jobs(txn):
        if job.get("current", True):
            txn.put("by_path", about_key(f"{job['flow']}/{job['key']}") + key)


GROUPS = {
    "attempt": {
        "attempt": "number", "run_worker": "worker", "run_dir": "run_dir", "queue_id": "queue_id",
        "submitted": "submitted", "missing_since": "missing_since", "stuck": "stuck",
    },
    "cancellation": {"cancel": "reason", "again": "rerun"},
    "retry": {"retry_at": "at", "retried": "causes"},
    "deferred": {"wanted": "config", "wanted_changes": "changes", "wanted_by": "revision"},
    "generated_by": {
        "generated_by": "uuid", "generator_index": "index", "generator_attempt": "attempt",
        "inherits": "inherits",
    },
}  # fmt: skip
"""Group of schema 3 -> field of a job in schema 2 -> field of the group."""


def _roots_of_lineage(txn: Transaction) -> None:
    """2 -> 3: the lineage has a set of root commits; an empty one stood for a shallow clone."""
    raw = txn.get("meta", b"lineage")
    if raw is not None:
        old = msgspec.msgpack.decode(raw, type=dict[str, str])
        txn.put("meta", b"lineage", encode(Lineage(old["project"], [old["root"]] if old["root"] else [])))


def _group_fields(txn: Transaction) -> None:
    """2 -> 3: group fields of jobs that belong together."""
    _roots_of_lineage(txn)
    for key, job in _raw_jobs(txn):
        groups = {
            group: {new: job[old] for old, new in fields.items() if old in job}
            for group, fields in GROUPS.items()
        }
        if "config" not in groups["deferred"]:
            groups["deferred"] = {}
        if "uuid" not in groups["generated_by"]:
            groups["generated_by"] = {}
        moved = {old for fields in GROUPS.values() for old in fields}
        rest = {field: value for field, value in job.items() if field not in moved}
        txn.put("jobs", key, encode(rest | {group: fields for group, fields in groups.items() if fields}))
    _summarise_flows(txn)


def _summarise_flows(txn: Transaction) -> None:
    """2 -> 3: keep the summary of each flow; one with an unreadable job is counted when it is needed."""
    tallies: dict[str, Tally] = {}
    odd: set[str] = set()
    for key, raw in _raw_jobs(txn):
        job = readable(decode_job, txn.get("jobs", key))
        if job is None:
            odd.add(str(raw["flow"]))
        else:
            tallies.setdefault(job.flow, Tally()).change(None, job)
    for flow, tally in tallies.items():
        if flow not in odd:
            txn.put("summaries", name_bytes(flow), encode(tally.summary()))


def _raw_jobs(txn: Transaction) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the records of jobs as maps, with their keys; `reconcile fsck` reports damaged ones."""
    for key in list(txn.keys("jobs")):
        try:
            job = msgspec.msgpack.decode(txn.get("jobs", key) or b"", type=dict[str, Any])
        except msgspec.DecodeError:
            continue
        if {"flow", "key"} <= job.keys():
            yield key, job


MIGRATIONS: Mapping[int, Migration] = {1: _index_paths, 2: _group_fields}
"""Version -> migration from that version to the next. A higher SCHEMA_VERSION needs a new entry."""


class OutdatedError(InputError):
    """The store has an older schema and is not migrated yet."""


def check_version(database: Database, state_dir: Path) -> None:
    """Check that this program can use the store without a migration. A new store gets the current version.

    A new store that is read-only gets none.

    Raises
    ------
    OutdatedError
        It must be migrated first.
    InputError
        It was written by a newer version.
    """
    with database.read() as txn:
        found = _version(txn)
        story = _story(txn, state_dir)
    if found is None:
        if not database.read_only:
            database.write(_stamp)
    elif found > SCHEMA_VERSION:
        raise _too_new(story)
    elif found < SCHEMA_VERSION:
        hint = "run `reconcile --once`: it makes a copy, then migrates it"
        raise OutdatedError(story, hint=hint)


def migrate_state(state_dir: Path, now: float, say: Callable[[str], None]) -> None:
    """Copy the store of a state directory, and migrate it to the schema of this program.

    Raises
    ------
    RefusedError
        Another process has the lease.
    InputError
        There are no migrations from its version to this one.
    WorldError
        The disk is full or fails; the store is unchanged.
    """
    with Lease(state_dir) as lease:
        lease.acquire(now)
        migrate_leased(state_dir, now, say)


def migrate_leased(state_dir: Path, now: float, say: Callable[[str], None]) -> None:
    """Do the same if this process already holds the lease."""
    database = open_database(lmdb_dir(state_dir))
    try:
        _migrate(database, state_dir, now, say)
    finally:
        close_database(database)


def _migrate(database: Database, state_dir: Path, now: float, say: Callable[[str], None]) -> None:
    with database.read() as txn:
        found = _version(txn)
        if found in (None, SCHEMA_VERSION):
            return  # another process was faster
        _require_way(txn, state_dir)
    copy = state_dir / f"before-schema-{SCHEMA_VERSION}-{time_stamp(now)}.mdb"
    save_copy(database, copy, overwrite=True)
    say(f"migrating the state from schema {found} to {SCHEMA_VERSION}; the old state is copied to {copy}")
    database.write(lambda txn: upgrade(txn, state_dir))


def upgrade(txn: Transaction, place: Path) -> None:
    """Run the migrations that a store needs; errors call it ``place``.

    Raises
    ------
    InputError
        A newer version wrote the store, or there are no migrations from its schema to this one.
    """
    for version in _require_way(txn, place):
        MIGRATIONS[version](txn)
    _stamp(txn)


def _require_way(txn: Transaction, place: Path) -> Sequence[int]:
    """Return the versions from which the store is migrated, in order."""
    found = _version(txn)
    if found is None:
        return ()
    if found > SCHEMA_VERSION:
        raise _too_new(_story(txn, place))
    steps = range(found, SCHEMA_VERSION)
    if any(version not in MIGRATIONS for version in steps):
        raise InputError(
            f"{_story(txn, place)}: too old to be migrated",
            hint="migrate it with an older version of reconciler first, or choose another --state-dir",
        )
    return steps


def _version(txn: Transaction) -> int | None:
    """Return the schema of a store; None for a new one, 0 for the first version, which did not record it."""
    raw = txn.get("meta", b"schema")
    if raw is not None:
        return number_of(raw)
    return 0 if any(txn.count(table) for table in ("meta", "flows", "jobs")) else None


def _story(txn: Transaction, place: Path) -> str:
    """Return an error that says which version wrote a store of another schema."""
    found = _version(txn) or 0
    kind = "a newer" if found > SCHEMA_VERSION else "an older"
    raw = txn.get("meta", b"written_by")
    writer = raw.decode(errors="replace") if raw is not None else "an unknown version"
    mine = f"this is {__version__}, schema {SCHEMA_VERSION}"
    return f"the state in {place} was written by {kind} reconciler ({writer}, schema {found}; {mine})"


def _too_new(story: str) -> InputError:
    return InputError(story, hint="upgrade reconciler to the version that wrote it, or to a newer one")


def _stamp(txn: Transaction) -> None:
    txn.put("meta", b"schema", big_endian(SCHEMA_VERSION))
    txn.put("meta", b"written_by", __version__.encode())
