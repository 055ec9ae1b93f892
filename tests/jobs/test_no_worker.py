"""A generated job that no worker can take says so, and goes on once it has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.main import cli
from reconciler.jobs.flow_health import health_of
from reconciler.model.health import FlowStatus
from reconciler.model.states import Health
from tests.execution.support import World
from tests.jobs.bench import Bench, config, new_job


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Flow ``f``: a -> b; flow ``g``: x needs f/b."""
    made = Bench(tmp_path / "state")
    made.flow("f", {"a": [], "b": ["a"]})
    made.flow("g", {"x": ["f/b"]})
    yield made
    made.check()
    made.store.close()


def lost(uuid: str, index: int = 1, worker: str = "w11", **fields: Any) -> Any:
    """Return a generated job that asks for a worker itself."""
    payload, parents = new_job(uuid, index, **fields)
    return payload | {"config": {"manager_config": {"worker": worker}}}, parents


def health(bench: Bench, name: str) -> FlowStatus:
    with bench.store.read() as view:
        flow = view.flow(name)
        assert flow is not None
        return health_of(view, flow, view.summary(name))


def test_an_unknown_worker_is_an_error_with_a_way_out(bench: Bench) -> None:
    bench.start("f/a")
    bench.end("f/a", detour=[lost("u1")])
    assert bench.states("f/new", "f/b", "g/x") == ["REMOTE_ERROR", "WAITING", "WAITING"]
    assert bench.job("f/new").error == (
        "there is no Worker named 'w11' (did you mean 'w1'?): add that Worker, or give the job another one, "
        "as with `reconcile set worker f/new NAME`; then `reconcile retry f/new`"
    )
    assert health(bench, "f").health is Health.DEGRADED
    assert health(bench, "f").reason.startswith("new REMOTE_ERROR: there is no Worker named 'w11'")
    assert health(bench, "g").health is Health.DEGRADED
    bench.edit("f/new", config=config("w1"))
    bench.operate("retry", "f/new")
    assert (bench.job("f/new").error, bench.states("f/new")) == (None, ["READY"])
    bench.run("f/new", "f/b", "g/x")


def test_no_worker_at_all(bench: Bench) -> None:
    bench.edit("f/a", config=config(""))
    bench.start("f/a")
    bench.end("f/a", addition=[new_job("u1")])
    assert bench.states("f/new", "f/b") == ["REMOTE_ERROR", "READY"]
    error = bench.job("f/new").error
    assert error is not None
    assert error.startswith("no level of the run config gives it a worker: give the job another one")
    plan = bench.operate("retry", "f/new")
    assert [refusal.reason for refusal in plan.refusals] == ["it has no worker"]


def test_also_one_that_would_have_to_wait_and_who_does_not_mind_goes_on(bench: Bench) -> None:
    indifferent, _ = new_job("u3", name="indifferent")
    indifferent["config"] = {"on_missing_references": "none"}
    bench.start("f/a")
    bench.end(
        "f/a",
        addition=[
            (indifferent, ["u2"]), new_job("u1", name="first"), lost("u2", name="second", parents=["u1"])
        ],
    )  # fmt: skip
    assert bench.states("f/first", "f/second", "f/indifferent") == ["READY", "REMOTE_ERROR", "READY"]


def test_what_was_stopped_or_cancelled_is_only_that(bench: Bench) -> None:
    bench.start("f/a")
    bench.operate("cancel", "f/a")
    bench.end("f/a", addition=[lost("u1")])
    assert bench.states("f/new") == ["USER_STOPPED"]


def test_one_that_is_generated_anew_while_the_old_one_is_on_its_way_out(bench: Bench) -> None:
    bench.start("f/a")
    bench.end("f/a", replace=[new_job("f-a", 2)])
    bench.start("f/a@2")
    bench.operate("rerun", "f/a")
    bench.edit("f/b", on_missing="none")
    bench.start("f/a")
    bench.end("f/a", replace=[lost("f-a", 2, "nowhere")])
    assert (bench.states("f/a@2"), bench.job("f/a@2").cancellation.rerun) == (["RUNNING"], True)
    bench.killed("f/a@2")
    job = bench.job("f/a@2")
    assert (job.state, job.cancellation.rerun, job.cancellation.reason) == ("REMOTE_ERROR", False, None)
    assert job.config.worker_name == "nowhere"
    assert bench.states("f/b") == ["READY"]


# with real jobs ---------------------------------------------------------------------------------------


def reconcile(world: World, *arguments: str) -> Result:
    place = ["--repo", str(world.repository.path), "--state-dir", str(world.root / "state")]
    return CliRunner().invoke(cli, [*place, *arguments])


@pytest.fixture
def lonely(world: World) -> World:
    """The child of flow ``lonely`` asks for a worker that there is not, and nobody waits for ever."""
    config = {"response_manager_config": {"worker": "w11"}}
    world.factory("lonely", "inherit_flows.family", "lonely", "detour", 1, config)
    world.repository.commit()
    done = reconcile(world, "--once", "--wait", "--timeout", "120")
    assert done.exit_code == 1, done.output
    assert world.states("lonely/generator", "lonely/child") == ["COMPLETED", "REMOTE_ERROR"]
    told = reconcile(world, "describe", "flow", "lonely").output
    assert "child REMOTE_ERROR: there is no Worker named 'w11' (did you mean 'w1'?)" in told
    refused = reconcile(world, "retry", "lonely/child")
    assert "its worker 'w11' is no longer in the repository" in refused.output
    return world


@pytest.mark.usefixtures("warm")
def test_a_commit_that_adds_the_worker_lets_it_go_on(lonely: World) -> None:
    lonely.repository.write("workers/more.yaml", lonely.worker("w11"))
    lonely.repository.commit()
    reconcile(lonely, "--once")
    assert lonely.states("lonely/child") == ["REMOTE_ERROR"], "until somebody wants it again"
    assert reconcile(lonely, "retry", "lonely/child").exit_code == 0
    done = reconcile(lonely, "--once", "--wait", "--timeout", "120")
    assert (done.exit_code, lonely.states("lonely/child")) == (0, ["COMPLETED"]), done.output
    assert lonely.job("lonely/child").attempt.worker == "w11"


@pytest.mark.usefixtures("warm")
def test_a_rule_that_moves_it_lets_it_go_on_but_not_a_token_alone(lonely: World) -> None:
    config = {"response_manager_config": {"worker": "w11"}}
    lonely.factory("lonely", "inherit_flows.family", "lonely", "detour", 1, config, rerun="now")
    lonely.repository.commit()
    reconcile(lonely, "--once", "--wait", "--timeout", "120")
    assert lonely.states("lonely/child") == ["REMOTE_ERROR"]
    done = reconcile(lonely, "set", "worker", "lonely/child", "w1")
    assert done.exit_code == 0, done.output
    reconcile(lonely, "--once")
    assert lonely.job("lonely/child").config.worker_name == "w1"
    assert reconcile(lonely, "retry", "lonely/child").exit_code == 0
    done = reconcile(lonely, "--once", "--wait", "--timeout", "120")
    assert (done.exit_code, lonely.states("lonely/child")) == (0, ["COMPLETED"]), done.output
