"""A rule's function_filter matches a function by each path to it, as jobflow compares functions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from reconciler.build import function_paths
from reconciler.build.builder import FlowBuilder
from reconciler.desired.source.git import Source
from reconciler.desired.state import load_desired
from reconciler.model.applied import ActualState
from reconciler.plan.planner import make_plan
from tests.build.support import build
from tests.desired.test_flows import NoCache
from tests.support import Repository

CODE = {
    "__init__": "from camp.jobs import add\n",
    "jobs": """
from dataclasses import dataclass
from functools import wraps
from jobflow import Flow, Maker, job

@job
def add(a, b):
    return a + b

def bare(x):
    return x

decorated = job(bare)

def loud(function):
    @wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)
    return call

@job
@loud
def twice(x):
    return 2 * x

class Tools:
    @staticmethod
    @job
    def fixed(x):
        return x

@dataclass
class BaseMaker(Maker):
    name: str = "made"

    @job
    def make(self):
        return 1

@dataclass
class SubMaker(BaseMaker):
    pass

@dataclass
class OwnMaker(BaseMaker):
    @job
    def make(self):
        return 2
""",
    "api": "from camp.jobs import SubMaker as Sub, add as plus, twice, decorated\n",
    "other": "def add(a, b):\n    return 0\n",
    "broken": "from camp.jobs import add\nraise SystemExit(3)\n",
}

FLOW = """
apiVersion: reconciler/v1
kind: Flow
metadata: {name: f}
spec:
  worker: w1
  jobs:
    - {id: add, function: camp.jobs.add, args: [1, 2]}
    - {id: decorated, function: camp.jobs.decorated, args: [1]}
    - {id: twice, function: camp.jobs.twice, args: [1]}
    - {id: fixed, function: camp.jobs.Tools.fixed, args: [1]}
---
apiVersion: reconciler/v1
kind: Flow
metadata: {name: made}
spec: {worker: w1, maker: {class: camp.jobs.SubMaker}}
---
apiVersion: reconciler/v1
kind: Flow
metadata: {name: own}
spec: {worker: w1, maker: {class: camp.jobs.OwnMaker}}
"""


def matched(repository: Repository, state: Path, function: str) -> list[str]:
    """Return the jobs to which a rule with this function_filter gives another worker."""
    repository.write(
        "reconciler.yaml",
        "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: p}\nspec: {python_path: [lib]}\n",
    )
    for name in ("w1", "w2"):
        repository.write(
            f"workers/{name}.yaml",
            f"apiVersion: reconciler/v1\nkind: Worker\nmetadata: {{name: {name}}}\n"
            "spec: {type: local, scheduler_type: shell, work_dir: /nowhere}\n",
        )
    repository.write("flows/f.yaml", FLOW)
    repository.write(
        "rules/r.yaml",
        "apiVersion: reconciler/v1\nkind: OverrideRule\nmetadata: {name: r}\n"
        f"spec: {{function_filter: {function}, set: {{worker: w2}}}}\n",
    )
    for name, text in CODE.items():
        repository.write(f"lib/camp/{name}.py", text)
    repository.commit()
    source = Source(repository.path / ".git", repository.path, None, "")
    desired = load_desired(source, source.revision(), NoCache(), {}).state
    assert not desired.has_errors, desired.diagnostics
    builder = FlowBuilder(source, desired, state)
    try:
        built = {flow.name: build(builder, flow) for flow in desired.flows.values()}
    finally:
        builder.close()
    plan = make_plan(desired, ActualState(built=built))
    return sorted(
        action.key
        for action in plan.actions
        if action.wanted is not None and action.wanted.config.worker_name == "w2"
    )


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("camp.jobs.add", ["f/add"]),
        ("camp.add", ["f/add"]),
        ("camp.api.plus", ["f/add"]),
        ("camp.other.add", []),
        ("camp.broken.add", []),
        ("camp.nosuch.add", []),
        ("camp.jobs.decorated", ["f/decorated"]),
        ("camp.jobs.bare", ["f/decorated"]),
        ("camp.api.decorated", ["f/decorated"]),
        ("camp.jobs.twice", ["f/twice"]),
        ("camp.api.twice", ["f/twice"]),
        ("camp.jobs.Tools.fixed", ["f/fixed"]),
        ("camp.jobs.BaseMaker.make", ["made/made"]),
        ("camp.jobs.SubMaker.make", ["made/made"]),
        ("camp.api.Sub.make", ["made/made"]),
        ("camp.jobs.OwnMaker.make", ["own/made"]),
    ],
)
def test_each_path(repository: Repository, tmp_path: Path, function: str, expected: list[str]) -> None:
    assert matched(repository, tmp_path / "state", function) == expected


def test_installed_packages_are_searched_once_and_again_when_they_have_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[str] = []
    search = function_paths._functions_of

    def counted(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
        searched.append(module.__name__)
        return search(module)

    monkeypatch.setattr(function_paths, "_functions_of", counted)
    module = ModuleType("odd_package")
    monkeypatch.setitem(sys.modules, "odd_package", module)

    def paths_of(function: str, *others: str) -> list[str] | None:
        return function_paths.function_paths({function, *others}, [], []).get(function)

    here = f"{__name__}.test_a_function_without_other_paths"
    assert paths_of(here, "odd_package.x") is None
    before = len(searched)
    assert before > 0
    assert paths_of(here, "odd_package.y") is None
    assert len(searched) == before
    module.elsewhere = test_a_function_without_other_paths
    assert paths_of(here, "odd_package.x") == ["odd_package.elsewhere"]
    assert len(searched) > before
    assert paths_of("odd_package.x") is None


def test_a_function_without_other_paths() -> None:
    path = f"{__name__}.test_a_function_without_other_paths"
    assert path not in function_paths.function_paths({path}, [], [])
