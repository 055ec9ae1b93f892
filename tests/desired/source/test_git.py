"""The source: what is read of a real repository, and that only its object database is."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from reconciler.desired.source.git import Source, open_source
from reconciler.errors import InputError, LostError, TransientError, WorldError
from tests.support import Repository


@pytest.fixture
def source(repository: Repository, tmp_path: Path) -> Source:
    repository.write("a/one.yaml", "1")
    repository.write("a/b/two.yaml", "22")
    repository.write("top.txt", "top")
    repository.commit()
    return open_source(str(repository.path), None, "", tmp_path / "mirrors")


def test_revision(source: Source, repository: Repository) -> None:
    revision = source.revision()
    assert (revision.branch, revision.commit, revision.path) == ("main", repository.head, "")
    assert revision.tree == repository.run("rev-parse", "HEAD^{tree}")
    assert str(revision) == f"main@{repository.head[:7]}"


def test_tree_of_a_folder_changes_only_with_it(
    repository: Repository, source: Source, tmp_path: Path
) -> None:
    inner = open_source(str(repository.path), None, "a", tmp_path)
    before = inner.revision()
    repository.write("top.txt", "changed")
    repository.commit()
    after = inner.revision()
    assert (after.tree, after.commit == before.commit) == (before.tree, False)


@pytest.mark.parametrize("path", ["nowhere", "top.txt", "a/one.yaml", "a\nb"])
def test_no_such_folder(repository: Repository, source: Source, path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        open_source(str(repository.path), None, path, tmp_path).revision()


def test_files_are_listed_with_paths_relative_to_the_source(repository: Repository, source: Source) -> None:
    commit = repository.head
    assert [entry.path for entry in source.files(commit, "")] == ["a/b/two.yaml", "a/one.yaml", "top.txt"]
    assert [entry.path for entry in source.files(commit, "a/")] == ["a/b/two.yaml", "a/one.yaml"]
    assert source.files(commit, "nowhere") == []
    inner = Source(source.git_dir, None, None, "a")
    assert [entry.path for entry in inner.files(commit, "b")] == ["b/two.yaml"]


def test_symlinks_and_submodules_are_told_from_files(repository: Repository, source: Source) -> None:
    (repository.path / "link").symlink_to("top.txt")
    head = repository.commit()
    repository.run("update-index", "--add", "--cacheinfo", f"160000,{head},module")
    repository.run("commit", "--quiet", "--message=module")
    found = {entry.path: (entry.what, entry.is_file) for entry in source.files(repository.head, "")}
    assert found["link"] == ("symlink", False)
    assert found["module"] == ("submodule", False)
    assert found["top.txt"] == ("file", True)


def test_one_entry(repository: Repository, source: Source) -> None:
    entry = source.entry(repository.head, "a/one.yaml")
    assert entry is not None
    assert entry.object_id == repository.run("rev-parse", "HEAD:a/one.yaml")
    assert source.entry(repository.head, "a/*.yaml") is None, "a name is no pattern"


@pytest.mark.parametrize(
    "name", ["größe.yaml", "with blank.yaml", 'quo"te.yaml', "new\nline.yaml", "[x].yaml", "-x.yaml"]
)
def test_strange_names(repository: Repository, source: Source, name: str) -> None:
    repository.write(f"s/{name}", name)
    commit = repository.commit()
    (entry,) = source.files(commit, "s")
    assert entry.path == f"s/{name}"
    assert source.entry(commit, f"s/{name}") == entry
    assert list(source.blobs([entry.object_id])) == [(entry.object_id, name.encode())]


def test_blobs_of_every_size(repository: Repository, source: Source) -> None:
    contents = [b"", b"\n", b"a\nb", bytes(range(256)) * 5000]
    for number, content in enumerate(contents):
        repository.write(f"blobs/{number}", content)
    entries = source.files(repository.commit(), "blobs")
    assert [data for _, data in source.blobs(entry.object_id for entry in entries)] == contents
    assert list(source.blobs([])) == []


def test_lost_blob(source: Source) -> None:
    with pytest.raises(LostError, match="git has lost the object"):
        list(source.blobs(["0" * 40]))


@pytest.mark.parametrize("name", ["HEAD^{tree}", "HEAD:a/b", "HEAD:a/b/two.yaml"])
def test_lost_code(source: Source, repository: Repository, name: str) -> None:
    tree, lost = repository.run("rev-parse", "HEAD^{tree}"), repository.run("rev-parse", name)
    assert len(list(source.code(tree))) == 3
    (source.git_dir / "objects" / lost[:2] / lost[2:]).unlink()
    with pytest.raises(LostError, match=f"git has lost the code {tree}"):
        list(source.code(tree))


def test_code_of_a_history_that_was_rewritten(source: Source, repository: Repository) -> None:
    tree = repository.run("rev-parse", "HEAD^{tree}")
    repository.write("top.txt", "another")
    repository.run("commit", "--quiet", "--all", "--amend", "--message=another")
    repository.run("reflog", "expire", "--expire=now", "--all")
    repository.run("gc", "--quiet", "--prune=now")
    with pytest.raises(LostError, match="git has lost the code"):
        list(source.code(tree))


def test_code_that_a_shallow_clone_does_not_have(
    source: Source, repository: Repository, tmp_path: Path
) -> None:
    tree = repository.run("rev-parse", "HEAD^{tree}")
    repository.write("top.txt", "another")
    repository.commit()
    repository.run("clone", "--quiet", "--depth=1", repository.path.as_uri(), str(tmp_path / "shallow"))
    shallow = open_source(str(tmp_path / "shallow"), None, "", tmp_path)
    with pytest.raises(LostError) as caught:
        list(shallow.code(tree))
    assert "git fetch --unshallow" in (caught.value.hint or "")


def test_what_a_partial_clone_cannot_fetch_is_not_lost(
    source: Source, repository: Repository, tmp_path: Path
) -> None:
    tree = repository.run("rev-parse", "HEAD^{tree}")
    blob = repository.run("rev-parse", "HEAD:top.txt")
    repository.run("config", "uploadpack.allowFilter", "true")
    options = ("--quiet", "--bare", "--filter=blob:none")
    repository.run("clone", *options, repository.path.as_uri(), str(tmp_path / "partial"))
    partial = open_source(str(tmp_path / "partial"), None, "", tmp_path)
    away = repository.path.rename(tmp_path / "away")
    with pytest.raises(TransientError):
        list(partial.code(tree))
    with pytest.raises(WorldError) as caught:
        list(partial.blobs([blob]))
    assert not isinstance(caught.value, LostError)
    away.rename(repository.path)
    assert len(list(partial.code(tree))) == 3


def test_a_repository_that_is_away_has_lost_nothing(source: Source, repository: Repository) -> None:
    tree = repository.run("rev-parse", "HEAD^{tree}")
    repository.path.rename(repository.path.with_name("away"))
    with pytest.raises(WorldError, match="not a git repository") as caught:
        list(source.code(tree))
    assert not isinstance(caught.value, LostError)


def test_earlier_versions_of_a_file(repository: Repository, source: Source) -> None:
    blobs = [repository.run("rev-parse", "HEAD:a/one.yaml")]
    for text in ("second", "third"):
        repository.write("a/one.yaml", text)
        repository.commit()
        blobs.append(repository.run("rev-parse", "HEAD:a/one.yaml"))
    *before, now = blobs
    assert list(source.earlier_versions(repository.head, "a/one.yaml", 10)) == before[::-1]
    assert now not in source.earlier_versions(repository.head, "a/one.yaml", 10)
    assert list(source.earlier_versions(repository.head, "a/one.yaml", 1)) == [before[-1]]


def test_no_process_can_be_started(source: Source) -> None:
    """It may go by: nobody is to take that for a bug, or for an answer of git."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(TransientError) as caught:
            source.revision()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.message == "git cannot be started: Too many open files"
    assert "limits of this machine" in (caught.value.hint or "")
    assert source.revision().branch == "main"


