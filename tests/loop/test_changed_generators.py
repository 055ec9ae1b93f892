"""Commits that change, and revert, jobs that generate jobs: what was found stays, nothing runs twice.

Real processes; each job appends its name to a log when it begins.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.writer import Writer
from reconciler.jobs.operations import OperationRunner
from reconciler.model.health import flow_status
from reconciler.model.operations import JobOperation
from reconciler.model.reasons import ReasonCode
from reconciler.model.states import JobState
from reconciler.plan.operations import OperationPlanner
from tests.execution.support import World, eventually, processes_below
from tests.loop.growing import Tree, completed, current, facts, grown, history, log, news, plan, settle, state

pytestmark = [pytest.mark.usefixtures("warm"), pytest.mark.timeout(300)]

TREE: Tree = {
    "name": "generate",
    "detour": [{"name": "detour", "addition": [{"name": "deep", "detour": [{"name": "deepest"}]}]}],
    "addition": [{"name": "extra"}],
}
LOOP: Tree = {
    "name": "loop",
    "addition": [{"name": "first"}],
    "replace": {"name": "loop2", "addition": [{"name": "second"}], "replace": {"name": "loop3"}},
}
SMALL: Tree = {"name": "generate", "detour": [{"name": "detour"}]}
BORN = ["deep", "deepest", "detour", "extra"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def write(world: World, tree: Tree, loop: Tree = LOOP, flow: str = "f", **spec: Any) -> None:
    """Write a flow: a generator, one that replaces itself, and a child of each."""
    world.flow(
        flow,
        grown(world, "generate", tree),
        grown(world, "loop", loop),
        grown(world, "child", {"name": "child"}, "generate"),
        grown(world, "end", {"name": "end"}, "loop"),
        **spec,
    )


def test_a_revert_brings_back_all_generations_and_runs_nothing(world: World) -> None:
    write(world, TREE)
    settle(world)
    once = log(world)
    names = ["child", "end", "first", "generate", "loop", "loop2", "loop3", "second"]
    assert sorted(once) == sorted(names + BORN)
    old = facts(world)

    write(world, TREE | {"variant": 1})
    settle(world)
    assert news(world, once) == sorted(["child", "generate", *BORN]), "what the other generator made stays"
    new, twice = facts(world), log(world)
    assert old.keys() == new.keys()
    assert {path for path in old if old[path] == new[path]} == {
        "f/loop", "f/loop@2", "f/loop@3", "f/first", "f/second", "f/end"
    }  # fmt: skip
    assert len(history(world)) == 2 + len(BORN)

    write(world, TREE)
    back = plan(world)
    assert ReasonCode.RESULT_WANTED_AGAIN in {
        action.reason.code for action in back.actions if action.record is None
    }
    settle(world)
    assert (facts(world), log(world)) == (old, twice)
    write(world, TREE | {"variant": 1})
    settle(world)
    assert (facts(world), log(world)) == (new, twice)


def test_a_job_that_replaced_itself_comes_back_with_all_indexes(world: World) -> None:
    write(world, SMALL)
    settle(world)
    old = facts(world)
    write(world, SMALL, {"name": "loop", "replace": {"name": "short"}})
    settle(world)
    assert "f/loop@3" not in current(world)
    twice = log(world)
    write(world, SMALL)
    settle(world)
    assert (facts(world), log(world)) == (old, twice)
    assert facts(world)["f/loop"][-1] == "loop3"


def test_an_edit_in_the_middle_of_a_generation(world: World) -> None:
    """What runs is cancelled first; after a revert it alone runs again, and its dependants wait for it."""
    gate = world.root / "gate"
    tree = TREE | {"detour": [{"name": "detour", "gate": str(gate), "addition": [{"name": "deep"}]}]}
    write(world, tree)
    world.reconcile()
    world.until(lambda: "detour" in log(world))
    world.until(lambda: {state(world, "f/extra"), state(world, "f/end")} == {"COMPLETED"})
    (running,) = [job for job in current(world).values() if job.key == "detour"]
    once = log(world)

    write(world, {"name": "generate"})
    world.reconcile()
    left = world.view(lambda view: view.job(running.id))
    assert (left.current, left.cancellation.reason) == (False, "no longer part of the flow")
    world.run()
    assert eventually(lambda: not processes_below(Path(str(running.attempt.run_dir))))
    assert world.view(lambda view: view.job(running.id)).state is JobState.USER_STOPPED
    assert news(world, once) == ["child", "generate"]
    assert completed(world)

    twice = log(world)
    write(world, tree)
    world.reconcile()
    assert state(world, "f/child") == "WAITING"
    world.until(lambda: news(world, twice) == ["detour"])
    assert running.uuid in current(world)["f/child"].parents
    gate.touch()
    world.run()
    assert news(world, twice) == ["child", "deep", "detour"]
    assert completed(world)
    assert log(world)[-2:] == ["child", "deep"] or log(world)[-2:] == ["deep", "child"]


def test_a_revert_before_anything_was_killed_lets_it_go_on(world: World) -> None:
    gate = world.root / "gate"
    tree = TREE | {"gate": str(gate)}
    write(world, tree)
    world.reconcile()
    world.until(lambda: state(world, "f/end") == "COMPLETED" and "generate" in log(world))
    write(world, {"name": "generate"})
    world.reconcile()
    write(world, tree)
    world.reconcile()
    gate.touch()
    settle(world)
    assert Counter(log(world)).most_common(1)[0][1] == 1, "nothing ran twice"
    assert completed(world)


@pytest.mark.parametrize("which", ["generate", "detour"])
def test_a_revert_after_the_kill_runs_again_what_was_killed(which: str, world: World) -> None:
    gate = world.root / "gate"
    detour = {"name": "detour", **({"gate": str(gate)} if which == "detour" else {})}
    tree = TREE | {"detour": [detour]} | ({"gate": str(gate)} if which == "generate" else {})
    write(world, tree)
    world.reconcile()
    world.until(lambda: which in log(world) and state(world, "f/end") == "COMPLETED")
    world.until(lambda: state(world, f"f/{which}") == "RUNNING")
    write(world, {"name": "generate"})
    world.reconcile()
    killed = hear_of_kills(world)
    world.until(lambda: killed)
    write(world, tree)
    world.reconcile()
    assert current(world)[f"f/{which}"].cancellation.rerun or state(world, f"f/{which}") == "READY"
    gate.touch()
    settle(world)
    assert completed(world)
    assert current(world)[f"f/{which}"].attempt.number == 2


def hear_of_kills(world: World) -> list[Any]:
    """Return a list that gets whatever the worker is asked to end."""
    assert world.executor is not None
    access = world.executor.runners[0].access
    heard: list[Any] = []
    cancel = access.cancel

    def told(ids: Any) -> Any:
        heard.append(ids)
        return cancel(ids)

    access.cancel = told  # type: ignore[method-assign]
    return heard


def test_what_was_generated_for_nobody_comes_back_too(world: World) -> None:
    """The generator ended although it was being cancelled: what it asked for has not run, and runs now."""
    gate = world.root / "gate"
    tree = {"name": "generate", "gate": str(gate), "detour": [{"name": "detour"}]}
    write(world, tree)
    world.reconcile()
    world.until(lambda: state(world, "f/end") == "COMPLETED" and "generate" in log(world))
    write(world, {"name": "generate", "variant": 1})
    gate.touch()
    assert eventually(
        lambda: bool(list(Path(str(world.job("f/generate").attempt.run_dir)).glob("claim/result.json")))
    )
    world.reconcile()
    world.run()
    (born,) = [job for job in history(world) if job.key == "detour"]
    assert (born.state, born.attempt.number) == (JobState.USER_STOPPED, 0)
    before = log(world)
    write(world, tree)
    settle(world)
    assert news(world, before) == ["child", "detour"]
    assert completed(world)


def test_outputs_that_another_flow_shares(world: World) -> None:
    """A held flow goes on with the old result, which nobody may forget; the others follow, and come back."""
    for name, spec in (("g", {}), ("held", {"on_change": "hold"})):
        world.flow(name, grown(world, "user", {"name": name}, "f/generate"), **spec)
    write(world, SMALL)
    settle(world)
    old, once = facts(world), log(world)
    write(world, SMALL | {"variant": 1})
    settle(world)
    assert news(world, once) == sorted(["child", "detour", "g", "generate"])
    assert facts(world)["held/user"] == old["held/user"]
    generator = next(job for job in history(world) if job.key == "generate")
    refused = world.view(
        lambda view: OperationPlanner(view, ["w1"]).plan(JobOperation.FORGET, [generator])
    ).refusals
    assert [one.reason for one in refused] == ["held/user needs its output"]
    twice = log(world)
    write(world, SMALL)
    settle(world)
    assert (facts(world), log(world)) == (old, twice)


def test_on_hold_a_generator_goes_on_as_submitted(world: World) -> None:
    gate = world.root / "gate"
    tree = TREE | {"detour": [{"name": "detour", "gate": str(gate)}]}
    write(world, tree, on_change="hold")
    world.reconcile()
    world.until(lambda: "detour" in log(world))
    write(world, {"name": "other"}, on_change="hold")
    world.reconcile()
    assert "on_change is hold" in out_of_sync(world)["f"]
    gate.touch()
    world.run()
    assert "on_change is hold" in out_of_sync(world)["f"]
    assert completed(world) and not history(world)
    old, once = facts(world), log(world)
    assert Counter(once)["detour"] == 1 and "other" not in once
    write(world, tree, on_change="hold")
    settle(world)
    assert not out_of_sync(world)
    write(world, {"name": "other"})
    settle(world)
    assert news(world, once) == ["child", "other"]
    write(world, tree, on_change="hold")
    world.reconcile()
    assert "on_change is hold" in out_of_sync(world)["f"], "the flow as it runs is the other one now"
    write(world, tree)
    settle(world)
    assert facts(world) == old


def out_of_sync(world: World) -> dict[str, str]:
    found: dict[str, str] = world.view(lambda view: view.config().out_of_sync)
    return found


def test_who_waits_by_order_only_does_not_wait_for_what_has_left(world: World) -> None:
    """The next job of a linear flow keeps its content, and waits for the new generator and its detour."""
    gate = world.root / "gate"
    old: Tree = {"name": "generate", "detour": [{"name": "detour", "gate": str(gate)}]}
    new: Tree = {"name": "changed", "detour": [{"name": "other"}]}
    trees = [str(world.root / "log"), old, {"name": "after"}]
    world.factory("f", "growing_jobs.in_order", *trees)
    world.reconcile()
    world.until(lambda: "detour" in log(world))
    after = current(world)["f/after"]
    world.factory("f", "growing_jobs.in_order", trees[0], new, trees[2])
    settle(world)
    assert current(world)["f/after"].id == after.id
    assert log(world) == ["generate", "detour", "changed", "other", "after"]
    assert completed(world)


def test_a_result_of_which_a_part_was_forgotten_is_computed_again(world: World) -> None:
    tree: Tree = {"name": "generate", "detour": [{"name": "detour"}]}
    other = [grown(world, "other", {"name": "other"})]
    world.flow("f", grown(world, "generate", tree), *other)
    settle(world)
    world.flow("f", *other)
    settle(world)
    (detour,) = [job for job in history(world) if job.key == "detour"]

    def forget(writer: Writer) -> None:
        plan = OperationPlanner(writer, ["w1"]).plan(JobOperation.FORGET, [detour])
        OperationRunner(writer, plan, "ada", "reconcile forget f/detour", 1e9).carry_out()

    world.store.write(forget)
    assert [(job.key, job.state) for job in history(world)] == [("generate", JobState.USER_STOPPED)]
    before = log(world)
    world.flow("f", grown(world, "generate", tree), *other)
    settle(world)
    assert news(world, before) == ["detour", "generate"]
    assert completed(world)


@pytest.mark.parametrize("stop", ["stop_children", "stop_jobflow"])
def test_what_a_result_has_stopped_stays_so(stop: str, world: World) -> None:
    world.flow(
        "f",
        grown(world, "a", {"name": "a", "stop": stop}),
        grown(world, "b", {"name": "b"}, "a"),
    )
    settle(world)
    assert [state(world, "f/a"), state(world, "f/b")] == ["COMPLETED", "STOPPED"]
    world.flow("f", grown(world, "a", {"name": "a2"}), grown(world, "b", {"name": "b"}, "a"))
    settle(world)
    world.flow(
        "f",
        grown(world, "a", {"name": "a", "stop": stop}),
        grown(world, "b", {"name": "b"}, "a"),
    )
    settle(world)
    assert [state(world, "f/a"), state(world, "f/b")] == ["COMPLETED", "STOPPED"]
    assert log(world) == ["a", "a2", "b"]


def test_a_flow_that_comes_back_has_its_generated_jobs(world: World) -> None:
    """Removed while a generated job runs: what has ended is kept, the rest runs once it is wanted again."""
    gate = world.root / "gate"
    tree = TREE | {"detour": [{"name": "detour", "gate": str(gate)}]}
    world.flow("stays", grown(world, "stays", {"name": "stays"}))
    write(world, tree)
    world.reconcile()
    world.until(lambda: "detour" in log(world) and state(world, "f/extra") == "COMPLETED")
    (world.repository.path / "flows/f.yaml").unlink()
    world.reconcile()
    world.run()
    detour = world.job("f/detour")
    assert (detour.state, detour.current) == (JobState.USER_STOPPED, False)
    before = log(world)
    gate.touch()
    write(world, tree)
    settle(world)
    assert completed(world)
    assert [name for name in news(world, before) if name in ("detour", "child")] == ["child", "detour"]
    assert "generate" not in news(world, before) and "extra" not in news(world, before)


def test_names_stay_unique_when_something_comes_back(world: World) -> None:
    def both(*trees: Tree) -> None:
        world.flow("f", *[grown(world, f"g{number}", tree) for number, tree in enumerate(trees)])

    one: Tree = {"name": "one", "addition": [{"name": "born"}]}
    two: Tree = {"name": "two", "addition": [{"name": "born"}]}
    both(one)
    settle(world)
    both({"name": "none"})
    settle(world)
    both({"name": "none"}, two)
    settle(world)
    both(one, two)
    settle(world)
    assert sorted(current(world)) == ["f/born", "f/born#2", "f/g0", "f/g1"]
    assert sorted(log(world)) == ["born", "born", "none", "one", "two"]


def test_random_walks_between_revisions_run_every_job_once(world: World) -> None:
    """Each variant of each generator, with all that it generates, runs the first time it is wanted."""
    source = random.Random(11)
    trees = [TREE | {"variant": number} for number in range(2)]
    loops = [LOOP, LOOP | {"replace": {"name": "other"}}]
    seen: dict[tuple[int, int], Any] = {}
    for _ in range(5):
        which = source.randrange(2), source.randrange(2)
        write(world, trees[which[0]], loops[which[1]])
        settle(world)
        assert seen.setdefault(which, facts(world)) == facts(world)
        assert completed(world)
    first, second = ({which[place] for which in seen} for place in (0, 1))
    assert Counter(log(world))["generate"] == Counter(log(world))["deepest"] == len(first)
    assert Counter(log(world))["loop"] == Counter(log(world))["end"] == len(second)


def test_random_walks_while_jobs_run_end_where_they_must(world: World) -> None:
    source = random.Random(5)
    trees = [TREE, {"name": "generate"}, TREE | {"variant": 2}]
    for _ in range(5):
        write(world, source.choice(trees), source.choice([LOOP, LOOP | {"addition": []}]))
        world.reconcile()
        for _ in range(source.randrange(12)):
            world.advance()
    write(world, TREE)
    settle(world)
    assert completed(world)
    assert {path.removeprefix("f/") for path in current(world)} == {
        "generate", "child", "end", "first", "second", "loop", "loop@2", "loop@3", *BORN
    }  # fmt: skip
    status = world.view(lambda view: flow_status(view.flow("f"), view.summary("f")))
    assert str(status.health) == "Healthy"
