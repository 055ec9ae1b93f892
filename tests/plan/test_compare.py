"""Plans between two revisions: as if the base were applied; with a store, without one, behind or ahead."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.actions import ActionType, Plan
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow
from reconciler.model.manifests import FlowSpec, OnChange, Prune
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import GeneratedBy
from reconciler.model.run_config import Rule
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.compare import NOTE, compare
from reconciler.plan.planner import make_plan
from tests.plan.plan_support import (
    applied,
    before,
    built,
    built_job,
    desired,
    flow,
    record,
    rule,
    shown,
    with_jobs,
)

LATE = rule("late", {"worker": "w2", "priority": 7}, name_filter="a")
CHAIN = flow(jobs=["a", "b", "c"], needs={"b": ["f/a"]})
NOTHING = ActualState()


def edited(one: DesiredFlow, *keys: str, inputs: str = "other") -> DesiredFlow:
    """Return the flow with other content of some jobs."""
    preview = [
        msgspec.structs.replace(job, digest=f"{inputs} {job.key}") if job.key in keys else job
        for job in one.preview
    ]
    return msgspec.structs.replace(one, preview=preview, inputs=inputs)


def made(name: str = "made", **fields: Any) -> DesiredFlow:
    """Return a flow whose jobs only its code knows."""
    return flow(name, jobs=[], spec=FlowSpec(factory={"function": "m.make"}), **fields)


def store_of(state: DesiredState, *, contents: dict[str, str] | None = None) -> ActualState:
    """Return a store in which a revision is applied, with real builds and what its manifests looked like."""
    builds = {one.name: real(one, **(contents or {})) for one in state.flows.values()}
    start = ActualState(built=builds)
    return applied(make_plan(state, start), start)


def real(one: DesiredFlow, **contents: str) -> BuiltFlow:
    """Return a build that knows the manifest it was made of."""
    preview = {job.key: job.digest for job in one.preview}
    return msgspec.structs.replace(built(one, **contents), preview=preview)


def not_built(store: ActualState, *names: str) -> ActualState:
    """Return the store for a revision that wants other builds of these flows than it has."""
    previous = {name: store.built[name].preview for name in names}
    left = {name: form for name, form in store.built.items() if name not in names}
    return msgspec.structs.replace(store, built=left, previous=previous)


def changes(plan: Plan) -> dict[str, dict[str, Any]]:
    return {a.key: {change.field: change.new for change in a.changes} for a in plan.effective}


class TestWithoutAStore:
    """As on a service that runs checks: the manifests are all there is."""

    def test_the_same_revision_changes_nothing(self) -> None:
        state = desired(CHAIN, flow("g", values={"priority": 3}), made(), rules=[LATE])
        assert shown(compare(state, state, NOTHING, {}).plan) == []

    def test_a_rule_patches_job_by_job(self) -> None:
        plan = compare(desired(CHAIN), desired(CHAIN, rules=[LATE]), NOTHING, {}).plan
        assert shown(plan) == ["Patch f/a"]
        (worker, priority) = plan.actions[0].changes
        assert (worker.field, worker.old, worker.new) == ("worker", "w1", "w2")
        assert priority.provenance is not None and priority.provenance["name"] == "late"
        assert shown(compare(desired(CHAIN, rules=[LATE]), desired(CHAIN), NOTHING, {}).plan) == ["Patch f/a"]

    def test_names_of_base_and_head(self) -> None:
        state = desired(CHAIN)
        other = msgspec.structs.replace(state.revision, branch="feature", commit="abcdef1234")
        plan = compare(state, msgspec.structs.replace(state, revision=other), NOTHING, {}).plan
        assert (plan.base, plan.revision) == ("main@1234567", "feature@abcdef1")

    def test_new_content_runs_again_with_what_needs_it(self) -> None:
        plan = compare(desired(CHAIN), desired(edited(CHAIN, "a")), NOTHING, {}).plan
        assert shown(plan) == ["Replace f", "Replace f/a", "Replace f/b"]
        assert plan.to_build == ("f",)

    def test_a_change_travels_into_other_flows(self) -> None:
        other = flow("g", jobs=["x", "y"], needs={"x": ["f/b"]}, externals=["f/b"])
        plan = compare(desired(CHAIN, other), desired(edited(CHAIN, "a"), other), NOTHING, {}).plan
        assert shown(plan) == ["Replace f", "Replace f/a", "Replace f/b", "Replace g", "Replace g/x"]

    def test_flows_that_come_and_go(self) -> None:
        plan = compare(desired(CHAIN), desired(flow("g", jobs=["x"]), made()), NOTHING, {}).plan
        assert shown(plan) == [
            "Submit g", "Submit g/x", "Submit made", "Cancel f", "Cancel f/a", "Cancel f/b", "Cancel f/c",
        ]  # fmt: skip

    def test_guards_count_the_flows_of_base(self) -> None:
        flows = [flow(f"f{number}") for number in range(4)]
        plan = compare(desired(*flows), desired(flows[0]), NOTHING, {}).plan
        assert plan.refusals == (
            "main@1234567 would cancel 3 of 4 flows: f1, f2, f3; 6 of their jobs have not ended; "
            "that is more than max_prune (30%) allows",
        )
        assert compare(desired(*flows), desired(flows[0]), NOTHING, {}, allow_prune=True).plan.refusals == ()

    def test_an_impossible_flow_of_base_is_new_once_it_is_possible(self) -> None:
        wrong, right = flow(values={"worker": "w9"}), flow(values={"worker": "w2"})
        assert shown(compare(desired(wrong), desired(wrong), NOTHING, {}).plan) == ["Keep f"]
        assert shown(compare(desired(wrong), desired(right), NOTHING, {}).plan) == [
            "Submit f", "Submit f/a", "Submit f/b",
        ]  # fmt: skip

    def test_what_the_flow_says_shows_at_the_flow_and_at_its_jobs(self) -> None:
        head = msgspec.structs.replace(flow(values={"priority": 4}), labels={"k": "v"})
        plan = compare(desired(flow()), desired(head), NOTHING, {}).plan
        assert shown(plan) == ["Patch f", "Patch f/a", "Patch f/b"]
        assert changes(plan)["f"] == {"labels": {"k": "v"}, "run config": {"priority": 4}}
        assert changes(plan)["f/b"] == {"priority": 4}


class TestJobsThatOnlyCodeKnows:
    def test_a_rule_that_may_reach_them_is_said_to(self) -> None:
        plan = compare(desired(made(), made("x")), desired(made(), made("x"), rules=[LATE]), NOTHING, {}).plan
        assert shown(plan) == ["Keep made", "Keep x"]
        assert [action.reason for action in plan.actions] == [NOTE, NOTE]
        only = rule("only", {"priority": 1}, flows=["x"])
        plan = compare(desired(made(), made("x")), desired(made(), made("x"), rules=[only]), NOTHING, {}).plan
        assert shown(plan) == ["Keep x"]

    def test_a_rule_that_nobody_can_judge_gets_no_warning(self) -> None:
        state = desired(made(), rules=[LATE])
        assert compare(state, state, NOTHING, {}).plan.diagnostics == ()

    def test_the_flow_level_is_shown(self) -> None:
        plan = compare(desired(made()), desired(made(values={"priority": 4})), NOTHING, {}).plan
        assert shown(plan) == ["Patch made"]
        assert plan.actions[0].reason == Reason(ReasonCode.FLOW_CHANGED, also=(NOTE,))
        assert changes(plan)["made"] == {"run config": {"priority": 4}}

    def test_new_content(self) -> None:
        assert shown(compare(desired(made()), desired(made(inputs="other")), NOTHING, {}).plan) == [
            "Replace made"
        ]

    def test_jobs_of_an_earlier_build_are_still_there(self) -> None:
        """Base was not built yet, but an older version of the flow runs."""
        old = made(inputs="old")
        form = msgspec.structs.replace(built(old), jobs=[built_job("a", "a", "made")])
        store = not_built(applied(make_plan(desired(old), before((old, form))), before((old, form))), "made")
        plan = compare(desired(made()), desired(made(), rules=[LATE]), store, {}).plan
        assert shown(plan) == ["Patch made/a", "Keep made"]

    def test_real_jobs_once_they_are_built(self) -> None:
        one = made()
        form = msgspec.structs.replace(built(one), jobs=[built_job("a", "a", "made")])
        start = before((one, form))
        plan = compare(desired(one), desired(one, rules=[LATE]), start, {"made": form}).plan
        assert shown(plan) == ["Patch made/a"]


class TestWithAStore:
    @pytest.mark.parametrize("state", sorted(ACTIVE))
    def test_a_job_on_its_way_is_deferred(self, state: JobState) -> None:
        base, head = desired(CHAIN), desired(CHAIN, rules=[LATE])
        store = with_jobs(store_of(base), "f", a={"state": state})
        assert shown(compare(base, head, store, store.built).plan) == ["Defer f/a"]

    def test_what_base_still_has_to_do_is_no_work_of_the_branch(self) -> None:
        """The store is behind: base itself would patch, defer, submit and cancel."""
        store = with_jobs(store_of(desired(CHAIN, flow("gone"))), "f", a={"state": JobState.RUNNING})
        base = desired(CHAIN, flow("new"), rules=[LATE])
        more = rule("more", {"priority": 9}, name_filter="b")
        head = desired(CHAIN, flow("new"), rules=[LATE, more])
        assert "Defer f/a" in shown(make_plan(base, store))
        assert shown(compare(base, head, store, store.built).plan) == ["Patch f/b", "Patch new/b"]

    def test_a_deferred_change_counts_as_done(self) -> None:
        base = desired(CHAIN, rules=[LATE])
        store = with_jobs(store_of(desired(CHAIN)), "f", a={"state": JobState.RUNNING})
        store = applied(make_plan(base, store), store)
        assert next(job for job in store.jobs["f"] if job.key == "a").wanted is not None
        assert shown(compare(base, base, store, store.built).plan) == []
        assert shown(compare(base, desired(CHAIN), store, store.built).plan) == ["Defer f/a"]

    def test_a_store_that_is_ahead_shows_the_same(self) -> None:
        base, head = desired(CHAIN), desired(CHAIN, flow("new"), rules=[LATE])
        store = store_of(head)
        plan = compare(base, head, store, store.built).plan
        assert shown(plan) == ["Patch f/a", "Submit new", "Submit new/a", "Submit new/b"]

    def test_base_that_was_never_built_keeps_the_jobs_that_it_does_not_change(self) -> None:
        store = with_jobs(store_of(desired(CHAIN)), "f", c={"state": JobState.RUNNING})
        base_flow = edited(CHAIN, "a")
        everywhere = rule("all", {"priority": 1})
        base, head = desired(base_flow), desired(base_flow, rules=[everywhere])
        found = compare(base, head, not_built(store, "f"), {})
        assert shown(found.plan) == ["Patch f/a", "Patch f/b", "Defer f/c"]

    def test_made_up_jobs_are_never_compared_with_built_ones(self) -> None:
        """The head was built before (somebody tried it), the base was not."""
        base_flow, head_flow = edited(CHAIN, "a", inputs="base"), edited(CHAIN, "a", "c", inputs="head")
        store = not_built(store_of(desired(CHAIN)), "f")
        form = real(head_flow, a="head a", b="head b", c="head c")
        assert shown(compare(desired(base_flow), desired(head_flow), store, {"f": form}).plan) == [
            "Replace f", "Replace f/a", "Replace f/b", "Replace f/c",
        ]  # fmt: skip
        only_c = edited(base_flow, "c", inputs="head")
        assert shown(compare(desired(base_flow), desired(only_c), store, {"f": form}).plan) == [
            "Replace f", "Replace f/c",
        ]  # fmt: skip

    def test_both_built_is_sure(self) -> None:
        head_flow = edited(CHAIN, "c")
        store = store_of(desired(CHAIN))
        plan = compare(desired(CHAIN), desired(head_flow), store, {"f": real(head_flow, c="new c")}).plan
        assert shown(plan) == ["Patch f", "Replace f/c"]
        assert plan.to_build == ()

    def test_generated_jobs_follow_the_rules(self) -> None:
        base, head = desired(CHAIN), desired(CHAIN, rules=[LATE])
        store = store_of(base)
        (generator, *_) = store.jobs["f"]
        child = record(
            built_job("a child", "x"), generated_by=GeneratedBy(uuid=generator.uuid), config=generator.config
        )
        store.jobs["f"].append(child)
        assert shown(compare(base, base, store, store.built).plan) == []
        assert shown(compare(base, head, store, store.built).plan) == ["Patch f/a", "Patch f/a child"]

    def test_a_flow_that_returns_keeps_its_results(self) -> None:
        base = desired(flow("g"))
        store = with_jobs(store_of(desired(CHAIN, flow("g"))), "f", a={"state": JobState.COMPLETED})
        plan = compare(base, desired(CHAIN, flow("g")), store, store.built).plan
        assert shown(plan) == ["Submit f", "Submit f/b", "Submit f/c"]

    @pytest.mark.parametrize("prune", sorted(Prune))
    def test_removed_flows_are_gone_in_base(self, prune: Prune) -> None:
        old = flow("old", prune=prune)
        store = store_of(desired(CHAIN, old))
        base = desired(CHAIN)
        assert shown(compare(base, base, store, store.built).plan) == []

    def test_a_flow_on_hold_stays_as_submitted(self) -> None:
        hold = flow(jobs=["a", "b", "c"], needs={"b": ["f/a"]}, on_change=OnChange.HOLD)
        store = not_built(store_of(desired(hold)), "f")
        state = desired(edited(hold, "a"))
        plan = compare(state, state, store, {}).plan
        assert shown(plan) == ["Keep f"]
        assert plan.effective == ()

    def test_nothing_of_the_store_changes(self) -> None:
        store = with_jobs(store_of(desired(CHAIN)), "f", a={"state": JobState.RUNNING})
        copy = msgspec.msgpack.decode(msgspec.msgpack.encode(store), type=ActualState)
        compare(desired(edited(CHAIN, "b"), rules=[LATE]), desired(), not_built(store, "f"), {})
        assert store == copy


NAMES = ("f", "g", "h")
flows_of = st.fixed_dictionaries(
    {}, optional={name: st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()) for name in NAMES}
)
rules_of = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 3)), max_size=3)


def random_state(
    flows: dict[str, tuple[int, int, bool]], rules: list[tuple[str | None, int]]
) -> DesiredState:
    """Return a revision: per flow its content, its priority, and whether only code knows its jobs."""
    found = []
    for name, (content, priority, by_code) in flows.items():
        inputs = f"{name}{content}"
        one = (
            made(name, values={"priority": priority})
            if by_code
            else flow(name, values={"priority": priority})
        )
        found.append(edited(one, *("a" for _ in range(content)), inputs=inputs))
    several: list[Rule] = [
        rule(f"r{number}", {"priority": value}, name_filter=part)
        for number, (part, value) in enumerate(rules)
    ]
    return desired(*found, rules=several)


@given(flows_of, rules_of, flows_of, rules_of, st.sets(st.sampled_from(NAMES)), st.data())
@settings(max_examples=150, deadline=None)
def test_a_revision_never_changes_anything_against_itself(
    stored: dict[str, tuple[int, int, bool]],
    stored_rules: list[tuple[str | None, int]],
    flows: dict[str, tuple[int, int, bool]],
    rules: list[tuple[str | None, int]],
    known: set[str],
    data: st.DataObject,
) -> None:
    """Whatever the store holds, and whichever of its flows were built before."""
    store = store_of(random_state(stored, stored_rules), contents={"a": "stored"})
    for name in store.jobs:
        states = {
            job.key: {"state": data.draw(st.sampled_from(sorted(JobState)))} for job in store.jobs[name]
        }
        store = with_jobs(store, name, **states)
    state = random_state(flows, rules)
    builds = {name: real(one, a=one.inputs) for name, one in state.flows.items() if name in known}
    previous = {n: f.preview for n, f in store.built.items() if n not in builds}
    store = msgspec.structs.replace(store, built=builds, previous=previous)
    plan = compare(state, state, store, builds).plan
    assert [action for action in plan.actions if action.type is not ActionType.KEEP] == []
