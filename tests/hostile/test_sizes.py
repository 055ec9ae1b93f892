"""A file that is too large is refused with its size, and never in memory as a whole."""

from __future__ import annotations

import subprocess
import time
import tracemalloc
from pathlib import Path

import pytest

from reconciler.desired.source import objects
from reconciler.desired.source.git import Source, open_source
from reconciler.desired.state import load_desired, project_name
from reconciler.errors import InputError, LostError, UnfitError
from tests.desired.test_flows import NoCache
from tests.support import Repository, minimal_project

MB = 1 << 20
FLOW = b"apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: big}\nspec: {}\n"
BIG = {
    "zeros": bytes(40 * MB),
    "one line": FLOW + b"#" * (40 * MB),
    "many lines": FLOW + b"# x\n" * (10 * MB),
    "many documents": b"---\na: 1\n" * (4 * MB),
    "one list": b"a: [" + b"1," * (20 * MB),
}


def peak_of(source: Source) -> tuple[int, list[str]]:
    tracemalloc.start()
    try:
        state = load_desired(source, source.revision(), NoCache(), {}).state
        return tracemalloc.get_traced_memory()[1], [problem.message for problem in state.diagnostics]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", BIG.values(), ids=BIG)
def test_a_manifest(repository: Repository, tmp_path: Path, data: bytes) -> None:
    minimal_project(repository, tmp_path / "work")
    for number in range(3):
        repository.write(f"flows/big{number}.yaml", data + bytes([48 + number]))
    repository.write("flows/small.yaml", FLOW.replace(b"big", b"small"))
    repository.commit()
    source = open_source(str(repository.path), None, "", tmp_path)
    peak, messages = peak_of(source)
    assert len([text for text in messages if f"has {len(data) + 1} bytes" in text]) == 3
    assert [text for text in messages if "small" in text or "jobs" in text], "the small one is read"
    assert peak < 20 * MB


