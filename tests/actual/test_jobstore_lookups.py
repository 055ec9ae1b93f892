"""Look-ups read only what they must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.jobstore import LMDBStore
from tests.actual.jobstore_support import change


def damage(store: LMDBStore, name: str) -> None:
    """Spoil the documents of a uuid, so that whoever decodes one fails."""

    def spoil(txn: Any) -> None:
        for key in [key for key, _ in txn.scan("outputs", b"outputs\0" + name.encode())]:
            txn.put("outputs", key, b"\xc1")

    change(store, spoil)


def test_a_pinned_uuid_reads_no_other_document(store: LMDBStore) -> None:
    store.update([{"uuid": f"u{n}", "index": i} for n in range(4) for i in (1, 2)], key=["uuid", "index"])
    damage(store, "u3")
    assert store.count({"uuid": "u1"}) == 2
    assert store.count({"uuid": {"$in": ["u1", "u2"]}, "index": 2}) == 2
    assert store.query_one({"$and": [{"index": 1}, {"uuid": "u0"}]}) == {"uuid": "u0", "index": 1}
    store.update({"uuid": "u1", "index": 2, "new": 1}, key=["uuid", "index"])
    store.update({"uuid": "u2", "index": 9})
    store.remove_docs({"uuid": "u0"})
    assert store.count() == 6, "without criteria nothing is decoded"
    with pytest.raises(msgspec.DecodeError):
        store.count({"index": 1})


def test_a_pinned_index_reads_no_other_index(store: LMDBStore) -> None:
    store.update([{"uuid": "u", "index": index} for index in (1, 2)], key=["uuid", "index"])
    damage(store, "u\x000000000002")
    assert store.query_one({"uuid": "u", "index": 1}) == {"uuid": "u", "index": 1}
    with pytest.raises(msgspec.DecodeError):
        store.query_one({"uuid": "u", "index": 2})


def test_a_pinned_blob_reads_no_other_blob(tmp_path: Path) -> None:
    with LMDBStore(tmp_path, key="blob_uuid") as blobs:
        blobs.update([{"blob_uuid": f"b{n}", "data": n, "job_uuid": "j"} for n in range(3)])
        damage(blobs, "b2")
        assert [doc["data"] for doc in blobs.query({"blob_uuid": {"$in": ["b1", "b0"]}})] == [0, 1]
        with pytest.raises(msgspec.DecodeError):
            list(blobs.query({"job_uuid": "j"}))
