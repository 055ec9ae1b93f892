"""make_plan for flows whose manifest is gone: prune, protection, and the guards."""

from __future__ import annotations

import msgspec
import pytest

from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import ProjectSpec, Prune
from reconciler.model.reasons import ReasonCode
from reconciler.model.records import Cancellation
from reconciler.model.states import JobState
from reconciler.plan.planner import make_plan
from tests.plan.plan_support import applied, before, built, desired, flow, shown, with_jobs

NAMES = ("f", "g", "h", "i")


def campaign(prune: Prune = Prune.CANCEL, **fields: object) -> tuple[DesiredState, ActualState]:
    """Return four flows without ``f``, and the store that has all four."""
    flows = [flow(name, prune=prune, **fields) for name in NAMES]
    start = before(*((one, built(one)) for one in flows))
    return desired(*flows[1:]), applied(make_plan(desired(*flows), start), start)


def test_cancel_ends_what_has_not_finished_and_keeps_the_rest() -> None:
    state, actual = campaign()
    actual = with_jobs(actual, "f", a={"state": JobState.COMPLETED})
    plan = make_plan(state, actual)
    assert shown(plan) == ["Cancel f", "Cancel f/b"]
    after = applied(plan, actual)
    assert [job.state for job in after.jobs["f"]] == [JobState.COMPLETED, JobState.USER_STOPPED]
    assert make_plan(state, after).actions == ()


def test_what_runs_is_cancelled_once() -> None:
    state, actual = campaign()
    actual = with_jobs(
        actual,
        "f",
        a={"state": JobState.RUNNING},
        b={"state": JobState.RUNNING, "cancellation": Cancellation(reason="x")},
    )
    assert shown(make_plan(state, actual)) == ["Cancel f", "Cancel f/a"]


def test_orphan_leaves_the_jobs_alone() -> None:
    state, actual = campaign(Prune.ORPHAN)
    plan = make_plan(state, actual)
    assert shown(plan) == ["Forget f"]
    after = applied(plan, actual)
    assert after.flows["f"].orphaned
    assert [job.state for job in after.jobs["f"]] == [JobState.READY, JobState.READY]
    assert make_plan(state, after).actions == ()


def test_an_orphan_that_returns_is_looked_after_again() -> None:
    state, actual = campaign(Prune.ORPHAN)
    orphaned = applied(make_plan(state, actual), actual)
    whole = desired(*(flow(name, prune=Prune.ORPHAN) for name in NAMES))
    plan = make_plan(whole, orphaned)
    assert shown(plan) == ["Submit f"]
    assert not applied(plan, orphaned).flows["f"].orphaned


def test_delete_cancels_first_and_forgets_when_all_has_ended() -> None:
    state, actual = campaign(Prune.DELETE)
    actual = with_jobs(actual, "f", a={"state": JobState.RUNNING})
    plan = make_plan(state, actual)
    assert shown(plan) == ["Cancel f", "Cancel f/a", "Cancel f/b"]
    cancelled = applied(plan, actual)
    assert make_plan(state, cancelled).actions == (), "one job still runs"
    ended = with_jobs(cancelled, "f", a={"state": JobState.USER_STOPPED})
    plan = make_plan(state, ended)
    assert shown(plan) == ["Forget f"]
    after = applied(plan, ended)
    assert "f" not in after.flows and "f" not in after.jobs
    assert make_plan(state, after).actions == ()


def test_delete_forgets_at_once_what_does_not_run() -> None:
    state, actual = campaign(Prune.DELETE)
    plan = make_plan(state, actual)
    assert shown(plan) == ["Forget f"]
    assert make_plan(state, applied(plan, actual)).actions == ()


@pytest.mark.parametrize("state", [JobState.WAITING, JobState.READY, JobState.PAUSED])
def test_delete_keeps_what_a_job_of_another_flow_still_needs(state: JobState) -> None:
    wanted, actual = campaign(Prune.DELETE)
    actual = with_jobs(actual, "f", a={"state": JobState.COMPLETED}, b={"state": JobState.COMPLETED})
    actual = with_jobs(actual, "g", a={"state": state, "parents": ["f-a"]})
    plan = make_plan(wanted, actual)
    assert shown(plan) == ["Cancel f"]
    waiting = applied(plan, actual)
    assert make_plan(wanted, waiting).actions == (), "g/a still needs f/a"
    ended = with_jobs(waiting, "g", a={"state": JobState.COMPLETED})
    assert shown(make_plan(wanted, ended)) == ["Forget f"]


@pytest.mark.parametrize("kept", ["invalid", "orphaned"])
def test_delete_keeps_what_a_flow_that_is_held_still_needs(kept: str) -> None:
    wanted, actual = campaign(Prune.DELETE)
    actual = with_jobs(actual, "f", a={"state": JobState.COMPLETED}, b={"state": JobState.COMPLETED})
    actual = with_jobs(actual, "g", a={"parents": ["f-a"]})
    others = [flow for name, flow in wanted.flows.items() if name != "g"]
    wanted = desired(*others, invalid={"g": "flow 'f' does not exist"} if kept == "invalid" else {})
    if kept == "orphaned":
        record = msgspec.structs.replace(actual.flows["g"], removed=True, orphaned=True)
        actual = msgspec.structs.replace(actual, flows=actual.flows | {"g": record})
    assert shown(make_plan(wanted, actual)) == ["Cancel f"]


