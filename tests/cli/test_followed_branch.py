"""The branch that a state follows: recorded at the first apply, changed only with ``--follow``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from reconciler.actual.store import Store
from tests.support import Reconcile, Repository, minimal_project

pytestmark = pytest.mark.usefixtures("warm")

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: NAME}
    spec: {suspend: true, jobs: [{id: value, function: reconciler.examples.value, args: [ARG]}]}
    """


class Place:
    """A repository whose branch ``main`` was applied once, and its state."""

    def __init__(self, repository: Repository, reconcile: Reconcile, state: Path) -> None:
        self.repository = repository
        self.git = repository.run
        self.state = state
        self._reconcile = reconcile

    def add_flow(self, name: str, argument: int = 1) -> str:
        """Commit a suspended flow; return the commit."""
        self.repository.write_yaml(
            f"flows/{name}.yaml", FLOW.replace("NAME", name).replace("ARG", str(argument))
        )
        return self.repository.commit(f"flow {name}")

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the program on this state."""
        return self._reconcile("--state-dir", str(self.state), *arguments, cwd=cwd)

    def once(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``--once``, which must succeed."""
        done = self.run("--once", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def refused(self, *arguments: str) -> str:
        """Run a command that must be refused and change nothing; return its stderr."""
        before = self.applied()
        done = self.run(*arguments)
        assert done.returncode == 4, done.stdout + done.stderr
        assert self.applied() == before
        return done.stderr

    def applied(self) -> tuple[str | None, str]:
        """Return the followed branch and the last applied commit."""
        store = Store(self.state, read_only=True)
        try:
            with store.read() as view:
                config = view.config()
                assert config is not None
                return view.followed(), config.commit
        finally:
            store.close()


@pytest.fixture
def place(repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Place:
    """A state that follows ``main``."""
    minimal_project(repository, tmp_path / "work")
    place = Place(repository, reconcile, tmp_path / "state")
    place.add_flow("one")
    place.once()
    assert place.applied() == ("main", repository.head)
    return place


class TestAnotherHead:
    def test_another_branch_is_refused_with_both_ways_on(self, place: Place) -> None:
        place.git("switch", "--quiet", "-c", "experiment")
        place.add_flow("two")
        stderr = place.refused("--once")
        assert "error: refused: this state follows main; HEAD is now experiment\n" in stderr
        assert "to stay on main: git switch main, or --branch main" in stderr
        assert "to move: reconcile --once --branch experiment --follow" in stderr

    def test_even_without_another_commit(self, place: Place) -> None:
        place.git("switch", "--quiet", "-c", "experiment")
        assert "HEAD is now experiment" in place.refused("--once")

    def test_a_detached_head_is_refused(self, place: Place) -> None:
        place.add_flow("two")
        place.once()
        place.git("switch", "--quiet", "--detach", "HEAD~1")
        head = place.repository.head[:7]
        assert f"this state follows main; HEAD is detached at {head}\n" in place.refused("--once")
        assert "to move, create a branch there: git branch NAME COMMIT" in place.refused("--once")

    def test_an_explicit_branch_needs_follow_too(self, place: Place) -> None:
        place.git("branch", "experiment")
        stderr = place.refused("--once", "--branch", "experiment")
        assert "this state follows main; --branch is experiment" in stderr

    def test_the_followed_branch_can_be_applied_from_elsewhere(self, place: Place) -> None:
        two = place.add_flow("two")
        place.git("switch", "--quiet", "-c", "experiment", "HEAD~1")
        place.once("--branch", "main")
        assert place.applied() == ("main", two)
        for name in ("refs/heads/main", "heads/main", two):
            place.once("--branch", name)
        assert place.applied() == ("main", two)

    def test_another_work_tree_is_another_head(self, place: Place, tmp_path: Path) -> None:
        place.git("worktree", "add", "--quiet", "-b", "experiment", str(tmp_path / "linked"))
        done = place.run("--once", cwd=tmp_path / "linked")
        assert (done.returncode, "HEAD is now experiment" in done.stderr) == (4, True)


class TestFollow:
    def test_it_moves_the_state_to_the_checked_out_branch(self, place: Place) -> None:
        place.git("switch", "--quiet", "-c", "experiment")
        two = place.add_flow("two")
        done = place.once("--follow")
        assert "this state now follows experiment, no longer main" in done.stderr
        assert place.applied() == ("experiment", two)
        place.git("switch", "--quiet", "main")
        assert "this state follows experiment; HEAD is now main" in place.refused("--once")

    def test_it_moves_the_state_to_a_named_branch(self, place: Place) -> None:
        place.git("branch", "experiment")
        place.once("--branch", "experiment", "--follow")
        assert place.applied()[0] == "experiment"

    def test_a_guard_is_still_asked(self, place: Place) -> None:
        """The state does not move if the plan is refused."""
        place.git("switch", "--quiet", "-c", "experiment")
        place.repository.remove("flows/one.yaml")
        place.repository.commit()
        assert "refused: " in place.refused("--once", "--follow")
        place.once("--follow", "--allow-prune")
        assert place.applied()[0] == "experiment"

    def test_a_commit_cannot_be_followed(self, place: Place) -> None:
        done = place.run("--once", "--branch", "HEAD~0", "--follow")
        assert done.returncode == 2
        assert "--follow requires a branch, and --branch is HEAD~0" in done.stderr
        place.git("switch", "--quiet", "--detach")
        done = place.run("--once", "--follow")
        assert done.returncode == 2
        assert "HEAD is detached at " in done.stderr

    def test_it_requires_once(self, place: Place) -> None:
        assert place.run("--follow").returncode == 2
        assert place.run("--follow", "plan").returncode == 2

    def test_a_saved_plan_needs_it_as_well(self, place: Place, tmp_path: Path) -> None:
        place.git("switch", "--quiet", "-c", "experiment")
        two = place.add_flow("two")
        file = str(tmp_path / "plan.json")
        saved = place.run("plan", "--out", file)
        assert f"reconcile apply {file} --follow" in saved.stderr
        assert "this state follows main" in place.refused("apply", file)
        done = place.run("apply", file, "--follow")
        assert done.returncode == 0, done.stderr
        assert place.applied() == ("experiment", two)


class TestOperationInProgress:
    def rebase(self, place: Place) -> None:
        place.add_flow("two")
        place.add_flow("three")
        place.once()
        with pytest.raises(RuntimeError):  # git stops at a command that fails, with HEAD detached
            place.git("rebase", "--quiet", "--exec", "false", "HEAD~2")
        assert place.git("status").startswith("interactive rebase in progress")

    def bisect(self, place: Place) -> None:
        for name in ("two", "three", "four"):
            place.add_flow(name)
        place.once()
        place.git("bisect", "start", "HEAD", "HEAD~3")

    @pytest.mark.parametrize("operation", ["rebase", "bisect"])
    def test_the_branch_that_it_started_from_is_read(self, place: Place, operation: str) -> None:
        getattr(self, operation)(place)
        with pytest.raises(RuntimeError):
            place.git("symbolic-ref", "HEAD")
        tip = place.git("rev-parse", "main")
        assert f"main@{tip[:7]}: no changes" in place.once().stdout
        assert f"main@{tip[:7]}: no changes" in place.run("plan").stdout
        assert place.applied() == ("main", tip)

    def test_of_another_branch_it_is_refused(self, place: Place) -> None:
        place.git("switch", "--quiet", "-c", "experiment")
        place.add_flow("two")
        with pytest.raises(RuntimeError):
            place.git("rebase", "--quiet", "--exec", "false", "HEAD~1")
        assert "HEAD is now experiment (rebase in progress)" in place.refused("--once")

    def test_of_a_detached_head_it_is_refused(self, place: Place) -> None:
        for name in ("two", "three", "four"):
            place.add_flow(name)
        place.git("switch", "--quiet", "--detach")
        place.git("bisect", "start", "HEAD", "HEAD~3")
        assert "HEAD is detached at " in place.refused("--once")

    def test_a_conflict_of_a_merge_changes_nothing(self, place: Place) -> None:
        place.git("switch", "--quiet", "-c", "other")
        place.add_flow("one", argument=2)
        place.git("switch", "--quiet", "main")
        head = place.add_flow("one", argument=3)
        with pytest.raises(RuntimeError):
            place.git("merge", "other")
        place.once()
        assert place.applied() == ("main", head)


class TestCommitsAndTags:
    @pytest.fixture
    def detached(self, repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Place:
        """A state to which only commits were applied, as by a CI service that checks out no branch."""
        minimal_project(repository, tmp_path / "work")
        place = Place(repository, reconcile, tmp_path / "state")
        place.add_flow("one")
        place.git("switch", "--quiet", "--detach")
        place.once()
        return place

    def test_a_state_without_branches_follows_none(self, detached: Place) -> None:
        assert detached.applied() == ("", detached.repository.head)
        two = detached.add_flow("two")
        detached.once("--branch", two)
        detached.git("tag", "v1")
        detached.once("--branch", "v1")
        assert detached.applied() == ("", two)
        detached.git("switch", "--quiet", "-C", "main")
        detached.add_flow("three")
        detached.once()
        assert detached.applied() == ("main", detached.repository.head)
        assert "--branch is v1" in detached.refused("--once", "--branch", "v1")

    def test_reading_commands_work_anywhere(self, place: Place) -> None:
        place.git("switch", "--quiet", "--detach")
        two = place.add_flow("two")
        assert place.run("validate").returncode == 0
        assert place.run("plan").returncode == 0
        assert place.run("plan", "--branch", two).returncode == 0
        assert place.run("plan", "--base", "main").returncode == 0
        assert place.run("diff", "main", "HEAD").returncode == 0

    def test_a_remote_tracking_branch_is_a_branch(self, place: Place, tmp_path: Path) -> None:
        place.git("clone", "--quiet", str(place.repository.path), str(tmp_path / "clone"))
        state = ["--state-dir", str(tmp_path / "other-state")]
        done = place.run(*state, "--branch", "origin/main", "--once", cwd=tmp_path / "clone")
        assert done.returncode == 0, done.stderr
        done = place.run(*state, "--once", cwd=tmp_path / "clone")
        assert "this state follows origin/main; HEAD is now main" in done.stderr


class TestPlan:
    def test_it_says_that_it_plans_another_branch(self, place: Place) -> None:
        place.git("switch", "--quiet", "-c", "experiment")
        place.add_flow("two")
        done = place.run("plan")
        assert done.returncode == 0
        assert "note: this state follows main; HEAD is now experiment: a reconcile refuses" in done.stderr
        assert "apply it with: reconcile --once --follow" in done.stderr
        assert "this state follows main" in place.run("plan", "-o", "markdown").stdout
        assert json.loads(place.run("plan", "-o", "json").stdout)["revision"].startswith("experiment@")

    def test_it_says_nothing_on_the_followed_branch(self, place: Place) -> None:
        place.add_flow("two")
        done = place.run("plan")
        assert "follows" not in done.stderr
        assert "apply it with: reconcile --once\n" in done.stderr


class TestRenamedBranch:
    def test_the_state_follows_the_new_name(self, place: Place) -> None:
        place.git("branch", "--quiet", "-m", "main", "trunk")
        two = place.add_flow("two")
        assert "main was renamed: this state now follows trunk" in place.once().stderr
        assert place.applied() == ("trunk", two)

    def test_not_if_the_new_branch_lacks_what_was_applied(self, place: Place) -> None:
        place.add_flow("two")
        place.once()
        place.git("switch", "--quiet", "-c", "experiment", "HEAD~1")
        place.git("branch", "--quiet", "-D", "main")
        assert "this state follows main, which no longer exists; HEAD is now experiment" in place.refused(
            "--once"
        )


def test_the_default_branch_of_a_remote_moves(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bare = tmp_path / "bare.git"
    place.git("clone", "--quiet", "--bare", str(place.repository.path), str(bare))
    url = ["--repo", f"file://{bare}"]
    place.once(*url)
    place.git("branch", "trunk")
    place.git("push", "--quiet", str(bare), "trunk")
    place.git("--git-dir", str(bare), "symbolic-ref", "HEAD", "refs/heads/trunk")
    place.add_flow("two")
    place.git("push", "--quiet", str(bare), "main")
    place.once(*url, "--branch", "main")
    assert place.applied() == ("main", place.repository.head)


def test_a_store_of_an_earlier_version_follows_the_branch_of_its_last_revision(place: Place) -> None:
    store = Store(place.state)
    store.write(lambda writer: writer.txn.delete("meta", b"followed"))
    store.close()
    place.git("switch", "--quiet", "-c", "experiment")
    place.add_flow("two")
    assert "this state follows main; HEAD is now experiment" in place.refused("--once")
    place.git("switch", "--quiet", "main")
    two = place.add_flow("two")
    place.once()
    assert place.applied() == ("main", two)


@pytest.mark.parametrize("name", ["main;true", "ü/x", "feature/{a,b}"])
def test_odd_names_of_branches(place: Place, name: str) -> None:
    place.git("switch", "--quiet", "-c", name)
    stderr = place.refused("--once")
    assert f"HEAD is now {name}\n" in stderr
    place.once("--follow")
    assert place.applied()[0] == name


def test_doctor_and_the_unit_name_the_followed_branch(place: Place) -> None:
    place.git("switch", "--quiet", "-c", "experiment")
    assert "⚠ branch: experiment@" in place.run("doctor").stdout.replace("! branch", "⚠ branch")
    unit = place.run("systemd").stdout
    assert " --branch main " in unit


def test_set_on_another_branch_says_how_it_gets_applied(place: Place) -> None:
    place.git("switch", "--quiet", "-c", "experiment")
    done = place.run("set", "priority", "one/*", "5")
    assert done.returncode == 0, done.stderr
    assert "note: this state follows main; merge experiment into it to apply this" in done.stderr
    assert "reconcile --once" not in done.stderr
    place.git("switch", "--quiet", "main")
    assert "apply it with: reconcile --once" in place.run("set", "priority", "one/*", "5").stderr
