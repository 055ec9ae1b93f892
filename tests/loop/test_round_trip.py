"""Everything that jobflow accepts survives the trip: build, store, run on a worker, output.

One run of the program builds and runs all flows; each must give what ``jobflow.run_locally`` gives.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyEncoder
from ruamel.yaml import YAML

from reconciler.actual.jobstore import LMDBStore
from tests.support import Reconcile, Repository, isolate, minimal_project

TOOLS = "NUMBER = 21\n"
CODE = Path(__file__).with_name("trip_code.py")

WRITTEN = """
apiVersion: reconciler/v1
kind: Flow
metadata: {name: written}
spec:
  jobs:
    - {id: sqrt, function: math.sqrt, args: [16]}
    - {id: total, function: builtins.sum, args: [[1, {$output: sqrt}, 3]]}
    - {id: static, function: trip.Maths.plain_square, args: [{$output: total}]}
    - {id: decorated_static, function: trip.Maths.square, args: [3]}
    - {id: class_method, function: trip.Maths.scaled, kwargs: {x: 5}}
    - id: file
      function: trip.read
      args: [{$path: data/one.txt}]
      metadata: {why: test}
      config: {expose_store: true}
    - id: called
      function: reconciler.examples.value
      args: [{$call: trip.load_text, args: [{$path: data/one.txt}]}]
    - id: object
      function: trip.shapes
      args: [{$call: trip.Cell, kwargs: {edges: [1.5]}}, {a: {b: [1, null]}}]
---
apiVersion: reconciler/v1
kind: Flow
metadata: {name: maker}
spec:
  maker:
    class: reconciler.examples.AddTwiceMaker
    kwargs: {name: twice, add_maker: {$maker: {class: reconciler.examples.AddMaker, kwargs: {offset: 10}}}}
    make: {args: [1], kwargs: {b: 2}}
---
apiVersion: reconciler/v1
kind: Flow
metadata: {name: decorated}
spec:
  factory: {function: trip.decorated, kwargs: {a: 1}}
---
apiVersion: reconciler/v1
kind: Flow
metadata: {name: file}
spec: {file: data/flow.json}
"""

FACTORY = """
apiVersion: reconciler/v1
kind: Flow
metadata: {{name: {name}}}
spec: {{factory: {{function: trip.{name}}}}}
"""


class Trip:
    """The outcome of the one run of the program, and how to run the same flow without it."""

    def __init__(self, root: Path, trip: Any, environment: dict[str, str]) -> None:
        self.root = root
        self.trip = trip
        self.repository = Repository(root / "repository")
        self.state_dir = root / "state"
        self.log = root / "order.log"
        self._write(environment)
        run = Reconcile(self.repository.path)
        state = ["--state-dir", str(self.state_dir)]
        self.done = run("--once", "--wait", "--timeout", "200", *state, timeout=230)
        self.jobs: list[dict[str, Any]] = json.loads(run("get", "jobs", "-o", "json", *state).stdout)

    def _write(self, environment: dict[str, str]) -> None:
        minimal_project(self.repository, self.root / "work")
        project = (self.repository.path / "reconciler.yaml").read_text()
        exports = json.dumps(environment)
        project = project.replace(
            "defaults: {worker: w1}",
            f"python_path: [lib, tools]\n  defaults: {{worker: w1, exec_config: {{export: {exports}}}}}",
        )
        self.repository.write("reconciler.yaml", project)
        self.repository.write("lib/trip.py", CODE.read_text())
        self.repository.write("tools/trip_tools.py", TOOLS)
        self.repository.write("data/one.txt", "hello")
        serialised = json.dumps(self.trip.nested().as_dict(), cls=MontyEncoder)
        self.repository.write("data/flow.json", serialised)
        self.repository.write("flows/written.yaml", WRITTEN)
        factories = "---".join(FACTORY.format(name=name) for name in self.trip.FACTORIES)
        self.repository.write("flows/factories.yaml", factories)
        self.repository.commit()

    def store(self) -> JobStore:
        """The outputs, as from a notebook."""
        additional = {name: LMDBStore(str(self.state_dir), name) for name in ("data", "graphs")}
        store = JobStore(LMDBStore(str(self.state_dir)), additional_stores=additional)
        store.connect()
        return store

    def documents(self, flow: str) -> dict[str, dict[str, Any]]:
        """What the jobs of a flow left, by name and index."""
        uuids = [job["uuid"] for job in self.jobs if job["flow"] == flow]
        return _by_name(self.store().query({"uuid": {"$in": uuids}}, load=True))

    def locally(self, made: Any) -> dict[str, dict[str, Any]]:
        """What the same flow leaves when jobflow runs it itself."""
        store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore(), "graphs": MemoryStore()})
        run_locally(
            made,
            store=store,
            root_dir=self.root / "local",
            create_folders=True,
            log=False,
            ensure_success=True,
        )
        return _by_name(store.query(load=True))


def _by_name(documents: Iterator[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Jobs of the same name in the order of their outputs: there is no other that both ways share."""
    found = {}
    for document in sorted(documents, key=lambda doc: json.dumps(comparable(doc["output"]))):
        key = f"{document['name']}@{document['index']}"
        while key in found:
            key += "'"
        found[key] = document
    return found


class Encoder(MontyEncoder):  # type: ignore[misc]
    """Also writes bytes, which outputs can have."""

    def default(self, o: Any) -> Any:
        return {"bytes": list(o)} if isinstance(o, bytes) else super().default(o)


