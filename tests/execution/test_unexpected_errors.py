"""An unexpected exception about one job or worker stops nothing else, and says where it came from."""

from __future__ import annotations

import json
from pathlib import Path

from reconciler.model.records import WorkerStatus
from tests.watch.support import WatchWorld, eventually

THROWING = Path(__file__).with_name("throwing.py")
FAULT = f"exec(open({str(THROWING)!r}).read())"


def bad_flows(world: WatchWorld) -> None:
    for name in ("bad-submit", "bad-poll"):
        world.worker(name)
        world.log_flow(name, worker=name)
    for name in ("bad-upload", "bad-step", "bad-collect", "bad-record"):
        world.log_flow(name)
    for name in ("bad-end", "bad-failure"):
        world.flow(name, {"id": "j", "function": "dies", "args": [3]})


def test_one_exception_at_each_boundary(watched: WatchWorld) -> None:
    bad_flows(watched)
    for name in ("bad-build", "bad-plan", "bad-apply", "good"):
        watched.log_flow(name)
    watched.log_flow("good-too", worker="w2")
    watched.commit()
    watch = watched.start(fault=FAULT)
    for flow in ("good", "good-too"):
        watched.until_state(f"{flow}/j", "COMPLETED")

    def stuck(flow: str) -> str:
        return eventually(lambda: watched.jobs()[f"{flow}/j"].attempt.stuck, f"a reason of {flow}", watch)

    def reason(worker: str) -> str:
        def look() -> str:
            status = watched.read(lambda view: view.worker_status(worker)) or WorkerStatus(reachable=True)
            return status.reason

        return eventually(look, f"an outage of {worker}", watch)

    assert "odd files_of" in (watched.until_state("bad-upload/j", "REMOTE_ERROR").error or "")
    assert "odd apply_result" in (watched.until_state("bad-record/j", "REMOTE_ERROR").error or "")
    assert "odd next_step" in stuck("bad-step")
    assert "odd end_with_result" in stuck("bad-collect")
    assert "odd end_without_result" in stuck("bad-end")
    assert "odd fail" in stuck("bad-failure")
    assert "odd submit" in reason("bad-submit")
    assert "odd poll" in reason("bad-poll")

    held = {
        "bad-build": "cannot be built: unexpected KeyError: 'odd start' (flows/bad-build.yaml:",
        "bad-plan": "odd actions",
        "bad-apply": "odd flow",
    }
    shown = {
        row["name"]: row["reason"] for row in json.loads(watched.run("get", "flows", "-o", "json").stdout)
    }
    for flow, text in held.items():
        assert text in shown[flow]
        assert text in watched.run("describe", "flow", flow).stdout
        assert f"{flow}/j" not in watched.jobs()

    watched.log_flow("later")
    watched.log_flow("later-too", worker="w2")
    watched.commit()
    for flow in ("later", "later-too"):
        watched.until_state(f"{flow}/j", "COMPLETED")
    assert watch.end() == 0


def test_once_goes_on_too(watched: WatchWorld) -> None:
    bad_flows(watched)
    watched.log_flow("good")
    watched.commit()
    done = watched.run("--once", "--wait", "--timeout", "10", fault=FAULT)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "odd submit" in done.stderr
    assert watched.jobs()["good/j"].state == "COMPLETED"