def test_no_git(source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorldError, match="not installed"):
        source.revision()


class TestExtract:
    def test_tree_is_written_whole(self, repository: Repository, source: Source, tmp_path: Path) -> None:
        tree = source.tree_id(repository.head, "a")
        assert tree is not None
        source.extract(tree, tmp_path / "out")
        source.extract(tree, tmp_path / "out")  # again is no work
        assert (tmp_path / "out/b/two.yaml").read_text() == "22"
        assert sorted(path.name for path in tmp_path.glob("out*")) == ["out"]

    def test_symlink_is_refused(self, repository: Repository, source: Source, tmp_path: Path) -> None:
        (repository.path / "a/link").symlink_to("/etc/passwd")
        tree = source.tree_id(repository.commit(), "a")
        assert tree is not None
        with pytest.raises(InputError, match="'link'"):
            source.extract(tree, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestUncommitted:
    def test_new_changed_staged_removed_and_moved(self, repository: Repository, source: Source) -> None:
        assert source.uncommitted([""]) == []
        repository.write("new/deep.yaml", "")
        repository.write("a/one.yaml", "changed")
        repository.remove("a/b/two.yaml")
        repository.run("mv", "top.txt", "moved.txt")
        assert sorted(source.uncommitted([""])) == [
            "a/b/two.yaml",
            "a/one.yaml",
            "moved.txt",
            "new/deep.yaml",
        ]
        assert source.uncommitted(["new"]) == ["new/deep.yaml"]

    def test_only_below_the_path(self, repository: Repository, source: Source, tmp_path: Path) -> None:
        repository.write("top.txt", "changed")
        assert open_source(str(repository.path / "a"), None, "", tmp_path).uncommitted([""]) == []

    def test_nothing_in_a_bare_repository(
        self, repository: Repository, source: Source, tmp_path: Path
    ) -> None:
        repository.run("clone", "--quiet", "--bare", str(repository.path), str(tmp_path / "bare.git"))
        assert open_source(str(tmp_path / "bare.git"), None, "", tmp_path).uncommitted([""]) == []

    def test_ignored_files_are_no_changes(self, repository: Repository, source: Source) -> None:
        repository.write(".gitignore", "*.log\n")
        repository.commit()
        repository.write("run.log", "")
        assert source.uncommitted([""]) == []


def test_root_commit_is_that_of_the_branch(repository: Repository, source: Source) -> None:
    first = repository.head
    repository.write("top.txt", "more")
    repository.commit()
    assert source.root_commits() == [first]


@pytest.mark.parametrize("depth", [1, 2, 3, None])
def test_a_rollback_is_seen_in_a_shallow_clone_too(
    repository: Repository, tmp_path: Path, depth: int | None
) -> None:
    commits = []
    for number in range(4):
        repository.write("a", f"{number}")
        commits.append(repository.commit(f"{number}"))
    options = [f"--depth={depth}"] if depth else []
    repository.run("clone", "-q", *options, repository.path.as_uri(), str(tmp_path / "copy"))
    source = open_source(str(tmp_path / "copy"), None, "", tmp_path)
    here = [commit for commit in commits if source.knows(commit)]
    assert len(here) == (depth or 4)
    for place, earlier in enumerate(here):
        for other, commit in enumerate(here):
            assert source.follows(commit, earlier) == (other >= place)
    assert source.follows(commits[3], "0" * 39 + "1") == bool(depth), "a shallow clone cannot know"


def test_shallow_clone_has_no_root(repository: Repository, source: Source, tmp_path: Path) -> None:
    repository.commit("second")
    repository.run("clone", "--quiet", "--depth=1", repository.path.as_uri(), str(tmp_path / "shallow"))
    assert open_source(str(tmp_path / "shallow"), None, "", tmp_path).root_commits() == []


class TestMirror:
    def test_fetch_false_takes_it_as_it_is(
        self, repository: Repository, source: Source, tmp_path: Path
    ) -> None:
        url, mirrors = repository.path.as_uri(), tmp_path / "mirrors"
        first = open_source(url, "main", "", mirrors, fetch=False).revision().commit
        second = repository.commit("more")
        assert open_source(url, "main", "", mirrors, fetch=False).revision().commit == first
        assert open_source(url, "main", "", mirrors).revision().commit == second

    def test_rewritten_history_is_fetched(
        self, repository: Repository, source: Source, tmp_path: Path
    ) -> None:
        url, mirrors = repository.path.as_uri(), tmp_path / "mirrors"
        open_source(url, None, "", mirrors)
        repository.run("commit", "--quiet", "--amend", "--message=another past")
        assert open_source(url, None, "", mirrors).revision().commit == repository.head

    def test_failed_clone_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(TransientError, match="cannot fetch file://"):
            open_source((tmp_path / "never").as_uri(), None, "", tmp_path / "mirrors")
        assert list((tmp_path / "mirrors").glob("*.git")) == []

    def test_mirror_that_cannot_be_written(
        self, repository: Repository, source: Source, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(WorldError, match="cannot write the mirror"):
            open_source(repository.path.as_uri(), None, "", tmp_path / "file")

    def test_each_url_has_its_own(self, repository: Repository, source: Source, tmp_path: Path) -> None:
        mirrors = tmp_path / "mirrors"
        urls = (repository.path.as_uri(), f"{repository.path.as_uri()}/.git")
        assert len({open_source(url, None, "", mirrors).git_dir for url in urls}) == 2
