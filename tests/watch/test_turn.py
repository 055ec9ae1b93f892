"""Whose state it is: a daemon that waits for its turn, and one that stands before the state of another."""

from __future__ import annotations

import shutil
import time

from reconciler.actual.layout import big_endian
from reconciler.actual.migrations import SCHEMA_VERSION
from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from tests.support import Repository
from tests.watch.support import WatchWorld, eventually

NEVER = ("--interval", "100000")


def test_who_waits_for_its_turn_works_on_what_is_there_then(watched: WatchWorld) -> None:
    """A restore, which has the lease, puts another store into the place of the one that was there."""
    _run_flow(watched, "old")
    copy = watched.root / "copy"
    shutil.copytree(watched.state / "lmdb", copy)
    _run_flow(watched, "gone")
    with Lease(watched.state) as lease:
        lease.acquire(time.time())
        watch = watched.start(*NEVER, "--standby", ready=False)
        watch.until("standby")
        (watched.state / "lmdb").rename(watched.state / "lmdb.before")
        copy.rename(watched.state / "lmdb")
    watch.until("begun")
    watched.log_flow("new")
    watched.commit()
    both = {"gone/j", "new/j"}
    eventually(lambda: both <= _completed(watched), "both jobs in the present store", watch)
    assert watch.end() == 0
    assert _completed(watched) == {"old/j", "gone/j", "new/j"}, (
        "what the restored state did not know ran again"
    )


def test_who_waits_for_its_turn_migrates_under_its_own_lease(watched: WatchWorld) -> None:
    """The service of a new version, started while an old one still works."""
    with Lease(watched.state) as lease:
        lease.acquire(time.time())
        store = Store(watched.state)  # without jobs: their records would have to be those of schema 1
        store.write(lambda writer: writer.txn.put("meta", b"schema", big_endian(1)))
        store.close()
        watch = watched.start(*NEVER, "--standby", ready=False)
        watch.until("standby")
    watch.until("begun")
    watched.log_flow("new")
    watched.commit()
    eventually(lambda: "new/j" in _completed(watched), "new/j", watch)
    assert list(watched.state.glob(f"before-schema-{SCHEMA_VERSION}-*.mdb"))


def test_the_state_of_another_repository_is_left_alone(watched: WatchWorld) -> None:
    gate = watched.waiting_flow("theirs")
    watched.commit()
    first = watched.start(*NEVER)
    watched.until_state("theirs/wait", "RUNNING")
    first.end()
    other = Repository(watched.root / "other")
    shutil.copytree(watched.repository.path / "lib", other.path / "lib")
    shutil.copy(watched.repository.path / "reconciler.yaml", other.path)
    shutil.copytree(watched.repository.path / "workers", other.path / "workers")
    other.commit("another beginning")
    gate.touch()
    done = watched.run("--repo", str(other.path), "watch")
    assert done.returncode == 4
    assert "belongs to project 'watched' (repository with root" in done.stderr
    assert watched.jobs()["theirs/wait"].state == "RUNNING", "it is taken in by who knows it"


def test_another_repository_that_can_be_read_only_later_is_found_out_then(watched: WatchWorld) -> None:
    watched.log_flow("theirs")
    watched.commit()
    first = watched.start(*NEVER)
    watched.until_state("theirs/j", "COMPLETED")
    first.end()
    place = watched.root / "later"
    url = f"file://{place}"
    second = watched.start("--interval", "1", "--repo", url, ready=False)
    eventually(lambda: second.told("reconcile-failed"), "a failure", second)
    other = Repository(place)
    shutil.copy(watched.repository.path / "reconciler.yaml", other.path)
    other.commit("another beginning")
    assert second.wait() == 4


def _run_flow(world: WatchWorld, name: str) -> None:
    world.log_flow(name)
    world.commit()
    done = world.run("--once", "--wait")
    assert done.returncode == 0, done.stderr


def _completed(world: WatchWorld) -> set[str]:
    store = Store(world.state, read_only=True)
    with store.read() as view:
        found = {job.path for job in view.jobs() if job.state == "COMPLETED"}
    store.close()
    return found
