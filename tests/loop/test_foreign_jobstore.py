"""``spec.jobstore``: outputs in a maggma JobStore of the user's choice."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from jobflow import JobStore
from monty.json import MontyEncoder
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DocumentTooLarge,
    OperationFailure,
    ServerSelectionTimeoutError,
    WriteError,
)

from reconciler.errors import InputError, ReconcilerError, TransientError
from reconciler.execution.claims import RESULT
from reconciler.jobs.jobstore import ForeignOutputs
from tests.support import Reconcile, Repository, minimal_project

pytestmark = pytest.mark.usefixtures("warm")

HEAVY = """
import os, shutil, time
from jobflow import job

@job(data="field")
def heavy(n, gate="", log=""):
    while gate and not os.path.exists(gate):
        time.sleep(0.05)
    if log:
        with open(log, "a") as lines:
            lines.write("ran\\n")
    return {"field": list(range(n)), "light": n}

@job
def remove(directory):
    shutil.rmtree(directory)
    return 1

@job
def use(numbers, light):
    return {"sum": sum(numbers), "light": light}
"""

FLOW = """
apiVersion: reconciler/v1
kind: Flow
metadata: {name: f, labels: {campaign: c1}}
spec:
  metadata: {material: Cu}
  jobs:
    - {id: heavy, function: heavy.heavy, args: [4]}
    - {id: use, function: heavy.use, args: [{$output: heavy.field}, {$output: heavy.light}]}
"""

BREAKER = """
apiVersion: reconciler/v1
kind: Flow
metadata: {name: f}
spec:
  jobs:
    - {id: breaker, function: heavy.remove, args: ["PLACE"]}
