"""What listings and descriptions say of jobs that newer content or a removal has superseded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import Reconcile, Repository, minimal_project

pytestmark = pytest.mark.usefixtures("warm")

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: f}
    spec:
      jobs:
        - {id: a, function: reconciler.examples.value, args: [NUMBER]}
        - {id: b, function: reconciler.examples.value, args: [7]}
    """


class Place:
    def __init__(self, repository: Repository, reconcile: Reconcile, state: Path) -> None:
        self.repository = repository
        self._reconcile = reconcile
        self.state = state

    def run(self, *arguments: str) -> str:
        done = self._reconcile("--state-dir", str(self.state), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def apply(self, number: int | None) -> None:
        if number is None:
            self.repository.remove("flows/f.yaml")
        else:
            self.repository.write_yaml("flows/f.yaml", FLOW.replace("NUMBER", str(number)))
        self.repository.commit()
        self.run("--once", "--wait", *(["--allow-prune"] if number is None else []))

    def versions(self) -> list[dict[str, object]]:
        rows = json.loads(self.run("get", "jobs", "f/a", "--all", "-o", "json"))
        return sorted(rows, key=lambda row: bool(row["current"]))


@pytest.fixture
def place(repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Place:
    """A flow whose job ``a`` was edited twice; ``b`` stayed as it was."""
    minimal_project(repository, tmp_path / "work")
    place = Place(repository, reconcile, tmp_path / "state")
    for number in (1, 2, 3):
        place.apply(number)
    return place


def test_get_jobs_all_marks_them(place: Place) -> None:
    lines = [line.split() for line in place.run("get", "jobs", "--all").splitlines()]
    assert sorted("superseded" in line for line in lines if line[0] == "f/a") == [False, True, True]
    assert [line for line in lines if line[0] == "f/b" and "superseded" in line] == []
    assert "superseded" not in place.run("get", "jobs")


def test_describe_job_marks_it(place: Place) -> None:
    *old, new = place.versions()
    for row in old:
        assert "COMPLETED (superseded)\n" in place.run("describe", "job", str(row["uuid"]))
    assert "superseded" not in place.run("describe", "job", str(new["uuid"])).partition("events:")[0]


def test_the_events_of_a_job_are_its_own(place: Place) -> None:
    found = []
    for row in place.versions():
        facts = json.loads(place.run("describe", "job", str(row["uuid"]), "-o", "json"))
        assert {event["job"] for event in facts["events"]} == {f"{row['uuid']}_{row['index']}"}
        assert [event["type"] for event in facts["events"]].count("State") >= 5
        found.append([(event["time"], event["message"]) for event in facts["events"]])
    assert len({repr(events) for events in found}) == 3
    everything = json.loads(place.run("events", "--for", "job/f/a", "-o", "json"))
    assert sum(map(len, found)) == len(everything), "the history of the key has them all"


def test_describe_flow_counts_them(place: Place) -> None:
    text = place.run("describe", "flow", "f")
    assert "jobs: (2 superseded jobs not shown: `reconcile get jobs f --all`)\n" in text
    assert "removed" not in text


def test_describe_a_removed_flow_says_so(place: Place) -> None:
    place.apply(None)
    text = place.run("describe", "flow", "f")
    assert "removed:   it is no longer in the repository; its jobs are history\n" in text
    assert "2 superseded jobs not shown" in text
    rows = place.run("get", "jobs", "--all").splitlines()[1:]
    assert len(rows) == 4
    assert sum("superseded" in row for row in rows) == sum("its flow was removed" in row for row in rows) == 2
