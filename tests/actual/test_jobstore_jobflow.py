"""The store under jobflow's JobStore."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from jobflow import Flow, JobStore, job, run_locally

from reconciler.actual.jobstore import LMDBStore
from tests.actual.jobstore_support import Document


@job
def add(a: float, b: float) -> float:
    return a + b


@job(data="trajectory")
def simulate(steps: int) -> Document:
    return {"energy": -1.5, "trajectory": [[float(n)] * 3 for n in range(steps)]}


@job(data="trajectory")
def summarise(result: Document, total: float) -> Document:
    return {"frames": len(result["trajectory"]), "total": total}


def job_store(path: Path) -> JobStore:
    return JobStore(LMDBStore(path), additional_stores={"data": LMDBStore(path, collection_name="data")})


def test_a_flow_runs_on_it_and_its_outputs_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, run = add(1, 2), simulate(50)
    second = summarise(run.output, first.output)
    store = job_store(tmp_path / "state")
    run_locally(Flow([first, run, second]), store=store, ensure_success=True, log=False)

    copy = pickle.loads(pickle.dumps(store))
    for each in (store, copy):
        each.connect()
        assert each.get_output(first.uuid) == 3
        assert each.get_output(run.uuid, load=True)["trajectory"][49] == [49.0] * 3
        assert each.get_output(run.uuid)["trajectory"]["store"] == "data"
        assert each.get_output(second.uuid, which="all") == [{"frames": 50, "total": 3}]
        assert each.count({"name": {"$in": ["add", "simulate"]}}) == 2
        assert each.query_one({"output.energy": {"$lt": 0}}, ["name"])["name"] == "simulate"
        assert [doc["name"] for doc in each.query(sort={"name": 1}, skip=1, properties=["name"])] == [
            "simulate",
            "summarise",
        ]
        assert each.additional_stores["data"].count({"job_uuid": run.uuid}) == 1
    store.remove_docs({"uuid": run.uuid})
    assert copy.additional_stores["data"].count() == 0
    with pytest.raises(ValueError, match="has no outputs"):
        copy.get_output(run.uuid)


def test_the_last_index_is_the_output(tmp_path: Path) -> None:
    with JobStore(LMDBStore(tmp_path)) as store:
        store.update([{"uuid": "u", "index": index, "output": index} for index in (2, 10, 1)])
        store.update({"uuid": "u", "index": 2, "output": "again"})
        assert store.get_output("u") == 10
        assert store.get_output("u", which="first") == 1
        assert store.get_output("u", which=2) == "again"
        assert store.get_output("u", which="all") == [1, "again", 10]