"""

SPEC = {
    "docs_store": {"type": "JSONStore", "paths": {"env": "DOCS_FILE"}, "read_only": False},
    "additional_stores": {"data": {"type": "JSONStore", "paths": "DATA", "read_only": False}},
}


class Project:
    """A project with a flow that writes to an additional store."""

    def __init__(self, repository: Repository, reconcile: Reconcile, root: Path) -> None:
        self.repository = repository
        self.reconcile = reconcile
        self.docs, self.data = root / "docs.json", root / "data.json"
        minimal_project(repository, root / "work")
        self.project = (repository.path / "reconciler.yaml").read_text()
        repository.write("lib/heavy.py", HEAVY)
        repository.write("flows/f.yaml", FLOW)
        self.choose(SPEC)

    def choose(self, jobstore: dict[str, Any]) -> None:
        """Commit a Project with this jobstore."""
        text = json.dumps(jobstore).replace("DATA", str(self.data))
        spec = f"python_path: [lib]\n  jobstore: {text}\n  defaults: {{worker: w1}}"
        self.repository.write("reconciler.yaml", self.project.replace("defaults: {worker: w1}", spec))
        self.repository.commit()

    def run(self, **environment: str) -> Any:
        given = {"DOCS_FILE": str(self.docs), **environment}
        return self.reconcile("--once", "--wait", "--timeout", "60", env=given)

    def states(self) -> dict[str, str]:
        rows = json.loads(self.reconcile("get", "jobs", "-o", "json").stdout)
        return {row["key"]: row["state"] for row in rows}

    def documents(self) -> JobStore:
        spec = json.loads(json.dumps(SPEC).replace("DATA", str(self.data)))
        spec["docs_store"]["paths"] = str(self.docs)
        store = JobStore.from_dict_spec(spec)
        store.connect()
        return store


@pytest.fixture
def project(repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Project:
    return Project(repository, reconcile, tmp_path)


def test_outputs_and_their_heavy_parts_land_in_the_stores_of_the_project(project: Project) -> None:
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    store = project.documents()
    light = store.query_one({"name": "heavy"})
    assert light["output"]["light"] == 4
    assert light["output"]["field"]["store"] == "data"
    assert store.query_one({"name": "heavy"}, load=True)["output"]["field"] == [0, 1, 2, 3]
    assert store.query_one({"name": "use"})["output"] == {"sum": 6, "light": 4}
    marked = store.query({"labels.campaign": "c1", "metadata.material": "Cu"})
    assert sorted(document["name"] for document in marked) == ["heavy", "use"]
    shown = project.reconcile("output", "f/use", "-o", "json", env={"DOCS_FILE": str(project.docs)})
    assert json.loads(shown.stdout) == {"sum": 6, "light": 4}

    def shown_of(*words: str) -> Any:
        return project.reconcile("output", *words, env={"DOCS_FILE": str(project.docs)})

    assert json.loads(shown_of("f/heavy").stdout) == {"field": [0, 1, 2, 3], "light": 4}
    assert json.loads(shown_of("f/heavy.field[-1]").stdout) == 3
    assert json.loads(shown_of("f/heavy", "--store", "x").stdout)["field"]["store"] == "data"
    again = project.run()
    assert again.returncode == 0
    assert "no changes" in again.stdout


def test_a_serialised_jobstore_is_one(project: Project) -> None:
    store = project.documents()
    project.choose(json.loads(json.dumps(store.as_dict(), cls=MontyEncoder)))
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.documents().query_one({"name": "use"})["output"] == {"sum": 6, "light": 4}


@pytest.mark.parametrize(
    ("jobstore", "message"),
    [
        ({"docs_store": {"type": "JSONStor", "paths": "x"}}, "JSONStor"),
        ({"docs_store": {"type": "JSONStore", "path": "x", "read_only": False}}, "paths"),
        ({"docs_store": SPEC["docs_store"] | {"paths": {"env": "NOT_SET"}}}, "NOT_SET"),
    ],
)
def test_a_broken_one_is_said_and_nothing_runs_until_it_is_repaired(
    project: Project, jobstore: dict[str, Any], message: str
) -> None:
    project.choose(jobstore)
    done = project.run()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "spec.jobstore" in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "COMPLETED" not in project.states().values()
    project.choose(SPEC)
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(project.states().values()) == {"COMPLETED"}


def test_a_flow_whose_output_has_no_store_to_go_to_is_not_submitted(project: Project) -> None:
    project.choose({"docs_store": SPEC["docs_store"]})
    done = project.run()
    assert done.returncode == 2
    assert "additional_stores.data" in done.stderr
    assert project.states() == {}


def test_a_result_that_could_not_be_kept_is_collected_by_a_retry(project: Project, tmp_path: Path) -> None:
    """The store of its output is taken away while it runs."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    project.repository.write("flows/f.yaml", FLOW.replace("args: [4]", f"args: [4, {gate}, {log}]"))
    project.repository.commit()
    environment = {"DOCS_FILE": str(project.docs)}
    assert project.reconcile("--once", env=environment).returncode == 0
    project.choose({"docs_store": SPEC["docs_store"]})
    assert project.reconcile("--once", env=environment).returncode == 0
    gate.touch()
    assert project.run().returncode == 1
    heavy, use = json.loads(project.reconcile("get", "jobs", "-o", "json").stdout)
    assert (heavy["state"], use["state"]) == ("REMOTE_ERROR", "WAITING")
    assert "no additional store 'data'" in heavy["error"] and "reconcile retry" in heavy["error"]
    kept = json.loads((Path(heavy["run_dir"]) / RESULT).read_text())
    assert kept["blobs"]["data"][0]["data"] == [0, 1, 2, 3]
    asked = project.reconcile("retry", "f/heavy", "--yes")
    assert "collected again" in asked.stdout + asked.stderr
    assert project.run().returncode == 1, "the store is still missing"
    project.choose(SPEC)
    project.reconcile("retry", "f/heavy", "--yes")
    assert project.run().returncode == 0
    assert set(project.states().values()) == {"COMPLETED"}
    assert log.read_text() == "ran\n"
    project.reconcile("rerun", "f/heavy", "--yes")
    assert project.run().returncode == 0
    assert log.read_text() == "ran\nran\n"


ODD = """
from jobflow import job

@job
def huge():
    return {"number": 2**70}

@job
def fine():
    return 1
"""


