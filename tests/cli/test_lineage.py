"""Which repository and project a state belongs to, while histories, clones and names change."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from tests.support import Reconcile, Repository, minimal_project

pytestmark = pytest.mark.usefixtures("warm")

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: NAME}
    spec: {suspend: true, jobs: [{id: value, function: reconciler.examples.value, args: [ARG]}]}
    """


class Campaign:
    """A repository whose branch ``main`` was applied once, with its state below ``XDG_STATE_HOME``."""

    def __init__(self, repository: Repository, reconcile: Reconcile, home: Path) -> None:
        self.repository = repository
        self.git = repository.run
        self.home = home
        self._reconcile = reconcile

    def add_flow(self, name: str, argument: int = 1) -> str:
        text = FLOW.replace("NAME", name).replace("ARG", str(argument))
        self.repository.write_yaml(f"flows/{name}.yaml", text)
        return self.repository.commit(f"flow {name}")

    def rename(self, old: str, new: str) -> str:
        file = self.repository.path / "reconciler.yaml"
        file.write_text(file.read_text().replace(f"name: {old}", f"name: {new}"))
        return self.repository.commit(f"rename {old} to {new}")

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self._reconcile(*arguments, cwd=cwd, env={"XDG_STATE_HOME": str(self.home)})

    def once(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``--once``, which must succeed."""
        done = self.run("--once", *arguments, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def refused(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run a command that must be refused and apply nothing; return its stderr."""
        before = self.applied()
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == 4, done.stdout + done.stderr
        assert self.applied() == before
        return done.stderr

    def jobs(self) -> dict[str, tuple[str, bool]]:
        """Return uuid and currency of all jobs, by key."""
        done = self.run("get", "jobs", "--all", "-o", "json")
        assert done.returncode == 0, done.stderr
        return {row["key"]: (row["uuid"], row["current"]) for row in json.loads(done.stdout)}

    def applied(self) -> list[str]:
        """Return the last applied commit of each state."""
        return [self.look(state, lambda view: view.config().commit) for state in self.states()]

    def states(self) -> list[Path]:
        return sorted(one for one in (self.home / "reconciler").iterdir() if Store.exists(one))

    @staticmethod
    def look(state: Path, what: Callable[[Any], Any]) -> Any:
        store = Store(state, read_only=True)
        try:
            with store.read() as view:
                return what(view)
        finally:
            store.close()

    def lineage(self) -> Any:
        (state,) = self.states()
        return self.look(state, lambda view: view.lineage())


@pytest.fixture
def campaign(repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Campaign:
    minimal_project(repository, tmp_path / "work")
    campaign = Campaign(repository, reconcile, tmp_path / "states")
    campaign.add_flow("one")
    campaign.once()
    return campaign


def other_repository(path: Path, name: str = "minimal", *, date: str = "2001-01-01T00:00:00Z") -> Repository:
    """Return a repository with another, older root commit."""
    repository = Repository(path)
    minimal_project(repository, path / "work")
    file = repository.path / "reconciler.yaml"
    file.write_text(file.read_text().replace("name: minimal", f"name: {name}"))
    repository.run("add", "--all")
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    subprocess.run(
        ["git", "commit", "-q", "-m", "old"], cwd=path, check=True, env=os.environ | dates, timeout=60
    )
    return repository


class TestRoots:
    @pytest.mark.parametrize("date", ["2001-01-01T00:00:00Z", "2040-01-01T00:00:00Z"])
    def test_merging_another_history_keeps_the_state(
        self, campaign: Campaign, tmp_path: Path, date: str
    ) -> None:
        root = campaign.lineage().roots
        other = other_repository(tmp_path / "other", date=date)
        campaign.git("fetch", "--quiet", str(other.path), "main")
        campaign.git("merge", "-q", "--allow-unrelated-histories", "-s", "ours", "-m", "m", "FETCH_HEAD")
        campaign.add_flow("two")
        campaign.once()
        assert campaign.lineage().roots == sorted([*root, other.head])
        # Also if the older part goes again, and the merged one stays.
        campaign.git("switch", "-q", "--orphan", "again")
        campaign.git("branch", "-D", "main")
        campaign.git("switch", "-q", "-c", "main", other.head)
        campaign.add_flow("one"), campaign.add_flow("two")
        campaign.once()

    def test_a_shallow_clone_goes_on_and_so_does_its_full_history(
        self, campaign: Campaign, tmp_path: Path
    ) -> None:
        campaign.add_flow("two")
        clone = tmp_path / "clone"
        subprocess.run(
            ["git", "clone", "-q", "--depth=1", f"file://{campaign.repository.path}", str(clone)],
            check=True, timeout=60,
        )  # fmt: skip
        before = campaign.jobs()
        campaign.once(cwd=clone)
        assert before.items() <= campaign.jobs().items()
        assert campaign.lineage().roots == campaign.git("rev-list", "--max-parents=0", "main").split()
        subprocess.run(["git", "fetch", "-q", "--unshallow"], cwd=clone, check=True, timeout=60)
        campaign.add_flow("three")
        subprocess.run(["git", "pull", "-q"], cwd=clone, check=True, timeout=60)
        campaign.once(cwd=clone)
        assert set(campaign.jobs()) == {"one/value", "two/value", "three/value"}

    def test_a_state_that_a_shallow_clone_created_accepts_the_full_one(
        self, repository: Repository, reconcile: Reconcile, tmp_path: Path
    ) -> None:
        minimal_project(repository, tmp_path / "work")
        campaign = Campaign(repository, reconcile, tmp_path / "states")
        campaign.add_flow("one"), campaign.add_flow("two")
        clone = tmp_path / "clone"
        url = f"file://{repository.path}"
        subprocess.run(["git", "clone", "-q", "--depth=1", url, str(clone)], check=True, timeout=60)
        campaign.once(cwd=clone)
        assert campaign.lineage().roots == []
        campaign.add_flow("three")
        campaign.once()
        assert len(campaign.lineage().roots) == 1

    def test_a_rewritten_root_is_adopted_when_asked(self, campaign: Campaign) -> None:
        before = campaign.jobs()
        campaign.git("checkout", "-q", "--orphan", "fresh")
        campaign.repository.commit("squashed")
        campaign.git("branch", "-M", "fresh", "main")
        campaign.add_flow("two")
        stderr = campaign.refused("--once")
        assert "the state belongs to project 'minimal' (repository with root " in stderr
        assert "keep the state with `reconcile --once --adopt`" in stderr
        assert "keep the state with" in campaign.refused("plan")
        assert campaign.run("--dry-run", "--adopt").returncode == 0
        assert "is adopted by this repository" in campaign.once("--adopt").stderr
        campaign.add_flow("three")
        campaign.once()
        after = campaign.jobs()
        assert before.items() <= after.items() and len(after) == 3

    def test_adopt_goes_with_once(self, campaign: Campaign) -> None:
        done = campaign.run("--adopt")
        assert (done.returncode, "require --once" in done.stderr) == (2, True)


class TestNewName:
    def test_the_state_moves_and_the_jobs_stay(self, campaign: Campaign) -> None:
        before = campaign.jobs()
        campaign.rename("minimal", "larger")
        assert campaign.jobs() == before, "readers find it before it has moved"
        done = campaign.once()
        assert [state.name for state in campaign.states()] == ["larger"]
        assert "project 'minimal' is now named 'larger'" in done.stderr
        assert campaign.jobs() == before
        campaign.add_flow("two")
        assert "1 flow and 1 job to submit" in campaign.once().stdout
        assert before.items() <= campaign.jobs().items()

    def test_twice_and_back(self, campaign: Campaign) -> None:
        before = campaign.jobs()
        for old, new in (("minimal", "b"), ("b", "c"), ("c", "minimal")):
            campaign.rename(old, new)
            campaign.once()
            assert [state.name for state in campaign.states()] == [new]
            assert campaign.jobs() == before

    def test_together_with_new_flows_before_any_reconcile(self, campaign: Campaign) -> None:
        before = campaign.jobs()
        campaign.rename("minimal", "b")
        campaign.add_flow("two")
        campaign.rename("b", "c")
        plan = campaign.run("plan")
        assert "1 flow and 1 job to submit" in plan.stdout, plan.stdout
        campaign.once()
        assert before.items() <= campaign.jobs().items()

    def test_a_state_directory_of_its_own(self, campaign: Campaign, tmp_path: Path) -> None:
        place = ("--state-dir", str(tmp_path / "own"))
        campaign.once(*place)
        campaign.rename("minimal", "larger")
        assert "project 'minimal' is now named 'larger'; its state is kept" in campaign.once(*place).stderr
        (row,) = json.loads(campaign.run("get", "jobs", "--all", "-o", "json", *place).stdout)
        assert row["current"]

    def test_a_state_in_use_keeps_its_name(self, campaign: Campaign) -> None:
        campaign.rename("minimal", "larger")
        (state,) = campaign.states()
        with Lease(state) as lease:
            lease.acquire(0.0)
            assert campaign.run("--once").returncode == 4
            assert [one.name for one in campaign.states()] == ["minimal"]
        campaign.once()
        assert [one.name for one in campaign.states()] == ["larger"]

    def test_another_project_of_the_repository_has_a_state_of_its_own(self, campaign: Campaign) -> None:
        before = campaign.jobs()
        text = (campaign.repository.path / "reconciler.yaml").read_text()
        campaign.repository.write("sub/reconciler.yaml", text.replace("name: minimal", "name: second"))
        campaign.repository.commit()
        campaign.once("--path", "sub")
        assert [state.name for state in campaign.states()] == ["minimal", "second"]
        assert campaign.jobs() == before

    def test_a_project_on_another_branch_has_a_state_of_its_own(self, campaign: Campaign) -> None:
        campaign.git("switch", "-q", "-c", "study")
        campaign.rename("minimal", "study")
        campaign.once()
        assert [state.name for state in campaign.states()] == ["minimal", "study"]

    def test_another_project_needs_adopt_in_the_same_directory(
        self, campaign: Campaign, tmp_path: Path
    ) -> None:
        place = ("--state-dir", str(tmp_path / "own"))
        campaign.once(*place)
        text = (campaign.repository.path / "reconciler.yaml").read_text()
        campaign.repository.write("sub/reconciler.yaml", text.replace("name: minimal", "name: second"))
        campaign.repository.commit()
        done = campaign.run("--once", "--path", "sub", *place)
        assert done.returncode == 4
        assert re.search(r"belongs to project 'minimal' .*, not to project 'second'", done.stderr)


class TestReaders:
    @pytest.mark.parametrize(
        "command", [("get", "jobs"), ("describe", "flow", "one"), ("history",), ("plan",)]
    )
    def test_the_state_of_another_repository_of_the_same_name_is_refused(
        self, campaign: Campaign, tmp_path: Path, command: tuple[str, ...]
    ) -> None:
        other = other_repository(tmp_path / "other")
        stderr = campaign.refused(*command, cwd=other.path)
        assert campaign.lineage().roots[0][:7] in stderr and other.head[:7] in stderr

    @pytest.mark.parametrize("command", [("get", "jobs"), ("events",), ("graph", "one")])
    def test_a_reader_of_a_named_state_is_told(
        self, campaign: Campaign, tmp_path: Path, command: tuple[str, ...]
    ) -> None:
        other = other_repository(tmp_path / "other")
        (state,) = campaign.states()
        done = campaign.run(*command, "--state-dir", str(state), cwd=other.path)
        assert done.returncode == 0, done.stderr
        assert f"belongs to project 'minimal' (repository with root {campaign.lineage().roots[0][:7]})" in (
            done.stderr
        )

    @pytest.mark.parametrize("command", [("cancel", "one/value", "--yes"), ("fsck", "--repair")])
    def test_a_writer_is_refused_even_then(
        self, campaign: Campaign, tmp_path: Path, command: tuple[str, ...]
    ) -> None:
        other = other_repository(tmp_path / "other")
        (state,) = campaign.states()
        done = campaign.run(*command, "--state-dir", str(state), cwd=other.path)
        assert done.returncode == 4, done.stdout

    def test_outside_of_a_repository_a_named_state_is_read(self, campaign: Campaign, tmp_path: Path) -> None:
        (state,) = campaign.states()
        done = campaign.run("get", "jobs", "--state-dir", str(state), cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
