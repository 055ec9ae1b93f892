"""Workers and revisions that change while the daemon is at work; what fails hurts only itself."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from reconciler.model.applied import Attempt
from tests.execution.support import lines
from tests.watch.support import WatchWorld, eventually

NEVER = ("--interval", "100000")


def attempt(world: WatchWorld) -> Attempt:
    found = world.read(lambda view: view.attempt())
    assert isinstance(found, Attempt)
    return found


def log_job(world: WatchWorld, name: str, **more: object) -> dict[str, object]:
    return {"id": name, "function": "log_line", "args": [str(world.root / "log"), name], **more}


# workers ----------------------------------------------------------------------------------------------


def test_a_new_limit_holds_at_once_and_what_runs_runs_on(watched: WatchWorld) -> None:
    watched.worker("w1", max_jobs=1)
    gates = [watched.root / f"gate-{n}" for n in range(3)]
    jobs = [{"id": f"j{n}", "function": "wait_for", "args": [str(gate)]} for n, gate in enumerate(gates)]
    watched.flow("flow", *jobs)
    watched.commit()
    watched.start(*NEVER)
    first = watched.until_state("flow/j0", "RUNNING")
    assert watched.jobs()["flow/j1"].state == "READY"
    watched.worker("w1", max_jobs=3)
    watched.commit()
    for name in ("flow/j1", "flow/j2"):
        watched.until_state(name, "RUNNING")
    for gate in gates:
        gate.touch()
    for number in range(3):
        done = watched.until_state(f"flow/j{number}", "COMPLETED")
        assert done.attempt.number == 1
    assert watched.jobs()["flow/j0"].attempt.queue_id == first.attempt.queue_id


def test_a_worker_that_was_removed_serves_until_its_jobs_end(watched: WatchWorld) -> None:
    gate = watched.waiting_flow("old", worker="w2")
    watched.commit()
    watched.start(*NEVER)
    watched.until_state("old/wait", "RUNNING")
    watched.repository.remove("workers/w2.yaml")
    watched.waiting_flow("old", worker="w1")
    watched.flow("new", log_job(watched, "new"))
    watched.commit()
    watched.until_state("new/new", "COMPLETED")
    gate.touch()
    assert watched.until_state("old/wait", "COMPLETED").attempt.worker == "w2"


def test_a_worker_whose_directory_cannot_be_made_hurts_no_other(watched: WatchWorld) -> None:
    obstacle = watched.root / "a-file"
    obstacle.touch()
    watched.worker("w2", work_dir=str(obstacle / "work"))
    watched.flow("bad", log_job(watched, "bad"), worker="w2")
    watched.flow("good", log_job(watched, "good"))
    watched.commit()
    watch = watched.start(*NEVER)
    watched.until_state("good/good", "COMPLETED")
    watch.until("worker-unreachable", worker="w2")
    assert watched.jobs()["bad/bad"].state in ("READY", "CHECKED_OUT")
    obstacle.unlink()
    watched.until_state("bad/bad", "COMPLETED")
    watch.until("worker-reachable", worker="w2")


# revisions --------------------------------------------------------------------------------------------


def test_a_flow_that_cannot_be_built_hurts_only_itself(watched: WatchWorld) -> None:
    watched.put("Flow", "broken", {"factory": {"function": "simple_jobs.no_such_function"}})
    watched.flow("good", log_job(watched, "good"))
    watched.commit()
    watched.start(*NEVER)
    watched.until_state("good/good", "COMPLETED")
    assert attempt(watched).result == "Invalid"
    assert "no_such_function" in attempt(watched).message


def test_a_repository_that_is_away_stops_no_job(watched: WatchWorld) -> None:
    gate = watched.waiting_flow("flow")
    watched.commit()
    watch = watched.start(*NEVER, "--repo", str(watched.repository.path))
    watched.until_state("flow/wait", "RUNNING")
    away = watched.repository.path.with_name("away")
    watched.repository.path.rename(away)
    watch.send(signal.SIGHUP)
    eventually(lambda: attempt(watched).result == "Failed", "a failed attempt", watch)
    assert attempt(watched).next_try > attempt(watched).time
    gate.touch()
    watched.until_state("flow/wait", "COMPLETED")
    away.rename(watched.repository.path)
    watched.flow("later", log_job(watched, "later"))
    watched.commit()
    watched.until_state("later/later", "COMPLETED")
    assert attempt(watched).result == "Applied"


def test_what_a_guard_refuses_waits_for_a_word_or_for_another_commit(watched: WatchWorld) -> None:
    watched.flow("flow", log_job(watched, "j"))
    watched.commit()
    watch = watched.start(*NEVER)
    watched.until_state("flow/j", "COMPLETED")
    watched.repository.remove("flows/flow.yaml")
    head = watched.commit()
    eventually(lambda: attempt(watched).result == "Refused", "a refusal", watch)
    assert attempt(watched).revision == head
    asked = watched.run("now", "--wait")
    assert asked.returncode == 4
    assert "--allow-prune" in asked.stderr
    allowed = watched.run("now", "--wait", "--allow-prune")
    assert allowed.returncode == 0, allowed.stderr
    assert f"{head}: 1 flow to remove" in allowed.stdout


# processes --------------------------------------------------------------------------------------------


def test_a_second_daemon_is_told_who_works(watched: WatchWorld) -> None:
    watched.commit()
    watch = watched.start(*NEVER)
    second = watched.run("watch")
    assert second.returncode == 4
    assert f"pid {watch.pid} on " in second.stderr


def test_one_that_stands_by_takes_over_from_one_that_dies(watched: WatchWorld) -> None:
    watched.commit()
    first = watched.start(*NEVER)
    first.until("reconciled")
    second = watched.start(*NEVER, "--standby", ready=False)
    second.until("standby")
    first.kill()
    second.until("begun")
    watched.flow("flow", log_job(watched, "j"))
    watched.commit()
    watched.until_state("flow/j", "COMPLETED")


def test_a_request_of_a_daemon_that_died_is_not_done_unasked(watched: WatchWorld) -> None:
    watched.flow("flow", log_job(watched, "j"))
    watched.commit()
    first = watched.start(*NEVER)
    watched.until_state("flow/j", "COMPLETED")
    first.send(signal.SIGSTOP)
    watched.repository.remove("flows/flow.yaml")
    watched.commit()
    assert watched.run("now", "--allow-prune").returncode == 0
    first.kill()
    second = watched.start(*NEVER)
    eventually(lambda: attempt(watched).result == "Refused", "a refusal", second)
    assert watched.jobs()["flow/j"].current


# reconcile --once beside a daemon ---------------------------------------------------------------------


def test_once_lets_the_daemon_make_the_pass(watched: WatchWorld) -> None:
    watched.commit()
    watch = watched.start(*NEVER)
    watch.until("reconciled")
    watched.flow("flow", log_job(watched, "j"))
    watched.commit()
    done = watched.run("--once", "--wait")
    assert done.returncode == 0, done.stderr
    assert f"pid {watch.pid} on " in done.stderr
    assert "1 flow, 1 job; nothing is running" in done.stdout
    assert lines(watched.root / "log") == ["j"]


@pytest.mark.parametrize(("wait", "code"), [(("--wait",), 1), ((), 0)])
def test_once_tells_how_the_jobs_of_the_daemon_ended(
    watched: WatchWorld, wait: tuple[str, ...], code: int
) -> None:
    watched.flow("flow", {"id": "j", "function": "fails", "args": ["on purpose"]})
    watched.commit()
    watched.start(*NEVER)
    watched.until_state("flow/j", "FAILED")
    done = watched.run("--once", *wait)
    assert done.returncode == code, done.stderr
    assert "Degraded: flow" in done.stdout


def test_once_says_so_when_the_daemon_dies(watched: WatchWorld, tmp_path: Path) -> None:
    watched.commit()
    watch = watched.start(*NEVER)
    watch.until("reconciled")
    watched.waiting_flow("flow")
    watched.commit()
    watched.until_state("flow/wait", "RUNNING")
    watch.send(signal.SIGSTOP)

    threading.Timer(1.0, watch.process.kill).start()
    done = watched.run("--once", "--wait")
    assert done.returncode == 3
    assert "the daemon ended before it answered" in done.stderr


# threads that die -------------------------------------------------------------------------------------

DIES_ONCE = (
    "from reconciler.watch import worker_thread as w; once = [w.WorkerThread.run]; "
    "w.WorkerThread.run = lambda thread: (once.pop() if len(once) == 2 else once[0])(thread); "
    "once.append(lambda thread: 1 / 0)"
)


def test_a_thread_that_dies_is_told_and_replaced(watched: WatchWorld) -> None:
    """The notices may have died with it, so everybody looks by himself from then on."""
    watched.flow("flow", log_job(watched, "j"))
    watched.commit()
    watch = watched.start(fault=DIES_ONCE)
    bug = watch.until("thread-bug")
    assert "ZeroDivisionError" in bug["message"]
    assert "Traceback" in bug["traceback"]
    watched.until_state("flow/j", "COMPLETED")
    watched.flow("more", log_job(watched, "k"))
    watched.commit()
    watched.until_state("more/k", "COMPLETED")


# duties that fail -------------------------------------------------------------------------------------

NO_ROOM = (
    "import reconciler.watch.daemon as d; from reconciler.errors import WorldError; "
    "d.begin_due = lambda *anything: (_ for _ in ()).throw(WorldError('no room'))"
)


def test_a_duty_that_fails_is_told_once_and_delays_no_other(watched: WatchWorld) -> None:
    watched.flow("flow", log_job(watched, "j"))
    watched.commit()
    watch = watched.start(*NEVER, fault=NO_ROOM)
    watch.until("store-failed", message="no room")
    watched.until_state("flow/j", "COMPLETED")
    watch.until("State", about="job/flow/j")
    time.sleep(3)  # three ticks
    assert len(watch.told("store-failed")) == 1
    assert watch.end() == 0


def test_a_store_of_outputs_that_cannot_be_opened_stops_its_users_only(watched: WatchWorld) -> None:
    """A service has few variables of the environment: the one with a password may be missing."""
    project = (watched.repository.path / "reconciler.yaml").read_text()
    docs = "{docs_store: {type: JSONStore, paths: {env: DOCS_FILE}, read_only: false}}"
    watched.repository.write("reconciler.yaml", project.replace("spec: {", f"spec: {{jobstore: {docs}, "))
    watched.flow("flow", log_job(watched, "j"))
    watched.commit()
    watch = watched.start(*NEVER)
    watch.until("worker-unreachable", worker="w1")
    rows = json.loads(watched.run("get", "workers", "-o", "json").stdout)
    (row,) = (row for row in rows if row["name"] == "w1")
    assert not row["reachable"] and "DOCS_FILE is not set" in row["reason"]
    assert watched.jobs()["flow/j"].attempt.number == 1
    watch.end()
    watched.start(*NEVER, env={"DOCS_FILE": str(watched.root / "docs.json")})
    assert watched.until_state("flow/j", "COMPLETED").attempt.number == 1