def test_an_output_that_the_store_can_never_hold_is_no_outage(project: Project) -> None:
    """That job alone fails; the worker and the others go on."""
    project.repository.write("lib/odd.py", ODD)
    jobs = [{"id": name, "function": f"odd.{name}"} for name in ("huge", "fine")]
    head = "apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: f}\n"
    project.repository.write("flows/f.yaml", f"{head}spec: {json.dumps({'jobs': jobs})}\n")
    project.choose({"docs_store": SPEC["docs_store"]})
    done = project.run()
    assert done.returncode == 1, done.stdout + done.stderr
    assert project.states() == {"f/huge": "REMOTE_ERROR", "f/fine": "COMPLETED"}
    rows = json.loads(project.reconcile("get", "jobs", "-o", "json").stdout)
    (huge,) = (row for row in rows if row["key"] == "f/huge")
    assert "the job store cannot hold it" in huge["error"]
    workers = json.loads(project.reconcile("get", "workers", "-o", "json").stdout)
    assert {worker["name"]: worker["reachable"] for worker in workers}["w1"] is True, workers


@pytest.fixture
def outputs() -> ForeignOutputs:
    return ForeignOutputs({"docs_store": {"type": "MemoryStore"}})


def _document(uuid: str, output: Any) -> dict[str, Any]:
    return {"uuid": uuid, "index": 1, "output": output}


def _deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"a": found}
    return found


@pytest.mark.parametrize(
    "output", [2**70, {"a\0b": 1}, "\ud800", _deep(3000)], ids=["integer", "key", "text", "deep"]
)
def test_what_mongodb_cannot_write_is_wrong_input(outputs: ForeignOutputs, output: Any) -> None:
    with pytest.raises(InputError, match="cannot hold it"):
        outputs.save_before([_document("odd", output)], {})
    outputs.save_before([_document("fine", 1)], {})
    assert outputs.latest("odd") is None
    assert outputs.latest("fine") == _document("fine", 1)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DocumentTooLarge("BSON document too large (17000000 bytes)"), InputError),
        (WriteError("BSONObj size is invalid", code=10334), InputError),
        (BulkWriteError({"writeErrors": [{"code": 17419, "errmsg": "too large"}]}), InputError),
        (BulkWriteError({"writeErrors": [{"code": 11602, "errmsg": "interrupted"}]}), TransientError),
        (OperationFailure("not authorized", code=13), TransientError),
        (AutoReconnect("connection closed"), TransientError),
        (ServerSelectionTimeoutError("no server"), TransientError),
        (ssl.SSLCertVerificationError("certificate has expired"), TransientError),
        (ConnectionRefusedError("connection refused"), TransientError),
    ],
)
def test_what_is_wrong_with_a_document_is_told_from_an_outage(
    outputs: ForeignOutputs, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[ReconcilerError]
) -> None:
    """No server is here to raise these."""

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(outputs.store.docs_store, "update", fail)
    with pytest.raises(ReconcilerError) as caught:
        outputs.save_before([_document("odd", 1)], {})
    assert type(caught.value) is kind


def test_results_wait_on_the_worker_while_the_store_does_not_answer(project: Project) -> None:
    """The job itself takes the store away, so that it is gone when its result is taken in."""
    place = project.docs.parent / "place"
    place.mkdir()
    docs = str(place / "docs.json")
    project.repository.write("flows/f.yaml", BREAKER.replace("PLACE", str(place)))
    project.repository.commit()
    done = project.reconcile("--once", "--wait", "--timeout", "5", env={"DOCS_FILE": docs})
    assert done.returncode == 1, done.stdout + done.stderr
    (job,) = json.loads(project.reconcile("get", "jobs", "-o", "json").stdout)
    assert job["state"] in ("SUBMITTED", "RUNNING", "RUN_FINISHED", "DOWNLOADED")
    (worker, _) = json.loads(project.reconcile("get", "workers", "-o", "json").stdout)
    assert "job store" in worker["reason"]
    finished = (Path(job["run_dir"]) / RESULT).stat().st_mtime_ns
    place.mkdir()
    assert project.run(DOCS_FILE=docs).returncode == 0
    assert project.states() == {"f/breaker": "COMPLETED"}
    assert json.loads(Path(docs).read_text())[0]["output"] == 1
    assert (Path(job["run_dir"]) / RESULT).stat().st_mtime_ns == finished, "it ran a second time"
