"""A force-push that would cancel flows is refused until it is said to be meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import Reconcile, Repository, minimal_project

FLOW = """\
apiVersion: reconciler/v1
kind: Flow
metadata: {{name: {name}}}
spec: {{suspend: true, jobs: [{{id: value, function: reconciler.examples.value, args: [1]}}]}}
"""


def add(repository: Repository, *names: str) -> str:
    for name in names:
        repository.write(f"flows/{name}.yaml", FLOW.format(name=name))
    return repository.commit()


@pytest.fixture
def applied(repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Repository:
    """A repository whose second commit added flow ``two`` to flow ``one``; both are submitted."""
    minimal_project(repository, tmp_path / "work")
    add(repository, "one")
    add(repository, "two")
    assert reconcile("--once").returncode == 0
    return repository


def flows(reconcile: Reconcile) -> list[str]:
    return [flow["name"] for flow in json.loads(reconcile("get", "flows", "-o", "json").stdout)]


def test_a_reset_that_drops_a_flow_is_refused(applied: Repository, reconcile: Reconcile) -> None:
    applied.run("reset", "-q", "--hard", "HEAD~1")
    refused = reconcile("--once")
    assert refused.returncode == 4
    assert "history was rewritten" in refused.stderr
    assert "cancel 1 of 2 flows: two" in refused.stderr
    assert "--allow-prune" in refused.stderr
    assert flows(reconcile) == ["one", "two"]
    assert reconcile("--once", "--allow-prune").returncode == 0
    assert flows(reconcile) == ["one"]
    assert reconcile("--once").returncode == 0, "it is the base now"


def test_a_commit_that_was_replaced_and_removed_is_refused(applied: Repository, reconcile: Reconcile) -> None:
    """The commit that was applied is gone altogether, as in a mirror after a force-push and gc."""
    applied.run("reset", "-q", "--hard", "HEAD~1")
    add(applied, "three")
    applied.run("reflog", "expire", "--expire=now", "--all")
    applied.run("gc", "-q", "--prune=now")
    refused = reconcile("--once")
    assert (refused.returncode, flows(reconcile)) == (4, ["one", "two"])


def test_rewriting_that_removes_nothing_is_no_matter(applied: Repository, reconcile: Reconcile) -> None:
    applied.run("commit", "-q", "--amend", "-m", "better words")
    assert reconcile("--once").returncode == 0


def test_an_honest_removal_is_no_rewriting(applied: Repository, reconcile: Reconcile) -> None:
    (applied.path / "flows/two.yaml").unlink()
    applied.commit()
    assert reconcile("--once").returncode == 0
    assert flows(reconcile) == ["one"]
