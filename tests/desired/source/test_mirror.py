"""Mirrors of remotes: which branch they read, what a dead fetch leaves, and what they advise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reconciler.desired.source.git import Source, open_source
from reconciler.errors import InputError, LostError, TransientError
from tests.support import Repository


@pytest.fixture
def remote(repository: Repository, tmp_path: Path) -> Path:
    repository.write("a.yaml", "1")
    repository.commit("first")
    bare = tmp_path / "remote.git"
    repository.run("clone", "--quiet", "--bare", ".", str(bare))
    repository.run("remote", "add", "origin", str(bare))
    return bare


@pytest.fixture
def mirrors(tmp_path: Path) -> Path:
    return tmp_path / "mirrors"


def opened(remote: Path, mirrors: Path, branch: str | None = None) -> Source:
    return open_source(remote.as_uri(), branch, "", mirrors)


def run(remote: Path, *arguments: str) -> None:
    subprocess.run(["git", f"--git-dir={remote}", *arguments], check=True, capture_output=True)


class TestDefaultBranch:
    """Without --branch, a remote is read at what its HEAD is now."""

    def test_it_moves_to_a_branch_that_is_ahead(
        self, repository: Repository, remote: Path, mirrors: Path
    ) -> None:
        assert str(opened(remote, mirrors).revision()) == f"main@{repository.head[:7]}"
        repository.run("switch", "--quiet", "--create", "trunk")
        ahead = repository.commit("ahead")
        repository.run("push", "--quiet", "origin", "trunk")
        run(remote, "symbolic-ref", "HEAD", "refs/heads/trunk")
        assert str(opened(remote, mirrors).revision()) == f"trunk@{ahead[:7]}"
        run(remote, "branch", "-D", "main")
        assert str(opened(remote, mirrors).revision()) == f"trunk@{ahead[:7]}"

    def test_it_is_renamed_where_it_is(self, repository: Repository, remote: Path, mirrors: Path) -> None:
        opened(remote, mirrors)
        run(remote, "branch", "-m", "main", "trunk")
        assert str(opened(remote, mirrors).revision()) == f"trunk@{repository.head[:7]}"

    def test_it_is_a_commit(self, repository: Repository, remote: Path, mirrors: Path) -> None:
        first = repository.head
        opened(remote, mirrors)
        repository.commit("second")
        repository.run("push", "--quiet", "origin", "main")
        run(remote, "update-ref", "--no-deref", "HEAD", first)
        assert str(opened(remote, mirrors).revision()) == f"HEAD@{first[:7]}"

    def test_it_does_not_exist(self, repository: Repository, remote: Path, mirrors: Path) -> None:
        opened(remote, mirrors)
        second = repository.commit("second")
        repository.run("push", "--quiet", "origin", "main")
        run(remote, "symbolic-ref", "HEAD", "refs/heads/nowhere")
        assert opened(remote, mirrors, "main").revision().commit == second

    def test_a_remote_without_a_commit(self, tmp_path: Path, mirrors: Path) -> None:
        empty = tmp_path / "empty.git"
        subprocess.run(["git", "init", "--quiet", "--bare", str(empty)], check=True)
        with pytest.raises(InputError, match="does not have a commit") as caught:
            opened(empty, mirrors).revision()
        assert empty.as_uri() in caught.value.message
        assert "git add" not in (caught.value.hint or "")


class TestLocks:
    @pytest.mark.parametrize(
        "lock",
        ["packed-refs.lock", "HEAD.lock", "config.lock", "shallow.lock", "refs/heads/main.lock",
         "refs/tags/t1.lock", "objects/info/commit-graphs/commit-graph-chain.lock"],
    )  # fmt: skip
    @pytest.mark.parametrize("age", [0, 200_000])
    def test_what_a_dead_fetch_left_is_removed(
        self, repository: Repository, remote: Path, mirrors: Path, lock: str, age: int
    ) -> None:
        mirror = opened(remote, mirrors).git_dir
        (mirror / lock).parent.mkdir(parents=True, exist_ok=True)
        (mirror / lock).touch()
        os.utime(mirror / lock, (time.time() - age, time.time() - age))
        second = repository.commit("second")
        repository.run("push", "--quiet", "origin", "main")
        assert opened(remote, mirrors).revision().commit == second
        assert not (mirror / lock).exists()

    def test_the_lock_of_a_fetch_that_lives_on_is_respected(
        self, repository: Repository, remote: Path, mirrors: Path, tmp_path: Path
    ) -> None:
        """The program is killed while git fetches: git goes on, and nobody interferes with it."""
        mirror = opened(remote, mirrors).git_dir
        repository.commit("second")
        repository.run("push", "--quiet", "origin", "main")
        begun, goes_on = tmp_path / "begun", tmp_path / "goes-on"
        slow = tmp_path / "upload"
        slow.write_text(
            f"#!/bin/sh\ntouch {begun}\nwhile [ ! -e {goes_on} ]; do sleep 0.05; done\n"
            'exec git-upload-pack "$@"\n'
        )
        slow.chmod(0o755)
        run(mirror, "config", "remote.origin.uploadpack", str(slow))
        fetch = f"from tests.desired.source.test_mirror import *; opened(Path({str(remote)!r}), "
        fetch += f"Path({str(mirrors)!r}))"
        first = subprocess.Popen([sys.executable, "-c", fetch], cwd=Path(__file__).parents[3])
        while not begun.exists():
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        second = subprocess.Popen([sys.executable, "-c", fetch], cwd=Path(__file__).parents[3])
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(2)
        goes_on.touch()
        assert second.wait(60) == 0
        assert open_source(remote.as_uri(), None, "", mirrors, fetch=False).revision().commit == (
            repository.head
        )

    def test_a_mirror_that_is_no_repository_is_made_anew(
        self, repository: Repository, remote: Path, mirrors: Path
    ) -> None:
        mirror = opened(remote, mirrors).git_dir
        (mirror / "HEAD").write_text("")
        assert opened(remote, mirrors).revision().commit == repository.head


class TestNames:
    @pytest.mark.parametrize("branch", ["x{y", "a}b", "{", "odd{0}", "größe", "a/b-c.d", "@", "x'y", "x y"])
    def test_branches_with_odd_names(
        self, repository: Repository, remote: Path, mirrors: Path, branch: str
    ) -> None:
        if branch == "x y":
            with pytest.raises(InputError, match="there is no branch or commit 'x y'"):
                open_source(str(repository.path), branch, "", mirrors).revision()
            return
        first = repository.head
        run(repository.path / ".git", "update-ref", f"refs/heads/{branch}", first)
        repository.commit("second")
        repository.run("push", "--quiet", "origin", f"refs/heads/{branch}")
        for location in (str(repository.path), remote.as_uri()):
            found = open_source(location, branch, "", mirrors).revision()
            assert (found.branch, found.commit) == (branch, first)

    @pytest.mark.parametrize("kind", ["tag", "remote branch"])
    def test_a_branch_comes_before_everything_else_of_its_name(
        self, repository: Repository, remote: Path, mirrors: Path, kind: str
    ) -> None:
        repository.run("tag", "main") if kind == "tag" else repository.run("fetch", "--quiet", "origin")
        second = repository.commit("second")
        repository.run("push", "--quiet", "origin", "refs/heads/main", "--tags")
        for location in (str(repository.path), remote.as_uri()):
            source = open_source(location, "main", "", mirrors)
            assert source.revision().commit == second
            root = repository.run("rev-list", "--max-parents=0", "refs/heads/main")
            assert source.root_commits() == [root]

    def test_a_tag_is_still_found(self, repository: Repository, mirrors: Path) -> None:
        repository.write("a.yaml", "1")
        first = repository.commit("first")
        repository.run("tag", "--annotate", "v1", "--message=v1")
        repository.commit("second")
        assert open_source(str(repository.path), "v1", "", mirrors).revision().commit == first

    def test_a_branch_that_is_not_utf8(self, repository: Repository, mirrors: Path) -> None:
        repository.write("a.yaml", "1")
        first = repository.commit("first")
        odd = os.fsdecode(b"br\xe9")
        repository.run("switch", "--quiet", "--create", odd)
        for branch in (None, odd):
            source = open_source(str(repository.path), branch, "", mirrors)
            found = source.revision()
            assert (found.branch, found.commit) == ("br\\xe9", first)
            assert source.reads_head()
        with pytest.raises(InputError, match=r"br\\xff"):
            open_source(str(repository.path), os.fsdecode(b"br\xff"), "", mirrors).revision()


class TestAdvice:
    """A remote gets no advice that fits only a local repository."""

    def test_an_unknown_branch(self, remote: Path, mirrors: Path) -> None:
        with pytest.raises(InputError, match="there is no branch or commit 'zebra-branch-of-none'") as caught:
            opened(remote, mirrors, "zebra-branch-of-none").revision()
        assert caught.value.hint in (
            "known: main",
            f"list the branches with `git ls-remote --heads {remote.as_uri()}`",
        )

    def test_a_lost_object(self, remote: Path, mirrors: Path) -> None:
        with pytest.raises(LostError) as caught:
            list(opened(remote, mirrors).blobs(["0" * 40]))
        assert remote.as_uri() in caught.value.message
        assert "git fetch" not in (caught.value.hint or "")

    def test_a_password_is_not_repeated(self, mirrors: Path) -> None:
        with pytest.raises(TransientError) as caught:
            open_source("https://me:secret@localhost:1/x.git", None, "", mirrors)
        assert "secret" not in caught.value.message


class TestRemoved:
    """That a commit removed something is said only if it did."""

    def test_a_commit_did(self, repository: Repository, mirrors: Path) -> None:
        repository.write("camp/a.yaml", "1")
        repository.write("other", "1")
        repository.commit("first")
        repository.run("rm", "-rq", "camp")
        gone = repository.commit("second")
        repository.write("other", "2")
        head = repository.commit("third")
        source = open_source(str(repository.path), None, "", mirrors)
        assert source.removed_by(head, "camp") == gone[:7]
        assert source.removed_by(head, "camp/a.yaml") == gone[:7]

    def test_none_did(self, repository: Repository, mirrors: Path) -> None:
        repository.write("camp/a.yaml", "1")
        head = repository.commit("first")
        source = open_source(str(repository.path), None, "", mirrors)
        assert source.removed_by(head, "never") is None
        assert source.removed_by(head, "camp") is None, "it is there"
        assert source.removed_by(head, "camp/a.yaml/below") is None

    def test_a_merge_did(self, repository: Repository, mirrors: Path) -> None:
        repository.write("camp/a.yaml", "1")
        repository.write("other", "1")
        repository.commit("first")
        repository.run("switch", "--quiet", "--create", "side")
        repository.write("other", "2")
        repository.commit("on the side")
        repository.run("switch", "--quiet", "main")
        repository.write("more", "1")
        repository.commit("on main")
        repository.run("merge", "--quiet", "--no-commit", "side")
        repository.run("rm", "-rqf", "camp")
        merge = repository.commit("merge")
        source = open_source(str(repository.path), None, "", mirrors)
        assert source.removed_by(merge, "camp") == merge[:7]

    @pytest.mark.parametrize("what", ["submodule", "symlink", "file"])
    def test_something_else_is_there_now(self, repository: Repository, mirrors: Path, what: str) -> None:
        repository.write("camp/a.yaml", "1")
        head = repository.commit("first")
        repository.run("rm", "-rq", "camp")
        if what == "submodule":
            repository.run("update-index", "--add", "--cacheinfo", f"160000,{head},camp")
            repository.run("commit", "--quiet", "--message=second")
        elif what == "symlink":
            (repository.path / "camp").symlink_to("/")
            repository.commit("second")
        else:
            repository.write("camp", "1")
            repository.commit("second")
        with pytest.raises(InputError, match=f"'camp' is a {what}, not a folder"):
            open_source(str(repository.path), None, "camp", mirrors).revision()
