"""``metadata.previous_names``: a renamed flow keeps its records, and nothing of it runs again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.loop import Session
from reconciler.model.actions import Plan
from tests.execution.support import World, gate, lines, running

CHAIN = ("first", "second", "third")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def chain(world: World, name: str, *previous: str, **spec: Any) -> None:
    """Write a flow of three jobs that each log a line, under a name."""
    jobs = []
    for number, job in enumerate(CHAIN):
        after = [{"$output": CHAIN[number - 1]}] if number else []
        jobs.append(
            {"id": job, "function": "simple_jobs.log_line", "args": [str(world.root / "log"), job, *after]}
        )
    world.flow(name, *jobs, **spec)
    if previous:
        path = world.repository.path / f"flows/{name}.yaml"
        text = path.read_text().replace(
            f"{{name: {name}}}", f"{{name: {name}, previous_names: {list(previous)}}}"
        )
        path.write_text(text)


def rename(world: World, old: str, new: str, *previous: str) -> None:
    (world.repository.path / f"flows/{old}.yaml").unlink()
    chain(world, new, *previous)


def plan(world: World) -> Plan:
    """Commit, and plan without applying."""
    world.repository.commit()
    session = Session(world.source, world.store)
    return session.plan(session.load())


@pytest.mark.usefixtures("warm")
def test_a_rename_keeps_results_and_runs_nothing(world: World) -> None:
    chain(world, "a")
    world.reconcile()
    world.run()
    before = {job.key: (job.id, world.output(path)) for path, job in world.jobs().items()}
    rename(world, "a", "b", "a")
    assert plan(world).renames == {"a": "b"}
    world.reconcile()
    world.run()
    assert sorted(world.jobs()) == [f"b/{job}" for job in sorted(CHAIN)]
    assert {job.key: (job.id, world.output(path)) for path, job in world.jobs().items()} == before
    assert lines(world.root / "log") == list(CHAIN)
    assert not plan(world).effective
    rename(world, "b", "c", "a", "b")
    world.reconcile()
    world.run()
    assert world.states(*[f"c/{job}" for job in CHAIN]) == ["COMPLETED"] * 3
    assert lines(world.root / "log") == list(CHAIN)


@pytest.mark.usefixtures("warm")
def test_a_renamed_flow_goes_on_where_it_is(world: World) -> None:
    """A job that runs while its flow gets another name is taken in, and what follows it runs."""
    door = gate(world, "g")
    jobs = [
        {"id": "waits", "function": "wait_for", "args": [str(door)]},
        {
            "id": "after",
            "function": "simple_jobs.log_line",
            "args": [str(world.root / "log"), "after", {"$output": "waits"}],
        },
    ]
    world.flow("a", *[dict(job) for job in jobs])
    world.reconcile()
    world.until(running(world, "a/waits"))
    (world.repository.path / "flows/a.yaml").unlink()
    world.flow("b", *jobs)
    path = world.repository.path / "flows/b.yaml"
    path.write_text(path.read_text().replace("{name: b}", "{name: b, previous_names: [a]}"))
    world.reconcile()
    door.touch()
    world.run()
    assert world.states("b/waits", "b/after") == ["COMPLETED", "COMPLETED"]
    assert lines(world.root / "log") == ["after"]


@pytest.mark.usefixtures("warm")
def test_a_rename_back_is_a_rename_too(world: World) -> None:
    chain(world, "a")
    world.reconcile()
    world.run()
    rename(world, "a", "b", "a")
    world.reconcile()
    rename(world, "b", "a", "a", "b")
    world.reconcile()
    world.run()
    assert world.states(*[f"a/{job}" for job in CHAIN]) == ["COMPLETED"] * 3
    assert lines(world.root / "log") == list(CHAIN)


@pytest.mark.usefixtures("warm")
def test_forgetting_the_first_name_is_refused_and_loses_nothing(world: World) -> None:
    chain(world, "a")
    world.reconcile()
    world.run()
    rename(world, "a", "b", "a")
    world.reconcile()
    rename(world, "b", "b")
    forgotten = plan(world)
    (problem,) = forgotten.diagnostics
    assert problem.code == "flow/lost-identity"
    assert not forgotten.effective
    rename(world, "b", "c", "b")
    (problem,) = plan(world).diagnostics[:1]
    assert "oldest first" in (problem.hint or "")


@pytest.mark.usefixtures("warm")
def test_a_name_that_another_flow_has_is_no_previous_name(world: World) -> None:
    chain(world, "a")
    world.reconcile()
    chain(world, "b", "a")
    found = plan(world)
    assert [problem.code for problem in found.diagnostics] == ["flow/previous-name-in-use"]
    assert found.diagnostics[0].location is not None
    assert not found.effective and not found.renames
