"""Why jobs wait that could run: in listings, in ``describe``, and in the conditions of their flow."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from reconciler.actual.store import Store
from reconciler.model.records import WorkerStatus
from tests.watch.support import WatchWorld

CLOSED = "Worker 'w1' was removed from git"


def flows(world: WatchWorld) -> dict[str, Any]:
    return {flow["name"]: flow for flow in json.loads(world.run("get", "flows", "-o", "json").stdout)}


def waiting(world: WatchWorld) -> dict[str, str | None]:
    return {job["key"]: job["waiting"] for job in json.loads(world.run("get", "jobs", "-o", "json").stdout)}


def test_a_full_worker(watched: WatchWorld) -> None:
    watched.worker("w1", max_jobs=1)
    gate = watched.waiting_flow("first", priority=9)
    watched.log_flow("second")
    watched.log_flow("elsewhere", worker="w2", suspend=True)
    watched.commit()
    watched.run("--once")
    full = "worker w1 is full: 1 of 1"
    assert waiting(watched) == {"first/wait": None, "second/j": full, "elsewhere/j": None}
    found = flows(watched)
    assert found["second"]["reason"] == f"0 of 1 job completed; j waits: {full}"
    assert found["first"]["reason"] == "0 of 1 job completed"
    assert {one["message"] for one in found["second"]["conditions"][:2]} == {found["second"]["reason"]}
    assert full in watched.run("describe", "flow", "second").stdout.partition("jobs:")[2]
    assert full in watched.run("describe", "job", "second/j").stdout
    gate.touch()
    watched.run("--once", "--wait")
    assert set(waiting(watched).values()) == {None}


@pytest.mark.parametrize(
    ("status", "closed", "gone", "why"),
    [
        (WorkerStatus(reachable=False, reason="no route"), "", False, "worker w1 does not answer: no route"),
        (WorkerStatus(reachable=True), CLOSED, False, CLOSED),
        (None, "", True, "the applied revision has no worker 'w1'"),
        (None, "", False, None),
    ],
)  # fmt: skip
def test_a_worker_that_takes_no_jobs(
    watched: WatchWorld, status: WorkerStatus | None, closed: str, gone: bool, why: str | None
) -> None:
    watched.log_flow("f", suspend=True)
    watched.commit()
    watched.run("--once")
    store = Store(watched.state)
    with store.read() as view:
        config, (job,) = view.config(), list(view.jobs())
    assert config is not None

    def change(writer: Any) -> None:
        writer.put_job(msgspec.structs.replace(job, state="READY"))
        workers = {name: spec for name, spec in config.workers.items() if not (gone and name == "w1")}
        closed_workers = {"w1": closed} if closed else {}
        writer.put_config(msgspec.structs.replace(config, workers=workers, closed_workers=closed_workers))
        if status is not None:
            writer.put_worker_status("w1", status)

    store.write(change)
    store.close()
    assert waiting(watched) == {"f/j": why}
    (row,) = json.loads(watched.run("describe", "flow", "f", "-o", "json").stdout)["members"]
    assert row["waiting"] == why
