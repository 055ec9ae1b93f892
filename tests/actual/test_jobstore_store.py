"""The maggma Store: update, validators, life cycle."""

from __future__ import annotations

import json
import pickle
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from maggma.core import StoreError
from maggma.core.store import DateTimeFormat
from maggma.core.validator import Validator
from maggma.stores import MemoryStore

from reconciler.actual import outputs
from reconciler.actual.codec import decode
from reconciler.actual.jobstore import LMDBStore
from tests.actual.jobstore_support import Document, transaction


def test_update_replaces_by_the_given_key_and_hides_mongo_ids(store: LMDBStore) -> None:
    with MemoryStore() as source:
        source.update([{"uuid": "u", "index": 1, "x": 1}], key="uuid")
        store.update(list(source.query()))
    assert list(store.query()) == [{"uuid": "u", "index": 1, "x": 1}]
    store.update({"uuid": "u", "index": 2, "x": 2})
    assert list(store.query()) == [{"uuid": "u", "index": 2, "x": 2}]
    store.update([{"uuid": "u", "index": 3}, {"uuid": "u", "index": 3, "x": 3}], key=["uuid", "index"])
    assert [doc["index"] for doc in store.query()] == [2, 3]
    store.update([{"name": "a", "x": 1}, {"name": "b", "x": 2}, {"name": "a", "x": 3}], key="name")
    assert store.query_one({"name": "a"}) == {"name": "a", "x": 3}
    assert store.count() == 4
    with pytest.raises(KeyError, match="name"):
        store.update([{"uuid": "kept out"}, {"uuid": "v"}], key=["uuid", "name"])
    assert store.count() == 4


def test_a_batch_sees_what_it_replaced_itself(store: LMDBStore) -> None:
    store.update([{"uuid": name, "name": "same"} for name in "abc"], key="name")
    assert list(store.query()) == [{"uuid": "c", "name": "same"}]


@pytest.mark.parametrize("index", [-1, 1.5, None, [7, 8], 10**12, 2**70], ids=repr)
def test_an_odd_index_is_found_and_replaced_like_any_other(store: LMDBStore, index: Any) -> None:
    keys = ["uuid", "index"]
    store.update([{"uuid": "u", "index": index, "n": n} for n in (1, 2)], key=keys)
    store.update([{"uuid": "u", "index": 1, "n": 3}, {"uuid": "u", "index": 1.0, "n": 4}], key=keys)
    element = index[0] if isinstance(index, list) else index
    assert {"uuid": "u", "index": index, "n": 2} in list(store.query({"uuid": "u", "index": element}))
    assert [doc["n"] for doc in store.query({"uuid": "u"})] == [2, 4]
    with transaction(store) as txn:
        assert decode(outputs.latest_packed(txn, "outputs", "u") or b"") == {
            "uuid": "u",
            "index": 1.0,
            "n": 4,
        }


def test_an_aware_date_as_key_replaces_its_document(store: LMDBStore) -> None:
    for hours in (0, 2):
        when = datetime(2025, 1, 1, 12 + hours, 0, 0, 123456, tzinfo=timezone(timedelta(hours=hours)))
        store.update({"when": when, "hours": hours}, key="when")
    assert list(store.query()) == [{"when": datetime(2025, 1, 1, 12, 0, 0, 123000), "hours": 2}]


class PositiveX(Validator):
    """Wants x to be positive."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def is_valid(self, doc: Document) -> bool:
        return bool(doc["x"] > 0)

    def validation_errors(self, doc: Document) -> list[str]:
        return [] if self.is_valid(doc) else [f"x is {doc['x']}"]


def test_a_validator_is_honoured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    docs = [{"uuid": "good", "x": 1}, {"uuid": "bad", "x": -1}]
    with LMDBStore(tmp_path, validator=PositiveX(strict=True)) as store:
        with pytest.raises(ValueError, match="x is -1"):
            store.update(docs)
        assert store.count() == 0
    with LMDBStore(tmp_path, validator=PositiveX(strict=False)) as store:
        store.update(docs)
        assert store.distinct("uuid") == ["good"]
    assert "x is -1" in caplog.text


def test_a_store_is_used_between_connect_and_close(tmp_path: Path) -> None:
    store = LMDBStore(tmp_path / "state")
    with pytest.raises(StoreError, match="not connected"):
        store.count()
    store.connect()
    store.connect()
    store.update({"uuid": "u", "index": 1})
    store.connect(force_reset=True)
    assert store.count() == 1
    with pytest.raises(StoreError, match="no pymongo collection"):
        store._collection.find()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="not connected"):
        next(store.query())
    assert (tmp_path / "state" / "lmdb" / "data.mdb").exists()
    assert store.ensure_index("uuid") and not store.ensure_index("name")


def test_the_lmdb_directory_itself_is_accepted(tmp_path: Path) -> None:
    with LMDBStore(tmp_path) as store:
        store.update({"uuid": "u", "index": 1})
        direct = LMDBStore(tmp_path / "lmdb")
        assert direct == store and hash(direct) == hash(store) and direct.name == store.name
        with direct:
            assert direct.count() == 1
        assert store.count() == 1, "closing one of two leaves the other open"
    assert LMDBStore(tmp_path, "data") != store
    assert store != MemoryStore()


def test_a_document_may_be_written_while_a_query_is_consumed(store: LMDBStore) -> None:
    store.update([{"uuid": f"u{n}", "index": 1} for n in range(20)])
    for doc in store.query():
        store.update({**doc, "seen": b"x" * 2**20}, key=["uuid", "index"])
        store.update({"uuid": doc["uuid"], "index": 2}, key=["uuid", "index"])
    assert store.count({"seen": {"$exists": True}}) == 20
    assert store.count() == 40


def test_a_store_survives_pickle_and_monty(tmp_path: Path) -> None:
    store = LMDBStore(
        tmp_path,
        "data",
        key="blob_uuid",
        last_updated_field="at",
        last_updated_type=DateTimeFormat.IsoFormat,
        validator=PositiveX(strict=True),
    )
    with store:
        store.update({"blob_uuid": "b", "x": 1})
        copies = [
            pickle.loads(pickle.dumps(store)),
            LMDBStore.from_dict(store.as_dict()),
            LMDBStore.from_dict(json.loads(store.to_json())),
        ]
        for copy in copies:
            assert copy == store and copy.key == "blob_uuid" and copy.last_updated_field == "at"
            assert copy.last_updated_type is DateTimeFormat.IsoFormat
            assert copy.validator.strict is True
            with copy:
                assert copy.count() == 1
