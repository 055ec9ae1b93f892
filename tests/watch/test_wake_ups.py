"""What makes a daemon look. The intervals are so long here that nothing but a notice can be the reason."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.execution.support import lines
from tests.support import Repository
from tests.watch.support import Watch, WatchWorld, eventually

NEVER = ("--interval", "100000")
RARELY = {"poll_interval": {"shortest": 10_000, "longest": 10_000}}


def applied(world: WatchWorld) -> str:
    """Return the revision that was tried last."""
    attempt = world.read(lambda view: view.attempt())
    return attempt.revision if attempt is not None else ""


def is_noticed(world: WatchWorld, watch: Watch) -> None:
    """Wait until the daemon has seen where the branch is now."""
    head = world.repository.head[:7]
    eventually(lambda: applied(world).endswith(f"@{head}"), f"a pass on {head}", watch)


Change = Callable[[WatchWorld], object]


def commit(world: WatchWorld) -> None:
    world.repository.commit()


def amend(world: WatchWorld) -> None:
    world.repository.run("commit", "--quiet", "--amend", "--allow-empty", "--message=amended")


def pack(world: WatchWorld) -> None:
    world.repository.run("pack-refs", "--all")
    world.repository.commit()


def collect_garbage(world: WatchWorld) -> None:
    world.repository.run("gc", "--quiet", "--prune=now")
    world.repository.commit()


def rebase(world: WatchWorld) -> None:
    git = world.repository
    git.run("checkout", "--quiet", "-b", "topic", "HEAD~1")
    git.commit("topic")
    git.run("rebase", "--quiet", "main")
    git.run("checkout", "--quiet", "main")
    git.run("merge", "--quiet", "--ff-only", "topic")


def reset(world: WatchWorld) -> None:
    world.repository.run("reset", "--quiet", "--hard", "HEAD~1")


def update_ref(world: WatchWorld) -> None:
    """As a push into a bare repository does: no index, no HEAD, no work tree is touched."""
    git = world.repository
    new = git.run("commit-tree", "-p", "HEAD", "-m", "pushed", "HEAD^{tree}")
    git.run("update-ref", "refs/heads/main", new)


CHANGES: list[Change] = [commit, amend, pack, collect_garbage, rebase, reset, update_ref, commit]


def test_every_way_in_which_a_branch_moves_is_noticed(watched: WatchWorld) -> None:
    watched.commit()
    watch = watched.start(*NEVER)
    is_noticed(watched, watch)
    for change in CHANGES:
        change(watched)
        is_noticed(watched, watch)


def test_a_branch_in_a_directory_that_comes_and_goes(watched: WatchWorld) -> None:
    """A packed branch has no file; the next commit makes ``refs/heads/topic/new`` for it."""
    git = watched.repository
    watched.commit()
    git.run("checkout", "--quiet", "-b", "topic/new")
    watch = watched.start(*NEVER)
    for pack in (False, True, True, False):
        if pack:
            git.run("pack-refs", "--all", "--prune")
        head = git.commit("on the topic")
        eventually(lambda head=head: applied(watched) == f"topic/new@{head[:7]}", "a pass", watch)
    git.run("checkout", "--quiet", "main")
    watch.until("head-elsewhere")
    git.commit("on the main branch, which is not followed")
    git.run("checkout", "--quiet", "topic/new")
    again = git.commit("on the topic again")
    eventually(lambda: applied(watched) == f"topic/new@{again[:7]}", "a pass", watch)
    assert not [line for line in watch.told("reconciled") if line["message"].startswith("main@")]


def test_a_linked_work_tree(watched: WatchWorld, tmp_path: Path) -> None:
    """Its HEAD is its own; the branches are those of the main one."""
    watched.commit()
    watched.repository.run("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "linked"))
    linked = object.__new__(Repository)
    linked.path = tmp_path / "linked"
    watch = watched.start(*NEVER, "--repo", str(linked.path))
    for _ in range(2):
        head = linked.commit("in the linked one")
        eventually(lambda head=head: applied(watched) == f"side@{head[:7]}", "a pass", watch)


def test_a_burst_of_commits_ends_with_the_last(watched: WatchWorld) -> None:
    watched.commit()
    watch = watched.start(*NEVER)
    for number in range(20):
        watched.flow("flow", {"id": "j", "function": "log_line", "args": ["/dev/null", str(number)]})
        watched.commit()
    is_noticed(watched, watch)


def test_a_signal_makes_a_pass(watched: WatchWorld) -> None:
    watched.commit()
    watch = watched.start(*NEVER)
    watch.until("reconciled")
    watch.send(signal.SIGHUP)
    watch.until("reconciled", 2)


@pytest.fixture
def remote(watched: WatchWorld, tmp_path: Path) -> Callable[[], str]:
    """A bare repository elsewhere, reached by URL; the function commits, pushes and returns the commit."""
    bare = tmp_path / "remote.git"
    watched.repository.run("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    watched.repository.run("remote", "add", "origin", f"file://{bare}")

    def push() -> str:
        commit = watched.repository.commit()
        watched.repository.run("push", "--quiet", "origin", "main")
        return commit[:7]

    return push


def test_a_remote_is_polled(watched: WatchWorld, remote: Callable[[], str], tmp_path: Path) -> None:
    remote()
    watch = watched.start("--interval", "1", "--repo", f"file://{tmp_path}/remote.git")
    for _ in range(2):
        head = remote()
        eventually(lambda head=head: applied(watched) == f"main@{head}", "a pass", watch)


def test_now_waits_for_its_own_pass(watched: WatchWorld, remote: Callable[[], str], tmp_path: Path) -> None:
    """What was pushed before is in the pass that it waits for."""
    remote()
    url = ("--repo", f"file://{tmp_path}/remote.git")
    watch = watched.start(*NEVER, *url)
    watch.until("reconciled")
    gate = watched.waiting_flow("later")
    head = remote()
    done = watched.run("now", "--wait", *url)
    assert done.returncode == 0, done.stderr
    assert f"main@{head}: 1 flow and 1 job to submit" in done.stdout
    watched.until_state("later/wait", "RUNNING")
    gate.touch()
    watched.until_state("later/wait", "COMPLETED")


NO_NOTICES = "import reconciler.watch.file_notices as n; n.FileNotices.watch = lambda *anything: False"


def test_now_needs_no_notices(watched: WatchWorld, remote: Callable[[], str], tmp_path: Path) -> None:
    """Login nodes run out of them."""
    remote()
    url = ("--repo", f"file://{tmp_path}/remote.git")
    watch = watched.start(*NEVER, *url, fault=NO_NOTICES)
    watch.until("reconciled")
    head = remote()
    done = watched.run("now", "--wait", *url)
    assert done.returncode == 0, done.stderr
    assert f"main@{head}" in done.stdout


NO_ANSWERS = (
    "import reconciler.actual.daemon_requests as r; from reconciler.errors import WorldError; "
    "r.Requests.answer = lambda me, asked, said: asked and (_ for _ in ()).throw(WorldError('no room'))"
)


def test_a_request_that_cannot_be_answered_makes_no_pass_a_second(watched: WatchWorld) -> None:
    watched.commit()
    watch = watched.start(*NEVER, fault=NO_ANSWERS)
    watch.until("reconciled")
    assert watched.run("now").returncode == 0
    watch.until("request-failed")
    time.sleep(4)  # four ticks
    assert len(watch.told("request-failed")) <= 2, "by a notice, and by a tick"


def test_now_without_a_daemon_says_what_to_do(watched: WatchWorld) -> None:
    watched.commit()
    done = watched.run("now", "--wait")
    assert done.returncode == 3
    assert "no daemon runs for the state" in done.stderr
    assert "reconcile watch" in done.stderr


def test_a_local_job_that_ends_wakes_its_worker(watched: WatchWorld) -> None:
    """A chain goes from hand to hand although nobody looks at the worker."""
    watched.worker("w1", **RARELY)
    log = watched.root / "log"
    names = [f"j{number}" for number in range(6)]
    jobs = [{"id": n, "function": "log_span", "args": [str(log), n, 0.0]} for n in names]
    for before, job in zip(names[:-1], jobs[1:], strict=True):
        job["args"] = [*job["args"], {"$output": before}]
    watched.flow("chain", *jobs)
    watched.commit()
    began = time.monotonic()
    watched.start(*NEVER)
    watched.until_state("chain/j5", "COMPLETED")
    assert time.monotonic() - began < 5 * 30, "each step has waited for the look of last resort"
    spans = [line.split() for line in lines(log)]
    ends = {name: float(at) for what, name, at in spans if what == "end"}
    begins = {name: float(at) for what, name, at in spans if what == "begin"}
    gaps = [begins[new] - ends[old] for old, new in pairwise(names)]
    print(f"hand-over from job to job: {statistics.median(gaps):.3f} s")


def test_a_local_job_wakes_its_worker_also_after_a_change_of_the_worker(watched: WatchWorld) -> None:
    """Then another thread serves it, and must hear of what ends."""
    watched.worker("w1", **RARELY)
    watched.log_flow("before")
    watched.commit()
    watched.start(*NEVER)
    watched.until_state("before/j", "COMPLETED")
    watched.worker("w1", max_jobs=2, **RARELY)
    jobs = [{"id": f"j{n}", "function": "log_line", "args": ["/dev/null", str(n)]} for n in range(4)]
    for number, job in enumerate(jobs[1:]):
        job["args"] = [*job["args"], {"$output": f"j{number}"}]
    watched.flow("chain", *jobs)
    watched.commit()
    began = time.monotonic()
    watched.until_state("chain/j3", "COMPLETED")
    assert time.monotonic() - began < 3 * 30, "each step has waited for the look of last resort"


def test_jobs_of_two_workers_hand_over_to_each_other(watched: WatchWorld) -> None:
    for name in ("w1", "w2"):
        watched.worker(name, **RARELY)
    jobs = [
        {"id": f"j{n}", "function": "log_line", "args": ["/dev/null", str(n)], "worker": f"w{n % 2 + 1}"}
        for n in range(4)
    ]
    for number, job in enumerate(jobs[1:]):
        job["args"] = [*job["args"], {"$output": f"j{number}"}]
    watched.flow("pair", *jobs)
    watched.commit()
    began = time.monotonic()
    watched.start(*NEVER)
    watched.until_state("pair/j3", "COMPLETED")
    assert time.monotonic() - began < 3 * 30


def test_a_verb_of_another_program_is_taken_up(watched: WatchWorld) -> None:
    watched.flow("flow", {"id": "j", "function": "log_line", "args": [str(watched.root / "log"), "ran"]})
    watched.commit()
    watched.start(*NEVER)
    watched.until_state("flow/j", "COMPLETED")
    done = watched.run("rerun", "flow/j", "--yes")
    assert done.returncode == 0, done.stderr
    eventually(lambda: len(lines(watched.root / "log")) == 2, "the second run")
