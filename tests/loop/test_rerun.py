"""What runs again after an edit: what the edit reaches, and nothing else. Through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import Reconcile, Repository, minimal_project

pytestmark = pytest.mark.usefixtures("warm")

CODE = """
def start(x):
    return {"x": x}

def point(x, strain):
    return x + strain

def fit(points):
    return sum(points)

def total(*fits):
    return {"total": sum(fits)}
"""

FLOW = """
apiVersion: reconciler/v1
kind: Flow
metadata: {name: a}
spec:
  jobs:
    - {id: start, function: curve.start, args: [1]}
    - {id: p1, function: curve.point, args: [{$output: start.x}, 10]}
    - {id: p2, function: curve.point, args: [{$output: start.x}, 20]}
    - {id: fit, function: curve.fit, args: [[{$output: p1}, {$output: p2}]]}
---
apiVersion: reconciler/v1
kind: Flow
metadata: {name: b}
spec:
  jobs: [{id: start, function: curve.start, args: [2]}]
"""

SUMMARY = """
apiVersion: reconciler/v1
kind: Flow
metadata: {name: summary}
spec:
  jobs:
    - {id: total, function: curve.total, args: [{$output: a/fit}, {$output: b/start.x}]}
"""


class Project:
    """Two small flows and a summary of both, and what became of their jobs."""

    def __init__(self, repository: Repository, reconcile: Reconcile, tmp_path: Path) -> None:
        self.repository = repository
        self.reconcile = reconcile
        minimal_project(repository, tmp_path / "work")
        self.edit("reconciler.yaml", "defaults: {worker: w1}", "python_path: [lib]\n  defaults: {worker: w1}")
        repository.write("lib/curve.py", CODE)
        repository.write("flows/curves.yaml", FLOW)
        repository.write("flows/summary.yaml", SUMMARY)

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.repository.path / path).read_text()
        assert old in text
        self.repository.write(path, text.replace(old, new))

    def run(self) -> dict[str, dict[str, Any]]:
        """Commit, reconcile until idle, and return the jobs by key."""
        self.repository.commit()
        done = self.reconcile("--once", "--wait", "--timeout", "60")
        assert done.returncode == 0, done.stdout + done.stderr
        left = self.reconcile("plan", "--exit-code")
        assert left.returncode == 0, left.stdout
        return self.jobs()

    def jobs(self) -> dict[str, dict[str, Any]]:
        rows = json.loads(self.reconcile("get", "jobs", "-o", "json").stdout)
        return {row["key"]: row for row in rows}

    def output(self, key: str) -> Any:
        return json.loads(self.reconcile("output", key, "-o", "json").stdout)


@pytest.fixture
def project(repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Project:
    return Project(repository, reconcile, tmp_path)


def ran_again(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> set[str]:
    """The jobs that are others now; all that stay have the same run directory, so did not run again."""
    assert all(row["state"] == "COMPLETED" for row in after.values())
    return {key for key in after if key not in before or after[key]["run_dir"] != before[key]["run_dir"]}


def test_only_what_an_edit_reaches_runs_again_and_a_revert_runs_nothing(project: Project) -> None:
    first = project.run()
    assert project.output("summary/total") == {"total": 34}
    project.edit("flows/curves.yaml", "{$output: start.x}, 20", "{$output: start.x}, 30")
    project.repository.commit()
    plan = json.loads(project.reconcile("plan", "-o", "json").stdout)
    assert {action["key"].partition("/")[0] for action in plan["actions"]} <= {"a", "summary"}
    second = project.run()
    assert ran_again(first, second) == {"a/p2", "a/fit", "summary/total"}
    for key in first.keys() - {"a/p2", "a/fit", "summary/total"}:
        assert second[key]["uuid"] == first[key]["uuid"]
    assert project.output("summary/total") == {"total": 44}
    project.edit("flows/curves.yaml", "{$output: start.x}, 30", "{$output: start.x}, 20")
    third = project.run()
    assert {key: row["run_dir"] for key, row in third.items()} == {
        key: row["run_dir"] for key, row in first.items()
    }
    assert project.output("summary/total") == {"total": 34}


def test_code_that_changes_is_rebuilt_and_results_are_kept(project: Project) -> None:
    first = project.run()
    project.edit("lib/curve.py", "return sum(points)", "return 2 * sum(points)")
    second = project.run()
    assert ran_again(first, second) == set()
    project.edit("flows/curves.yaml", "[[{$output: p1}, {$output: p2}]]", "[[{$output: p1}]]")
    third = project.run()
    assert ran_again(second, third) == {"a/fit", "summary/total"}
    assert project.output("a/fit") == 22  # by the code of its commit
    assert project.output("summary/total") == {"total": 24}


def test_code_that_counts_as_content_runs_everything_again(project: Project) -> None:
    project.edit("reconciler.yaml", "python_path: [lib]", "python_path: [lib]\n  on_code_change: recompute")
    first = project.run()
    project.edit("lib/curve.py", "return sum(points)", "return 2 * sum(points)")
    second = project.run()
    assert ran_again(first, second) == second.keys()
    assert project.output("summary/total") == {"total": 66}


LINEAR = """
from jobflow import Flow, Job, JobOrder
from reconciler.examples import value

