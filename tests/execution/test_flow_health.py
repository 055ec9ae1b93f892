"""How a flow is whose jobs wait for another flow: never without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.execution.flow_health import health_of
from reconciler.model.health import FlowStatus
from reconciler.model.states import Health
from tests.execution.verbs_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Flow ``far``: a -> b; flow ``near``: one is on its own, c needs far/b, d needs c."""
    made = Bench(tmp_path / "state")
    made.flow("far", {"a": [], "b": ["a"]})
    made.flow("near", {"one": [], "c": ["far/b"], "d": ["c"]})
    yield made
    made.check()
    made.store.close()


def health(bench: Bench, name: str = "near") -> FlowStatus:
    with bench.store.read() as view:
        flow = view.flow(name)
        assert flow is not None
        status = health_of(view, flow, view.glances_of(name))
        assert status == health_of(view, flow, view.jobs_of(name))
    return status


def test_it_progresses_as_long_as_anything_moves_on_either_side(bench: Bench) -> None:
    bench.run("near/one")
    assert health(bench) == FlowStatus(
        Health.PROGRESSING, "1 of 3 jobs completed", {"COMPLETED": 1, "WAITING": 2}
    )
    bench.start("far/a")
    assert health(bench).health is Health.PROGRESSING


def test_it_is_degraded_once_the_other_one_has_failed(bench: Bench) -> None:
    bench.start("far/a")
    bench.end("far/a", error="no luck")
    assert health(bench).health is Health.PROGRESSING, "near/one can still run"
    bench.run("near/one")
    status = health(bench)
    assert (status.health, status.blocked) == (Health.DEGRADED, True)
    assert status.reason == "far/b needs far/a, which is FAILED"
    assert status.fix == "`reconcile describe flow far` says how that goes on"
    assert not health(bench, "far").blocked, "its own job has failed"
    bench.verb("retry", "far/a")
    assert health(bench).health is Health.PROGRESSING
    bench.run("far/a", "far/b", "near/c", "near/d")
    assert health(bench).health is Health.HEALTHY


@pytest.mark.parametrize(("verb", "state"), [("cancel", "USER_STOPPED"), ("pause", "PAUSED")])
def test_it_is_suspended_while_the_other_one_is_halted(bench: Bench, verb: str, state: str) -> None:
    bench.run("near/one", "far/a")
    bench.verb(verb, "far/b")
    status = health(bench)
    assert (status.health, status.reason) == (Health.SUSPENDED, f"near/c needs far/b, which is {state}")


def test_who_does_not_mind_is_not_blocked(bench: Bench) -> None:
    bench.edit("near/c", on_missing="none")
    bench.run("near/one")
    bench.start("far/a")
    bench.end("far/a", error="no luck")
    assert bench.states("near/c") == ["READY"]
    assert health(bench).health is Health.PROGRESSING
