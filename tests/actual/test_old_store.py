"""A store that an older version wrote: it opens, says the same as before, and all its jobs go on.

``store-59d1939.tar.gz`` holds the state of that version with one of everything in it, its repository, and
what the jobs on their way had left on their workers; ``expected.json`` is what that version itself said of
it. ``make_old_store.py`` made both.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.context import opened
from tests.execution.support import eventually
from tests.support import Reconcile, isolated_module

HERE = Path(__file__).parent / "old_store"
ARCHIVE = HERE / "store-59d1939.tar.gz"
RECORDED = (HERE / "expected.json").read_text(encoding="utf-8")
PLACE: str = json.loads(RECORDED)["place"]
"""Where the store was made."""

LISTINGS = {
    "flows": ("get", "flows"),
    "jobs": ("get", "jobs", "--all"),
    "workers": ("get", "workers"),
    "history": ("history",),
    "fsck": ("fsck",),
}

Rows = dict[str, dict[str, Any]]


class OldStore:
    """The unpacked store, and the present program run on it.

    Records and scripts name the place where they were made. Here it has a shorter name, which is filled up
    with slashes, so that it can be put in its stead in any file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = str(root).ljust(len(PLACE), "/")
        assert len(self.place) == len(PLACE), "the temporary directory of this test has too long a name"
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(root, filter="data")
        for file in root.rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes().replace(PLACE.encode(), self.place.encode()))
        self.home, self.state, self.backup = Path(self.place, "home"), root / "state", root / "backup.mdb"
        shutil.copyfile(self.state / "lmdb" / "data.mdb", self.backup)
        python = self.home / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        self._reconcile = Reconcile(root / "repository.git")
        self.expected = json.loads(RECORDED.replace(PLACE, self.place))

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run the program, which ends with ``code``; return its stdout."""
        variables = {"HOME": f"{self.place}/home", "PATH": f"{self.home}/bin:/usr/local/bin:/usr/bin:/bin"}
        done = self._reconcile("--state-dir", str(self.state), *arguments, env=variables)
        assert done.returncode == code, done.stdout + done.stderr
        assert "timed out" not in done.stderr
        return done.stdout

    def said(self, *arguments: str) -> Any:
        """Return what a verb says as JSON."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def listings(self) -> dict[str, Any]:
        """Return what the program says of the store, in the form of ``expected.json``."""
        described = {key: self.said("describe", "job", key) for key in self.expected["described"]}
        outputs = {key: self.said("output", key) for key in self.expected["outputs"]}
        listed = {name: self.said(*arguments) for name, arguments in LISTINGS.items()}
        return listed | {"described": described, "outputs": outputs}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[OldStore]:
    root = tmp_path_factory.mktemp("old")
    with isolated_module(root, tmp_path_factory, warm_python):
        yield OldStore(root)


@pytest.fixture(scope="module")
def listed(old: OldStore) -> dict[str, Any]:
    """What the program says of the store once it is migrated, and nothing else has happened."""
    with opened(old.state, migrating=lambda line: None):
        pass
    return old.listings()


@pytest.fixture(scope="module")
def later(old: OldStore, listed: dict[str, Any]) -> dict[str, Any]:
    """The same after all jobs have gone on as far as they can. Two documents are invalid: exit code 2."""
    old.run("--once", "--wait", "--timeout", "60", code=2)
    old.run("--once", code=2)  # what was removed with `prune: delete` goes with the plan after its last job
    return old.listings()


@pytest.fixture(scope="module")
def before(old: OldStore) -> Rows:
    """The jobs of the store, history included, by their ids."""
    return by_id(old.expected)


@pytest.fixture(scope="module")
def after(later: dict[str, Any]) -> Rows:
    """The same after they have gone on."""
    return by_id(later)


@pytest.fixture(scope="module")
def jobs(later: dict[str, Any]) -> Rows:
    """Those of them that are no history, by their keys."""
    return {row["key"]: row for row in later["jobs"] if row["current"]}


def by_id(said: dict[str, Any]) -> Rows:
    return {f"{row['uuid']}_{row['index']}": row for row in said["jobs"]}


def states(jobs: Rows, flow: str) -> dict[str, tuple[str, int]]:
    """Return the state and the number of attempts of each job of a flow, by its key in the flow."""
    return {
        key.partition("/")[2]: (row["state"], row["attempt"])
        for key, row in jobs.items()
        if row["flow"] == flow
    }