def comparable(output: Any) -> Any:
    """Hide what differs from run to run: uuids, and times of writing."""
    text = json.dumps(output, cls=Encoder, sort_keys=True)
    return json.loads(re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", text))


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[Trip]:
    root = tmp_path_factory.mktemp("trip")
    patch = pytest.MonkeyPatch()
    with patch.context() as monkeypatch:
        isolate(monkeypatch, root / "home")
        monkeypatch.setattr(sys, "executable", str(warm_python))
        lib = root / "import"
        lib.mkdir()
        (lib / "trip.py").write_text(CODE.read_text())
        (lib / "trip_tools.py").write_text(TOOLS)
        monkeypatch.syspath_prepend(str(lib))
        monkeypatch.setenv("TRIP_LOG", str(root / "local.log"))
        code = importlib.import_module("trip")
        yield Trip(root, code, {"TRIP_LOG": str(root / "order.log")})
        sys.modules.pop("trip", None)


def test_every_flow_ran(trip: Trip) -> None:
    assert trip.done.returncode == 0, trip.done.stdout + trip.done.stderr
    unfinished = {job["key"]: job["error"] for job in trip.jobs if job["state"] != "COMPLETED"}
    assert unfinished == {}


FACTORIES = re.findall(r'"(\w+)": \w+', CODE.read_text().partition("FACTORIES")[2])


@pytest.mark.parametrize("name", FACTORIES)
def test_a_factory_gives_what_jobflow_gives(trip: Trip, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIP_LOG", str(trip.root / "local.log"))
    found, expected = trip.documents(name), trip.locally(trip.trip.FACTORIES[name]())
    assert found.keys() == expected.keys()
    assert found
    for key, document in expected.items():
        assert comparable(found[key]["output"]) == comparable(document["output"]), key
        assert found[key]["metadata"] == document["metadata"], key
        assert len(found[key]["hosts"]) == len(document["hosts"]), key


def test_a_decorated_flow_gives_what_jobflow_gives(trip: Trip) -> None:
    found, expected = trip.documents("decorated"), trip.locally(trip.trip.decorated(1))
    assert {key: doc["output"] for key, doc in found.items()} == {"add@1": 2, "second@1": 4}
    assert {key: doc["output"] for key, doc in expected.items()} == {"add@1": 2, "second@1": 4}


def test_a_serialised_flow_gives_what_its_factory_gives(trip: Trip) -> None:
    found, expected = trip.documents("file"), trip.documents("nested")
    assert {key: doc["output"] for key, doc in found.items()} == {
        key: doc["output"] for key, doc in expected.items()
    }
    assert len(found) == 4


def test_nested_makers(trip: Trip) -> None:
    found = trip.documents("maker")
    assert {key: doc["output"] for key, doc in found.items()} == {"add@1": 13, "add again@1": 25}


def test_jobs_written_out(trip: Trip) -> None:
    found = {key.removesuffix("@1"): doc["output"] for key, doc in trip.documents("written").items()}
    assert found["sqrt"] == 4.0
    assert found["total"] == 8.0
    assert found["static"] == 64.0
    assert found["decorated_static"] == 9
    assert found["class_method"] == 15
    assert found["file"] == {"text": "hello", "name": "one.txt", "here": True}
    assert found["called"] == "hello"
    assert found["object"]["args"][0] == ["Cell", [1.5], ["NoneType", "None"]]
    assert found["object"]["args"][1] == {"a": {"b": [["int", "1"], ["NoneType", "None"]]}}


def test_metadata_of_the_manifest_reaches_the_document(trip: Trip) -> None:
    assert trip.documents("written")["file@1"]["metadata"] == {"why": "test"}


def test_a_linear_flow_runs_in_its_order(trip: Trip) -> None:
    assert trip.log.read_text().split() == ["0", "1", "2"]


def test_outputs_of_additional_stores_lie_there(trip: Trip) -> None:
    document = next(iter(trip.store().query({"name": "heavy"})))
    assert document["output"]["light"] == 5
    assert document["output"]["field"]["store"] == "data"
    document = next(iter(trip.store().query({"name": "wholly_heavy"})))
    assert document["output"]["store"] == "graphs"


def test_the_flow_of_a_job_is_its_outermost_host(trip: Trip) -> None:
    documents = trip.documents("nested")
    hosts = [document["hosts"] for document in documents.values()]
    assert len({chain[-1] for chain in hosts}) == 1
    assert sorted(len(chain) for chain in hosts) == [1, 2, 2, 3]


def test_manager_config_of_python_code_is_the_jobs_own_level(trip: Trip) -> None:
    by_name = {job["name"]: job for job in trip.jobs if job["flow"] == "settings"}
    assert by_name["look_into_store (v1)"]["priority"] == 7
    assert os.path.commonpath([by_name["value (v1)"]["run_dir"], str(trip.root)]) == str(trip.root)


def test_bytes_reach_the_output_the_stored_data_and_the_terminal(trip: Trip) -> None:
    given = bytes(range(256))
    assert trip.documents("exact")["raw@1"]["output"] == {"raw": given[::-1]}
    run = Reconcile(trip.repository.path)
    state = ["--state-dir", str(trip.state_dir)]
    for form in ("json", "yaml"):
        shown = YAML(typ="safe").load(run("output", "exact/raw.raw", "-o", form, *state).stdout)
        assert base64.b64decode(shown["@bytes"]) == given[::-1]
    facts = json.loads(run("describe", "job", "exact/raw", "-o", "json", *state).stdout)
    assert base64.b64decode(facts["stored_data"]["raw"]["@bytes"]) == given
