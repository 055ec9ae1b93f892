"""make_plan for flows that are new, unchanged, changed, on hold, suspended, held back or wanted again."""

from __future__ import annotations

import msgspec
import pytest

from reconciler.model.actions import ActionType, Subject
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState, Hold
from reconciler.model.manifests import FlowSpec, OnChange
from reconciler.model.reasons import ReasonCode
from reconciler.model.states import JobState
from reconciler.plan.planner import make_plan
from tests.plan.plan_support import applied, before, built, desired, flow, rule, shown, waits, with_jobs


def submitted(state: DesiredState) -> ActualState:
    """Return the store after the first reconcile of a desired state with one build per flow."""
    start = before(*((one, built(one)) for one in state.flows.values()))
    return applied(make_plan(state, start), start)


def test_a_new_flow_is_submitted_with_all_its_jobs() -> None:
    one = flow()
    plan = make_plan(desired(one), before((one, built(one))))
    assert shown(plan) == ["Submit f", "Submit f/a", "Submit f/b"]
    assert {action.reason.code for action in plan.actions} == {ReasonCode.NEW_FLOW}
    assert plan.diagnostics == () and plan.refusals == ()


def test_an_unchanged_flow_needs_nothing() -> None:
    state = desired(flow())
    assert make_plan(state, submitted(state)).actions == ()


def test_the_same_plan_twice_is_the_same_value() -> None:
    state = desired(flow("z"), flow("a"), rules=[rule("r", {"priority": 3}, name_filter="a")])
    actual = before(*((one, built(one)) for one in state.flows.values()))
    first, second = make_plan(state, actual), make_plan(state, actual)
    assert first == second
    assert [key for action in first.actions if "/" not in (key := action.key)] == ["a", "z"]


def test_only_what_changed_is_replaced() -> None:
    one = flow(jobs=["a", "b", "c"])
    actual = submitted(desired(one))
    actual.built = {"f": built(one, b="b2")}
    plan = make_plan(desired(one), actual)
    assert shown(plan) == ["Patch f", "Replace f/b"]
    assert [change.field for change in plan.actions[0].changes] == ["content"]
    replaced = plan.actions[1]
    assert replaced.record is not None and replaced.record.content == "b"
    assert replaced.wanted is not None and replaced.wanted.job.content == "b2"
    assert make_plan(desired(one), applied(plan, actual)).actions == ()


@pytest.mark.parametrize(("state", "verb"), [(JobState.COMPLETED, "Forget"), (JobState.RUNNING, "Cancel")])
def test_a_job_that_left_the_flow(state: JobState, verb: str) -> None:
    actual = with_jobs(submitted(desired(flow())), "f", b={"state": state})
    smaller = flow(jobs=["a"])
    actual.built = {"f": built(smaller, b="gone")}
    plan = make_plan(desired(smaller), actual)
    assert shown(plan) == ["Patch f", f"{verb} f/b"]
    assert make_plan(desired(smaller), applied(plan, actual)).actions == ()


def test_content_that_returns_is_wanted_again_with_its_result() -> None:
    one = flow()
    actual = with_jobs(submitted(desired(one)), "f", b={"state": JobState.COMPLETED})
    actual.built = {"f": built(one, b="b2")}
    actual = applied(make_plan(desired(one), actual), actual)
    actual.built = {"f": built(one)}
    plan = make_plan(desired(one), actual)
    assert shown(plan) == ["Patch f", "Replace f/b"]
    after = applied(plan, actual)
    assert [job.state for job in after.jobs["f"] if job.current] == [JobState.READY, JobState.COMPLETED]
    assert make_plan(desired(one), after).actions == ()


def test_a_removed_flow_that_returns() -> None:
    state = desired(flow(), flow("g"), flow("h"), flow("i"))
    actual = with_jobs(submitted(state), "f", a={"state": JobState.COMPLETED})
    without = desired(flow("g"), flow("h"), flow("i"))
    gone = applied(make_plan(without, actual), actual)
    assert gone.flows["f"].removed
    plan = make_plan(state, gone)
    assert shown(plan) == ["Submit f", "Submit f/b"]
    codes = [action.reason.code for action in plan.actions]
    assert codes == [ReasonCode.FLOW_WANTED_AGAIN, ReasonCode.WANTED_AGAIN]
    assert make_plan(state, applied(plan, gone)).actions == ()