# opened ---------------------------------------------------------------------------------------------------


PROSE = frozenset({"message", "fix", "reason"})
"""Fields of the listings that hold sentences, which a newer version may word in another way."""


DERIVED = frozenset({"editable"})
"""Fields that are not stored: they follow from the state of a job, by rules that may change."""


def as_listed_then(now: Any, then: Any) -> Any:
    """Return what a newer version lists, as far as the old one listed it, for a comparison with that.

    Sentences and derived fields are those of the old listing, new fields are left out, and jobs have its
    order. Reasons of conditions are codes, and stay.
    """
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        if all(isinstance(row, dict) and "uuid" in row for row in now):
            order = {(row["uuid"], row["index"]): number for number, row in enumerate(then)}
            now = sorted(now, key=lambda row: order.get((row["uuid"], row["index"]), -1))
        return [as_listed_then(one, other) for one, other in zip(now, then, strict=True)]
    if not isinstance(now, dict) or not isinstance(then, dict):
        return now
    prose = {key for key in PROSE & now.keys() if key != "reason" or " " in str(now[key])}
    return {
        key: then[key] if key in prose | DERIVED else as_listed_then(value, then[key])
        for key, value in now.items()
        if key in then
    }


@pytest.mark.parametrize("what", ["flows", "jobs", "workers", "history", "described", "outputs"])
def test_it_lists_what_the_old_version_listed(old: OldStore, listed: dict[str, Any], what: str) -> None:
    assert as_listed_then(listed[what], old.expected[what]) == old.expected[what]


def test_it_can_be_restored_as_a_backup(old: OldStore, tmp_path: Path) -> None:
    there = ("--state-dir", str(tmp_path / "state"))
    old.run("restore", str(old.backup), *there)
    jobs = json.loads(old.run("get", "jobs", "--all", "-o", "json", *there))
    assert as_listed_then(jobs, old.expected["jobs"]) == old.expected["jobs"]


def test_it_is_clean(listed: dict[str, Any]) -> None:
    assert listed["fsck"]["clean"], listed["fsck"]


# gone on --------------------------------------------------------------------------------------------------


def test_it_is_clean_afterwards(later: dict[str, Any]) -> None:
    assert later["fsck"]["clean"], later["fsck"]


def test_what_had_completed_did_not_run_again(before: Rows, after: Rows) -> None:
    completed = {job_id: row for job_id, row in before.items() if row["state"] == "COMPLETED"}
    assert len(completed) > 30
    for job_id, row in completed.items():
        for field in ("state", "attempt", "run_dir", "queue_id"):
            assert after[job_id][field] == row[field], row["key"]


def test_nothing_is_on_its_way_any_more(jobs: Rows) -> None:
    waiting = {key: row["state"] for key, row in jobs.items() if row["state"] in ("WAITING", "PAUSED")}
    assert waiting == {
        "by-hand/paused": "PAUSED",
        "failing/never": "WAITING",
        "suspended/first": "PAUSED",
        "suspended/second": "PAUSED",
    }
    ended = {"COMPLETED", "FAILED", "REMOTE_ERROR", "STOPPED", "USER_STOPPED"}
    assert {row["state"] for key, row in jobs.items() if key not in waiting} == ended


def test_what_had_ended_on_its_worker_is_taken_in_and_what_waits_for_it_runs(jobs: Rows) -> None:
    assert states(jobs, "stages") == dict.fromkeys(("first", "second", "third"), ("COMPLETED", 1))
    assert states(jobs, "orphaned") == dict.fromkeys(("first", "second"), ("COMPLETED", 1))
    assert states(jobs, "growing-late") == dict.fromkeys(("detours", "later", "after"), ("COMPLETED", 1))
    assert states(jobs, "comeback") == {"value": ("COMPLETED", 1)}


def test_a_job_that_an_interrupted_pass_has_left_on_the_way_runs_once(jobs: Rows) -> None:
    assert states(jobs, "begun") == dict.fromkeys(("checked-out", "uploaded"), ("COMPLETED", 1))


