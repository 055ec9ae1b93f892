"""How a flow is whose jobs wait for another flow: never without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from reconciler.jobs.flow_health import health_of
from reconciler.jobs.transitions import leave
from reconciler.model.health import FlowStatus
from reconciler.model.states import Health
from reconciler.model.summaries import summary_of
from tests.jobs.bench import Bench


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
        status = health_of(view, flow, view.summary(name))
        assert status == health_of(view, flow, summary_of(view.jobs_of(name)))
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
    assert status.fix == "once the cause is gone: `reconcile retry far/a`"
    assert not health(bench, "far").blocked, "its own job has failed"
    bench.operate("retry", "far/a")
    assert health(bench).health is Health.PROGRESSING
    bench.run("far/a", "far/b", "near/c", "near/d")
    assert health(bench).health is Health.HEALTHY


@pytest.mark.parametrize(
    ("verb", "state", "way"), [("cancel", "USER_STOPPED", "rerun"), ("pause", "PAUSED", "resume")]
)
def test_it_is_suspended_while_the_other_one_is_halted(bench: Bench, verb: str, state: str, way: str) -> None:
    bench.run("near/one", "far/a")
    bench.operate(verb, "far/b")
    status = health(bench)
    assert (status.health, status.reason) == (Health.SUSPENDED, f"near/c needs far/b, which is {state}")
    assert status.fix == f"`reconcile {way} far/b`"
    bench.operate(way, "far/b")
    bench.run("far/b", "near/c", "near/d")


def test_the_way_on_when_the_other_flow_has_stopped_itself(bench: Bench) -> None:
    """That one is Healthy, and says nothing."""
    bench.run("near/one")
    bench.start("far/a")
    bench.end("far/a", stop_jobflow=True)
    assert (health(bench, "far").health, health(bench, "far").fix) == (Health.HEALTHY, "")
    status = health(bench)
    assert (status.health, status.reason) == (Health.DEGRADED, "near/c needs far/b, which is STOPPED")
    assert status.fix == "`reconcile rerun far/b`"
    bench.operate("rerun", "far/b")
    bench.run("far/b", "near/c", "near/d")


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"removed": True}, "flow far was removed from git: bring its manifest back"),
        ({"suspended": True}, "`reconcile set suspend far off`"),
    ],
)
def test_the_fix_depends_on_the_flow_of_the_other_job(
    bench: Bench, change: dict[str, bool], fix: str
) -> None:
    bench.run("near/one", "far/a")
    bench.operate("pause", "far/b")
    with bench.store.read() as view:
        far = view.flow("far")
    assert far is not None
    bench.store.write(lambda writer: writer.put_flow(msgspec.structs.replace(far, **change)))
    assert health(bench).fix == fix


def test_the_fix_when_the_other_job_is_superseded(bench: Bench) -> None:
    bench.run("near/one", "far/a")
    bench.store.write(lambda writer: leave(writer, bench.job("far/b"), "replaced", bench.clock))
    status = health(bench)
    assert status.reason == "near/c needs far/b, which is USER_STOPPED and superseded"
    assert (
        status.fix == "far/b is superseded: bring its manifest back as it was, for example with `git revert`"
    )


def test_who_does_not_mind_is_not_blocked(bench: Bench) -> None:
    bench.edit("near/c", on_missing="none")
    bench.run("near/one")
    bench.start("far/a")
    bench.end("far/a", error="no luck")
    assert bench.states("near/c") == ["READY"]
    assert health(bench).health is Health.PROGRESSING
