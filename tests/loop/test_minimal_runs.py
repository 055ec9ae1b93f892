"""Edit, revert, rename, split a file, move a job: no more jobs run than have to.

Real processes; each job appends its name to a log when it begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.execution.support import World
from tests.loop.growing import Tree, completed, current, facts, grown, history, log, news, plan, settle
from tests.support import isolated_module

pytestmark = pytest.mark.timeout(300)

TREE: Tree = {"name": "b", "detour": [{"name": "born"}]}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[World]:
    """Two flows in one file: ``one`` is a -> b -> c, where b generates; ``two``: y, and x after c."""
    root = tmp_path_factory.mktemp("minimal")
    with isolated_module(root, tmp_path_factory, warm_python):
        made = World(root)
        write(made, both(made))
        settle(made)
        yield made
        made.close()


@pytest.fixture
def world(ran: World) -> World:
    """All of it as it was at first: that costs nothing, whatever the other tests did."""
    write(ran, both(ran))
    settle(ran, allow_prune=True)
    assert sorted(current(ran)) == ["one/a", "one/b", "one/born", "one/c", "two/x", "two/y"]
    assert all(job.attempt.number == 1 for job in current(ran).values())
    return ran


def one(world: World, **trees: Tree) -> list[dict[str, Any]]:
    return [
        grown(world, "a", trees.get("a", {"name": "a"})),
        grown(world, "b", trees.get("b", TREE), "a"),
        grown(world, "c", trees.get("c", {"name": "c"}), "b"),
    ]


def two(world: World) -> list[dict[str, Any]]:
    return [grown(world, "x", {"name": "x"}, "one/c"), grown(world, "y", {"name": "y"})]


def both(world: World, **trees: Tree) -> dict[str, list[dict[str, Any]]]:
    return {"one": one(world, **trees), "two": two(world)}


def write(
    world: World, flows: dict[str, list[dict[str, Any]]], *, split: bool = False, previous: str = ""
) -> None:
    """Write all flows into one file, or each into a file of its own."""
    for old in (world.repository.path / "flows").glob("**/*.yaml"):
        old.unlink()
    for name, jobs in flows.items():
        named = [job | {"function": job["function"]} for job in jobs]
        text = world.document("Flow", name, {"jobs": named})
        if previous and name in ("one", "renamed"):
            text = text.replace(f"{{name: {name}}}", f"{{name: {name}, previous_names: [{previous}]}}")
        file = world.repository.path / (f"flows/deep/{name}.yaml" if split else "flows/all.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as stream:
            stream.write(text)


@pytest.mark.parametrize(
    ("edited", "runs"),
    [
        ({"a": {"name": "a2"}}, ["a2", "b", "born", "c", "x"]),
        ({"b": TREE | {"variant": 1}}, ["b", "born", "c", "x"]),
        ({"c": {"name": "c2"}}, ["c2", "x"]),
    ],
)
def test_an_edit_runs_the_job_and_its_descendants_and_its_revert_nothing(
    edited: dict[str, Tree], runs: list[str], world: World
) -> None:
    before, old = log(world), facts(world)
    write(world, both(world, **edited))
    settle(world)
    assert news(world, before) == sorted(runs)
    assert completed(world)
    before = log(world)
    write(world, both(world))
    settle(world)
    assert (news(world, before), facts(world)) == ([], old)


def test_a_renamed_flow_runs_nothing_and_so_do_those_that_need_it(world: World) -> None:
    before, old = log(world), facts(world)
    needs = [grown(world, "x", {"name": "x"}, "renamed/c"), two(world)[1]]
    write(world, {"renamed": one(world), "two": needs}, previous="one")
    settle(world)
    assert news(world, before) == []
    assert facts(world) == {path.replace("one/", "renamed/"): found for path, found in old.items()}
    write(world, both(world), previous="one, renamed")
    settle(world)
    assert (news(world, before), facts(world)) == ([], old)


def test_a_renamed_job_runs_nothing(world: World) -> None:
    """The id of a job is for people; what it computes is its identity."""
    before = log(world)
    jobs = one(world)
    jobs[0]["id"] = "first"
    jobs[1] = grown(world, "b", TREE, "first")
    write(world, {"one": jobs, "two": two(world)})
    settle(world)
    assert news(world, before) == []
    assert sorted(current(world)) == ["one/b", "one/born", "one/c", "one/first", "two/x", "two/y"]


def test_a_file_that_is_split_and_moved_is_no_change(world: World) -> None:
    before, old = log(world), facts(world)
    write(world, both(world), split=True)
    assert not plan(world).effective
    settle(world)
    write(world, both(world))
    settle(world)
    assert (news(world, before), facts(world)) == ([], old)


def test_jobs_in_another_order_are_no_change(world: World) -> None:
    before, old = log(world), facts(world)
    write(world, {"two": two(world)[::-1], "one": one(world)[::-1]})
    settle(world)
    assert (news(world, before), facts(world)) == ([], old)


def test_a_job_that_moves_to_another_flow_runs_alone(world: World) -> None:
    """It is a job of that flow then, with a record of its own; those that need it need the same as before."""
    before, old = log(world), facts(world)
    jobs = one(world)
    moved = jobs.pop(0)
    jobs[0] = grown(world, "b", TREE, "three/a")
    write(world, both(world) | {"one": jobs, "three": [moved]})
    settle(world)
    assert news(world, before) == ["a"]
    assert {path: facts(world)[path][0] for path in old if path != "one/a"} == {
        path: found[0] for path, found in old.items() if path != "one/a"
    }
    assert old["one/a"][0] in [job.id for job in history(world)]
    assert completed(world)


def test_a_generator_that_moves_to_another_flow_runs_with_what_it_generates(world: World) -> None:
    before = log(world)
    jobs = one(world)
    write(
        world,
        {
            "one": jobs[:1],
            "three": [grown(world, "b", TREE, "one/a")],
            "four": [grown(world, "c", {"name": "c"}, "three/b")],
            "two": [grown(world, "x", {"name": "x"}, "four/c"), two(world)[1]],
        },
    )
    settle(world)
    assert news(world, before) == ["b", "born", "c"], "not x, which needs the same as before"
