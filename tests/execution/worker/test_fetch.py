"""The facts about ended attempts, as the script on a worker reads them."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from reconciler.execution.run_files import WorkerPaths
from reconciler.execution.worker.fetch import CollectRequest, read_facts, read_results, script
from reconciler.model.records import JobAttempt
from tests.plan.plan_support import built_job, record

SENTINEL = "-=-0123456789-=-"


class NoQueue:
    def accounting_command(self, queue_id: str) -> str:
        return "echo unknown"


def facts(root: Path, directories: list[Path]) -> dict[int, Any]:
    paths = WorkerPaths(str(root), "python3")
    Path(paths.outbox).mkdir(parents=True, exist_ok=True)
    wanted = [
        CollectRequest(record(built_job("a", "1"), attempt=JobAttempt(number=1, run_dir=str(one))), False)
        for one in directories
    ]
    text = script(wanted, paths, NoQueue(), SENTINEL, with_results=False)  # type: ignore[arg-type]
    done = subprocess.run(["bash", "-s"], input=text.encode(), capture_output=True, check=True)
    assert done.stderr == b""
    return read_facts(io.BytesIO(done.stdout), len(directories), SENTINEL)


def attempt(directory: Path, size: int | None) -> Path:
    (directory / "claim").mkdir(parents=True)
    (directory / "claim" / "process").write_text("elsewhere boot 1\n")
    if size is not None:
        (directory / "claim" / "result.json").write_bytes(b"x" * size)
    return directory


@pytest.mark.parametrize("name", ["work", "with  two blanks ", "'quoted' \"twice\"", "$(touch x)", "é*?"])
def test_each_result_has_its_own_size(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    made = [
        attempt(root / "a", 10),
        root / "gone",
        attempt(root / "b", None),
        attempt(root / "c", 0),
        attempt(root / "d d", 12345),
    ]
    found = facts(root, made)
    assert [(found[n].found, found[n].size) for n in range(5)] == [
        ("claimed", 10),
        ("gone", None),
        ("claimed", None),
        ("claimed", 0),
        ("claimed", 12345),
    ]
    assert not (tmp_path / "x").exists()


def test_what_is_not_a_plain_file_is_not_measured(tmp_path: Path) -> None:
    link, pipe, folder = (attempt(tmp_path / name, None) for name in ("link", "pipe", "folder"))
    (link / "claim" / "result.json").symlink_to("/dev/zero")
    os.mkfifo(pipe / "claim" / "result.json")
    (folder / "claim" / "result.json").mkdir()
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "claim").symlink_to(attempt(tmp_path / "other", 5) / "claim")
    last = attempt(tmp_path / "last", 7)
    found = facts(tmp_path, [link, pipe, folder, linked, last])
    assert [found[n].size for n in range(5)] == [None, None, None, None, 7]
    assert [bool(found[n].bad_result) for n in range(5)] == [True, True, True, True, False]


def test_documents_count_as_a_part_of_the_result(tmp_path: Path) -> None:
    one = attempt(tmp_path / "one", 10)
    (one / "claim" / "documents").mkdir()
    (one / "claim" / "documents" / "abc").write_bytes(b"y" * 90)
    assert facts(tmp_path, [one, attempt(tmp_path / "two", 1)])[0].size == 100


def test_a_result_newer_than_the_measurement_counts(tmp_path: Path) -> None:
    """The job may write its result between the two looks at it: it is read, not refused."""
    one = attempt(tmp_path / "one", None)
    paths = WorkerPaths(str(tmp_path), "python3")
    Path(paths.outbox).mkdir(parents=True)
    job = record(built_job("a", "1"), attempt=JobAttempt(number=1, run_dir=str(one)))
    text = script([CollectRequest(job, False)], paths, NoQueue(), SENTINEL, with_results=False)  # type: ignore[arg-type]
    head, _, rest = text.partition("\nlook 0 ")
    late = f"{head}\nprintf 123456 > {one}/claim/result.json\nlook 0 {rest}"
    done = subprocess.run(["bash", "-s"], input=late.encode(), capture_output=True, check=True)
    assert read_facts(io.BytesIO(done.stdout), 1, SENTINEL)[0].size == 6


@pytest.mark.parametrize("name", ["claim/result.json", "claim/documents/0123"])
def test_a_large_file_is_read_in_little_more_memory_than_it_takes(tmp_path: Path, name: str) -> None:
    size = 8 << 20
    with tarfile.open(tmp_path / "results.tar", "w") as archive:
        for path, length in {"run/claim/result.json": 2, f"run/{name}": size}.items():
            member = tarfile.TarInfo(path)
            member.size = length
            archive.addfile(member, io.BytesIO(b"{}" * (length // 2)))
    with (tmp_path / "results.tar").open("rb") as stream:
        tracemalloc.start()
        try:
            ((_, found),) = read_results(stream, {"run": 0})
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert max(map(len, [found.content or b"", *found.documents.values()])) == size
    assert size < most < 1.5 * size