class TestHold:
    """``on_change: hold``: the flow runs on as submitted."""

    def test_changed_content_is_kept_out(self) -> None:
        one = flow(on_change=OnChange.HOLD)
        actual = submitted(desired(one))
        actual.built = {"f": built(one, b="b2")}
        plan = make_plan(desired(one), actual)
        assert shown(plan) == ["Keep f"]
        assert plan.actions[0].reason.code is ReasonCode.HELD_BACK
        assert plan.effective == ()

    def test_nothing_is_built_for_it(self) -> None:
        one = flow(on_change=OnChange.HOLD)
        actual = submitted(desired(one))
        actual.built = {}
        assert shown(make_plan(desired(one), actual)) == ["Keep f"]
        assert make_plan(desired(one), actual).to_build == ()

    def test_rules_still_reach_its_jobs_by_either_name_of_their_function(self) -> None:
        one = flow(on_change=OnChange.HOLD)
        actual = with_jobs(submitted(desired(one)), "f", a={"function": "defined.elsewhere.a"})
        actual.built = {}
        rules = [rule("r", {"priority": 7}, function_filter="m.a")]
        plan = make_plan(desired(one, rules=rules), actual)
        assert shown(plan) == ["Keep f", "Patch f/a"]
        after = applied(plan, actual)
        assert shown(make_plan(desired(one, rules=rules), after)) == ["Keep f"]

    def test_an_impossible_rule_reaches_nothing(self) -> None:
        one = flow(on_change=OnChange.HOLD)
        actual = submitted(desired(one))
        actual.built = {}
        plan = make_plan(desired(one, rules=[rule("r", {"worker": "w3"})]), actual)
        assert shown(plan) == ["Keep f"]
        assert [diagnostic.code for diagnostic in plan.diagnostics] == ["reference/unknown-worker"]

    def test_a_new_flow_is_submitted_all_the_same(self) -> None:
        one = flow(on_change=OnChange.HOLD)
        assert shown(make_plan(desired(one), before((one, built(one)))))[0] == "Submit f"

    def test_a_removed_flow_returns_with_its_new_content(self) -> None:
        one = flow(on_change=OnChange.HOLD)
        actual = submitted(desired(one))
        actual.flows["f"] = msgspec.structs.replace(actual.flows["f"], removed=True)
        actual.built = {"f": built(one, b="b2")}
        assert shown(make_plan(desired(one), actual)) == ["Submit f", "Replace f/b"]


def test_the_flows_manifest_reaches_its_record() -> None:
    actual = submitted(desired(flow()))
    other = flow(
        labels={"campaign": "x"}, values={"priority": 4}, spec=FlowSpec(jobs=[], suspend=True), protected=True
    )
    plan = make_plan(desired(other), actual)
    assert shown(plan) == ["Patch f", "Patch f/a", "Patch f/b"]
    assert [change.field for change in plan.actions[0].changes] == [
        "labels",
        "suspend",
        "run config",
        "protected",
    ]
    after = applied(plan, actual)
    assert after.flows["f"].suspended and after.flows["f"].protected
    assert make_plan(desired(other), after).actions == ()
    # Protection outlives its own removal.
    resumed = flow(labels={"campaign": "x"}, values={"priority": 4})
    assert [change.field for change in make_plan(desired(resumed), after).actions[0].changes] == ["suspend"]


class TestHeldBack:
    """A document that is invalid in this revision makes the new submissions wait that it touches."""

    def test_a_hold_without_a_rule_touches_every_flow(self) -> None:
        one, two = flow(), flow("g")
        state = desired(one, two, holds=[Hold("the Project is invalid in this revision")])
        plan = make_plan(state, before((one, built(one)), (two, built(two))))
        assert shown(plan) == ["Keep f", "Keep g"]
        assert plan.actions[0].reason == waits("the Project is invalid in this revision")

    def test_a_rule_holds_only_what_it_matches(self) -> None:
        one, two = flow(jobs=["a"]), flow("g", jobs=["b"])
        state = desired(one, two, holds=[Hold("rule r is invalid", rule("r", {}, name_filter="b"))])
        plan = make_plan(state, before((one, built(one)), (two, built(two))))
        assert shown(plan) == ["Submit f", "Submit f/a", "Keep g"]

    @pytest.mark.parametrize("key", ["Worker/w2", "ExecConfig/ec2"])
    def test_last_good_workers_and_exec_configs_take_no_new_jobs(self, key: str) -> None:
        one = flow(values={"worker": "w2", "exec_config": "ec2"})
        plan = make_plan(desired(one, stale={key}), before((one, built(one))))
        assert shown(plan) == ["Keep f"]
        kind, _, name = key.partition("/")
        assert plan.actions[0].reason == waits(f"{kind} '{name}' is invalid in this revision")

    def test_jobs_that_exist_are_still_patched_and_running_ones_go_on(self) -> None:
        one = flow()
        actual = submitted(desired(one))
        held = [Hold("held")]
        assert make_plan(desired(one, holds=held), actual).actions == ()
        rules = [rule("r", {"priority": 7}, name_filter="a")]
        assert shown(make_plan(desired(one, rules=rules, holds=held), actual)) == ["Patch f/a"]
        actual.built = {"f": built(one, b="b2")}
        plan = make_plan(desired(one, rules=rules, holds=held), actual)
        assert shown(plan) == ["Keep f", "Patch f/a"]


def test_an_impossible_flow_waits_and_the_others_proceed() -> None:
    one, two = flow(values={"worker": "w11"}), flow("g")
    plan = make_plan(desired(one, two), before((one, built(one)), (two, built(two))))
    assert shown(plan) == ["Keep f", "Submit g", "Submit g/a", "Submit g/b"]
    assert plan.actions[0].reason == waits("there is no Worker named 'w11'")
    assert [(found.code, found.hint) for found in plan.diagnostics] == [
        ("reference/unknown-worker", "did you mean 'w1'?")
    ]


def test_the_summary_counts_flows_and_jobs() -> None:
    one = flow()
    plan = make_plan(desired(one), before((one, built(one))))
    assert plan.count(ActionType.SUBMIT, Subject.JOB) == 2
    assert plan.summary() == {
        "Submit": 3,
        "Patch": 0,
        "Replace": 0,
        "Cancel": 0,
        "Forget": 0,
        "Defer": 0,
    }
