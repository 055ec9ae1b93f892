"""A worker that cannot be used is said to be so; its jobs wait, and go on by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from tests.support import Repository, minimal_project

Reconcile = Callable[..., "CompletedProcess[str]"]


def test_an_outage_is_told_and_ends_by_itself(
    repository: Repository, reconcile: Reconcile, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.write_text("a file where the directory should be")
    minimal_project(repository, work)
    repository.write_yaml(
        "flows/one.yaml",
        """
        apiVersion: reconciler/v1
        kind: Flow
        metadata: {name: one}
        spec:
          jobs:
            - {id: value, function: reconciler.examples.value, args: [5]}
        """,
    )
    repository.commit()

    waited = reconcile("--once", "--wait", "--timeout", "3")

    assert waited.returncode == 1, waited.stderr
    assert waited.stderr.count("worker w1: cannot ") == 1, waited.stderr
    assert reachable(reconcile) == {"w1": False, "w2": None}
    work.unlink()
    done = reconcile("--once", "--wait", "--timeout", "100")
    assert done.returncode == 0, done.stderr
    assert reachable(reconcile) == {"w1": True, "w2": None}


def reachable(reconcile: Reconcile) -> dict[str, bool | None]:
    workers = json.loads(reconcile("get", "workers", "-o", "json").stdout)
    return {worker["name"]: worker["reachable"] for worker in workers}
