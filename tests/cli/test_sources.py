"""Which repository, which revision: every kind of source that a user may point at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Reconcile, Repository, minimal_project

pytestmark = pytest.mark.usefixtures("warm")

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: NAME}
    spec: {jobs: [{id: value, function: reconciler.examples.value, args: [1]}]}
    """


def add_flow(repository: Repository, name: str, folder: str = "") -> str:
    repository.write_yaml(f"{folder}flows/{name}.yaml", FLOW.replace("NAME", name))
    return repository.commit(f"flow {name}")


@pytest.fixture
def ready(repository: Repository, tmp_path: Path) -> Repository:
    """A repository with the flow ``one``."""
    minimal_project(repository, tmp_path / "work")
    add_flow(repository, "one")
    return repository


@pytest.fixture
def planned(reconcile: Reconcile) -> Callable[..., list[str]]:
    """Return the flows that a plan would submit."""

    def plan(*arguments: str, **more: Path) -> list[str]:
        done = reconcile("plan", "-o", "name", *arguments, **more)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.split() if "/" not in line]

    return plan


Planned = Callable[..., list[str]]


class TestWhere:
    def test_any_folder_of_the_work_tree_with_the_project(self, ready: Repository, planned: Planned) -> None:
        assert planned(cwd=ready.path) == ["one"]

    def test_a_folder_below_the_project(self, ready: Repository, planned: Planned) -> None:
        """As git finds its repository: from where the user is upwards."""
        ready.write("lib/deep/code.py", "")
        ready.commit("code")
        assert planned(cwd=ready.path / "lib/deep") == ["one"]
        assert planned("--repo", str(ready.path / "lib")) == ["one"]
        uncommitted = ready.path / "scratch"
        uncommitted.mkdir()
        assert planned(cwd=uncommitted) == ["one"]

    def test_the_nearest_project_counts(self, ready: Repository, planned: Planned, tmp_path: Path) -> None:
        (ready.path / "inner/lib").mkdir(parents=True)
        ready.write("inner/reconciler.yaml", (ready.path / "reconciler.yaml").read_text())
        add_flow(ready, "two", "inner/")
        assert planned(cwd=ready.path / "inner/lib") == ["two"]
        assert planned(cwd=ready.path / "flows") == ["one"]

    def test_a_removed_project_is_not_replaced_by_one_above(
        self, ready: Repository, reconcile: Reconcile
    ) -> None:
        ready.write("inner/reconciler.yaml", (ready.path / "reconciler.yaml").read_text())
        add_flow(ready, "two", "inner/")
        ready.remove("inner/reconciler.yaml")
        removed = ready.commit("away")
        done = reconcile("plan", cwd=ready.path / "inner")
        assert done.returncode == 4
        assert f"commit {removed[:7]} removed it" in done.stderr

    def test_the_variable_names_the_repository(
        self, ready: Repository, planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RECONCILER_REPO", str(ready.path))
        assert planned(cwd=tmp_path) == ["one"]

    def test_project_in_a_folder(self, repository: Repository, planned: Planned, tmp_path: Path) -> None:
        """By --path, by standing in it, and by naming it as --repo."""
        minimal_project(repository, tmp_path / "work")
        repository.move("reconciler.yaml", "deep/er/reconciler.yaml")
        add_flow(repository, "inner", "deep/er/")
        inside = repository.path / "deep/er"
        assert planned("--path", "deep/er") == ["inner"]
        assert planned("--path", "/deep/er/") == ["inner"]
        assert planned(cwd=inside) == ["inner"]
        assert planned("--repo", str(inside), cwd=tmp_path) == ["inner"]
        assert planned("--path", "er", cwd=inside.parent) == ["inner"]

    def test_project_elsewhere_is_hinted_at(self, ready: Repository, reconcile: Reconcile) -> None:
        ready.write("empty/file", "")
        ready.commit()
        done = reconcile("plan", "--path", "empty")
        assert done.returncode == 2
        assert f"'empty' of main@{ready.head[:7]} does not have a reconciler.yaml" in done.stderr
        assert "--path" in done.stderr

    def test_blanks_and_umlauts(self, tmp_path: Path, reconcile: Reconcile) -> None:
        repository = Repository(tmp_path / "mein schönes Projekt – 2'")
        minimal_project(repository, tmp_path / "work dir ü")
        add_flow(repository, "one", "")
        repository.write_yaml("flows/größe und form.yaml", FLOW.replace("NAME", "two"))
        repository.commit()
        state = str(tmp_path / "Zustand ß")
        call = ["--state-dir", state, "--repo", str(repository.path), "--once", "--wait"]
        done = reconcile(*call, cwd=tmp_path)
        assert (done.returncode, "2 flows, 2 jobs" in done.stdout) == (0, True), done.stdout
        assert "no changes" in reconcile(*call, cwd=tmp_path).stdout
        repository.write("flows/größe und form.yaml", "a: [")
        assert "flows/größe und form.yaml" in reconcile(*call, cwd=tmp_path).stderr

    def test_bare_repository(self, ready: Repository, planned: Planned, tmp_path: Path) -> None:
        ready.run("clone", "--quiet", "--bare", str(ready.path), str(tmp_path / "bare.git"))
        assert planned("--repo", str(tmp_path / "bare.git"), cwd=tmp_path) == ["one"]
        assert planned("--repo", str(ready.path / ".git"), cwd=tmp_path) == ["one"]

    def test_worktree(self, ready: Repository, planned: Planned, tmp_path: Path) -> None:
        ready.run("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
        add_flow(ready, "two")
        assert planned("--repo", str(tmp_path / "side"), cwd=tmp_path) == ["one"]
        assert planned() == ["one", "two"]

    def test_link_to_the_repository(self, ready: Repository, reconcile: Reconcile, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(ready.path)
        ready.write("flows/draft.yaml", "")
        done = reconcile("plan", "--repo", str(tmp_path / "link"), cwd=tmp_path)
        assert (done.returncode, "flows/draft.yaml" in done.stderr) == (0, True)

    def test_no_repository(self, reconcile: Reconcile, tmp_path: Path) -> None:
        (tmp_path / "plain").mkdir()
        done = reconcile("plan", cwd=tmp_path / "plain")
        assert done.returncode == 2
        assert "is not inside a git repository" in done.stderr
        assert "git init" in done.stderr

    def test_no_commit(self, repository: Repository, reconcile: Reconcile) -> None:
        done = reconcile("plan")
        assert done.returncode == 2
        assert "does not have a commit yet\n  help: run `git add` and `git commit` first" in done.stderr

    def test_variables_of_a_git_hook_are_ignored(
        self, ready: Repository, planned: Planned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
        monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
        assert planned() == ["one"]


class TestWhich:
    def test_branch_commit_and_tag(self, ready: Repository, planned: Planned) -> None:
        first = ready.head
        ready.run("tag", "--annotate", "--message=v1", "v1")
        ready.run("checkout", "--quiet", "-b", "feature/more")
        add_flow(ready, "two")
        ready.run("checkout", "--quiet", "main")
        assert planned() == ["one"]
        assert planned("--branch", "feature/more") == ["one", "two"]
        for name in ("v1", first, first[:10], "HEAD", "feature/more~1", "refs/heads/main"):
            assert planned("--branch", name) == ["one"]

    def test_revision_is_shown_by_branch_and_commit(self, ready: Repository, reconcile: Reconcile) -> None:
        ready.run("branch", "other")
        assert f"other@{ready.head[:7]}: " in reconcile("plan", "--branch", "other").stdout

    def test_detached_head(self, ready: Repository, reconcile: Reconcile) -> None:
        ready.run("checkout", "--quiet", "--detach")
        done = reconcile("plan")
        assert (done.returncode, f"HEAD@{ready.head[:7]}: " in done.stdout) == (0, True)

    def test_branch_named_like_a_file(self, ready: Repository, planned: Planned) -> None:
        ready.run("checkout", "--quiet", "-b", "flows")
        add_flow(ready, "two")
        ready.run("checkout", "--quiet", "main", "--")
        assert planned("--branch", "flows") == ["one", "two"]
        ready.run("checkout", "--quiet", "flows", "--")
        assert planned() == ["one", "two"]

    def test_unknown_branch(self, ready: Repository, reconcile: Reconcile) -> None:
        done = reconcile("plan", "--branch", "mian")
        assert done.returncode == 2
        assert "error: there is no branch or commit 'mian'\n  help: did you mean 'main'?\n" in done.stderr

    def test_work_tree_is_never_read(self, ready: Repository, planned: Planned) -> None:
        ready.remove("flows/one.yaml")
        ready.write("reconciler.yaml", "nonsense: [")
        assert planned() == ["one"]


class TestRemote:
    """A URL: a bare mirror in the user's cache."""

    @pytest.fixture
    def url(self, ready: Repository) -> str:
        return ready.path.as_uri()

    def test_clone_then_fetch_what_is_new(
        self, ready: Repository, url: str, planned: Planned, tmp_path: Path
    ) -> None:
        assert planned("--repo", url, cwd=tmp_path) == ["one"]
        (mirror,) = (tmp_path / "home/.cache/reconciler/mirrors").glob("*.git")
        before = set(mirror.rglob("*.pack"))
        add_flow(ready, "two")
        assert planned("--repo", url, cwd=tmp_path) == ["one", "two"]
        assert before <= set(mirror.rglob("*.pack")), "the mirror was not cloned anew"

    def test_branch_is_deleted(
        self, ready: Repository, url: str, planned: Planned, reconcile: Reconcile
    ) -> None:
        ready.run("branch", "side")
        assert planned("--repo", url, "--branch", "side") == ["one"]
        ready.run("branch", "--delete", "side")
        assert reconcile("plan", "--repo", url, "--branch", "side").returncode == 2

    def test_whole_reconcile_and_reading_while_it_is_unreachable(
        self, ready: Repository, url: str, reconcile: Reconcile, tmp_path: Path
    ) -> None:
        call = ["--repo", url]
        assert reconcile(*call, "--once", "--wait", cwd=tmp_path).returncode == 0
        ready.path.rename(tmp_path / "gone")
        done = reconcile(*call, "--once", cwd=tmp_path)
        assert done.returncode == 3
        assert f"error: cannot fetch {url}: " in done.stderr
        assert "nothing was changed" in done.stderr
        for verb in (["get", "jobs"], ["describe", "job", "one/value"], ["output", "one/value"]):
            found = reconcile(*call, *verb, cwd=tmp_path)
            assert (found.returncode, found.stderr) == (0, ""), verb
        (tmp_path / "gone").rename(ready.path)
        assert "no changes" in reconcile(*call, "--once", cwd=tmp_path).stdout

    def test_unreachable_from_the_first(self, reconcile: Reconcile, tmp_path: Path) -> None:
        done = reconcile("plan", "--repo", (tmp_path / "never").as_uri())
        assert (done.returncode, "Traceback" in done.stderr) == (3, False)
        assert "error: cannot fetch file:///" in done.stderr

    def test_password_is_not_shown(self, reconcile: Reconcile) -> None:
        done = reconcile("plan", "--repo", "https://ada:secret@localhost:1/x.git")
        assert done.returncode == 3
        assert "secret" not in done.stdout + done.stderr
        assert "https://***@localhost:1/x.git" in done.stderr

    def test_state_is_that_of_the_local_clone(
        self, ready: Repository, url: str, reconcile: Reconcile, state_dir: Path
    ) -> None:
        state = ["--state-dir", str(state_dir)]
        assert reconcile(*state, "--once", "--wait").returncode == 0
        assert "no changes" in reconcile(*state, "--repo", url, "--once").stdout


def test_project_name_gives_the_state_directory(ready: Repository, reconcile: Reconcile) -> None:
    assert reconcile("--once", "--wait").returncode == 0
    assert (Path(os.environ["XDG_STATE_HOME"]) / "reconciler/minimal/lmdb/data.mdb").exists()
    state = (Path(os.environ["XDG_STATE_HOME"]) / "reconciler/minimal").stat()
    assert state.st_mode & 0o777 == 0o700
