"""Table C of the conformance list: the run config of jobs that are generated at run time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.execution.support import World
from tests.support import isolate

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too

FLOW_LEVEL: dict[str, Any] = {"worker": "w1", "exec_config": "ec1", "priority": 5}
Seen = tuple[str, Any, int]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[World]:
    """All flows, run once; two of them are changed while their generator runs."""
    root = tmp_path_factory.mktemp("inheritance")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root / "home")
        patch.setattr(sys, "executable", str(warm_python))
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp() / "matplotlib"))
        world = World(root)
        _write(world)
        world.reconcile()
        running = ("c6/generator", "c10/generator")
        world.until(lambda: world.states(*running) == ["RUNNING", "RUNNING"])
        rule(world, "c6-later", "generator", flows=["c6"], worker="w2", priority=8)
        rule(world, "c10-later", "child", flows=["c10"], priority=8)
        world.reconcile()
        assert world.job("c6/generator").wanted is not None
        (root / "gate").touch()
        world.run(500)
        yield world
        world.close()


def _write(world: World) -> None:
    workers = [world.worker(name, max_jobs=4) for name in ("w1", "w2")]
    world.repository.write("workers/workers.yaml", "".join(workers))
    for name in ("ec1", "ec2"):
        world.put("ExecConfig", name, {"export": {"WHICH": name}})
    for kind in ("detour", "addition", "replace"):
        family(world, f"c1-{kind}", kind)
    rule(world, "c1-own", "generator", flows=["c1-*"], worker="w2", exec_config="ec2", priority=9)
    family(world, "c2")
    rule(world, "c2", "child", worker="w2", exec_config="ec2", priority=10)
    family(world, "c3")
    rule(world, "c3", "generator", worker="w1", priority=9)
    rule(world, "c3-child", "child", flows=["c3"], order=200, worker="w2", priority=2)
    family(world, "c4")
    rule(world, "c4", "generator", worker="w2", exec_config={}, priority=0)
    family(world, "c5")
    rule(world, "c5", "generator", dynamic=False, priority=7)
    rule(world, "c5-child", "child", flows=["c5"], dynamic=False, worker="w2")
    family(world, "c6", "addition", 1, None, str(world.root / "gate"))
    family(world, "c7", "addition", 1, {"pass_manager_config": False, "manager_config": {"priority": 3}})
    family(world, "c7-passes", "addition", 1, {"manager_config": {"priority": 3}})
    responding = {
        "response_manager_config": {"priority": 6, "worker": "w2"},
        "manager_config": {"priority": 3},
    }
    family(world, "c8", "addition", 1, responding)
    family(world, "c8-rule", "addition", 1, responding)
    rule(world, "c8-rule", "child", priority=1)
    family(world, "c9", "detour", 2)
    rule(world, "c9", "child", worker="w2", priority=4)
    family(world, "c10", "addition", 1, None, str(world.root / "gate"))


def family(world: World, name: str, *args: Any) -> None:
    world.factory(name, "inherit_flows.family", name, *(args or ("addition",)), **FLOW_LEVEL)


def rule(
    world: World, name: str, name_filter: str, *, flows: list[str] | None = None, order: int = 100,
    dynamic: bool = True, **values: Any,
) -> None:  # fmt: skip
    spec = {"order": order, "flows": flows or [name], "name_filter": name_filter, "dynamic": dynamic}
    world.put("OverrideRule", name, spec | {"set": values})


def seen(world: World, path: str) -> Seen:
    """Return worker, exec_config and priority of a job that has run."""
    job = world.job(path)
    assert job.state.value == "COMPLETED", (path, job.error)
    return job.config.worker_name, job.config.value("exec_config"), job.config.priority_value


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("c1-detour/child", ("w2", "ec2", 9), id="C1 detour"),
        pytest.param("c1-addition/child", ("w2", "ec2", 9), id="C1 addition"),
        pytest.param("c1-replace/child", ("w2", "ec2", 9), id="C1 replace"),
        pytest.param("c2/generator", ("w1", "ec1", 5), id="C2 the generator keeps its own"),
        pytest.param("c2/child", ("w2", "ec2", 10), id="C2 the child gets the rule"),
        pytest.param("c3/generator", ("w1", "ec1", 9), id="C3 the generator"),
        pytest.param("c3/child", ("w2", "ec1", 2), id="C3 the rule beats inheritance"),
        pytest.param("c4/child", ("w2", {}, 0), id="C4 falsy values are inherited, too"),
        pytest.param("c5/generator", ("w1", "ec1", 7), id="C5 the generator"),
        pytest.param("c5/child", ("w1", "ec1", 7), id="C5 inherits, but is not matched"),
        pytest.param("c6/generator", ("w2", "ec1", 8), id="C6 the deferred patch was applied"),
        pytest.param("c6/child", ("w2", "ec1", 8), id="C6 the generator's current values"),
        pytest.param("c7/generator", ("w1", "ec1", 3), id="C7 the generator's own"),
        pytest.param("c7/child", ("w1", "ec1", 5), id="C7 nothing is passed"),
        pytest.param("c7-passes/child", ("w1", "ec1", 3), id="C7 otherwise it is"),
        pytest.param("c8/child", ("w2", "ec1", 6), id="C8 as the job's own"),
        pytest.param("c8-rule/child", ("w2", "ec1", 1), id="C8 a rule is stronger"),
        pytest.param("c9/middle", ("w1", "ec1", 5), id="C9 in between"),
        pytest.param("c9/child", ("w2", "ec1", 4), id="C9 the grandchild"),
        pytest.param("c10/generator", ("w1", "ec1", 5), id="C10 the generator"),
        pytest.param("c10/child", ("w1", "ec1", 8), id="C10 a rule that came meanwhile"),
    ],
)
def test_run_config(path: str, expected: Seen, world: World) -> None:
    assert seen(world, path) == expected


@pytest.mark.parametrize(
    ("path", "field", "level"),
    [
        ("c1-detour/child", "priority", "generator"),
        ("c2/child", "priority", "rule"),
        ("c3/child", "exec_config", "generator"),
        ("c7/child", "priority", "flow"),
        ("c8/child", "priority", "job"),
        ("c10/child", "worker", "generator"),
    ],
)
def test_the_level_that_won_is_known(path: str, field: str, level: str, world: World) -> None:
    setting = world.job(path).config.setting(field)
    assert setting is not None
    assert setting.origin.level.value == level


def test_children_ran_where_their_config_says(world: World) -> None:
    for path in ("c2/child", "c3/child", "c9/child"):
        assert str(world.job(path).run_dir).startswith(str(world.work / "w2"))


def test_c19_generated_jobs_are_no_drift(world: World) -> None:
    before = {path: (job.state, job.config) for path, job in world.jobs().items()}
    world.repository.write("README", "nothing that counts")
    world.reconcile()
    world.run()
    assert {path: (job.state, job.config) for path, job in world.jobs().items()} == before