def test_delete_does_not_wait_for_flows_that_are_removed_as_well() -> None:
    wanted, actual = campaign(Prune.DELETE)
    actual = with_jobs(actual, "g", a={"parents": ["f-a"]})
    others = [flow for name, flow in wanted.flows.items() if name != "g"]
    assert shown(make_plan(desired(*others), actual)) == ["Forget f", "Forget g"]


def test_a_protected_flow_stays() -> None:
    state, actual = campaign(protected=True)
    plan = make_plan(state, actual)
    assert shown(plan) == ["Keep f"]
    assert plan.actions[0].reason.code is ReasonCode.REMOVED_PROTECTED
    assert plan.effective == () and plan.refusals == ()


def test_an_invalid_flow_is_not_a_removed_one() -> None:
    _, actual = campaign()
    state = desired(*(flow(name) for name in NAMES[1:]), invalid={"f": "its document is invalid"})
    assert make_plan(state, actual).actions == ()


class TestGuards:
    def test_a_revision_without_flows_is_refused(self) -> None:
        _, actual = campaign()
        plan = make_plan(desired(), actual)
        assert len(plan.refusals) == 1
        assert "has no flows" in plan.refusals[0] and "f, g, h, i" in plan.refusals[0]
        assert make_plan(desired(), actual, allow_prune=True).refusals == ()

    def test_also_with_one_flow_only(self) -> None:
        one = flow()
        start = before((one, built(one)))
        actual = applied(make_plan(desired(one), start), start)
        assert make_plan(desired(), actual).refusals != ()

    def test_nothing_is_refused_where_nothing_was(self) -> None:
        assert make_plan(desired(), ActualState()).refusals == ()

    @pytest.mark.parametrize(
        ("kept", "max_prune", "refused"),
        [(3, 0.3, False), (2, 0.3, True), (2, 0.5, False), (1, 0.5, True), (3, 0.0, True)],
    )
    def test_max_prune(self, kept: int, max_prune: float, refused: bool) -> None:
        _, actual = campaign()
        project = ProjectSpec(max_prune=max_prune)
        state = desired(*(flow(name) for name in NAMES[:kept]), project=project)
        plan = make_plan(state, actual)
        assert bool(plan.refusals) is refused
        if refused:
            assert f"would cancel {4 - kept} of 4 flows" in plan.refusals[0]
        assert make_plan(state, actual, allow_prune=True).refusals == ()

    def test_each_says_what_would_become_of_which_flows(self) -> None:
        flows = [flow(name, prune=prune) for name, prune in zip(NAMES, [*Prune, Prune.CANCEL], strict=True)]
        start = before(*((one, built(one)) for one in flows))
        actual = applied(make_plan(desired(*flows), start), start)
        actual = with_jobs(actual, "f", a={"state": JobState.COMPLETED})
        words = {Prune.CANCEL: "cancel", Prune.ORPHAN: "orphan", Prune.DELETE: "delete"}
        (refusal,) = make_plan(desired(), actual).refusals
        for one in flows:
            names = [other.name for other in flows if other.prune is one.prune]
            assert f"{words[one.prune]} {len(names)} of 4 flows: {', '.join(names)}" in refusal
        assert "with all records and outputs" in refusal
        assert refusal.endswith("; 7 of their jobs have not ended")

    def test_of_two_flows_one_may_go(self) -> None:
        flows = [flow(name) for name in ("f", "g")]
        start = before(*((one, built(one)) for one in flows))
        actual = applied(make_plan(desired(*flows), start), start)
        assert make_plan(desired(flows[0]), actual).refusals == ()

    def test_orphans_and_protected_flows_count_as_what_they_are(self) -> None:
        _, actual = campaign(Prune.ORPHAN)
        assert make_plan(desired(flow("f")), actual).refusals != ()
        _, actual = campaign(protected=True)
        assert make_plan(desired(flow("f")), actual).refusals == ()

    def test_what_was_allowed_is_not_asked_again(self) -> None:
        _, actual = campaign(Prune.DELETE)
        for name in NAMES:
            actual = with_jobs(actual, name, a={"state": JobState.RUNNING})
        cancelled = applied(make_plan(desired(), actual, allow_prune=True), actual)
        for name in NAMES:
            cancelled = with_jobs(cancelled, name, a={"state": JobState.USER_STOPPED})
        plan = make_plan(desired(), cancelled)
        assert shown(plan) == ["Forget f", "Forget g", "Forget h", "Forget i"]
        assert plan.refusals == ()

    def test_flows_that_are_gone_do_not_count(self) -> None:
        state, actual = campaign()
        after = applied(make_plan(state, actual), actual)
        plan = make_plan(desired(flow("g"), flow("h")), after)
        assert "would cancel 1 of 3 flows" in plan.refusals[0]

    def test_a_protected_flow_that_was_removed_before_its_protection(self) -> None:
        state, actual = campaign()
        after = applied(make_plan(state, actual), actual)
        after.flows["f"] = msgspec.structs.replace(after.flows["f"], protected=True)
        assert make_plan(state, after).actions == ()
