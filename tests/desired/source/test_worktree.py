"""The writing side of git: nothing but the one file and the one commit, and everything back if it fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.desired.source.git import Source, open_source
from reconciler.desired.source.worktree import FileEdit, WorkTree
from reconciler.errors import InputError, RefusedError, WorldError
from tests.support import Repository

OLD, NEW = b"# rules\na: 1\n", b"# rules\na: 2\n"
EDIT = FileEdit("rules/r.yaml", OLD, NEW)
FRESH = FileEdit("new/deep/s.yaml", None, NEW)


@pytest.fixture
def repository(repository: Repository) -> Repository:
    repository.write("rules/r.yaml", OLD)
    repository.write("other.txt", "one\n")
    repository.write("staged.txt", "one\n")
    repository.commit("start")
    return repository


def source(repository: Repository, path: str = "", branch: str | None = None, place: str = ".") -> Source:
    return open_source(str(repository.path / place), branch, path, Path("/nowhere"))


def commit(repository: Repository, edit: FileEdit = EDIT, message: str = "a change") -> str:
    opened = source(repository)
    return WorkTree(opened).commit(opened.revision(), edit, message)


def state(repository: Repository) -> tuple[str, str, str, str, set[str]]:
    """Return all that a refused or failed commit must leave as it was."""
    files = {str(path) for path in repository.path.rglob("*") if ".git" not in path.parts}
    return (
        repository.head,
        repository.run("status", "--porcelain", "--untracked-files=all"),
        repository.run("diff", "HEAD"),
        repository.run("ls-files", "--stage"),
        files,
    )


def hook(repository: Repository, name: str, script: str) -> None:
    repository.write(f".git/hooks/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)


class TestCommit:
    def test_one_file_one_commit(self, repository: Repository) -> None:
        before = repository.head
        made = commit(repository, message="a change\n\nwith 'more' to say: $HOME `x` 🚀")
        assert made == repository.head
        assert repository.run("rev-parse", "HEAD^") == before
        assert repository.run("diff", "--name-only", "HEAD^", "HEAD") == "rules/r.yaml"
        assert repository.run("log", "-1", "--format=%B%an").splitlines() == [
            "a change", "", "with 'more' to say: $HOME `x` 🚀", "Ada Tester",
        ]  # fmt: skip
        assert (repository.path / "rules/r.yaml").read_bytes() == NEW

    def test_a_new_file_in_a_new_folder(self, repository: Repository) -> None:
        commit(repository, FRESH)
        assert repository.run("show", "HEAD:new/deep/s.yaml") == NEW.decode().rstrip("\n")
        assert repository.run("status", "--porcelain") == ""

    def test_what_else_is_changed_or_staged_stays_so(self, repository: Repository) -> None:
        repository.write("other.txt", "two\n")
        repository.write("staged.txt", "two\n")
        repository.run("add", "staged.txt")
        repository.write("untracked.txt", "x")
        before = repository.run("status", "--porcelain")
        for edit in (EDIT, FRESH):
            commit(repository, edit)
            assert repository.run("diff", "--name-only", "HEAD^", "HEAD") == edit.file
            assert repository.run("status", "--porcelain") == before

    def test_the_mode_of_the_file_stays(self, repository: Repository) -> None:
        (repository.path / "rules/r.yaml").chmod(0o755)
        repository.commit("executable")
        commit(repository)
        assert repository.run("ls-tree", "HEAD", "rules/r.yaml").startswith("100755")
        assert (repository.path / "rules/r.yaml").stat().st_mode & 0o777 == 0o755

    def test_carriage_returns_that_git_converts(self, repository: Repository) -> None:
        repository.run("config", "core.autocrlf", "true")
        (repository.path / "rules/r.yaml").unlink()
        repository.run("checkout", "--", "rules/r.yaml")
        opened = source(repository)
        read = WorkTree(opened).read(opened.revision(), "rules/r.yaml")
        assert read == OLD.replace(b"\n", b"\r\n")
        edit = FileEdit("rules/r.yaml", read, NEW.replace(b"\n", b"\r\n"))
        trial = WorkTree(opened).simulate(opened.revision(), edit)
        made = commit(repository, edit)
        for revision in (trial, made):
            assert repository.run("diff", "--numstat", "HEAD^", revision) == "1\t1\trules/r.yaml"
        assert repository.run("status", "--porcelain") == ""

    def test_names_that_look_like_patterns(self, repository: Repository) -> None:
        repository.write("[ab]*.yaml", OLD)
        repository.write("a1.yaml", OLD)
        repository.commit("odd names")
        repository.write("a1.yaml", "dirty")
        commit(repository, FileEdit("[ab]*.yaml", OLD, NEW))
        assert repository.run("diff", "--name-only", "HEAD^", "HEAD") == "[ab]*.yaml"
        commit(repository, FileEdit(":(top)ä b.yaml", None, NEW))
        assert repository.run("status", "--porcelain") == " M a1.yaml"

    def test_a_project_below_the_root_and_from_within(self, repository: Repository) -> None:
        repository.write("sub/dir/rules/r.yaml", OLD)
        repository.commit("a project inside")
        for opened in (source(repository, "sub/dir"), source(repository, "dir", place="sub")):
            tree, revision = WorkTree(opened), opened.revision()
            content = tree.read(revision, "rules/r.yaml") or b""
            made = tree.commit(revision, FileEdit("rules/r.yaml", content, content + b"#\n"), "inside")
            assert repository.run("diff", "--name-only", f"{made}^", made) == "sub/dir/rules/r.yaml"

    def test_hooks_run(self, repository: Repository) -> None:
        hook(repository, "commit-msg", 'echo "Reviewed-by: the hook" >> "$1"')
        commit(repository)
        assert "Reviewed-by: the hook" in repository.run("log", "-1", "--format=%B")

    def test_a_worktree_of_the_repository(self, repository: Repository, tmp_path: Path) -> None:
        repository.run("worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
        opened = open_source(str(tmp_path / "side"), None, "", tmp_path)
        made = WorkTree(opened).commit(opened.revision(), EDIT, "on the side")
        assert repository.run("rev-parse", "side") == made != repository.head


class TestFailure:
    @pytest.mark.parametrize("edit", [EDIT, FRESH], ids=["known", "new"])
    def test_a_hook_that_refuses_leaves_everything_as_it_was(
        self, repository: Repository, edit: FileEdit
    ) -> None:
        repository.write("other.txt", "two\n")
        repository.write("staged.txt", "two\n")
        repository.run("add", "staged.txt")
        hook(
            repository, "pre-commit", f"echo tidied >> {edit.file}\necho 'no commits on Fridays' >&2\nexit 1"
        )
        before = state(repository)
        with pytest.raises(WorldError, match="git commit failed: no commits on Fridays"):
            commit(repository, edit)
        assert state(repository) == before

    def test_of_a_long_report_the_end_is_shown(self, repository: Repository) -> None:
        hook(repository, "pre-commit", "seq 1 40\nexit 1")
        with pytest.raises(WorldError) as caught:
            commit(repository)
        lines = caught.value.message.splitlines()
        assert lines[0] == "git commit failed:"
        assert lines[1:3] == ["  ...", "  26"]
        assert lines[-1] == "  40"

    def test_no_identity(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        for role in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{role}_NAME", "")
        before = state(repository)
        with pytest.raises(WorldError, match="empty ident name"):
            commit(repository)
        assert state(repository) == before

    def test_an_ignored_file_cannot_be_added(self, repository: Repository) -> None:
        repository.write(".gitignore", "new/\n")
        repository.commit("ignore")
        before = state(repository)
        with pytest.raises(WorldError, match=r"ignored by one of your \.gitignore"):
            commit(repository, FRESH)
        assert state(repository) == before

    def test_a_folder_that_cannot_be_written(self, repository: Repository) -> None:
        repository.write("new", "a file where a folder should be")
        repository.commit("in the way")
        with pytest.raises(WorldError, match="cannot create"):
            commit(repository, FRESH)


class TestRefusals:
    def refused(self, repository: Repository, match: str, file: str = "rules/r.yaml") -> None:
        before = state(repository)
        opened = source(repository)
        with pytest.raises(RefusedError, match=match) as caught:
            WorkTree(opened).read(opened.revision(), file)
        assert caught.value.hint
        assert state(repository) == before

    @pytest.mark.parametrize("staged", [False, True])
    def test_a_dirty_file(self, repository: Repository, staged: bool) -> None:
        repository.write("rules/r.yaml", "a: 3\n")
        if staged:
            repository.run("add", "rules")
        self.refused(repository, "has uncommitted changes")

    def test_a_deleted_file(self, repository: Repository) -> None:
        (repository.path / "rules/r.yaml").unlink()
        self.refused(repository, "has uncommitted changes")

    def test_a_new_file_that_git_does_not_know(self, repository: Repository) -> None:
        repository.write("rules/set.yaml", "a: 3\n")
        self.refused(repository, "git does not track it", "rules/set.yaml")
        repository.run("add", "rules")
        self.refused(repository, "has uncommitted changes", "rules/set.yaml")

    def test_symlinks(self, repository: Repository, tmp_path: Path) -> None:
        (repository.path / "link.yaml").symlink_to("rules/r.yaml")
        (repository.path / "folder").symlink_to(tmp_path)
        repository.commit("links")
        self.refused(repository, "not a plain file", "link.yaml")
        self.refused(repository, "behind a symlink", "folder/s.yaml")

    def test_a_file_that_is_left_out_of_the_checkout(self, repository: Repository) -> None:
        repository.run("update-index", "--skip-worktree", "rules/r.yaml")
        (repository.path / "rules/r.yaml").unlink()
        self.refused(repository, "not a plain file here")

    def test_a_detached_head(self, repository: Repository) -> None:
        repository.run("checkout", "-q", "--detach")
        self.refused(repository, "HEAD is detached")

    def test_a_merge_that_goes_on(self, repository: Repository) -> None:
        repository.run("checkout", "-q", "-b", "side")
        repository.write("other.txt", "two\n")
        repository.commit("side")
        repository.run("checkout", "-q", "main")
        repository.run("merge", "-q", "--no-ff", "--no-commit", "side")
        self.refused(repository, "a merge is in progress")

    @pytest.mark.parametrize("command", [["rebase", "side"], ["cherry-pick", "side"], ["revert", "side~1"]])
    def test_a_conflict_that_waits(self, repository: Repository, command: list[str]) -> None:
        repository.run("checkout", "-q", "-b", "side")
        for text in ("two\n", "three\n"):
            repository.write("other.txt", text)
            repository.commit(text)
        repository.run("checkout", "-q", "main")
        repository.write("other.txt", "four\n")
        repository.commit("main")
        with pytest.raises(RuntimeError):
            repository.run(*command)
        before = state(repository)
        with pytest.raises(RefusedError, match=rf"a {command[0]} is in progress|HEAD is detached"):
            WorkTree(source(repository))
        assert state(repository) == before

    def test_another_branch_than_the_one_checked_out(self, repository: Repository) -> None:
        repository.run("branch", "side")
        with pytest.raises(InputError, match="'side' is not checked out"):
            WorkTree(source(repository, branch="side"))
        assert WorkTree(source(repository, branch="main")).branch == "main"
        assert WorkTree(source(repository, branch="HEAD")).branch == "main"

    def test_a_bare_repository(self, repository: Repository, tmp_path: Path) -> None:
        repository.run("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
        with pytest.raises(InputError, match="needs a checkout"):
            WorkTree(open_source(str(tmp_path / "bare.git"), None, "", tmp_path))

    def test_a_lock(self, repository: Repository) -> None:
        repository.write(".git/index.lock", "")
        with pytest.raises(RefusedError, match="another git command is running"):
            commit(repository)
        assert (repository.path / "rules/r.yaml").read_bytes() == OLD

    def test_what_changed_since_it_was_read(self, repository: Repository) -> None:
        opened = source(repository)
        tree, revision = WorkTree(opened), opened.revision()
        repository.commit("meanwhile")
        with pytest.raises(RefusedError, match="has changed in the meantime"):
            tree.commit(revision, EDIT, "late")
        repository.write("rules/r.yaml", "a: 5\n")
        with pytest.raises(RefusedError, match="uncommitted changes"):
            tree.commit(opened.revision(), EDIT, "late")
        assert (repository.path / "rules/r.yaml").read_bytes() == b"a: 5\n"

    def test_a_write_that_was_not_committed(self, repository: Repository) -> None:
        """What a crash between write and commit leaves: the next one says how to get out."""
        repository.write("rules/r.yaml", NEW)
        opened = source(repository)
        with pytest.raises(RefusedError) as caught:
            WorkTree(opened).read(opened.revision(), "rules/r.yaml")
        command = str(caught.value.hint).split("`")[3].split()
        assert command[:2] == ["git", "restore"]
        repository.run(*command[1:])
        assert WorkTree(opened).read(opened.revision(), "rules/r.yaml") == OLD


class TestTrial:
    @pytest.mark.parametrize("edit", [EDIT, FRESH], ids=["known", "new"])
    def test_a_trial_leaves_no_trace_and_shows_the_change(
        self, repository: Repository, edit: FileEdit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in os.environ if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
            monkeypatch.delenv(name)  # a trial needs no identity
        repository.write("staged.txt", "two\n")
        repository.run("add", "staged.txt")
        hook(repository, "pre-commit", "exit 1")
        before, opened = state(repository), source(repository)
        tree, revision = WorkTree(opened), opened.revision()
        trial = tree.simulate(revision, edit)
        assert state(repository) == before
        assert repository.run("rev-parse", f"{trial}^") == revision.commit
        assert repository.run("diff", "--name-only", revision.commit, trial) == edit.file
        assert opened.revision(trial).commit == trial
        diff = tree.diff(revision.commit, trial, edit.file).decode()
        assert f"+++ b/{edit.file}\n" in diff
        assert diff.endswith("+a: 2\n")

    def test_a_diff_can_be_applied(self, repository: Repository, tmp_path: Path) -> None:
        repository.write("rules/r.yaml", "\ufeffa: 1\r\nb: 1")
        repository.commit("odd bytes")
        opened = source(repository)
        tree, revision = WorkTree(opened), opened.revision()
        edit = FileEdit("rules/r.yaml", "\ufeffa: 1\r\nb: 1".encode(), "\ufeffa: 2\r\nb: 1".encode())
        patch = tmp_path / "patch"
        patch.write_bytes(tree.diff(revision.commit, tree.simulate(revision, edit), edit.file))
        repository.run("apply", str(patch))
        assert (repository.path / "rules/r.yaml").read_bytes() == edit.after


class TestPush:
    @pytest.fixture
    def remote(self, repository: Repository, tmp_path: Path) -> Path:
        path = tmp_path / "remote.git"
        repository.run("clone", "-q", "--bare", ".", str(path))
        repository.run("remote", "add", "origin", str(path))
        repository.run("push", "-q", "--set-upstream", "origin", "main:trunk")
        return path

    def test_to_the_upstream_whatever_its_name(self, repository: Repository, remote: Path) -> None:
        made = commit(repository)
        tree = WorkTree(source(repository))
        upstream = tree.upstream()
        assert str(upstream) == "origin/trunk"
        tree.push(upstream)
        assert repository.run("ls-remote", str(remote), "refs/heads/trunk").split()[0] == made

    def test_a_remote_that_refuses(self, repository: Repository, remote: Path) -> None:
        made = commit(repository)
        (remote / "hooks/pre-receive").write_text("#!/bin/sh\necho closed >&2; exit 1\n")
        (remote / "hooks/pre-receive").chmod(0o755)
        tree = WorkTree(source(repository))
        with pytest.raises(WorldError, match="closed"):
            tree.push(tree.upstream())
        assert repository.head == made

    def test_no_upstream(self, repository: Repository) -> None:
        with pytest.raises(InputError, match="does not have an upstream") as caught:
            WorkTree(source(repository)).upstream()
        assert "git push --set-upstream origin main" in str(caught.value.hint)
