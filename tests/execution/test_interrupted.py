"""Cancelling in every state, and passes that were interrupted between an effect and its record."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.queues.shell import ShellQueue
from reconciler.execution.start import JobStarter
from reconciler.model.flows import job_id
from reconciler.model.records import Cancellation, JobRecord, WorkerStatus
from reconciler.model.states import JobState
from tests.execution.support import World, eventually, gate, lines, processes_below, running
from tests.services.programs import PATIENCE

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too

MakeWorld = Callable[..., World]

# cancelling -------------------------------------------------------------------------------------------


def test_cancel_of_a_running_job_ends_its_grandchildren(world: World) -> None:
    path = gate(world, "child")
    world.flow("f", {"id": "j", "function": "ignores_the_end", "args": [str(path)]})
    world.reconcile()
    world.until(lambda: path.exists() and running(world, "f/j")())
    world.edit("f/j", cancellation=Cancellation(reason="no longer wanted"))
    world.run()
    job = world.job("f/j")
    assert (job.state, job.cancellation.reason) == (JobState.USER_STOPPED, None)
    assert eventually(lambda: processes_below(world.work) == [])
    assert any("no longer wanted" in event for event in world.events("f/j"))


@pytest.mark.parametrize("state", ["CHECKED_OUT", "UPLOADED", "SUBMITTED", "RUNNING"])
def test_cancel_in_every_active_state(world: World, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world.flow("f", {"id": "j", "function": "wait_for", "args": [str(gate(world, "g"))]})
    world.reconcile()
    _bring_to(world, state, monkeypatch)
    world.edit("f/j", cancellation=Cancellation(reason="removed"))
    world.run()
    assert world.state("f/j") == "USER_STOPPED"
    assert eventually(lambda: processes_below(world.work) == [])
    assert gate(world, "g.runs").exists() is (state == "RUNNING") or state == "SUBMITTED"


def _bring_to(world: World, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make passes that are interrupted just after the job got to a state."""
    if state == "RUNNING":
        world.until(lambda: running(world, "f/j")() and gate(world, "g.runs").exists())
        return
    step = {"CHECKED_OUT": "upload", "UPLOADED": "start"}.get(state)
    if step is not None:
        with monkeypatch.context() as patch:
            patch.setattr(JobStarter, step, _interrupt)
            with pytest.raises(KeyboardInterrupt):
                world.advance()
        world.restart()
    else:
        world.advance()
    assert world.state("f/j") == state


def _interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("warm")
def test_a_job_that_never_started_is_cancelled_while_its_worker_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.flow("f", {"id": "j", "function": "give", "args": [1]})
    world.reconcile()
    _bring_to(world, "CHECKED_OUT", monkeypatch)
    away = WorkerStatus(reachable=False, reason="away", failures=9, next_try=time.time() + 1000)
    world.store.write(lambda writer: writer.put_worker_status("w1", away))
    world.edit("f/j", cancellation=Cancellation(reason="removed"))
    world.advance()
    assert world.state("f/j") == "USER_STOPPED"


