"""``kill -9`` around every write of a reconcile that patches: all jobs or none, then each exactly once."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from reconciler.actual.store import Store
from tests.execution.support import kill_at
from tests.support import Reconcile, Repository, minimal_project

COUNT = 40
STEPS = [f"write:{moment}:{number}" for number, moment in product((1, 2, 3), ("before", "after"))]
"""The parsed rule, the patches, the outcome."""


def edit(repository: Repository, priority: int) -> None:
    repository.write_yaml(
        "rules/urgent.yaml",
        f"""
        apiVersion: reconciler/v1
        kind: OverrideRule
        metadata: {{name: urgent}}
        spec: {{flows: [many], set: {{priority: {priority}}}}}
        """,
    )
    repository.commit(f"priority {priority}")


@pytest.fixture
def repository(tmp_path: Path, warm: None) -> Repository:
    """A suspended flow, so that no job ever runs."""
    repository = Repository(tmp_path / "repository")
    minimal_project(repository, tmp_path / "work")
    jobs = "\n".join(
        f"    - {{id: j{number}, function: reconciler.examples.value, args: [{number}]}}"
        for number in range(COUNT)
    )
    repository.write(
        "flows/many.yaml",
        "apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: many}\n"
        f"spec:\n  suspend: true\n  jobs:\n{jobs}\n",
    )
    repository.commit()
    done = Reconcile(repository.path)("--once", "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 0, done.stderr
    return repository


def priorities(state: Path) -> list[int]:
    store = Store(state)
    try:
        with store.read() as view:
            return [job.config.priority_value for job in view.jobs_of("many")]
    finally:
        store.close()


def patches(state: Path, priority: int) -> list[int]:
    """Return for each job how many events say that it got this priority."""
    store = Store(state)
    try:
        with store.read() as view:
            return [
                sum(
                    1
                    for event in view.events(f"job/{job.path}")
                    for change in event.changes
                    if event.type == "Patched" and change.new == priority
                )
                for job in view.jobs_of("many")
            ]
    finally:
        store.close()


def test_a_killed_edit_is_done_once(repository: Repository, tmp_path: Path) -> None:
    state = tmp_path / "state"
    arguments = ["--once", "--state-dir", str(state)]
    for priority, step in enumerate(STEPS, start=1):
        edit(repository, priority)
        kill_at(step, repository.path, *arguments)
        done_before = step in ("write:after:2", "write:before:3", "write:after:3")
        assert priorities(state) == [priority if done_before else priority - 1] * COUNT, step
        done = Reconcile(repository.path)(*arguments)
        assert done.returncode == 0, done.stderr
        assert priorities(state) == [priority] * COUNT, step
        assert patches(state, priority) == [1] * COUNT, step
    assert "no changes" in Reconcile(repository.path)(*arguments).stdout
