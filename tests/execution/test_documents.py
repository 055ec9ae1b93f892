"""Outputs on their way to the jobs that need them: once for each worker, and only the part that they need."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.execution import launcher
from reconciler.execution.start import JobStarter
from reconciler.execution.worker.prepare import UNUSED_AFTER
from tests.execution.support import World

MakeWorld = Callable[..., World]

COUNT = 4000
"""Numbers in a large output: 36 kB."""


def documents(world: World, worker: str = "w1") -> list[Path]:
    """Return the documents that the jobs of a worker share."""
    return sorted((world.work / worker / ".documents").iterdir())


def run_directory(world: World, path: str) -> Path:
    """Return the run directory of a job."""
    return Path(str(world.job(path).attempt.run_dir))


def size(directory: Path) -> int:
    """Return the bytes of all files in a directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def reader(name: str, reference: str, **more: Any) -> dict[str, Any]:
    """Return a job that gets a part of an output and returns it."""
    return {"id": name, "function": "give", "args": [{"$output": reference}], **more}


def large(world: World, *readers: dict[str, Any], function: str = "numbers", **spec: Any) -> None:
    """Write a flow with a large output and its readers."""
    world.flow("f", {"id": "big", "function": function, "args": [COUNT]}, *readers, **spec)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("function", ["numbers", "numbers_kept_apart"])
def test_a_reader_of_one_number_gets_that_number(world: World, function: str) -> None:
    large(
        world,
        reader("one", "big.values[-1]"),
        reader("two", "big.values[7]"),
        reader("three", "big.count"),
        function=function,
    )
    world.reconcile()
    world.run()
    assert [world.output(f"f/{name}") for name in ("one", "two", "three")] == [(COUNT - 1) / 7, 1.0, COUNT]
    assert documents(world) == []
    assert all(size(run_directory(world, f"f/{name}")) < 30_000 for name in ("one", "two", "three"))


@pytest.mark.usefixtures("warm")
def test_readers_of_all_share_one_file(world: World) -> None:
    names = [f"r{number}" for number in range(5)]
    large(world, *(reader(name, "big.values") for name in names))
    world.reconcile()
    world.run()
    expected = [n / 7 for n in range(COUNT)]
    assert all(world.output(f"f/{name}") == expected for name in names)
    (document,) = documents(world)
    assert document.stat().st_nlink == 1 + len(names)
    assert document.stat().st_mode & 0o222 == 0


@pytest.mark.usefixtures("warm")
def test_workers_with_one_directory_share_it_too(make_world: MakeWorld) -> None:
    world = make_world(workers=" ")
    for name in ("w1", "w2"):
        directory = str(world.work / "both")
        world.put("Worker", name, {"type": "local", "scheduler_type": "shell", "work_dir": directory})
    large(world, *(reader(f"r{n}", "big.values", worker=f"w{1 + n % 2}") for n in range(4)))
    world.reconcile()
    world.run()
    assert [world.output(f"f/r{n}")[-1] for n in range(4)] == [(COUNT - 1) / 7] * 4
    (document,) = documents(world, "both")
    assert document.stat().st_nlink == 5


def _change(document: Path) -> None:
    document.chmod(0o600)
    document.write_bytes(b"\x00" + document.read_bytes()[1:])


def _cut_off(document: Path) -> None:
    document.chmod(0o600)
    os.truncate(document, 100)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("harm", [Path.unlink, _change, _cut_off], ids=["removed", "changed", "cut off"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_document_that_is_no_longer_as_it_was_is_sent_again(
    world: World, harm: Callable[[Path], None], restarted: bool
) -> None:
    large(world, reader("first", "big.values"))
    world.reconcile()
    world.run()
    harm(documents(world)[0])
    large(world, reader("first", "big.values"), reader("second", "big.values"))
    world.repository.commit()
    executor = world.executor
    world.reconcile()
    if not restarted:
        assert executor is not None
        world.executor = executor  # it remembers what the worker has
    world.run()
    assert world.output("f/second") == [n / 7 for n in range(COUNT)]
    assert world.job("f/second").attempt.number == 1


@pytest.mark.usefixtures("warm")
def test_a_job_does_not_run_with_a_damaged_document(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    large(world, reader("first", "big.values"))
    world.reconcile()
    _die_once_uploaded(world, monkeypatch, JobStarter, "start")
    assert world.state("f/first") == "UPLOADED"
    _change(documents(world)[0])
    world.run()
    job = world.job("f/first")
    assert (job.state, "is damaged" in str(job.error)) == ("FAILED", True)


def _die_once_uploaded(world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Make passes until a call finds documents on the worker, and is interrupted; then begin anew."""
    real = getattr(owner, name)

    def call(*args: Any) -> Any:
        if any((world.work / "w1").glob(".documents/*")):
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, call)
        with pytest.raises(KeyboardInterrupt):
            world.until(lambda: False)
    world.restart()


@pytest.mark.usefixtures("warm")
def test_an_upload_that_was_not_recorded_is_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    large(world, reader("first", "big.values"))
    world.reconcile()
    _die_once_uploaded(world, monkeypatch, world.store, "write")
    assert world.state("f/first") == "CHECKED_OUT"
    world.run()
    assert world.output("f/first")[-1] == (COUNT - 1) / 7
    assert [document.stat().st_nlink for document in documents(world)] == [2]


@pytest.mark.usefixtures("warm")
def test_only_documents_that_no_run_directory_needs_are_removed_and_not_at_once(world: World) -> None:
    world.repository.write("workers/workers.yaml", world.worker("w1", cleanup="completed"))
    large(
        world,
        reader("first", "big.values"),
        {"id": "last", "function": "fails", "args": [{"$output": "big.values"}]},
    )
    world.reconcile()
    world.run()
    (document,) = documents(world)
    deadline = time.monotonic() + 60
    while document.stat().st_nlink > 2 and time.monotonic() < deadline:
        time.sleep(0.05)  # run directories are removed in the background
    past = time.time() - 60 * (UNUSED_AFTER + 2)
    for is_needed, age, stays in ((True, past, True), (False, time.time(), True), (False, past, False)):
        if not is_needed:
            for link in (world.work / "w1").glob("*/*/*/*/documents/*"):
                link.unlink()
        os.utime(document, (age, age))
        world.restart()
        world.flow("g", {"id": "j", "function": "give", "args": [f"{is_needed}{age}"]})
        world.reconcile()
        world.run()
        assert document.exists() is stays


def test_a_directory_from_before_has_none_and_gets_them(world: World) -> None:
    large(world, reader("first", "big.values"))
    (world.work / "w1" / ".outbox").mkdir(parents=True)
    world.reconcile()
    world.run()
    assert len(documents(world)) == 1


def test_the_launcher_reads_what_the_store_writes() -> None:
    from reconciler.actual.codec import encode

    value = {"big": 2**80, "bytes": b"\x00", "nan": [1.5, -1], "text": "ü\n", "none": None}
    assert launcher.unpacked(encode(value)) == value
