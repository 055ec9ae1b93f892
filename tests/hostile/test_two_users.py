"""Two users on one machine: the other one can read, write, link and signal nothing of ours."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.actual.daemon_requests import Requests
from reconciler.actual.state_dir import Lease, require_private
from reconciler.errors import RefusedError, TransientError
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.upload import Repository
from reconciler.model.manifests import WorkerSpec
from tests.execution.support import World, end_processes_below, running
from tests.services.login import Login

pytestmark = pytest.mark.usefixtures("warm")

SECRET = "canary-of-the-first-user"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user can enter, as the file system of a login node is."""
    with tempfile.TemporaryDirectory(prefix="two-users-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def other(new_account: Callable[..., Login]) -> Login:
    """Another user; without root this is an error, not a skip."""
    return new_account(shell="/bin/bash")


def as_other(other: Login, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-c", script, "other", *arguments],
        user=other.uid,
        group=other.gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_other_user(shared: Path, other: Login) -> None:
    before = os.umask(0)  # the worst one: only what the program does itself protects
    world = World(shared)
    lease = Lease(world.store.path)
    try:
        world.flow(
            "f",
            {"id": "a", "function": "give", "args": [SECRET]},
            {"id": "sleeps", "function": "wait_for", "args": [str(shared / "gate")]},
        )
        world.reconcile()
        world.until(running(world, "f/sleeps"))
        world.until(lambda: world.state("f/a") == "COMPLETED")
        lease.acquire(1.0, "watch")
        Requests(world.store.path).ask("ada", 1.0)
        state, work = str(world.store.path), str(world.work)
        pid = world.job("f/sleeps").attempt.queue_id
        assert (
            pid is not None
            and SECRET in subprocess.run(["grep", "-r", SECRET, work], capture_output=True, text=True).stdout
        ), "the canary is there for its owner"

        found = as_other(other, 'find "$1" "$2" -mindepth 1 2>/dev/null', state, f"{work}/w1")
        assert found.stdout == "", "nothing below is listed"
        for attack in (
            'cat "$1"/lmdb/data.mdb',
            'echo > "$1"/lease',
            'flock -n "$1"/lease true',
            'echo {} > "$1"/requests/0123456789abcdef.request',
            'ln -s /tmp "$1"/x',
            'mv "$1" "$1".mine',
            'echo > "$2"/w1/.outbox/x',
            'echo > "$2"/w1/.launchers/json.py',
            'ln "$1"/lmdb/data.mdb /tmp/mine.$$',
            'ls "$2"/w1/.code',
            "kill -0 $3",
            "kill -TERM -- -$3",
            "cat /proc/$3/environ",
            "ls /proc/$3/fd",
        ):
            done = as_other(other, attack, state, work, pid)
            assert done.returncode != 0, attack
        assert running(world, "f/sleeps")()
        holder = as_other(other, "grep -r canary /proc/*/cmdline 2>/dev/null | grep -v grep")
        assert SECRET not in holder.stdout
    finally:
        os.umask(before)
        lease.release()
        world.close()
        end_processes_below(world.work)


def test_a_place_that_the_other_user_has_prepared(shared: Path, other: Login) -> None:
    """In a directory like /tmp, where everybody may make files: what is there already is not used."""
    shared.chmod(0o1777)
    done = as_other(
        other, 'cd "$1" && umask 0 && mkdir state && mkdir -m 755 work && mkdir work/.launchers', str(shared)
    )
    assert done.returncode == 0, done.stderr

    with pytest.raises(RefusedError, match="another user"):
        require_private(shared / "state")
    spec = WorkerSpec(type="local", scheduler_type="shell", work_dir=str(shared / "work"))
    access = WorkerAccess("w", spec, Repository(lambda _: [], lambda _: iter(())), LocalHost())
    with pytest.raises(TransientError, match="another user"):
        access.prepare(may_create=True)
    access.host.close()
