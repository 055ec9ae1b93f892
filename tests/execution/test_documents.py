"""Outputs on their way to the jobs that need them: once for each worker, and only the part that they need."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.codec import encode
from reconciler.execution import launcher
from reconciler.execution.start import JobStarter
from reconciler.execution.worker.prepare import UNUSED_AFTER
from reconciler.execution.worker.termination import AttemptEnd, end_with_result
from reconciler.jobs.job_json import JobResult, PackedDocument
from reconciler.model.states import JobState
from tests.execution.support import World, eventually

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
    # The directory of `first` is removed in the background; those of `big` and `last` stay, for a retry.
    assert eventually(lambda: document.stat().st_nlink == 3)
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


@pytest.mark.usefixtures("warm")
def test_a_large_output_is_on_the_worker_once_from_its_job_to_its_readers(world: World) -> None:
    count = 10_000
    world.flow(
        "f",
        {"id": "big", "function": "numbers", "args": [count]},
        reader("r1", "big"),
        reader("r2", "big.values"),
        {"id": "apart", "function": "numbers_kept_apart", "args": [count]},
        reader("r3", "apart.values"),
    )
    world.reconcile()
    world.run()
    values = [n / 7 for n in range(count)]
    assert [world.output(f"f/{name}") for name in ("r2", "r3")] == [values] * 2
    assert world.output("f/r1") == world.output("f/big")
    with world.store.read() as view:
        stored = [data for _, data in view.txn.scan("outputs") if len(data) > 64_000]
    by_name = {hashlib.sha256(data).hexdigest() for data in stored}
    written = sorted(world.work.glob("w1/*/*/*/*/claim/documents/*"))
    assert {file.name for file in written} == by_name
    assert len(by_name) == 5
    for name, readers in (("big", 2), ("apart", 1)):
        (file,) = (run_directory(world, f"f/{name}") / "claim" / "documents").iterdir()
        assert file.stat().st_ino == (world.work / "w1" / ".documents" / file.name).stat().st_ino
        assert file.stat().st_nlink == 2 + readers
        assert (file.parent.parent / "result.json").stat().st_size < 4000


def _packed(**fields: Any) -> tuple[JobResult, dict[str, bytes]]:
    data = encode({"uuid": "u", "index": 1, "output": [0.5] * 9000} | fields)
    digest = hashlib.sha256(data).hexdigest()
    header = {"ok": True, "started": 1, "ended": 2, "packed": [{"store": "", "sha256": digest}]}
    return msgspec.convert(header, JobResult), {digest: data}


def _end(result: JobResult, files: dict[str, bytes]) -> AttemptEnd:
    return end_with_result(msgspec.json.encode(result), files)


def test_a_large_document_is_taken_as_it_is() -> None:
    result, files = _packed()
    end = _end(result, files)
    assert end.result is not None
    assert [one.data for one in end.result.packed] == list(files.values())
    assert end.result.packed[0].head() == {"uuid": "u", "index": 1}


@pytest.mark.parametrize("harm", ["missing", "changed", "cut off", "deep", "no json"])
def test_a_damaged_large_document_fails_its_job(harm: str) -> None:
    result, files = _packed()
    (digest, data), *_ = files.items()
    replaced = {
        "missing": b"",
        "changed": data[:-1] + b"\x01",
        "cut off": data[:-9],
        "deep": b"\x81\xa1a" * 300 + b"\xc0",
        "no json": b"\x81\xa1a\xd4\x01\x00",
    }[harm]
    if harm not in ("missing", "changed"):
        digest = hashlib.sha256(replaced).hexdigest()
        result = msgspec.structs.replace(result, packed=[PackedDocument("", digest)])
    end = _end(result, {digest: replaced} if replaced else {})
    assert (end.result, end.state) == (None, JobState.REMOTE_ERROR)
    assert "is damaged" in end.error


def test_the_launcher_leaves_in_the_result_what_messagepack_cannot_hold() -> None:
    texts = ["x" * 70_000]
    odd = [{"output": [2**70, *texts]}, {"output": ["\ud800", *texts]}]
    result: dict[str, Any] = {"documents": [*odd, {"output": texts}], "blobs": {"data": []}}
    large = launcher.take_large(result)
    assert result["documents"] == odd
    assert [launcher.unpacked(data) for data in large.values()] == [{"output": texts}]


def test_a_directory_from_before_has_none_and_gets_them(world: World) -> None:
    large(world, reader("first", "big.values"))
    (world.work / "w1" / ".outbox").mkdir(parents=True)
    world.reconcile()
    world.run()
    assert len(documents(world)) == 1


def test_the_launcher_reads_what_the_store_writes() -> None:
    value = {"big": 2**80, "bytes": b"\x00", "nan": [1.5, -1], "text": "ü\n", "none": None}
    assert launcher.unpacked(encode(value)) == value