@pytest.mark.usefixtures("warm")
def test_cancelled_before_its_late_script_claims(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupted submission's script comes only after the job was given up: it must not run."""
    log = world.root / "log"
    world.flow("f", {"id": "j", "function": "log_line", "args": [str(log), "ran"]})
    world.reconcile()
    _bring_to(world, "UPLOADED", monkeypatch)
    world.edit("f/j", cancellation=Cancellation(reason="removed"))
    world.run()
    assert world.state("f/j") == "USER_STOPPED"
    assert os.system(f"cd '{world.job('f/j').attempt.run_dir}' && bash submit.sh") == 0
    assert lines(log) == []


def _generator_that_has_just_ended(world: World) -> None:
    """Run a generator up to its marker, which the executor has not seen yet."""
    world.flow("f", {"id": "j", "function": "opens_gate_then_generates", "args": [str(gate(world, "g"))]})
    world.reconcile()
    world.until(running(world, "f/j"))
    gate(world, "g").touch()
    assert eventually(lambda: any((world.work / "w1" / ".outbox").glob("*.1")))


@pytest.mark.usefixtures("warm")
def test_what_a_cancelled_job_asked_for_is_not_run(world: World) -> None:
    _generator_that_has_just_ended(world)
    world.edit("f/j", cancellation=Cancellation(reason="removed"), current=False)
    world.run()
    assert world.states("f/j", "f/child") == ["COMPLETED", "USER_STOPPED"]
    assert not world.job("f/child").current


@pytest.mark.usefixtures("warm")
def test_what_a_suspended_flow_generates_is_paused(world: World) -> None:
    _generator_that_has_just_ended(world)
    args = [str(gate(world, "g"))]
    world.flow("f", {"id": "j", "function": "opens_gate_then_generates", "args": args}, suspend=True)
    world.reconcile()
    world.run()
    assert world.states("f/j", "f/child") == ["COMPLETED", "PAUSED"]
    world.flow("f", {"id": "j", "function": "opens_gate_then_generates", "args": args})
    world.reconcile()
    world.run()
    assert world.state("f/child") == "COMPLETED"


# interrupted submissions ------------------------------------------------------------------------------


@pytest.mark.usefixtures("warm")
def test_an_interrupted_submission_is_adopted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the submission and its record: the script has claimed its attempt."""
    world.flow("f", {"id": "j", "function": "wait_for", "args": [str(gate(world, "g"))]})
    world.reconcile()
    _bring_to(world, "UPLOADED", monkeypatch)
    pid = _start_by_hand(world.job("f/j"))
    world.until(gate(world, "g.runs").exists)
    world.until(running(world, "f/j"))
    assert world.job("f/j").attempt.queue_id == str(pid)
    gate(world, "g").touch()
    world.run()
    assert world.state("f/j") == "COMPLETED"


def _start_by_hand(job: JobRecord) -> int:
    """Start the script of a job as an interrupted pass has done; the process is nobody's child."""
    start = ShellQueue().submit_command("submit.sh")
    return int(LocalHost().run(f"cd '{job.attempt.run_dir}' && {start}", timeout=60).stdout)


@pytest.mark.usefixtures("warm")
def test_a_submission_that_had_not_claimed_yet_runs_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second script finds the claim and ends; the first one is found again under its own id."""
    log, door = world.root / "log", gate(world, "g")
    world.flow(
        "f",
        {"id": "j", "function": "wait_for", "args": [str(door)]},
        {"id": "k", "function": "log_line", "args": [str(log), "k", {"$output": "j"}]},
    )
    world.reconcile()
    _bring_to(world, "UPLOADED", monkeypatch)
    pid = _start_by_hand(world.job("f/j"))
    claim = Path(world.job("f/j").attempt.run_dir or "") / "claim" / "queue_id"
    assert eventually(claim.exists)
    claim.rename(claim.with_name("not yet"))
    world.advance()
    assert world.state("f/j") == "SUBMITTED"
    assert world.job("f/j").attempt.queue_id != str(pid)
    claim.with_name("not yet").rename(claim)
    world.until(lambda: world.job("f/j").attempt.queue_id == str(pid))
    assert world.state("f/j") == "RUNNING"
    door.touch()
    world.run()
    assert world.states("f/j", "f/k") == ["COMPLETED", "COMPLETED"]
    assert lines(log) == ["k"]


@pytest.mark.usefixtures("warm")
def test_a_run_directory_of_a_forgotten_life_is_not_used(make_world: MakeWorld) -> None:
    """The state was deleted, the work directory was not: old claims and results do not count."""
    world = make_world()
    world.flow("f", {"id": "j", "function": "fails", "args": ["the first time"]})
    world.reconcile()
    world.run()
    old = world.job("f/j")
    world.store.write(lambda writer: writer.delete_job(old))
    world.flow("f", {"id": "j", "function": "fails", "args": ["the first time"]}, priority=1)
    world.reconcile()
    world.run()
    new = world.job("f/j")
    assert job_id(new.uuid, new.index) == old.id
    assert new.state is JobState.FAILED
    assert new.attempt.run_dir != old.attempt.run_dir


# markers ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("warm")
def test_a_marker_that_an_interrupted_pass_left_is_removed_later(world: World) -> None:
    one = {"id": "first", "function": "give", "args": [1]}
    world.flow("f", dict(one))
    world.reconcile()
    world.run()
    first = world.job("f/first")
    outbox = world.work / "w1" / ".outbox"
    mine, foreign = outbox / f"{first.id}.{first.attempt.number}", outbox / "somebody-else_1.1"
    assert not mine.exists()
    mine.touch()
    foreign.touch()
    world.flow("f", dict(one), {"id": "next", "function": "give", "args": [2]})
    world.reconcile()
    world.run()
    assert world.state("f/next") == "COMPLETED"
    assert not mine.exists()
    assert foreign.exists(), "the directory may be shared with another project"


@pytest.mark.usefixtures("warm")
def test_a_script_that_is_just_starting_is_not_taken_for_withdrawn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has made the file of its queue id and is about to write into it."""
    world.flow("f", {"id": "j", "function": "give", "args": [1]})
    world.reconcile()
    _bring_to(world, "UPLOADED", monkeypatch)
    claim = Path(world.job("f/j").attempt.run_dir or "") / "claim"
    claim.mkdir()
    (claim / "queue_id").touch()
    world.edit("f/j", cancellation=Cancellation(reason="removed"))
    world.advance()
    assert world.state("f/j") == "UPLOADED"
    world.run()  # the file is still empty: its script died before it could write
    assert world.state("f/j") == "USER_STOPPED"


@pytest.mark.usefixtures("warm")
def test_a_withdrawal_is_faster_than_a_script_that_has_its_claim(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names the claim first wins, whatever the clocks of the machines say."""
    log = world.root / "log"
    world.flow("f", {"id": "j", "function": "log_line", "args": [str(log), "x"]})
    world.reconcile()
    _bring_to(world, "UPLOADED", monkeypatch)
    directory = Path(world.job("f/j").attempt.run_dir or "")
    script = (directory / "submit.sh").read_text()
    assert script.count("if mkdir claim 2>/dev/null; then") == 1
    slow = script.replace(
        "if mkdir claim 2>/dev/null; then",
        f"if mkdir claim; then\nuntil [ -e {world.root}/go ]; do sleep 0.05; done",
    )
    with subprocess.Popen(["bash", "-c", slow], cwd=directory) as started:
        assert eventually((directory / "claim").exists)
        world.edit("f/j", cancellation=Cancellation(reason="removed"))
        world.advance()
        assert world.state("f/j") == "USER_STOPPED"
        (world.root / "go").touch()
        assert started.wait(PATIENCE) == 0
    assert not log.exists()


@pytest.mark.usefixtures("warm")
def test_a_claim_without_a_name_is_withdrawn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.flow("f", {"id": "j", "function": "give", "args": [1]})
    world.reconcile()
    _bring_to(world, "UPLOADED", monkeypatch)
    (Path(world.job("f/j").attempt.run_dir or "") / "claim").mkdir()
    world.edit("f/j", cancellation=Cancellation(reason="removed"))
    world.advance()
    assert world.state("f/j") == "USER_STOPPED"
