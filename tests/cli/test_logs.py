"""``reconcile logs``: what a job wrote, from wherever it ran, and what is said when it cannot be read."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ended
from tests.execution.support import World
from tests.services.plugin import NewSshd
from tests.services.sshd import Sshd

pytestmark = pytest.mark.usefixtures("warm")

Logs = Callable[..., Ended]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "world")
    yield world
    world.close()


@pytest.fixture
def logs(world: World, program: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> Logs:
    monkeypatch.chdir(world.repository.path)
    return lambda *arguments: program("logs", *arguments, "--state-dir", str(world.root / "state"))


def run_on(world: World, **worker: Any) -> Path:
    """Run a job that prints, on a worker; return its run directory."""
    world.yaml(
        "lib/prints.py",
        """
        import sys
        from jobflow import job

        @job
        def prints():
            sys.stdout.buffer.write("größer\\n".encode() + b"\\xff\\n")
            print("oh", file=sys.stderr)
        """,
    )
    world.repository.write("workers/workers.yaml", world.worker("w1", **worker))
    world.flow("f", {"id": "j", "function": "prints.prints"})
    world.reconcile()
    world.run()
    assert world.state("f/j") == "COMPLETED"
    return Path(str(world.job("f/j").attempt.run_dir))


def over_ssh(sshd: Sshd) -> dict[str, Any]:
    work_dir = f"{sshd.login.home}/logs {secrets.token_hex(4)}"
    return {"type": "remote", "work_dir": work_dir, **sshd.worker_fields()}


def check_streams(logs: Logs) -> None:
    assert logs("f/j") == (0, "größer\n\ufffd\n", "oh\n")
    assert logs("f/j", "--stdout") == (0, "größer\n\ufffd\n", "")
    assert logs("f/j", "--stderr") == (0, "oh\n", "")


def test_local(world: World, logs: Logs) -> None:
    run_on(world, work_dir=str(world.work / "a b'c"))
    check_streams(logs)


def test_over_ssh(world: World, logs: Logs, sshd: Sshd) -> None:
    run_on(world, **over_ssh(sshd))
    check_streams(logs)


def test_both_streams_cost_one_connection(world: World, logs: Logs, new_sshd: NewSshd) -> None:
    server = new_sshd()
    run_on(world, **over_ssh(server))
    before = server.log.read_text().count("Accepted publickey")
    assert logs("f/j").code == 0
    assert server.log.read_text().count("Accepted publickey") == before + 1


def test_a_file_that_is_not_there_is_empty(world: World, logs: Logs) -> None:
    run_dir = run_on(world)
    for file in run_dir.iterdir():
        if file.is_file():
            file.unlink()
    code, out, err = logs("f/j")
    assert (code, out) == (0, "")
    assert err.startswith("f/j (") and err.endswith(") has written nothing to stdout and stderr\n")
    assert logs("f/j", "--stderr")[2].endswith("has written nothing to stderr\n")


def test_a_run_directory_that_is_gone(world: World, logs: Logs) -> None:
    run_dir = run_on(world)
    shutil.rmtree(run_dir)
    assert logs("f/j") == (2, "", f"error: the run directory of f/j is gone: {run_dir}\n")


@pytest.mark.parametrize(
    ("cleanup", "policy"), [("completed", "completed"), ({"after": "1s"}, "after 1s")], ids=str
)
def test_a_run_directory_that_was_cleaned_up(world: World, logs: Logs, cleanup: Any, policy: str) -> None:
    run_dir = run_on(world, cleanup=cleanup)
    while run_dir.exists():
        world.advance()
    done = logs("f/j")
    assert done.code == 2
    assert done.stderr == (
        f"error: the run directory of f/j is gone: {run_dir}; its worker has cleanup: {policy}\n"
    )


def test_a_worker_that_left_the_repository(world: World, logs: Logs) -> None:
    run_dir = run_on(world)
    world.repository.write("workers/workers.yaml", world.worker("w2"))
    world.repository.write_yaml(
        "reconciler.yaml",
        """
        apiVersion: reconciler/v1
        kind: Project
        metadata: {name: test}
        spec: {python_path: [lib], defaults: {worker: w2}}
        """,
    )
    world.reconcile()
    done = logs("f/j")
    assert done.code == 2
    assert done.stderr == (
        "error: f/j ran on worker 'w1', which is no longer in the repository\n"
        f"  help: on that worker, its files were in {run_dir}\n"
    )


def test_unreachable_worker(world: World, logs: Logs, new_sshd: NewSshd) -> None:
    server = new_sshd()
    run_on(world, **over_ssh(server))
    server.stop()
    server.kill_sessions()
    done = logs("f/j")
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ")
    assert "no SSH server listens there" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_earlier_attempt(world: World, logs: Logs, program: Callable[..., Ended]) -> None:
    """Each attempt has a directory of its own, and stays readable."""
    world.yaml("lib/counts.py", "import os\n\n\ndef say(): print(os.path.basename(os.getcwd()))\n")
    world.repository.write("workers/workers.yaml", world.worker("w1"))
    world.flow("f", {"id": "j", "function": "counts.say"})
    world.reconcile()
    world.run()
    first = world.job("f/j").attempt.run_dir
    state = ("--state-dir", str(world.root / "state"))
    assert program("rerun", "f/j", *state).code == 0
    world.run()
    second = world.job("f/j").attempt.run_dir
    assert first != second
    assert logs("f/j").stdout.strip() == Path(str(second)).name
    assert logs("f/j", "--attempt", "1").stdout.strip() == Path(str(first)).name
    done = logs("f/j", "--attempt", "3")
    assert (done.code, "has no attempt 3" in done.stderr) == (2, True)


def test_files_of_a_run_directory(
    world: World, program: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = run_on(world)
    (directory / "sub").mkdir()
    (directory / "sub/a b.txt").write_text("hello")
    (directory / "empty").touch()
    monkeypatch.chdir(world.repository.path)
    state = ("--state-dir", str(world.root / "state"))
    listed = program("files", "f/j", *state, "-o", "json")
    sizes = {row["file"]: row["bytes"] for row in json.loads(listed.stdout)}
    assert (sizes["sub/a b.txt"], sizes["empty"]) == (5, 0)
    assert program("files", "f/j", "sub/a b.txt", *state).stdout == "hello"
    assert "empty is empty" in program("files", "f/j", "empty", *state).stderr
    for name, words in (
        ("nothing", "has no file 'nothing'"),
        ("../x", "not inside"),
        ("/etc/hosts", "not inside"),
    ):
        done = program("files", "f/j", name, *state)
        assert (done.code, words in done.stderr) == (2, True), done.stderr


def test_following_ends_with_the_job(world: World, logs: Logs) -> None:
    """What was there already is printed once, and nothing is waited for after the end."""
    run_on(world)
    done = logs("f/j", "-f")
    assert (done.code, done.stdout.count("gr\u00f6\u00dfer")) == (0, 1)
