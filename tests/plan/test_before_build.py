"""What a plan shows of flows whose code must run first: foreseen from the manifests, sure after the build."""

from __future__ import annotations

import msgspec

from reconciler.diagnostics import Severity
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow, Hold
from reconciler.model.manifests import FlowSpec
from reconciler.model.reasons import ReasonCode
from reconciler.model.states import JobState
from reconciler.plan.planner import make_plan
from tests.plan.plan_support import applied, before, built, built_job, desired, flow, rule, shown, with_jobs


def edited(one: DesiredFlow, *keys: str) -> DesiredFlow:
    """Return the flow with other content of some jobs."""
    preview = [
        msgspec.structs.replace(job, digest="other") if job.key in keys else job for job in one.preview
    ]
    return msgspec.structs.replace(one, preview=preview, inputs="other")


def to_rebuild(*flows: DesiredFlow) -> ActualState:
    """Return a store where these flows were applied, none of which is built as it is wanted now."""
    start = before(*((one, built(one)) for one in flows))
    actual = applied(make_plan(desired(*flows), start), start)
    actual.built = {}
    actual.previous = {one.name: {job.key: job.digest for job in one.preview} for one in flows}
    return actual


CHAIN = flow(jobs=["a", "b", "c"], needs={"b": ["f/a"]})


def test_a_new_flow_shows_its_jobs_and_their_run_config() -> None:
    state = desired(flow(own={"b": {"priority": 3}}), rules=[rule("r", {"worker": "w2"}, name_filter="a")])
    plan = make_plan(state, ActualState())
    assert shown(plan) == ["Submit f", "Submit f/a", "Submit f/b"]
    assert plan.to_build == ("f",)
    assert all(action.build for action in plan.actions)
    values = [{change.field: change.new for change in action.changes} for action in plan.actions]
    assert values == [{}, {"worker": "w2"}, {"worker": "w1", "priority": 3}]


def test_a_changed_flow_shows_who_will_run_again() -> None:
    plan = make_plan(desired(edited(CHAIN, "a")), to_rebuild(CHAIN))
    assert shown(plan) == ["Replace f", "Replace f/a", "Replace f/b"]
    assert plan.to_build == ("f",)
    assert all(action.wanted is None and action.build for action in plan.actions)


def test_other_code_alone_foresees_nothing() -> None:
    assert shown(make_plan(desired(edited(CHAIN)), to_rebuild(CHAIN))) == ["Replace f"]


def test_jobs_that_come_go_and_change_their_run_config() -> None:
    actual = with_jobs(to_rebuild(CHAIN), "f", a={"state": JobState.RUNNING}, b={"state": JobState.COMPLETED})
    fewer = flow(jobs=["a", "c", "d"], values={"priority": 2})
    assert shown(make_plan(desired(fewer), actual)) == [
        "Replace f",
        "Defer f/a",
        "Patch f/c",
        "Submit f/d",
        "Forget f/b",
    ]


def test_a_job_with_another_name_is_patched() -> None:
    renamed = [msgspec.structs.replace(job, name=f"new {job.name}") for job in CHAIN.preview[:1]]
    other = msgspec.structs.replace(CHAIN, preview=[*renamed, *CHAIN.preview[1:]], inputs="other")
    plan = make_plan(desired(other), to_rebuild(CHAIN))
    assert shown(plan) == ["Replace f", "Patch f/a"]
    assert [(change.field, change.new) for change in plan.actions[1].changes] == [("name", "new a")]


def test_a_change_travels_into_other_flows() -> None:
    other = flow("g", jobs=["x", "y"], needs={"x": ["f/b"]}, externals=["f/b"])
    actual = to_rebuild(CHAIN, other)
    plan = make_plan(desired(edited(CHAIN, "a"), other), actual)
    assert shown(plan) == ["Replace f", "Replace f/a", "Replace f/b", "Replace g", "Replace g/x"]


def test_a_removed_flow_that_returns_changed_is_new() -> None:
    actual = to_rebuild(CHAIN)
    actual.flows["f"] = msgspec.structs.replace(actual.flows["f"], removed=True)
    plan = make_plan(desired(edited(CHAIN, "a")), actual)
    assert shown(plan) == ["Submit f", "Submit f/a", "Submit f/b", "Submit f/c"]
    assert plan.actions[0].reason.code is ReasonCode.FLOW_WANTED_AGAIN


