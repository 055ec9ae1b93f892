"""The daemon follows the recorded branch, whatever happens to the checkout that it watches."""

from __future__ import annotations

import pytest

from tests.watch.support import WatchWorld

OFTEN = ("--interval", "1")


def followed(world: WatchWorld) -> str | None:
    return world.read(lambda view: view.followed())


def applied(world: WatchWorld) -> str:
    config = world.read(lambda view: view.config())
    return config.revision if config is not None else ""


def test_a_switch_of_the_checkout_changes_nothing(watched: WatchWorld) -> None:
    git = watched.repository
    gate = watched.waiting_flow("one")
    first = watched.commit()
    watch = watched.start(*OFTEN)
    begun = watch.until("begun")["message"]
    assert begun.startswith(f"watching main of {git.path}; the state is in ")
    before = watched.until_state("one/wait", "RUNNING")
    git.run("switch", "--quiet", "-c", "experiment")
    watched.log_flow("one")
    git.commit()
    assert watch.until("head-elsewhere")["message"] == "HEAD is now experiment; still following main"
    git.run("switch", "--quiet", "--detach", "HEAD~1")
    assert watch.until("head-elsewhere", count=2)["message"] == "HEAD is detached; still following main"
    assert watched.jobs()["one/wait"].attempt.run_dir == before.attempt.run_dir
    assert (followed(watched), applied(watched)) == ("main", first)
    git.run("switch", "--quiet", "main")
    watched.log_flow("two")
    second = watched.commit()
    watched.until_state("two/j", "COMPLETED")
    assert applied(watched) == second
    gate.touch()
    watched.until_state("one/wait", "COMPLETED")


@pytest.mark.parametrize("operation", ["rebase", "bisect"])
def test_an_operation_in_progress_replaces_nothing(watched: WatchWorld, operation: str) -> None:
    git = watched.repository
    for name in ("a", "b", "c"):
        git.write("notes", name)
        watched.commit()
    watched.waiting_flow("one")
    tip = watched.commit()
    watch = watched.start(*OFTEN)
    before = watched.until_state("one/wait", "RUNNING")
    if operation == "rebase":
        with pytest.raises(RuntimeError):
            git.run("rebase", "--quiet", "--exec", "false", "HEAD~3")
    else:
        git.run("bisect", "start", "HEAD", "HEAD~3")
    done = watched.run("now", "--wait")
    assert (done.returncode, done.stdout) == (0, f"{tip}: no changes\n")
    assert watched.jobs()["one/wait"].attempt.run_dir == before.attempt.run_dir
    assert not watch.told("reconcile-refused")
    assert not watch.told("head-elsewhere"), "it is on its branch, in the middle of an operation"


def test_a_second_branch_by_request(watched: WatchWorld) -> None:
    git = watched.repository
    watched.log_flow("one")
    watched.commit()
    watched.start(*OFTEN).until("reconciled")
    git.run("switch", "--quiet", "-c", "experiment")
    watched.log_flow("two")
    git.commit()
    done = watched.run("--once")
    assert done.returncode == 4
    assert "the daemon reads main@" in done.stderr
    done = watched.run("--once", "--follow", "--wait")
    assert done.returncode == 0, done.stderr
    assert followed(watched) == "experiment"
    assert watched.jobs()["two/j"].state == "COMPLETED"
    watched.log_flow("three")
    git.commit()
    watched.until_state("three/j", "COMPLETED")


def test_a_daemon_with_an_explicit_branch(watched: WatchWorld) -> None:
    git = watched.repository
    watched.log_flow("one")
    watched.commit()
    git.run("branch", "experiment")
    watch = watched.start(*OFTEN, "--branch", "main")
    watch.until("reconciled")
    done = watched.run("--branch", "experiment", "--once", "--follow")
    assert done.returncode == 4
    assert "error: refused: the daemon was started with --branch main\n" in done.stderr
    assert "stop it, and start it again with --branch experiment --follow" in done.stderr
    assert followed(watched) == "main"
    assert not watch.told("reconcile-refused"), "the request alone is refused"
    assert watch.end() == 0
    refused = watched.start("--branch", "experiment", ready=False)
    assert refused.wait() == 4
    assert "this state follows main; --branch is experiment" in refused.log.read_text()
    moved = watched.start("--branch", "experiment", "--follow")
    assert moved.until("begun")["message"].startswith("watching experiment of ")
    assert followed(watched) == "experiment"


def test_it_starts_on_the_followed_branch_wherever_head_is(watched: WatchWorld) -> None:
    git = watched.repository
    watched.log_flow("one")
    watched.commit()
    assert watched.run("--once", "--wait").returncode == 0
    git.run("switch", "--quiet", "-c", "experiment")
    git.remove("flows/one.yaml")
    git.commit()
    watch = watched.start(*OFTEN)
    assert watch.until("begun")["message"].startswith("watching main of ")
    assert watch.until("head-elsewhere")["message"] == "HEAD is now experiment; still following main"
    assert watch.until("reconciled")["message"].startswith("main@")


def test_the_followed_branch_is_renamed_or_deleted(watched: WatchWorld) -> None:
    git = watched.repository
    watched.log_flow("one")
    watched.commit()
    watch = watched.start(*OFTEN)
    watched.until_state("one/j", "COMPLETED")
    git.run("branch", "--quiet", "-m", "main", "trunk")
    watched.log_flow("two")
    git.commit()
    watched.until_state("two/j", "COMPLETED")
    assert followed(watched) == "trunk"
    git.run("switch", "--quiet", "-c", "experiment", "HEAD~1")
    git.run("branch", "--quiet", "-D", "trunk")
    message = watch.until("reconcile-refused")["message"]
    assert "this state follows trunk, which no longer exists; HEAD is now experiment" in message
    assert followed(watched) == "trunk"