def test_deferred_patches_reach_their_jobs(before: Rows, jobs: Rows) -> None:
    deferred = {row["key"]: row["deferred"] for row in before.values() if row["deferred"]}
    assert deferred == {
        "stages/first": {"priority": 7},
        "impossible/stuck": {"worker": "local_shell", "resources": {}},
    }
    for key, changes in deferred.items():
        assert jobs[key]["deferred"] is None
        assert {field: jobs[key][field] for field in changes} == changes


def test_a_job_that_could_never_start_is_submitted_anew_where_it_can(jobs: Rows) -> None:
    stuck = jobs["impossible/stuck"]
    assert (stuck["state"], stuck["attempt"], stuck["stuck"]) == ("COMPLETED", 2, None)
    assert stuck["run_worker"] == "local_shell"


def test_the_retry_that_was_to_come_is_made(before: Rows, jobs: Rows) -> None:
    assert [row["key"] for row in before.values() if row["retry_at"]] == ["retrying/flaky"]
    assert states(jobs, "retrying") == {"flaky": ("COMPLETED", 2), "after": ("COMPLETED", 1)}
    assert (jobs["retrying/flaky"]["retried"], jobs["retrying/flaky"]["retry_at"]) == (["killed"], None)


def test_a_job_whose_process_is_gone_counts_as_lost_and_is_retried(jobs: Rows) -> None:
    lost = jobs["cancelling/lost"]
    assert (lost["state"], lost["attempt"], lost["retried"]) == ("COMPLETED", 2, ["lost"])


def test_cancelled_jobs_end_user_stopped(before: Rows, after: Rows, jobs: Rows) -> None:
    assert (jobs["cancelling/ended"]["state"], jobs["cancelling/ended"]["attempt"]) == ("USER_STOPPED", 1)
    assert jobs["by-hand/stopped"]["state"] == "USER_STOPPED"
    history = {job_id: row["key"] for job_id, row in before.items() if not row["current"]}
    running = [job_id for job_id in history if before[job_id]["state"] == "RUNNING"]
    assert {history[job_id] for job_id in running} == {"deleted/value", "removed/runs", "replaced/late"}
    left = {history[job_id]: after[job_id]["state"] for job_id in running if job_id in after}
    assert left == {"removed/runs": "USER_STOPPED", "replaced/late": "USER_STOPPED"}


def test_a_job_that_was_to_run_again_does_once_it_is_gone(jobs: Rows) -> None:
    found = states(jobs, "cancelling")
    assert (found["again"], found["after"]) == (("COMPLETED", 2), ("COMPLETED", 1))


def test_what_replaces_a_job_runs(jobs: Rows) -> None:
    assert states(jobs, "replaced") == dict.fromkeys(("early", "late"), ("COMPLETED", 1))


def test_generated_jobs_are_still_in_their_flow(before: Rows, after: Rows) -> None:
    generated = {job_id: row for job_id, row in before.items() if row["generated_by"]}
    assert len(generated) > 5
    for job_id, row in generated.items():
        for field in ("key", "flow", "generated_by", "current", "parents"):
            assert after[job_id][field] == row[field]


def test_a_flow_that_was_to_be_deleted_is_gone(before: Rows, after: Rows, later: dict[str, Any]) -> None:
    assert "deleted" in {row["flow"] for row in before.values()} - {row["flow"] for row in after.values()}
    flows = {flow["name"]: flow["reason"] for flow in later["flows"]}
    assert "deleted" not in flows
    assert "cannot be built" in flows["unbuildable"]
    assert "its document is invalid" in flows["labelled"]
    assert "protected" in flows["protected"]


def test_a_worker_that_did_not_answer_is_asked_again(later: dict[str, Any], old: OldStore) -> None:
    known = {worker["name"]: (worker["reachable"], worker["failures"]) for worker in old.expected["workers"]}
    assert known["cluster"] == (False, known["cluster"][1])
    assert known["cluster"][1] >= 3
    now = {worker["name"]: (worker["reachable"], worker["failures"]) for worker in later["workers"]}
    assert now == dict.fromkeys(("cluster", "local_shell", "narrow", "secondw"), (True, 0))


def test_a_run_directory_whose_time_has_come_is_removed(old: OldStore, jobs: Rows) -> None:
    directory = Path(jobs["arithmetic/add"]["run_dir"])
    assert old.root in directory.parents
    assert eventually(lambda: not directory.exists())
