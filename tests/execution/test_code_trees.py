"""Code of the repository on its way to workers: once for each tree and host, whoever needs it there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import reconciler.loop as loop_module
from reconciler.errors import InputError
from reconciler.execution.worker.upload import Repository
from tests.execution.support import World

pytestmark = pytest.mark.usefixtures("warm")

MakeWorld = Callable[..., World]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trees whose files were read to be sent, in order."""
    trees: list[str] = []

    def repository(code: Callable[..., Iterable[tuple[str, bool, bytes]]], blobs: object) -> Repository:
        return Repository(lambda tree: trees.append(tree) or code(tree), blobs)  # type: ignore[func-returns-value, arg-type]

    monkeypatch.setattr(loop_module, "Repository", repository)
    return trees


@pytest.fixture
def world(make_world: MakeWorld, tmp_path: Path) -> World:
    """Two workers with directories of their own on one host."""
    made = make_world(workers=" ")
    for number, directory in ((1, "one"), (2, "it's the other")):
        work_dir = str(tmp_path / "on host" / directory)
        made.put("Worker", f"w{number}", {"type": "local", "scheduler_type": "shell", "work_dir": work_dir})
    for number in (1, 2):
        job = {"id": "j", "function": "give", "args": [number]}
        made.flow(f"f{number}", job, worker=f"w{number}", suspend=number == 2)
    return made


def resume(world: World) -> None:
    """Let the flow of the second worker run, too."""
    world.flow("f2", {"id": "j", "function": "give", "args": [2]}, worker="w2")
    world.reconcile()


def trees(world: World) -> list[Path]:
    """Return the code trees of both workers."""
    return sorted((world.root.parent / "on host").glob("*/.code/*"))


def test_workers_that_run_together_get_it_once(world: World, sent: list[str]) -> None:
    resume(world)
    world.run()
    _both_have_the_same(world, sent)


def test_a_worker_that_comes_later_takes_it_from_the_other(world: World, sent: list[str]) -> None:
    world.reconcile()
    world.run()
    assert len(trees(world)) == 1
    resume(world)  # with another executor, as in another process
    world.run()
    _both_have_the_same(world, sent)


def _both_have_the_same(world: World, sent: list[str]) -> None:
    assert world.states("f1/j", "f2/j") == ["COMPLETED"] * 2
    assert len(sent) == 1
    one, two = trees(world)
    assert one.name == two.name == sent[0]
    assert _files(one) == _files(two)
    assert _files(one)["simple_jobs.py"]


def _files(tree: Path) -> dict[str, bytes]:
    pairs = ((str(file.relative_to(tree)), file) for file in tree.rglob("*.py"))
    return {name: file.read_bytes() for name, file in pairs}


def test_what_the_other_has_no_longer_is_sent_again(world: World, sent: list[str]) -> None:
    world.reconcile()
    world.run()
    resume(world)
    assert world.executor is not None
    for runner in world.executor.runners:
        runner.access.prepare(may_create=True)
    (tree,) = trees(world)
    shutil.rmtree(tree)
    world.advance()
    assert "was removed; it is sent again" in str(world.executor.outages())
    world.advance(time.time() + 600)
    world.run()
    assert world.states("f1/j", "f2/j") == ["COMPLETED"] * 2
    assert sent == [tree.name] * 2


# a repository that does not give it -------------------------------------------------------------------


def test_code_that_git_has_lost_fails_only_the_jobs_that_need_it(world: World) -> None:
    resume(world)
    lost = "1" * 40
    world.flow("f3", *({"id": name, "function": "give", "args": [name]} for name in "ab"), worker="w1")
    world.reconcile()
    world.edit("f3/a", code=[lost])
    world.run()
    assert world.states("f1/j", "f2/j", "f3/a", "f3/b") == ["COMPLETED"] * 2 + ["REMOTE_ERROR", "COMPLETED"]
    assert f"git has lost the code {lost} - restore it with `git fetch`" in (world.job("f3/a").error or "")
    assert world.executor is not None
    assert world.executor.outages() == {}


@pytest.fixture
def away(world: World) -> Callable[[], Path]:
    """Take the repository away, as when its file system is not mounted; rename what it returns back."""
    return lambda: world.repository.path.rename(world.repository.path.with_name("away"))


def test_a_repository_that_is_away_is_an_outage_of_the_worker_that_needs_it(
    world: World, away: Callable[[], Path]
) -> None:
    """The other worker, whose job needs no code of it, goes on in the same pass."""
    world.flow("f2", {"id": "j", "function": "math.factorial", "args": [3]}, worker="w2")
    world.reconcile()
    world.edit("f2/j", code=[])
    place = away()
    world.advance()
    assert world.states("f1/j", "f2/j") == ["CHECKED_OUT", "SUBMITTED"]
    assert world.executor is not None
    (outage,) = world.executor.outages().items()
    assert outage[0] == "w1"
    assert outage[1].startswith("the repository cannot be read: git ")
    assert "not a git repository" in outage[1]
    world.until(lambda: world.state("f2/j") == "COMPLETED")
    place.rename(world.repository.path)
    world.advance(time.time() + 600)
    world.run()
    assert world.states("f1/j", "f2/j") == ["COMPLETED"] * 2
    assert world.job("f1/j").attempt.number == 1


def test_a_repository_that_cannot_be_opened_yet_is_an_outage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that starts while it is not mounted opens it when a worker needs it."""

    def no_directory(_wanted: object) -> Iterator[Any]:
        raise InputError("there is no directory /campaign", hint="--repo takes a git repository or a URL")

    world.reconcile()
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "Repository", lambda *_: Repository(no_directory, no_directory))
        world.restart()
    world.advance()
    assert world.state("f1/j") == "CHECKED_OUT"
    assert world.executor is not None
    assert "there is no directory /campaign" in world.executor.outages()["w1"]
    world.restart()
    world.advance(time.time() + 600)
    world.run()
    assert world.state("f1/j") == "COMPLETED"


@pytest.fixture
def reading(world: World) -> World:
    """The code is on the worker already; what runs next needs a file of the repository."""
    world.reconcile()
    world.run()
    world.yaml("data/one.txt", "one")
    world.yaml("data/two.txt", "two")
    jobs = ({"id": name, "function": "give", "args": [{"$path": f"data/{name}.txt"}]} for name in NAMES)
    world.flow("read", *jobs, worker="w1")
    world.reconcile()
    return world


NAMES = ("one", "two")


def test_a_repository_that_is_away_when_a_job_needs_a_file_of_it_is_an_outage(
    reading: World, away: Callable[[], Path]
) -> None:
    place = away()
    reading.advance()
    assert reading.states("read/one", "read/two") == ["CHECKED_OUT"] * 2
    assert reading.executor is not None
    assert "the repository cannot be read: git cat-file" in reading.executor.outages()["w1"]
    place.rename(reading.repository.path)
    reading.advance(time.time() + 600)
    reading.run()
    assert reading.states("read/one", "read/two") == ["COMPLETED"] * 2
    assert reading.job("read/one").attempt.number == 1


def test_a_file_that_git_has_lost_fails_the_job_that_needs_it(reading: World) -> None:
    blob = reading.repository.run("rev-parse", "HEAD:data/one.txt")
    (reading.repository.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    reading.run()
    assert reading.states("read/one", "read/two") == ["REMOTE_ERROR", "COMPLETED"]
    assert f"git has lost the object {blob} - restore it" in (reading.job("read/one").error or "")
