"""From a notebook: outputs are there to read while a reconcile is at work."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.support import Reconcile, Repository, minimal_project

NOTEBOOK = """
import json, sys
from jobflow import JobStore
from reconciler.actual.jobstore import LMDBStore

with JobStore(LMDBStore(sys.argv[1])) as store:
    criteria = {"output": {"$gte": 2}, "metadata.kind": {"$in": ["quick", "slow"]}}
    found = list(store.query(criteria, ["name", "uuid"]))
    print(json.dumps({
        "names": sorted(doc["name"] for doc in found),
        "outputs": [store.get_output(doc["uuid"]) for doc in found],
        "count": store.count({"name": {"$regex": "^quick"}}),
        "names_by_distinct": sorted(store.distinct("name")),
    }))
"""


def test_outputs_are_queried_while_a_reconcile_runs(
    repository: Repository, reconcile: Reconcile, tmp_path: Path, state_dir: Path
) -> None:
    minimal_project(repository, tmp_path / "work")
    repository.write_yaml(
        "flows/f.yaml",
        """
        apiVersion: reconciler/v1
        kind: Flow
        metadata: {name: f}
        spec:
          jobs:
            - {id: quick1, function: reconciler.examples.value, args: [1], metadata: {kind: quick}}
            - {id: quick2, function: reconciler.examples.value, args: [2], metadata: {kind: quick}}
            - {id: slow, function: reconciler.examples.sleep, args: [60], metadata: {kind: slow}}
        """,
    )
    repository.commit()
    arguments = ["--once", "--wait", "--timeout", "120", "--state-dir", str(state_dir)]
    with subprocess.Popen(
        [sys.executable, "-m", "reconciler", *arguments],
        cwd=repository.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        try:
            _wait_for_results(reconcile, state_dir, ["quick1", "quick2"])
            done = subprocess.run(
                [sys.executable, "-c", NOTEBOOK, str(state_dir)], capture_output=True, text=True, timeout=60
            )
            assert running.poll() is None, "the reconcile ended before the notebook had looked"
            refused = reconcile("--once", "--state-dir", str(state_dir))
        finally:
            running.kill()
    assert json.loads(done.stdout) == {
        "names": ["quick2"],
        "outputs": [2],
        "count": 2,
        "names_by_distinct": ["quick1", "quick2"],
    }, done.stderr
    assert refused.returncode == 4
    assert f"pid {running.pid}" in refused.stderr


def _wait_for_results(reconcile: Reconcile, state_dir: Path, names: list[str]) -> None:
    """Readers never wait for the writer: ``get jobs`` works beside it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        listing = reconcile("get", "jobs", "-o", "json", "--state-dir", str(state_dir))
        rows = json.loads(listing.stdout) if listing.returncode == 0 else []
        if {row["name"] for row in rows if row["state"] == "COMPLETED"} >= set(names):
            return
        time.sleep(0.2)
    raise AssertionError(f"{names} did not complete")
