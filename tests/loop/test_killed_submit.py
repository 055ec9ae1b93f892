"""``kill -9`` within the first submit of a FlowSet: what was built may be lost, and each job comes once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from reconciler.actual.store import Store
from tests.execution.support import kill_at
from tests.support import Reconcile, Repository, minimal_project

ROWS = 700
STEPS = {
    "write@KeptBuilds.flush:within:1": range(1),
    "build:before:2": range(1, 2),
    "build:after:650": range(1, 1 + 650),
    "write@KeptBuilds.flush:before:2": range(1, ROWS),
    "write@apply_plan:within:1": range(ROWS, ROWS + 1),
}
"""One after the other on the same state, so that each life finds what the earlier ones have built.

The value is the number of builds that the store may have after it. The first build of a life is stored at
once, others after 500, or half a second: on a busy machine all but the one after which it was killed.
"""

SET = """
apiVersion: reconciler/v1
kind: FlowSet
metadata: {name: points}
spec:
  items: {from: [{csv: data/points.csv}]}
  key: "{n}"
  suspend: true
  template:
    jobs:
      - {id: a, function: reconciler.examples.value, args: [{$item: n}]}
"""


def write_set(repository: Repository, rows: int) -> None:
    repository.write("flows/points.yaml", SET)
    repository.write("data/points.csv", "n\n" + "".join(f"{number}\n" for number in range(rows)))
    repository.commit()


@pytest.fixture
def repository(tmp_path: Path, warm: None) -> Repository:
    """A suspended set, so that no job ever runs."""
    repository = Repository(tmp_path / "repository")
    minimal_project(repository, tmp_path / "work")
    write_set(repository, ROWS)
    return repository


def content(state: Path) -> tuple[int, dict[str, str], Counter[str]]:
    """Return the number of builds, the uuids of jobs by path, and how often each was submitted."""
    store = Store(state)
    try:
        with store.read() as view:
            jobs = list(view.jobs())
            events = [event for job in jobs for event in view.events(f"job/{job.path}")]
            return (
                sum(1 for _ in view.txn.keys("builds")),
                {job.path: job.uuid for job in jobs},
                Counter(event.about for event in events if event.type == "Submitted"),
            )
    finally:
        store.close()


def test_a_killed_first_submit_is_done_once(repository: Repository, tmp_path: Path) -> None:
    state = tmp_path / "state"
    arguments = ["--once", "--state-dir", str(state)]
    for step, builds in STEPS.items():
        kill_at(step, repository.path, *arguments)
        found, jobs, _ = content(state)
        assert found in builds, step
        assert jobs == {}, step
    done = Reconcile(repository.path)(*arguments)
    assert done.returncode == 0, done.stderr
    assert "building" not in done.stderr
    undisturbed = Reconcile(repository.path)("--once", "--state-dir", str(tmp_path / "other"))
    assert f"building {ROWS} flows" in undisturbed.stderr
    _, jobs, submitted = content(state)
    assert len(jobs) == ROWS
    assert jobs == content(tmp_path / "other")[1]
    assert set(submitted.values()) == {1}
    assert len(submitted) == ROWS
    assert "no changes" in Reconcile(repository.path)(*arguments).stdout


def test_the_plan_of_ten_thousand_rows_is_whole_and_short(repository: Repository, tmp_path: Path) -> None:
    write_set(repository, 10_000)
    done = Reconcile(repository.path)("plan", "--state-dir", str(tmp_path / "state"))
    assert "10000 flows and 10000 jobs to submit" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) < 30
