"""An older store is migrated by the first writer, a newer one is refused, readers wait."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler import __version__
from reconciler.actual import migrations
from reconciler.actual.backup import save_copy
from reconciler.actual.db import Transaction, close_database, open_database
from reconciler.actual.fsck.examine import examine
from reconciler.actual.migrations import MIGRATIONS, SCHEMA_VERSION, Migration, OutdatedError, migrate_state
from reconciler.actual.restore import stage, swap
from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from reconciler.cli.context import opened
from reconciler.errors import InputError, RefusedError
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import JobState
from tests.actual.test_store import job

NOW = 1_800_000_000.0


def old_form(state_dir: Path) -> JobRecord:
    """Write a store as version 0 had it: states in small letters, no index of flows, and no schema."""
    record = job("a", state=JobState.FAILED, sequence=1)
    store = Store(state_dir)
    flow = FlowRecord(name="f", identity="i", build_key="")

    def write(writer: Any) -> None:
        writer.put_flow(flow)
        writer.put_job(record)
        writer.put_payload(record.id, b"{}")
        assert writer.next_number("sequence") == 1

    store.write(write)
    store.close()
    database = open_database(state_dir / "lmdb")

    def age(txn: Transaction) -> None:
        raw = msgspec.msgpack.decode(txn.get("jobs", b"a_1") or b"")
        txn.put("jobs", b"a_1", msgspec.msgpack.encode(raw | {"state": "failed"}))
        for key in list(txn.keys("by_flow")):
            txn.delete("by_flow", key)
        for key in (b"schema", b"written_by"):
            txn.delete("meta", key)
        txn.put("meta", b"config", b"\x01")  # of no form that there is today

    database.write(age)
    close_database(database)
    return record


def from_0(txn: Transaction) -> None:
    """What a migration does: to read the old form, and to write the new one with its index."""
    for key, raw in list(txn.scan("jobs")):
        record = msgspec.msgpack.decode(raw)
        txn.put("jobs", key, msgspec.msgpack.encode(record | {"state": record["state"].upper()}))
        txn.put("by_flow", record["flow"].encode() + b"\0" + key)
    txn.delete("meta", b"config")


def breaking(txn: Transaction) -> None:
    """A migration that fails in its midst."""
    from_0(txn)
    raise ValueError("on purpose")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


def known(monkeypatch: pytest.MonkeyPatch, table: Mapping[int, Migration], version: int = 1) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", table)
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", version)


def copies(state_dir: Path) -> list[Path]:
    return sorted(state_dir.glob("before-schema-*.mdb"))


def test_every_version_since_the_first_one_has_a_way_to_the_next() -> None:
    assert set(MIGRATIONS) == set(range(1, SCHEMA_VERSION))


def test_version_1_had_no_index_of_paths(state_dir: Path) -> None:
    store = Store(state_dir)
    store.write(lambda writer: [writer.put_job(job("a")), writer.put_job(job("b", current=False))])
    with store.read() as view:
        keys = list(view.txn.keys("by_path"))

    def age(writer: Any) -> None:
        for key in keys:
            writer.txn.delete("by_path", key)
        writer.txn.put("meta", b"schema", struct.pack(">Q", 1))

    store.write(age)
    store.close()
    with opened(state_dir, lambda line: None) as migrated, migrated.read() as view:
        assert [view.has_path("f/a"), view.has_path("f/b")] == [True, False]
        assert list(view.txn.keys("by_path")) == keys
        assert view.txn.get("meta", b"schema") == struct.pack(">Q", SCHEMA_VERSION)


def test_a_reader_is_told_to_reconcile_first(state_dir: Path) -> None:
    old_form(state_dir)
    with pytest.raises(OutdatedError, match=r"an older reconciler \(an unknown version, schema 0") as caught:
        Store(state_dir)
    assert "`reconcile --once`" in (caught.value.hint or "")
    with pytest.raises(OutdatedError), opened(state_dir):
        pass
    assert copies(state_dir) == []


def test_the_first_writer_migrates_after_a_copy(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = old_form(state_dir)
    known(monkeypatch, {0: from_0})
    said: list[str] = []
    with opened(state_dir, said.append) as store, store.read() as view:
        assert view.jobs_of("f") == [record]
        assert view.txn.get("meta", b"written_by") == __version__.encode()
        assert [p.message for p in examine(view).problems] == ["there are jobs, but no applied configuration"]
    (copy,) = copies(state_dir)
    assert said == [f"migrating the state from schema 0 to 1; the old state is copied to {copy}"]
    with opened(state_dir, said.append):
        pass
    assert len(said) == 1, "once"


def test_the_copy_can_be_restored_and_is_migrated_again(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = old_form(state_dir)
    known(monkeypatch, {0: from_0})
    migrate_state(state_dir, NOW, lambda line: None)
    (copy,) = copies(state_dir)
    swap(stage(copy, state_dir, NOW), state_dir, NOW)
    with opened(state_dir) as store, store.read() as view:
        assert view.jobs_of("f") == [record]


def test_several_steps_run_in_order_and_in_one_transaction(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_form(state_dir)
    known(monkeypatch, {0: from_0, 1: breaking}, 2)
    with pytest.raises(ValueError, match="on purpose"):
        migrate_state(state_dir, NOW, lambda line: None)
    with pytest.raises(OutdatedError, match="schema 0"):
        Store(state_dir)
    order: list[int] = []
    known(monkeypatch, {n: lambda txn, n=n: order.append(n) for n in range(3)}, 3)  # type: ignore[misc]
    migrate_state(state_dir, NOW, lambda line: None)
    assert order == [0, 1, 2]


def test_one_that_is_too_old_is_left_alone(state_dir: Path) -> None:
    old_form(state_dir)
    with pytest.raises(InputError, match="too old to be migrated"), opened(state_dir, print):
        pass
    assert copies(state_dir) == []


def test_it_needs_the_lease(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_form(state_dir)
    known(monkeypatch, {0: from_0})
    with Lease(state_dir) as lease:
        lease.acquire(time.time())
        with pytest.raises(RefusedError, match="another reconcile is at work"), opened(state_dir, print):
            pass
    assert copies(state_dir) == []


def test_who_wrote_a_newer_one_is_named(state_dir: Path) -> None:
    store = Store(state_dir)

    def write(writer: Any) -> None:
        writer.txn.put("meta", b"schema", struct.pack(">Q", SCHEMA_VERSION + 1))
        writer.txn.put("meta", b"written_by", b"9.1.0")

    store.write(write)
    save_copy(store, state_dir / "copy.mdb")
    store.close()
    expected = rf"a newer reconciler \(9\.1\.0, schema {SCHEMA_VERSION + 1}; this is {__version__}, schema"
    for use in (lambda: Store(state_dir), lambda: stage(state_dir / "copy.mdb", state_dir, NOW)):
        with pytest.raises(InputError, match=expected) as caught:
            use()
        assert "upgrade reconciler" in (caught.value.hint or "")