def linear(numbers):
    jobs = [value(number) for number in numbers]
    for number, job in zip("abcdefgh", jobs):
        job.name = number
    return Flow(jobs, order=JobOrder.LINEAR)
"""


def test_a_linear_flow_that_changes_goes_on(project: Project) -> None:
    """The order is no content: who stays must wait for the new neighbour, not for the one that left."""
    for name in ("curves", "summary"):
        project.repository.remove(f"flows/{name}.yaml")
    project.repository.write("lib/lines.py", LINEAR)
    flow = """
        apiVersion: reconciler/v1
        kind: Flow
        metadata: {name: line}
        spec:
          suspend: true
          factory: {function: lines.linear, args: [[1, 2, 3]]}
        """
    project.repository.write_yaml("flows/line.yaml", flow)
    before = project_run_suspended(project)
    assert {row["state"] for row in before.values()} == {"PAUSED"}
    project.edit("flows/line.yaml", "[[1, 2, 3]]", "[[7, 2, 3]]")
    project.edit("flows/line.yaml", "suspend: true", "suspend: false")
    after = project.run()
    assert {key: row["state"] for key, row in after.items()} == dict.fromkeys(
        ["line/a", "line/b", "line/c"], "COMPLETED"
    )
    assert after["line/b"]["uuid"] == before["line/b"]["uuid"]
    assert project.output("line/a") == 7


def project_run_suspended(project: Project) -> dict[str, dict[str, Any]]:
    """Reconcile without waiting for anything, since nothing will run."""
    project.repository.commit()
    done = project.reconcile("--once")
    assert done.returncode == 0, done.stderr
    return project.jobs()


def test_a_file_counts_by_its_content_not_by_its_name(project: Project) -> None:
    for name in ("curves", "summary"):
        project.repository.remove(f"flows/{name}.yaml")
    project.repository.write("lib/reading.py", "def read(path):\n    return open(path).read()\n")
    project.repository.write("data/one.txt", "hello")
    flow = """
        apiVersion: reconciler/v1
        kind: Flow
        metadata: {name: f}
        spec:
          jobs: [{id: read, function: reading.read, args: [{$path: data/one.txt}]}]
        """
    project.repository.write_yaml("flows/f.yaml", flow)
    first = project.run()
    assert project.output("f/read") == "hello"
    project.repository.move("data/one.txt", "data/deep/two.txt")
    project.edit("flows/f.yaml", "data/one.txt", "data/deep/two.txt")
    second = project.run()
    assert ran_again(first, second) == set()
    project.repository.write("data/deep/two.txt", "bye")
    third = project.run()
    assert ran_again(second, third) == {"f/read"}
    assert project.output("f/read") == "bye"
