"""A file that is too large is refused with its size, and never in memory as a whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from reconciler.desired.source.git import Source, open_source
from reconciler.desired.state import load_desired, project_name
from reconciler.errors import InputError, LostError
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