def test_an_impossible_job_makes_the_flow_wait_before_anything_is_built() -> None:
    state = desired(flow(own={"b": {"resources": {"nodes": 1}}}), flow("g"))
    plan = make_plan(state, ActualState())
    assert shown(plan) == ["Keep f", "Submit g", "Submit g/a", "Submit g/b"]
    assert plan.to_build == ("g",)
    assert [found.code for found in plan.diagnostics] == ["resources/shell-worker"]


def test_a_new_flow_that_an_invalid_document_holds_is_not_announced() -> None:
    held = [Hold("OverrideRule 'r' is invalid", rule("r", {}, name_filter="b"))]
    state = desired(flow(), flow("g", jobs=["x"]), flow("made", jobs=[]), holds=held)
    assert shown(make_plan(state, ActualState())) == ["Keep f", "Submit g", "Submit g/x", "Submit made"]
    all_held = desired(flow(), flow("made", jobs=[]), holds=[Hold("the Project is invalid")])
    assert shown(make_plan(all_held, ActualState())) == ["Keep f", "Keep made"]


class TestJobsThatOnlyCodeKnows:
    """Makers and factories: what looks impossible is a warning until their jobs are known."""

    def made(self, **fields: object) -> DesiredFlow:
        return flow(jobs=[], spec=FlowSpec(factory={"function": "m.make"}), **fields)

    def test_a_missing_worker_may_still_come_from_a_rule(self) -> None:
        one = self.made()
        state = desired(one, defaults={}, rules=[rule("r", {"worker": "w2"}, name_filter="a")])
        plan = make_plan(state, ActualState())
        assert shown(plan) == ["Submit f"]
        assert [(found.code, found.severity) for found in plan.diagnostics] == [
            ("run-config/no-worker", Severity.WARNING)
        ]
        assert not plan.has_errors
        form = msgspec.structs.replace(built(one), jobs=[built_job("a", "a")])
        known = make_plan(state, before((one, form)))
        assert shown(known) == ["Submit f", "Submit f/a"]
        assert known.diagnostics == ()

    def test_an_error_once_its_jobs_are_known(self) -> None:
        one = self.made(values={"resources": {"nodes": 1}})
        assert [found.severity for found in make_plan(desired(one), ActualState()).diagnostics] == [
            Severity.WARNING
        ]
        form = msgspec.structs.replace(built(one), jobs=[built_job("a", "a")])
        plan = make_plan(desired(one), before((one, form)))
        assert shown(plan) == ["Keep f"]
        assert [found.severity for found in plan.diagnostics] == [Severity.ERROR]

    def test_a_wrong_name_is_an_error_at_once(self) -> None:
        plan = make_plan(desired(self.made(values={"worker": "w11"})), ActualState())
        assert [(found.code, found.severity) for found in plan.diagnostics] == [
            ("reference/unknown-worker", Severity.ERROR)
        ]

    def test_what_the_code_says_counts_as_the_jobs_own(self) -> None:
        one = self.made(values={"worker": "w1", "priority": 1})
        jobs = [built_job("a", "a", own={"worker": "w2"})]
        plan = make_plan(desired(one), before((one, msgspec.structs.replace(built(one), jobs=jobs))))
        wanted = plan.actions[1].wanted
        assert wanted is not None and wanted.config.worker is not None
        assert wanted.config.worker_name == "w2"
        assert wanted.config.worker.origin.pointer == "/spec/factory/manager_config/worker"
        assert wanted.config.priority_value == 1

    def test_the_manifest_of_a_job_is_stronger_than_its_code(self) -> None:
        one = flow(jobs=["a"], own={"a": {"worker": "w1"}})
        jobs = [built_job("a", "a", own={"worker": "w2", "priority": 5})]
        plan = make_plan(desired(one), before((one, msgspec.structs.replace(built(one), jobs=jobs))))
        wanted = plan.actions[1].wanted
        assert wanted is not None and wanted.config.priority is not None
        assert (wanted.config.worker_name, wanted.config.priority_value) == ("w1", 5)
        job = f"/spec/jobs/id={wanted.job.key}"
        assert wanted.config.priority.origin.pointer == f"{job}/config/manager_config/priority"
