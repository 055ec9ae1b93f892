"""Documents inside a transaction of the store, without maggma."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.actual import outputs
from reconciler.actual.codec import decode
from reconciler.actual.db import close_database, open_database
from reconciler.actual.jobstore import LMDBStore
from tests.actual.jobstore_support import change, transaction


def test_documents_are_written_and_read_inside_a_transaction(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    try:

        def fill(txn: Any) -> None:
            for index in (10, 2, 1):
                outputs.put_document(txn, "outputs", {"uuid": "u", "index": index, "output": index})
            outputs.put_document(
                txn, "outputs", {"uuid": "u", "index": 2, "output": "again", "_id": "dropped"}
            )
            outputs.put_document(txn, "outputs", {"uuid": "u2", "index": 1})
            outputs.put_document(txn, "data", {"blob_uuid": "u", "data": [1]})

        database.write(fill)
        with database.read() as txn:
            found = outputs.get_documents(txn, "outputs", "u")
            assert [doc["output"] for doc in found] == [1, "again", 10]
            assert found[1] == {"uuid": "u", "index": 2, "output": "again"}
            assert decode(outputs.latest_packed(txn, "outputs", "u") or b"") == found[-1]
            assert outputs.latest_packed(txn, "outputs", "nobody") is None
            assert outputs.get_documents(txn, "data", "u") == [{"blob_uuid": "u", "data": [1]}]
            assert outputs.count_documents(txn, "outputs") == 4
        assert database.write(lambda txn: outputs.delete_documents(txn, "outputs", "u")) == 3
        with database.read() as txn:
            assert outputs.get_documents(txn, "outputs", "u") == []
            assert outputs.count_documents(txn, "outputs") == 1
            assert outputs.count_documents(txn, "data") == 1
    finally:
        close_database(database)


def test_keys_of_any_length_and_content_stay_apart(store: LMDBStore) -> None:
    names = ["", "a", "a\0b", "a\0", "é" * 300, "é" * 301, "#", "#a", outputs._digest(b"a\0b").decode()]
    store.update([{"uuid": name, "index": 1, "n": n} for n, name in enumerate(names)], key=["uuid", "index"])
    assert store.count() == len(names)
    for n, name in enumerate(names):
        assert [doc["n"] for doc in store.query({"uuid": name})] == [n]
        with transaction(store) as txn:
            assert [doc["n"] for doc in outputs.get_documents(txn, "outputs", name)] == [n]


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 200])
def test_a_collection_needs_a_usable_name(store: LMDBStore, name: str) -> None:
    with pytest.raises(ValueError, match="not a name of a collection"), LMDBStore(store.path, name) as other:
        other.count()


def test_a_document_without_identity_is_refused(store: LMDBStore) -> None:
    with pytest.raises(ValueError, match="needs a uuid or a blob_uuid"):
        change(store, lambda txn: outputs.put_document(txn, "outputs", {"uuid": 5}))
