"""A state that was restored from a backup knows less than the workers: nothing runs twice or is lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.actual.backup import save_copy
from reconciler.actual.fsck.examine import examine
from reconciler.actual.restore import stage, swap
from reconciler.actual.store import Store
from reconciler.execution.queues.shell import ShellQueue
from tests.execution.support import World, gate, lines, running

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(autouse=True)
def _sure_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over is no longer in the queue; nothing else is, that it could be confused with."""
    monkeypatch.setattr(ShellQueue, "lost_after", 0.0)


def backup(world: World) -> Path:
    file = world.root / "backup.mdb"
    save_copy(world.store, file, overwrite=True)
    return file


def restore(world: World, file: Path) -> None:
    """Put a backup back, as the verb does, and go on with it as a new process would."""
    state_dir, now = world.store.path, time.time()
    world.store.close()
    swap(stage(file, state_dir, now), state_dir, now)
    world.store = Store(state_dir)
    world.reconcile()


def logging(world: World, *names: str) -> Path:
    """A chain of jobs, each of which appends its name to a file."""
    log = world.root / "log"
    jobs = []
    for number, name in enumerate(names):
        after = [{"$output": names[number - 1]}] if number else []
        jobs.append({"id": name, "function": "log_line", "args": [str(log), name, *after]})
    world.flow("f", *jobs)
    return log


def check_clean(world: World) -> None:
    assert world.view(lambda view: examine(view).problems) == []


def test_jobs_that_ran_after_the_backup_do_not_run_again_and_their_results_are_found(world: World) -> None:
    log = logging(world, "a", "b", "c")
    world.reconcile()
    early = backup(world)
    world.run()
    results = {name: world.output(f"f/{name}") for name in "abc"}
    restore(world, early)
    assert world.states("f/a", "f/b", "f/c") == ["READY", "WAITING", "WAITING"]
    world.run()
    assert world.states("f/a", "f/b", "f/c") == ["COMPLETED"] * 3
    assert {name: world.output(f"f/{name}") for name in "abc"} == results
    assert {world.job(f"f/{name}").attempt.number for name in "abc"} == {1}
    assert lines(log) == ["a", "b", "c"]
    assert any("started before the state was restored" in said for said in world.events("f/a"))
    check_clean(world)


def test_a_job_that_runs_meanwhile_is_followed(world: World) -> None:
    door = gate(world, "door")
    world.flow("f", {"id": "j", "function": "wait_for", "args": [str(door)]})
    world.reconcile()
    early = backup(world)
    world.until(running(world, "f/j"))
    queue_id = world.job("f/j").attempt.queue_id
    restore(world, early)
    world.until(lambda: world.job("f/j").attempt.queue_id == queue_id)
    door.touch()
    world.run()
    assert (world.state("f/j"), world.job("f/j").attempt.number) == ("COMPLETED", 1)


@pytest.mark.parametrize("moment", ["CHECKED_OUT", "UPLOADED", "SUBMITTED", "RUNNING"])
def test_a_backup_of_any_moment(world: World, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write of a pass may be the last one that a backup knows."""
    log = logging(world, "a", "b")
    world.reconcile()
    copies: dict[str, Path] = {}
    write = Store.write

    def copying(store: Store, change: Callable[..., object]) -> object:
        result = write(store, change)
        state = world.state("f/a")
        if state not in copies:
            copies[state] = world.root / state
            save_copy(store, copies[state])
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", copying)
        world.until(lambda: "RUNNING" in copies or world.state("f/b") == "COMPLETED")
    world.run()
    if moment not in copies:  # it was too quick to be seen running: its record is made by hand
        assert moment == "RUNNING"
        restore(world, copies["SUBMITTED"])
        world.edit("f/a", state="RUNNING")
    else:
        restore(world, copies[moment])
    assert world.state("f/a") == moment
    world.run()
    assert world.states("f/a", "f/b") == ["COMPLETED", "COMPLETED"]
    assert lines(log) == ["a", "b"]
    check_clean(world)


def test_generated_jobs_are_found_too(world: World) -> None:
    log = world.root / "log"
    world.flow("f", {"id": "g", "function": "log_and_generate", "args": [str(log)]})
    world.reconcile()
    early = backup(world)
    world.run()
    before = {path: (job.id, job.state) for path, job in world.jobs().items()}
    restore(world, early)
    world.run()
    assert {path: (job.id, job.state) for path, job in world.jobs().items()} == before
    assert len(lines(log)) == len(set(lines(log))) == len(before)


def test_a_failure_is_found_as_it_was_and_a_retry_runs_in_a_directory_of_its_own(world: World) -> None:
    log = world.root / "log"
    world.flow("f", {"id": "j", "function": "log_and_fail", "args": [str(log)]})
    world.reconcile()
    early = backup(world)
    world.run()
    restore(world, early)
    world.run()
    assert (world.state("f/j"), lines(log)) == ("FAILED", ["failed"])
    world.edit("f/j", state="READY")
    world.run()
    assert (world.state("f/j"), world.job("f/j").attempt.number, lines(log)) == ("FAILED", 2, ["failed"] * 2)


def test_where_the_run_directory_was_removed_the_job_runs_again(world: World) -> None:
    log = logging(world, "a")
    world.reconcile()
    early = backup(world)
    world.run()
    shutil.rmtree(world.job("f/a").attempt.run_dir or "")
    restore(world, early)
    world.run()
    assert (world.state("f/a"), lines(log)) == ("COMPLETED", ["a", "a"])


def test_a_withdrawn_attempt_does_not_count(world: World) -> None:
    log = logging(world, "a")
    world.reconcile()
    early = backup(world)
    claim = Path(world.root / "work" / "w1")
    restore(world, early)
    uuid = world.job("f/a").uuid
    bare = uuid.replace("-", "")
    claim = claim / bare[:2] / bare[2:4] / bare[4:6] / f"{uuid}_1" / "claim"
    claim.mkdir(parents=True)
    (claim / "withdrawn").touch()
    world.run()
    assert (world.state("f/a"), world.job("f/a").attempt.number, lines(log)) == ("COMPLETED", 2, ["a"])
