"""make_plan for jobs that exist: patches, deferred patches, and jobs that were generated at run time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.model.actions import ActionType
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import OnChange
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Cancellation, GeneratedBy, JobRecord
from reconciler.model.run_config import Rule, RunConfig
from reconciler.model.settings import Level
from reconciler.model.states import ACTIVE, EDITABLE, JobState
from reconciler.plan.compare import compare
from reconciler.plan.planner import make_plan
from tests.plan.plan_support import (
    applied,
    before,
    built,
    built_job,
    desired,
    flow,
    own_layer,
    record,
    rule,
    shown,
    with_jobs,
)

LATE = rule("late", {"worker": "w2", "priority": 7}, name_filter="a")


def start(state: DesiredState | None = None, **jobs: Any) -> ActualState:
    """Return a store with the flow ``f`` applied, and fields of its jobs changed."""
    state = state or desired(flow())
    empty = before(*((one, built(one)) for one in state.flows.values()))
    return with_jobs(applied(make_plan(state, empty), empty), "f", **jobs)


def config_of(actual: ActualState, key: str) -> RunConfig:
    return next(job.config for job in actual.jobs["f"] if job.key == key and job.current)


@pytest.mark.parametrize("state", sorted(EDITABLE))
def test_editable_jobs_are_patched(state: JobState) -> None:
    actual = start(a={"state": state})
    plan = make_plan(desired(flow(), rules=[LATE]), actual)
    assert shown(plan) == ["Patch f/a"]
    assert [(change.field, change.old, change.new) for change in plan.actions[0].changes] == [
        ("worker", "w1", "w2"),
        ("priority", None, 7),
    ]
    provenance = plan.actions[0].changes[0].provenance
    assert provenance is not None
    assert (provenance["level"], provenance["kind"], provenance["name"]) == ("rule", "OverrideRule", "late")
    after = applied(plan, actual)
    assert config_of(after, "a").worker_name == "w2"
    assert make_plan(desired(flow(), rules=[LATE]), after).actions == ()


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_other_jobs_are_patched_later(state: JobState) -> None:
    wanted = desired(flow(), rules=[LATE])
    actual = start(a={"state": state})
    plan = make_plan(wanted, actual)
    assert shown(plan) == ["Defer f/a"]
    assert plan.actions[0].reason == Reason(ReasonCode.NOT_EDITABLE, {"state": state})
    deferred = applied(plan, actual)
    assert config_of(deferred, "a").worker_name == "w1"
    again = make_plan(wanted, deferred)
    assert (again.effective, [action.key for action in again.waiting]) == ((), ["f/a"])
    editable = with_jobs(deferred, "f", a={"state": JobState.FAILED})
    assert shown(make_plan(wanted, editable)) == ["Patch f/a"]


def test_a_deferred_patch_may_change_or_go() -> None:
    actual = start(a={"state": JobState.RUNNING})
    deferred = applied(make_plan(desired(flow(), rules=[LATE]), actual), actual)
    other = desired(flow(), rules=[rule("late", {"priority": 8}, name_filter="a")])
    assert shown(make_plan(other, deferred)) == ["Defer f/a"]
    undone = make_plan(desired(flow()), deferred)
    assert shown(undone) == ["Patch f/a"]
    assert undone.actions[0].reason.code is ReasonCode.CHANGE_UNDONE
    after = applied(undone, deferred)
    assert after.jobs["f"][0].wanted is None
    assert make_plan(desired(flow()), after).actions == ()


def test_a_rule_that_is_gone_gives_the_job_back_to_the_other_levels() -> None:
    state = desired(flow(), rules=[LATE])
    plan = make_plan(desired(flow()), start(state))
    assert [(change.field, change.old, change.new) for change in plan.actions[0].changes] == [
        ("worker", "w2", "w1"),
        ("priority", 7, None),
    ]


@pytest.mark.parametrize("state", [JobState.READY, JobState.RUNNING])
def test_priority_zero_is_what_a_job_has_without_one(state: JobState) -> None:
    zero = desired(flow(values={"priority": 0}))
    plan = make_plan(zero, start(a={"state": state}, b={"state": state}))
    assert shown(plan) == ["Patch f"], "the flow's own level changes, no job does"


def test_the_same_values_from_elsewhere_are_no_change() -> None:
    actual = start(desired(flow(), rules=[LATE]))
    renamed = rule("renamed", {"worker": "w2", "priority": 7}, name_filter="a")
    assert make_plan(desired(flow(), rules=[renamed]), actual).actions == ()


def test_where_they_come_from_now_is_written_down_all_the_same() -> None:
    """A generated job inherits no default of a worker: so it counts where a value comes from."""
    state = desired(flow(), rules=[LATE])
    renamed = desired(flow(), rules=[rule("renamed", {"worker": "w2", "priority": 7}, name_filter="a")])
    for actual in (start(state), start(state, a={"state": JobState.RUNNING})):
        plan = make_plan(renamed, actual)
        assert [(action.type, action.key) for action in plan.restated] == [(ActionType.KEEP, "f/a")]
        wanted = plan.restated[0].wanted
        assert wanted is not None and wanted.config.worker is not None
        assert wanted.config.worker.origin.name == "renamed"
        assert make_plan(state, actual).restated == ()


def test_also_for_a_deferred_patch() -> None:
    actual = start(a={"state": JobState.RUNNING})
    deferred = applied(make_plan(desired(flow(), rules=[LATE]), actual), actual)
    renamed = desired(flow(), rules=[rule("renamed", {"worker": "w2", "priority": 7}, name_filter="a")])
    assert make_plan(desired(flow(), rules=[LATE]), deferred).restated == ()
    plan = make_plan(renamed, deferred)
    assert (plan.effective, [action.key for action in plan.restated]) == ((), ["f/a"])
    assert [action.key for action in plan.waiting] == ["f/a"]


def test_an_impossible_flow_is_left_alone_altogether() -> None:
    wrong = rule("wrong", {"worker": "w9"}, name_filter="b")
    renamed = rule("renamed", {"worker": "w2", "priority": 7}, name_filter="a")
    plan = make_plan(desired(flow(), rules=[renamed, wrong]), start(desired(flow(), rules=[LATE])))
    assert (shown(plan), plan.restated) == (["Keep f"], ())


def test_a_held_flow_follows_its_run_config_but_not_its_content() -> None:
    held = flow(on_change=OnChange.HOLD)
    actual = start(desired(held))
    build = actual.built["f"]
    edited = flow(on_change=OnChange.HOLD, values={"priority": 4})
    actual.built = {"f": built(edited, a="other content")}
    plan = make_plan(desired(edited), actual)
    assert shown(plan) == ["Keep f", "Patch f", "Patch f/a", "Patch f/b"]
    assert [change.field for change in plan.actions[1].changes] == ["run config"]
    assert plan.actions[1].build_key == build.build_key
    assert shown(make_plan(desired(edited), applied(plan, actual))) == ["Keep f"]


def test_resources_of_the_two_forms_are_different() -> None:
    plain = desired(flow(values={"resources": {}}))
    generic = desired(flow(values={"qresources": {}}))
    plan = make_plan(generic, start(plain))
    assert shown(plan) == ["Patch f", "Patch f/a", "Patch f/b"]
    assert [(change.old, change.new) for change in plan.actions[1].changes] == [({}, {"qresources": {}})]


class TestNames:
    """Key and name are labels; identity is the content."""

    def renamed(self, actual: ActualState) -> DesiredState:
        one = flow(jobs=["a2", "b"])
        jobs = [built_job("a2", "a", function="m.a"), built_job("b", "b")]
        form = msgspec.structs.replace(built(one), jobs=jobs)
        actual.built = {"f": form}
        return desired(one)

    def test_a_renamed_job_keeps_its_record(self) -> None:
        actual = start()
        state = self.renamed(actual)
        plan = make_plan(state, actual)
        assert shown(plan) == ["Patch f/a"]
        assert [(change.field, change.new) for change in plan.actions[0].changes] == [
            ("key", "a2"),
            ("name", "a2"),
        ]
        assert make_plan(state, applied(plan, actual)).actions == ()

    def test_a_running_one_is_renamed_when_it_has_ended(self) -> None:
        actual = start(a={"state": JobState.RUNNING})
        state = self.renamed(actual)
        assert make_plan(state, actual).actions == ()
        assert shown(make_plan(state, with_jobs(actual, "f", a={"state": JobState.COMPLETED}))) == [
            "Patch f/a"
        ]


class TestGenerated:
    """Jobs that were born at run time are never drift; they follow the rules and their generator."""

    def world(self, *rules: Rule, state: DesiredState | None = None, **child: Any) -> ActualState:
        """Return a store where ``a`` has generated ``child`` and that ``nested``."""
        actual = start(state or desired(flow(), rules=list(rules)), a={"state": JobState.COMPLETED})
        config = config_of(actual, "a")
        actual.jobs["f"] += [
            self.born("child", "f-a", **({"config": config, "sequence": 10} | child)),
            self.born("nested", "f-child", config=config, sequence=11),
        ]
        return actual

    @staticmethod
    def born(key: str, by: str, *, inherits: bool = True, **fields: Any) -> JobRecord:
        generated_by = GeneratedBy(uuid=by, inherits=inherits)
        return record(built_job(key, key), **({"generated_by": generated_by} | fields))

    def test_they_are_no_drift(self) -> None:
        assert make_plan(desired(flow()), self.world()).actions == ()

    def test_they_take_what_their_generator_has_now(self) -> None:
        wanted = desired(flow(), rules=[LATE])
        plan = make_plan(wanted, self.world())
        assert shown(plan) == ["Patch f/a", "Patch f/child", "Patch f/nested"]
        child = plan.actions[1].wanted
        assert child is not None and child.config.worker is not None
        assert child.config.worker.origin.level is Level.GENERATOR
        assert child.config.worker.origin.name == "late"

    def test_a_generator_that_passes_nothing_on(self) -> None:
        wanted = desired(flow(), rules=[LATE])
        plan = make_plan(wanted, self.world(inherits=False))
        assert shown(plan) == ["Patch f/a"]

    def test_a_rule_of_their_own_beats_their_generator(self) -> None:
        own = rule("own", {"worker": "w1", "priority": 2}, name_filter="child")
        wanted = desired(flow(), rules=[LATE, own])
        actual = self.world(LATE)
        plan = make_plan(wanted, actual)
        assert shown(plan) == ["Patch f/child", "Patch f/nested"]
        assert plan.actions[0].wanted is not None and plan.actions[0].wanted.config.value("priority") == 2
        assert make_plan(wanted, applied(plan, actual)).actions == ()

    def test_a_static_rule_reaches_them_by_inheritance_only(self) -> None:
        static = rule("static", {"priority": 9}, dynamic=False)
        plan = make_plan(desired(flow(), rules=[static]), self.world())
        assert shown(plan) == ["Patch f/a", "Patch f/b", "Patch f/child", "Patch f/nested"]
        only_child = rule("static", {"priority": 9}, name_filter="child", dynamic=False)
        assert make_plan(desired(flow(), rules=[only_child]), self.world()).actions == ()

    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            (JobState.READY, ["Keep f"]),
            (JobState.RUNNING, ["Keep f"]),
            (JobState.COMPLETED, ["Patch f/b"]),
            (JobState.FAILED, ["Patch f/b"]),
        ],
    )
    def test_what_an_ended_one_said_itself_is_in_nobodys_way(
        self, state: JobState, expected: list[str]
    ) -> None:
        """The worker that it named is gone, and no edit can change what it said."""
        own = own_layer("f", {"worker": "gone"})
        ended = {"state": JobState.COMPLETED}
        actual = with_jobs(self.world(), "f", child={"own": own, "state": state}, nested=ended)
        plan = make_plan(desired(flow(), rules=[rule("b", {"priority": 1}, name_filter="b")]), actual)
        assert shown(plan) == expected
        (found,) = plan.diagnostics
        assert (found.code, found.is_error) == ("reference/unknown-worker", expected == ["Keep f"])

    def test_a_job_that_replaced_itself_and_what_both_generated(self) -> None:
        """All generations have one uuid; each passes on its own values."""
        own = own_layer("f", {"priority": 4})
        actual = self.world()
        child = actual.jobs["f"][2]
        again = msgspec.structs.replace(child, uuid="f-a", index=2, key="a@2", own=own, sequence=9)
        late = msgspec.structs.replace(
            child, uuid="f-late", key="late", generated_by=GeneratedBy(uuid="f-a", index=2), sequence=20
        )
        actual.jobs["f"] = [*actual.jobs["f"][:2], again, child, late]
        plan = make_plan(desired(flow(), rules=[LATE]), actual)
        values = {action.key: action.wanted.config.priority_value for action in plan.actions if action.wanted}
        assert values == {"f/a": 7, "f/a@2": 4, "f/child": 7, "f/late": 4}
        plan = make_plan(desired(flow()), actual)
        values = {action.key: action.wanted.config.priority_value for action in plan.actions if action.wanted}
        assert values == {"f/a@2": 4, "f/late": 4}

    def test_their_own_config_beats_their_generator(self) -> None:
        own = own_layer("f", {"priority": 4})
        priority = {"own": own, "config": msgspec.structs.replace(RunConfig(), **own)}
        plan = make_plan(desired(flow(), rules=[LATE]), self.world(**priority))
        child = next(action for action in plan.actions if action.key == "f/child").wanted
        assert child is not None
        assert (child.config.value("priority"), child.config.worker_name) == (4, "w2")

    @pytest.mark.parametrize(("state", "verb"), [(JobState.READY, "Cancel"), (JobState.COMPLETED, "Forget")])
    def test_they_leave_with_their_generator(self, state: JobState, verb: str) -> None:
        actual = with_jobs(self.world(), "f", nested={"state": state})
        actual.built = {"f": built(flow(), a="a2")}
        plan = make_plan(desired(flow()), actual)
        assert shown(plan) == ["Patch f", "Replace f/a", "Cancel f/child", f"{verb} f/nested"]
        assert make_plan(desired(flow()), applied(plan, actual)).actions == ()

    def back(self, **states: Any) -> tuple[list[str], ActualState]:
        """Edit ``a`` and plan its revert; ``states`` are of the old jobs meanwhile."""
        actual = self.world(state=desired(flow()))
        as_it_was = actual.built
        actual.built = {"f": built(flow(), a="a2")}
        actual = with_jobs(applied(make_plan(desired(flow()), actual), actual), "f", **states)
        actual.built = as_it_was
        return shown(make_plan(desired(flow()), actual)), actual

    def test_they_come_back_with_the_result_of_their_generator(self) -> None:
        ended = {"state": JobState.COMPLETED}
        plan, actual = self.back(child=ended, nested=ended)
        assert plan == ["Patch f", "Replace f/a", "Submit f/child", "Submit f/nested"]
        after = applied(make_plan(desired(flow()), actual), actual)
        assert make_plan(desired(flow()), after).actions == ()
        assert {job.key: job.state for job in after.jobs["f"] if job.current and job.generated_by} == {
            "child": JobState.COMPLETED, "nested": JobState.COMPLETED
        }  # fmt: skip

    def test_what_has_to_run_again_generates_anew(self) -> None:
        plan, _ = self.back(child={"state": JobState.FAILED})
        assert plan == ["Patch f", "Replace f/a", "Submit f/child"]

    def test_not_what_an_earlier_attempt_generated(self) -> None:
        plan, _ = self.back(
            child={"state": JobState.COMPLETED, "generated_by": GeneratedBy(uuid="f-a", attempt=3)}
        )
        assert plan == ["Patch f", "Replace f/a"]

    @pytest.mark.parametrize(
        ("state", "blocks"), [(JobState.COMPLETED, False), (JobState.FAILED, True), (JobState.STOPPED, False)]
    )
    def test_one_that_cannot_run_as_it_says_is_in_the_way_only_if_it_has_to(
        self, state: JobState, blocks: bool
    ) -> None:
        child = {"state": state, "own": own_layer("f", {"worker": "gone"})}
        plan, _ = self.back(child=child, nested={"state": JobState.COMPLETED})
        assert (plan == ["Keep f"]) is blocks

    def test_one_that_still_runs_is_said_to_go_on(self) -> None:
        _, actual = self.back(child={"state": JobState.RUNNING, "cancellation": Cancellation(reason="left")})
        reasons = {action.key: action.reason for action in make_plan(desired(flow()), actual).actions}
        assert reasons["f/child"] == Reason(ReasonCode.ACTIVE_WANTED_AGAIN, {"state": JobState.RUNNING})

    def test_a_comparison_knows_them_again(self) -> None:
        """Compared with a revision that has the edit, the revert brings them back; and nothing else."""
        ended = {"state": JobState.COMPLETED}
        _, actual = self.back(child=ended, nested=ended)
        first, edited = built(flow(), a="a2"), flow(inputs="edited")
        actual.built = {"f": first}
        plan = compare(desired(edited), desired(flow()), actual, {"f": built(flow())}).plan
        assert shown(plan) == ["Patch f", "Replace f/a", "Submit f/child", "Submit f/nested"]
        assert compare(desired(flow()), desired(flow()), actual, actual.built).plan.actions == ()

    def test_they_stay_on_hold_with_their_flow(self) -> None:
        one = flow(on_change=OnChange.HOLD)
        actual = self.world(state=desired(one))
        actual.built = {}
        plan = make_plan(desired(one, rules=[LATE]), actual)
        assert shown(plan) == ["Keep f", "Patch f/a", "Patch f/child", "Patch f/nested"]

    def test_an_impossible_rule_for_them_alone_makes_the_flow_wait(self) -> None:
        wrong = rule("wrong", {"resources": {"nodes": 2}}, name_filter="child")
        plan = make_plan(desired(flow(), rules=[wrong]), self.world())
        assert shown(plan) == ["Keep f"]
        assert [found.code for found in plan.diagnostics] == ["resources/shell-worker"]
        assert all(action.type is ActionType.KEEP for action in plan.actions)
