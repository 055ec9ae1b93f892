"""``reconcile --once`` beside a daemon: a pass over something else than was meant is no success."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import Repository
from tests.watch.support import PATIENCE, WatchWorld, eventually

NEVER = ("--interval", "100000")

BETWEEN = """
import subprocess
from reconciler.actual.daemon_requests import Requests
ask = Requests.ask
def late(self, *given, **more):
    subprocess.run(["git", *{command}], check=True)
    return ask(self, *given, **more)
Requests.ask = late
"""
"""A git command after the revision was read, and before the daemon is asked."""


def add_flow(world: WatchWorld, name: str) -> None:
    world.flow(name, {"id": "j", "function": "log_line", "args": ["/dev/null", name]})


def once_with(world: WatchWorld, command: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``--once`` with a git command in the midst of it."""
    return subprocess.run(
        world.command(*arguments, "--once", fault=f"exec({BETWEEN.format(command=command)!r})"),
        cwd=world.repository.path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def opened(path: Path) -> Repository:
    """Return a repository that is there already."""
    found = object.__new__(Repository)
    found.path = path
    return found


def revision(repository: Repository, branch: str = "main") -> str:
    return f"{branch}@{repository.run('rev-parse', branch)[:7]}"


def refusal(daemons: str, meant: str, way: str) -> str:
    """What is said of a pass over another revision."""
    return (
        f"error: refused: the daemon reads {daemons}, so {meant} was not applied\n"
        f"  help: {way} or stop the daemon first, or use a separate state with --state-dir\n"
    )


@pytest.fixture
def linked(watched: WatchWorld, tmp_path: Path) -> Repository:
    """A linked work tree on the branch ``topic``, which has a flow that ``main`` has not."""
    git = watched.repository
    watched.commit()
    git.run("branch", "elsewhere")
    git.run("checkout", "--quiet", "-b", "topic")
    add_flow(watched, "flow")
    watched.commit()
    git.run("checkout", "--quiet", "main")
    git.run("worktree", "add", "--quiet", str(tmp_path / "linked"), "topic")
    return opened(tmp_path / "linked")


def test_another_branch(watched: WatchWorld, linked: Repository) -> None:
    git = watched.repository
    watched.start(*NEVER).until("reconciled")
    expected = refusal(
        revision(git),
        revision(git, "topic"),
        "merge it into main, or move the daemon to topic with --follow;",
    )
    for options in (["--repo", str(linked.path)], ["--branch", "topic"]):
        done = watched.run(*options, "--once", "--wait")
        assert done.returncode == 4
        assert done.stderr.endswith(expected)
        assert done.stdout == ""
    assert watched.jobs() == {}
    git.run("merge", "--quiet", "topic")
    assert watched.run("--repo", str(linked.path), "--once", "--wait").returncode == 0, "now it is the same"
    assert watched.jobs()["flow/j"].state == "COMPLETED"
    git.commit("later, with the same content")
    done = watched.run("--repo", str(linked.path), "--once")
    assert done.returncode == 0, done.stderr
    watched.waiting_flow("other")
    git.commit("later")
    watched.until_state("other/wait", "RUNNING")
    done = watched.run("--repo", str(linked.path), "--once")
    assert done.returncode == 4
    assert "  help: main contains it and newer commits; to go back, revert them there; or " in done.stderr


def test_the_word_for_a_guard_is_for_the_revision_that_was_meant(
    watched: WatchWorld, linked: Repository
) -> None:
    git = watched.repository
    git.run("merge", "--quiet", "topic")
    watch = watched.start(*NEVER)
    watched.until_state("flow/j", "COMPLETED")
    git.remove("flows/flow.yaml")
    git.commit()
    watch.until("reconcile-refused")
    linked.write("note", "")
    linked.commit()
    done = watched.run("--repo", str(linked.path), "--once", "--allow-prune")
    assert done.returncode == 4
    assert done.stderr.endswith(
        refusal(
            revision(git),
            revision(git, "topic"),
            "merge it into main, or move the daemon to topic with --follow;",
        )
    )
    assert watched.jobs()["flow/j"].current
    done = watched.run("--once", "--allow-prune")
    assert done.returncode == 0, done.stderr
    assert "refused" not in done.stderr
    assert "1 flow to remove" in done.stdout


def test_another_folder(watched: WatchWorld) -> None:
    git = watched.repository
    git.write("sub/reconciler.yaml", (git.path / "reconciler.yaml").read_bytes())
    watched.commit()
    watched.start(*NEVER).until("reconciled")
    done = watched.run("--path", "sub", "--once")
    assert done.returncode == 4
    head = revision(git)
    assert f"refused: the daemon reads {head} without --path, so {head} in sub/ was not" in done.stderr


@pytest.mark.parametrize("how", [("--message=between",), ("--amend", "--message=other")])
def test_a_commit_that_comes_between(watched: WatchWorld, how: tuple[str, ...]) -> None:
    """It was read before the daemon was asked; what the daemon reads is the branch as it is by then."""
    watched.commit()
    watched.start(*NEVER).until("reconciled")
    watched.waiting_flow("flow")
    before = watched.commit()
    done = once_with(watched, ["commit", "--quiet", "--allow-empty", *how])
    assert revision(watched.repository) != before
    assert done.returncode == 0, done.stderr


def test_another_clone(watched: WatchWorld, tmp_path: Path) -> None:
    """The same name of a branch is not the same branch."""
    git = watched.repository
    watched.commit()
    git.run("clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = opened(tmp_path / "clone")
    once = ("--repo", str(clone.path), "--once")
    watch = watched.start(*NEVER)
    watch.until("reconciled")
    watched.waiting_flow("flow")
    behind, head = revision(git), watched.commit()
    watched.until_state("flow/wait", "RUNNING")
    done = watched.run(*once)
    assert done.returncode == 4
    way = f"this repository does not have {head}: `git pull`, then push your commit;"
    assert done.stderr.endswith(refusal(head, behind, way))
    clone.run("fetch", "--quiet")
    assert watched.run(*once).returncode == 0, "it is known that the other one is later"
    clone.run("merge", "--quiet", "origin/main")
    clone.write("flows/flow.yaml", (git.path / "flows/flow.yaml").read_bytes() + b"# mine\n")
    clone.commit()
    done = watched.run(*once)
    assert done.returncode == 4
    assert done.stderr.endswith(
        refusal(head, revision(clone), "push it to the repository that the daemon reads;")
    )
    git.run("pull", "--quiet", str(clone.path), "main")
    eventually(lambda: watch.told("reconciled")[2:], "a pass", watch)
    assert watched.run(*once).returncode == 0


def test_a_remote_repository(watched: WatchWorld, tmp_path: Path) -> None:
    """The daemon fetches by itself: a push that comes between is fine, a commit that is not pushed is not."""
    git = watched.repository
    watched.commit()
    git.run("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    git.run("remote", "add", "origin", str(tmp_path / "bare.git"))
    url = f"file://{tmp_path}/bare.git"
    watched.start(*NEVER, "--repo", url).until("reconciled")
    add_flow(watched, "flow")
    watched.commit()
    done = watched.run("--once")
    assert done.returncode == 4
    assert "push it to the repository that the daemon reads; or" in done.stderr
    git.run("push", "--quiet", "origin", "main")
    for once in (["--repo", url, "--once", "--wait"], ["--once"]):
        done = watched.run(*once)
        assert done.returncode == 0, done.stderr
    assert watched.jobs()["flow/j"].state == "COMPLETED"
    watched.waiting_flow("more")
    watched.commit()
    git.run("push", "--quiet", "origin", "main")
    watched.waiting_flow("between")
    watched.commit()
    done = once_with(watched, ["push", "--quiet", "origin", "main"], "--repo", url)
    assert done.returncode == 0, done.stderr
    watched.until_state("between/wait", "RUNNING")