@pytest.mark.parametrize("data", [BIG["zeros"], BIG["many lines"]], ids=["zeros", "lines"])
def test_the_project_file(repository: Repository, tmp_path: Path, data: bytes) -> None:
    repository.write("reconciler.yaml", data)
    repository.commit()
    source = open_source(str(repository.path), None, "", tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            project_name(source, source.revision())
        assert tracemalloc.get_traced_memory()[1] < 20 * MB
    finally:
        tracemalloc.stop()


def test_the_beginnings_of_blobs(repository: Repository, tmp_path: Path) -> None:
    contents = [b"", b"a", b"\n", b"a" * 100, b"b" * 101, bytes(range(256)) * 1000]
    for number, content in enumerate(contents):
        repository.write(f"{number}", content)
    repository.commit()
    source = open_source(str(repository.path), None, "", tmp_path)
    entries = source.files(source.revision().commit, "")
    found = list(source.heads([entry.object_id for entry in entries], 100))
    assert [(size, data) for _, size, data in found] == [(len(one), one[:100]) for one in contents]
    assert list(source.heads([], 100)) == []
    assert next(iter(source.heads([entry.object_id for entry in entries], 100)))[1] == 0, "left early"
    with pytest.raises(LostError, match="has lost the object"):
        list(source.heads(["0" * 39 + "1"], 100))


def test_contents_are_the_same_by_both_ways(repository: Repository, tmp_path: Path) -> None:
    minimal_project(repository, tmp_path / "work")
    repository.commit()
    source = open_source(str(repository.path), None, "", tmp_path)
    blobs = [entry.object_id for entry in source.files(source.revision().commit, "")]
    assert [(blob, data) for blob, _, data in source.heads(blobs, MB)] == list(source.blobs(blobs))


# git bombs --------------------------------------------------------------------------------------------------


def bomb(repository: Repository, content: bytes, *, width: int = 10, depth: int = 10) -> str:
    """Return a tree of a few objects that has ``width ** depth`` files, all with one content."""
    repository.write("content", content)
    blob = repository.run("hash-object", "-w", "content")
    repository.remove("content")
    tree = _tree(repository, [f"100644 blob {blob}\tf{number}.yaml" for number in range(width)])
    for _ in range(depth - 1):
        tree = _tree(repository, [f"040000 tree {tree}\td{number}" for number in range(width)])
    return tree


def _tree(repository: Repository, lines: list[str]) -> str:
    listing = repository.write("listing", "\n".join(lines) + "\n")
    with listing.open() as stream:
        done = subprocess.run(
            ["git", "mktree"], cwd=repository.path, stdin=stream, capture_output=True, text=True, check=True
        )
    listing.unlink()
    return done.stdout.strip()


def commit_with(repository: Repository, folder: str, tree: str) -> None:
    """Commit a tree as a folder without ever having it in the work tree."""
    repository.run("add", "--all")
    root = repository.run("write-tree")
    lines = [*repository.run("ls-tree", root).splitlines(), f"040000 tree {tree}\t{folder}"]
    made = repository.run("commit-tree", _tree(repository, lines), "-m", "bomb")
    repository.run("update-ref", "refs/heads/main", made)


JOB = "apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: f}\nspec:\n  jobs:\n  - id: a\n"


@pytest.mark.parametrize("place", ["flows", "data", "lib"])
def test_a_bomb_of_folders_is_neither_listed_nor_read(
    repository: Repository, tmp_path: Path, place: str
) -> None:
    """Among the manifests, among files that a flow names, and as code: 10 thousand million files."""
    minimal_project(repository, tmp_path / "work")
    if place == "lib":
        project = repository.path / "reconciler.yaml"
        project.write_text(project.read_text().replace("spec:\n", "spec:\n  python_path: [lib]\n", 1))
    if place != "flows":
        argument = "{$path: data/d0/f0.yaml}" if place == "data" else "1"
        repository.write("flows/f.yaml", f"{JOB}    function: f0.run\n    args: [{argument}]\n")
        repository.write("flows/g.yaml", f"{JOB}    function: math.sqrt\n".replace("name: f", "name: g"))
    commit_with(repository, place, bomb(repository, b"{}"))
    source = open_source(str(repository.path), None, "", tmp_path)
    began = time.process_time()
    tracemalloc.start()
    try:
        state = load_desired(source, source.revision(), NoCache(), {}).state
        messages = [problem.message for problem in state.diagnostics]
        assert list(state.flows) == (["f", "g"] if place == "lib" else ["g"])
    except UnfitError as error:
        assert place == "flows"
        messages = [error.message]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert any("the list of the files of this revision is longer than 32 MiB" in text for text in messages)
    assert peak < 100 * MB
    assert time.process_time() - began < 10


def test_a_change_that_is_a_bomb_makes_a_pass_read_everything(repository: Repository, tmp_path: Path) -> None:
    minimal_project(repository, tmp_path / "work")
    repository.commit()
    source = open_source(str(repository.path), None, "", tmp_path)
    before = source.revision().tree
    commit_with(repository, "data", bomb(repository, b"{}"))
    assert source.changed_files(before, source.revision().tree) is None


@pytest.mark.parametrize("way", ["one blob a thousand times", "one file"])
def test_sizes_are_asked_before_contents(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The limit is lowered here: 1,000 times 1 KB, or 1 MB at once."""
    monkeypatch.setattr(objects, "MOST_READ", 500_000)
    minimal_project(repository, tmp_path / "work")
    commit_with(repository, "lib", bomb(repository, bytes(1000 if "thousand" in way else 1_000_000), depth=3))
    source = open_source(str(repository.path), None, "", tmp_path)
    tree = source.tree_id(source.revision().commit, "lib")
    assert tree is not None
    blob = source.files(source.revision().commit, "lib")[0].object_id

    def no_content(*arguments: str, **_: object) -> object:
        assert "--batch" not in arguments, "a content is read"
        return run(*arguments, **_)  # type: ignore[arg-type]

    run = source.run
    monkeypatch.setattr(source, "run", no_content)
    with pytest.raises(UnfitError, match=r"bytes; the limit is 500,000"):
        list(source.code(tree))
    if way == "one file":
        with pytest.raises(UnfitError, match="1,000,000 bytes"):
            list(source.blobs([blob]))
    assert source.sizes([blob]) == {blob: 1000 if "thousand" in way else 1_000_000}
