"""Flows of materials science as YAML: job by job, they give the very bits that ``run_locally`` gives.

The file runs those flows whose packages are installed: with the suite, the ones that need ASE alone. `make
science` runs all of them, in an environment of its own (``requirements.txt``).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyEncoder
from ruamel.yaml import YAML

import reconciler
from reconciler.actual.jobstore import LMDBStore
from reconciler.build.construct import Construction
from reconciler.build.identity import identify
from tests.execution.support import World

HERE = Path(__file__).parent
ALL = bool(os.environ.get("RECONCILER_TEST_SCIENCE"))
"""Read before the fixture that clears the environment."""

STORES = ("data",)
FIXED = "00000000-0000-5000-8000-000000000000"
_OF_THE_RUN = frozenset(
    (
        *("uuid", "dir_name", "last_updated", "completed_at", "created_at", "hostname", "nid"),
        *("elapsed_time", "@version", "_id"),  # quacc's _id depends on the class of an object within
    )
)
"""Fields that tell when, where and by which version a result was made."""
_PLACES = re.compile(r"/[^\s'\"]*/[^\s'\"]*")
_TIMES = re.compile(r"\d\S* seconds")


def needs(file: Path) -> list[str]:
    """Return the packages that a flow needs."""
    found = re.match(r"# needs: (.+)", file.read_text())
    assert found is not None, file
    return found[1].split()


FLOWS = [
    file
    for file in sorted((HERE / "flows").glob("*.yaml"))
    if ALL or all(importlib.util.find_spec(name) for name in needs(file))
]


def test_there_are_flows() -> None:
    assert len(FLOWS) >= (14 if ALL else 3)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A campaign with the code of the flows."""
    made = make_world()
    for file in (HERE / "lib").glob("*.py"):
        made.repository.write(f"lib/{file.name}", file.read_text())
    return made


@pytest.mark.timeout(0 if ALL else 600)
@pytest.mark.parametrize("file", FLOWS, ids=lambda file: file.stem)
def test_a_flow_ends_as_with_jobflow_and_a_rebuild_runs_nothing(
    file: Path, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_quacc(monkeypatch, tmp_path)
    manifest = YAML(typ="safe").load(file)
    name = manifest["metadata"]["name"]
    world.repository.write(f"flows/{file.name}", file.read_text())
    world.reconcile()
    world.run(timeout=3600)
    states = {job.key: (job.state.value, job.error) for job in world.jobs().values()}
    assert {state for state, _ in states.values()} == {"COMPLETED"}, states

    monkeypatch.syspath_prepend(str(HERE / "lib"))
    flow = Construction({}, {}).build(manifest["spec"], name)
    store = JobStore(MemoryStore(), additional_stores={name: MemoryStore() for name in STORES})
    ran = run_locally(flow, store=store, log=False, create_folders=True, root_dir=tmp_path)
    expected = facts(store, ran)
    kept = world.store.path
    with JobStore(
        LMDBStore(kept), additional_stores={name: LMDBStore(kept, name) for name in STORES}
    ) as ours:
        found = facts(ours, {job.uuid for job in world.jobs().values()})
    assert found == expected
    assert sum(found.values()) == len({job.uuid for job in world.jobs().values()}) > 0

    attempts = {job.id: job.attempt.number for job in world.jobs().values()}
    built = build_key(world, name)
    manifest["spec"].setdefault("build", {}).setdefault("env", {})["REBUILT"] = "1"
    world.repository.write(f"flows/{file.name}", json.dumps(manifest))
    world.reconcile()
    assert build_key(world, name) != built
    assert world.is_idle()
    assert {job.id: job.attempt.number for job in world.jobs().values()} == attempts


@pytest.mark.parametrize("file", FLOWS, ids=lambda file: file.stem)
def test_a_flow_is_exported_with_the_same_jobs(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_quacc(monkeypatch, tmp_path)
    monkeypatch.syspath_prepend(str(HERE / "lib"))
    manifest = YAML(typ="safe").load(file)
    name = manifest["metadata"]["name"]
    flow = Construction({}, {}).build(manifest["spec"], name)
    project = "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: p}\nspec: {}\n"
    (tmp_path / "reconciler.yaml").write_text(project)
    written = YAML(typ="safe").load(reconciler.export(flow, tmp_path, name=name))
    files = {str(one.relative_to(tmp_path)): str(one) for one in tmp_path.rglob("*.json")}
    again = Construction({}, files).build(written["spec"], name)
    one, other = (
        [(job.uuid, job.job.name) for job in identify(made, FIXED, {}, {}, [])] for made in (flow, again)
    )
    assert one == other
    assert "jobs" in written["spec"], "readable, not a serialised flow"


def build_key(world: World, flow: str) -> str:
    """Return the key of the build as which a flow was last applied."""
    record = world.view(lambda view: view.flow(flow))
    assert record is not None
    return str(record.build_key)


def use_quacc(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    """Let quacc, which reads its settings when it is imported, make jobs of jobflow here, too."""
    monkeypatch.setenv("QUACC_WORKFLOW_ENGINE", "jobflow")
    monkeypatch.setenv("QUACC_RESULTS_DIR", str(results))


def facts(store: JobStore, uuids: Iterable[str]) -> Counter[str]:
    """Return name, index and output of the last document of each job, without what differs by nature."""
    found = []
    for uuid in uuids:
        document = store.query_one({"uuid": uuid}, sort={"index": -1})
        output = store.get_output(uuid, load=True)
        plain = _comparable(json.loads(json.dumps(output, cls=MontyEncoder)))
        found.append(json.dumps([document["name"], document["index"], plain], sort_keys=True))
    return Counter(found)


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(inner) for key, inner in value.items() if key not in _OF_THE_RUN}
    if isinstance(value, list):
        return [_comparable(inner) for inner in value]
    if isinstance(value, str):
        return _TIMES.sub("a time", _PLACES.sub("a path", value))
    return value
