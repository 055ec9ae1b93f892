"""Documents of jobs say where they belong, and whether they are superseded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobflow import JobStore

from reconciler.actual.jobstore import LMDBStore
from reconciler.actual.outputs import COLLECTION, put_document
from reconciler.actual.store import Store
from reconciler.model.records import FlowRecord
from tests.actual.test_store import job


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Three versions of one job, a job of another flow, a generation of a job, and a document of no job."""
    store = Store(tmp_path / "state")

    def write(writer: Any) -> None:
        writer.put_flow(FlowRecord(name="f", identity="i", build_key="", labels={"metal": "Al"}))
        writer.put_flow(FlowRecord(name="g", identity="i", build_key=""))
        for number, current in enumerate((False, False, True)):
            writer.put_job(job(f"conv{number}", flow="f", key="conv", name="conv", current=current))
        writer.put_job(job("other", flow="g", key="fit", name="conv"))
        writer.put_job(job("other", 2, flow="g", key="fit@2", name="conv", current=False))
        for uuid, index in (*((f"conv{n}", 1) for n in range(3)), ("other", 1), ("other", 2), ("mine", 1)):
            put_document(
                writer.txn, COLLECTION, {"uuid": uuid, "index": index, "name": "conv", "output": uuid}
            )
        blob = {"blob_uuid": "b1", "job_uuid": "conv0", "job_index": 1, "data": [1]}
        put_document(writer.txn, "data", blob)

    store.write(write)
    store.close()
    return tmp_path / "state"


def outputs(store: Any, criteria: dict[str, Any] | None = None) -> list[str]:
    return sorted(doc["output"] for doc in store.query(criteria or {}))


def test_queries_give_what_they_gave_and_say_what_is_current(state_dir: Path) -> None:
    with LMDBStore(state_dir) as store:
        assert outputs(store, {"name": "conv"}) == ["conv0", "conv1", "conv2", "mine", "other", "other"]
        marks = {
            (doc["uuid"], doc["index"]): tuple(doc.get(name) for name in ("flow", "key", "labels", "current"))
            for doc in store.query({})
        }
        assert marks == {
            ("conv0", 1): ("f", "conv", {"metal": "Al"}, False),
            ("conv1", 1): ("f", "conv", {"metal": "Al"}, False),
            ("conv2", 1): ("f", "conv", {"metal": "Al"}, True),
            ("other", 1): ("g", "fit", {}, True),
            ("other", 2): ("g", "fit@2", {}, False),
            ("mine", 1): (None, None, None, None),
        }


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ({"name": "conv", "current": True}, ["conv2", "other"]),
        ({"flow": "f", "key": "conv", "current": True}, ["conv2"]),
        ({"labels.metal": "Al", "current": {"$ne": False}}, ["conv2"]),
        ({"uuid": "conv1", "current": True}, []),
        ({"uuid": {"$in": ["conv1", "conv2"]}, "current": True}, ["conv2"]),
        ({"current": {"$exists": False}}, ["mine"]),
    ],
)
def test_marks_can_be_asked_for(state_dir: Path, criteria: dict[str, Any], found: list[str]) -> None:
    with LMDBStore(state_dir) as store:
        assert outputs(store, criteria) == found
        assert store.count(criteria) == len(found)
        assert sorted(store.distinct("output", criteria)) == found


def test_marks_sort_group_and_project(state_dir: Path) -> None:
    with LMDBStore(state_dir) as store:
        (first,) = store.query({"current": True}, ["key"], sort={"flow": -1}, limit=1)
        assert first == {"key": "fit"}
        groups = {head["flow"]: len(docs) for head, docs in store.groupby("flow")}
        assert groups == {"f": 3, "g": 2}


def test_current_ones_only(state_dir: Path) -> None:
    with JobStore(LMDBStore(state_dir, current_only=True)) as store:
        assert outputs(store) == ["conv2", "other"]
        assert store.count() == 2
        assert store.get_output("conv2") == "conv2"
        assert store.docs_store.query_one({"uuid": "conv0"}) is None
        assert LMDBStore.from_dict(store.docs_store.as_dict()).current_only is True


def test_additional_stores_are_marked_by_the_job_of_the_blob(state_dir: Path) -> None:
    with LMDBStore(state_dir, "data") as store:
        (doc,) = store.query({"flow": "f"})
        assert (doc["key"], doc["current"], doc["data"]) == ("conv", False, [1])


def test_a_changed_document_is_written_without_its_marks(state_dir: Path) -> None:
    with LMDBStore(state_dir) as store:
        doc = store.query_one({"uuid": "conv2"})
        assert doc is not None
        store.update(doc | {"output": "changed"}, key=["uuid", "index"])
        other = Store(state_dir)
        other.write(lambda writer: writer.put_job(job("conv2", flow="f", key="renamed", current=False)))
        other.close()
        again = store.query_one({"uuid": "conv2"})
        assert again is not None
        assert (again["output"], again["key"], again["current"]) == ("changed", "renamed", False)


def test_fields_of_a_document_of_no_job_are_its_own(state_dir: Path) -> None:
    with LMDBStore(state_dir, "mine") as store:
        store.update({"uuid": "x", "index": 1, "flow": 1, "key": 2, "current": 3})
        assert store.query_one({}) == {"uuid": "x", "index": 1, "flow": 1, "key": 2, "current": 3}
