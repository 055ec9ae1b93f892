"""``cleanup`` of a worker: run directories of completed jobs go when their time has come, and no others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.store import unchanged_outcome
from reconciler.actual.writer import Writer
from reconciler.execution.executor import WorkerRunner
from reconciler.execution.worker.access import WorkerAccess
from reconciler.loop import Session, reconcile_once
from reconciler.watch.file_notices import FileNotices
from reconciler.watch.worker_thread import WorkerThread
from tests.execution.support import Listener, World, eventually
from tests.services.plugin import NewSshd

pytestmark = pytest.mark.usefixtures("warm")

MakeWorld = Callable[..., World]
DAY = 86400.0


def entries(world: World) -> list[str]:
    """The run directories that are still to be removed, due or not."""
    found: dict[bytes, str] = world.view(lambda view: view.due_cleanups("w1", 1e12, 1000))
    return sorted(found.values())


def run_dir(world: World, path: str) -> Path:
    return Path(str(world.job(path).attempt.run_dir))


def run(make_world: MakeWorld, cleanup: Any, **worker: Any) -> World:
    """Run two jobs that complete and two that do not."""
    world = make_world()
    world.repository.write("workers/workers.yaml", world.worker("w1", cleanup=cleanup, **worker))
    world.flow(
        "f",
        {"id": "a", "function": "give", "args": [1]},
        {"id": "b", "function": "total", "args": [[{"$output": "a"}, 1]]},
        {"id": "fails", "function": "fails", "args": ["x"]},
        {"id": "dies", "function": "dies", "args": [3]},
    )
    world.reconcile()
    world.run()
    assert world.states("f/a", "f/b", "f/fails", "f/dies") == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    assert world.output("f/b") == 2
    return world


def left(world: World) -> list[str]:
    """The jobs whose run directory is there."""
    return [name for name in ("a", "b", "fails", "dies") if run_dir(world, f"f/{name}").exists()]


def test_keep_is_the_default_and_keeps_all(make_world: MakeWorld) -> None:
    world = run(make_world, "keep")
    world.advance(time.time() + 1000 * DAY)
    assert (left(world), entries(world)) == (["a", "b", "fails", "dies"], [])


def test_completed_removes_exactly_those(make_world: MakeWorld) -> None:
    world = run(make_world, "completed")
    world.advance(time.time() + 1)  # nothing else is to be done on this worker
    assert eventually(lambda: left(world) == ["fails", "dies"])
    assert entries(world) == []
    assert world.output("f/a") == 1
    assert run_dir(world, "f/fails").parent.is_dir()
    assert {path.name for path in (world.work / "w1").iterdir()} >= {".outbox", ".launchers", ".code"}


def test_after_removes_nothing_before_its_time(make_world: MakeWorld) -> None:
    world = run(make_world, {"after": "7d"})
    ended = time.time()
    for later in (0, DAY, 6.9 * DAY):
        world.advance(ended + later)
    assert left(world) == ["a", "b", "fails", "dies"]
    assert len(entries(world)) == 2
    world.restart()
    world.advance(ended + 7 * DAY + 2)
    assert eventually(lambda: left(world) == ["fails", "dies"])
    assert entries(world) == []


def test_a_pass_that_is_due_finds_what_it_is_for(make_world: MakeWorld) -> None:
    """Else the daemon would make passes without a pause until the pass finds it."""
    world = run(make_world, {"after": "1d"})
    lane = only_runner(world)
    while (due := lane.due(time.time())) is not None:
        assert due > time.time() + 0.9 * DAY
        for early in (due - 0.999, due - 0.001, math.nextafter(due, 0)):
            before = entries(world)
            lane.advance(early)
            assert (entries(world), lane.due(early)) == (before, due)
        lane.advance(due)
        assert entries(world) != before
    assert entries(world) == []


def test_the_daemon_rests_until_a_removal_is_due(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = run(make_world, {"after": "1s"})
    passes: list[float] = []
    advance = WorkerRunner.advance

    def counted(lane: WorkerRunner, now: float) -> bool:
        passes.append(now)
        return advance(lane, now)

    monkeypatch.setattr(WorkerRunner, "advance", counted)
    notices = FileNotices()
    thread = WorkerThread(only_runner(world), time.time, notices, lambda: None)
    thread.start()
    try:
        assert eventually(lambda: left(world) == ["fails", "dies"] and not entries(world))
        time.sleep(1.2)
    finally:
        thread.end()
        thread.join()
        notices.close()
    assert len(passes) < 20, "some for calls, some that come a bit too early; not hundreds"


def only_runner(world: World) -> WorkerRunner:
    assert world.executor is not None
    (runner,) = world.executor.runners
    return runner


def test_a_removal_that_was_not_written_down_is_repeated_without_harm(make_world: MakeWorld) -> None:
    """A pass that is killed between the removal on the worker and the record of it."""
    world = run(make_world, {"after": "1d"})
    later = time.time() + 2 * DAY
    due: dict[bytes, str] = world.view(lambda view: view.due_cleanups("w1", later, 1000))
    world.advance(later)
    assert eventually(lambda: left(world) == ["fails", "dies"])

    def as_before(writer: Writer) -> None:
        for key, directory in due.items():
            writer.txn.put("cleanups", key, directory.encode())

    world.store.write(as_before)
    assert len(entries(world)) == 2
    world.restart()
    world.advance(later + 1)
    assert (left(world), entries(world)) == (["fails", "dies"], [])


def test_killed_before_the_removal_it_is_done_next_time(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = run(make_world, {"after": "1d"})
    later = time.time() + 2 * DAY

    def die(_: WorkerAccess) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkerAccess, "tidy_up", die)
        with pytest.raises(KeyboardInterrupt):
            world.advance(later)
    assert left(world) == ["a", "b", "fails", "dies"]
    world.restart()
    world.advance(later)
    assert eventually(lambda: left(world) == ["fails", "dies"])


def test_a_worker_that_is_away_keeps_what_is_to_be_done(make_world: MakeWorld, new_sshd: NewSshd) -> None:
    server = new_sshd()
    work_dir = f"{server.login.home}/cleanup {time.time_ns()}"
    world = run(make_world, {"after": "1d"}, type="remote", work_dir=work_dir, **server.worker_fields())
    server.stop()
    server.kill_sessions()
    later = time.time() + 2 * DAY
    world.restart()
    world.advance(later)
    assert (left(world), len(entries(world))) == (["a", "b", "fails", "dies"], 2)
    status = world.view(lambda view: view.worker_status("w1"))
    assert not status.reachable
    server.start()
    world.advance(status.next_try)
    assert eventually(lambda: left(world) == ["fails", "dies"])
    assert entries(world) == []


def test_each_attempt_has_its_own_entry_and_a_later_one_stays(make_world: MakeWorld) -> None:
    world = run(make_world, {"after": "1d"})
    world.flow("g", {"id": "j", "function": "give", "args": [9]})
    world.reconcile()
    tomorrow = time.time() + 1.5 * DAY
    while world.state("g/j") != "COMPLETED":
        world.advance(tomorrow)
        time.sleep(0.02)
    world.advance(tomorrow)
    assert eventually(lambda: left(world) == ["fails", "dies"])
    assert run_dir(world, "g/j").exists()
    assert entries(world) == [str(run_dir(world, "g/j"))]


def test_a_reconcile_with_nothing_to_do_removes_them_as_well(make_world: MakeWorld) -> None:
    world = run(make_world, {"after": "1s"})
    session = Session(world.source, world.store)
    reconcile_once(session, Listener())
    if entries(world):  # not yet, since the second was not over
        due = world.view(lambda view: view.outcome()).cleanup_at
        assert due == world.view(lambda view: view.next_cleanup("w1"))
        time.sleep(max(0.0, due - time.time()))
        before = unchanged_outcome(world.store, session.revision, due - 0.1)
        after = unchanged_outcome(world.store, session.revision, due)
        assert before is not None and before.idle
        assert after is not None and not after.idle
        assert reconcile_once(session, Listener()).plan is None
    # Those of jobs that ended in another second are due a second later.
    assert eventually(lambda: reconcile_once(session, Listener()).plan is None and not entries(world))
    assert eventually(lambda: left(world) == ["fails", "dies"])
    unchanged = unchanged_outcome(world.store, session.revision, time.time() + 1000 * DAY)
    assert unchanged is not None
    assert (unchanged.idle, unchanged.cleanup_at) == (True, None)


class TestKeptForReaders:
    """With ``cleanup: completed`` a directory stays while an unfinished job may read it."""

    @pytest.fixture
    def world(self, make_world: MakeWorld) -> World:
        world = make_world()
        world.repository.write(
            "workers/workers.yaml",
            world.worker("w1", cleanup="completed") + world.worker("w2", cleanup="completed"),
        )
        return world

    def hold(self, world: World, after: Any, **fields: Any) -> dict[str, Any]:
        """Return a job that waits for the file ``go``."""
        return {"id": "reader", "function": "wait_for", "args": [str(world.root / "go"), after], **fields}

    def check(self, world: World, path: str) -> None:
        """The directory stays until the reader has finished, however much time goes by, and then goes."""
        world.until(lambda: world.state(path) == "COMPLETED" and world.state("f/reader") == "RUNNING")
        assert world.executor is not None
        for later in (1, 20, 400):
            world.advance(time.time() + later)
            assert run_dir(world, path).is_dir()
            assert world.executor.runners[0].due(time.time() + later) is not None
        (world.root / "go").touch()
        world.run()
        assert eventually(lambda: not world.advance(time.time() + 800) and not run_dir(world, path).exists())

    def test_a_reference(self, world: World) -> None:
        world.flow("f", {"id": "a", "function": "give", "args": [1]}, self.hold(world, {"$output": "a"}))
        world.reconcile()
        self.check(world, "f/a")

    def test_a_reference_to_a_reference_on_another_worker(self, world: World) -> None:
        middle = {"id": "m", "function": "give", "args": [{"$output": "a"}]}
        reader = self.hold(world, {"$output": "m"}, worker="w2")
        world.flow("f", {"id": "a", "function": "give", "args": [1]}, middle, reader)
        world.reconcile()
        self.check(world, "f/a")

    def test_a_reference_of_another_flow(self, world: World) -> None:
        world.flow("e", {"id": "a", "function": "give", "args": [1]})
        world.flow("f", self.hold(world, {"$output": "e/a"}))
        world.reconcile()
        self.check(world, "e/a")

    def test_a_path_among_the_arguments(self, world: World) -> None:
        world.flow("f", {"id": "a", "function": "give", "args": [1]})
        world.reconcile()
        world.until(lambda: world.state("f/a") == "COMPLETED")
        where = str(run_dir(world, "f/a"))
        world.flow("f", {"id": "a", "function": "give", "args": [1]}, self.hold(world, f"file://{where}/OUT"))
        world.reconcile()
        self.check(world, "f/a")

    def test_a_failed_reader_can_be_retried(self, world: World) -> None:
        reader = {"id": "reader", "function": "dies", "args": [{"$output": "a"}]}
        world.flow("f", {"id": "a", "function": "give", "args": [3]}, reader)
        world.reconcile()
        world.run()
        world.advance(time.time() + 400)
        assert world.states("f/a", "f/reader") == ["COMPLETED", "FAILED"]
        assert run_dir(world, "f/a").is_dir()
