"""What a plan says of changes: why a flow is built again, what stays, what is ended, what is computed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.cli.views.plan_text import reason_text, summary_text
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow
from reconciler.model.flows import BuiltFlow
from reconciler.model.manifests import FlowSpec, OnCodeChange, Prune
from reconciler.model.reasons import ReasonCode
from reconciler.model.records import Cancellation, JobAttempt
from reconciler.model.states import ACTIVE, BROKEN, JobState
from reconciler.plan.interpreter import carried_out
from reconciler.plan.planner import make_plan
from tests.plan.plan_support import before, built, desired, flow, shown, with_jobs

CONTENT = {"jobs": [{"id": "a", "function": "m.a", "args": [1, {"x": 2}]}, {"id": "b", "function": "m.b"}]}


def source(name: str = "f", **fields: Any) -> DesiredFlow:
    """Return a flow with the content that it is built from."""
    given: dict[str, Any] = {"content": CONTENT, "code": ["1111111aa"], "files": [("Si.cif", "blob1")]}
    return flow(name, spec=FlowSpec(jobs=CONTENT["jobs"]), **(given | fields))


def build(one: DesiredFlow, **contents: str) -> BuiltFlow:
    """Return the build of a flow, with what it was built from; ``contents`` as in :func:`built`."""
    made = built(one, **contents)
    key = f"{made.build_key} {one.content} {one.code} {one.files}"
    externals = {name: ("uuid", contents.get("external", "1")) for name in one.externals}
    return msgspec.structs.replace(
        made, build_key=key + str(externals), form=one.content, code=one.code, files=one.files,
        externals=externals,
    )  # fmt: skip


def applied(one: DesiredFlow, form: BuiltFlow, **states: JobState) -> ActualState:
    """Return the store after a flow was applied and its jobs came into some states."""
    start = before((one, form))
    done = carried_out(make_plan(desired(one), start), start)
    return with_jobs(done, one.name, **{key: {"state": state} for key, state in states.items()})


def changed(
    actual: ActualState, old: BuiltFlow, name: str = "f", new: BuiltFlow | None = None
) -> ActualState:
    """Return the store as the planner sees it for a flow with another build, or with none yet."""
    return msgspec.structs.replace(
        actual, built={} if new is None else {name: new}, former={name: old},
        previous={} if new is not None else {name: {"a": "digest of a", "b": "digest of b"}},
    )  # fmt: skip


def flow_action(plan: Plan) -> Action:
    return next(action for action in plan.actions if action.subject is Subject.FLOW)


OTHER = {"jobs": [{"id": "a", "function": "m.a", "args": [7, {"x": 2}]}, {"id": "b", "function": "m.b"}]}
CAUSES: list[tuple[dict[str, Any], ReasonCode]] = [
    ({"content": OTHER}, ReasonCode.FLOW_CHANGED),
    ({"code": ["2222222bb"]}, ReasonCode.CODE_CHANGED),
    ({"code": []}, ReasonCode.CODE_CHANGED),
    ({"files": [("Si.cif", "blob2")]}, ReasonCode.FILES_CHANGED),
    ({"files": [("Al.cif", "blob1")]}, ReasonCode.FILES_CHANGED),
    ({}, ReasonCode.BUILD_CHANGED),
]


@pytest.mark.parametrize(("edit", "code"), CAUSES)
class TestCauses:
    """The manifest is named only where it changed."""

    def test_before_the_build(self, edit: dict[str, Any], code: ReasonCode) -> None:
        old = build(source())
        plan = make_plan(desired(source(inputs="new", **edit)), changed(applied(source(), old), old))
        action = flow_action(plan)
        assert (action.type, action.reason.code) == (ActionType.REPLACE, ReasonCode.TO_BE_REBUILT)
        assert ("manifest" in str(action.reason)) == (code is ReasonCode.FLOW_CHANGED)

    def test_after_the_build(self, edit: dict[str, Any], code: ReasonCode) -> None:
        old = build(source())
        one = source(inputs="new", **edit)
        new = msgspec.structs.replace(build(one), build_key="another")
        plan = make_plan(desired(one), changed(applied(source(), old), old, new=new))
        action = flow_action(plan)
        assert (action.type, action.reason.code) == (ActionType.PATCH, code)
        assert ("manifest" in str(action.reason)) == (code is ReasonCode.FLOW_CHANGED)


def test_a_flow_that_it_refers_to() -> None:
    one = source(externals=["up/x"])
    old, new = build(one), build(one, external="2")
    action = flow_action(make_plan(desired(one), changed(applied(one, old), old, new=new)))
    assert action.reason.code is ReasonCode.UPSTREAM_CHANGED and "(up)" in str(action.reason)


def test_a_default_of_the_project() -> None:
    old = build(source())
    one = source(prune=Prune.DELETE)
    action = flow_action(make_plan(desired(one), msgspec.structs.replace(applied(source(), old), former={})))
    assert action.reason.code is ReasonCode.PROJECT_CHANGED


def test_builds_of_earlier_versions_tell_nothing() -> None:
    old = msgspec.structs.replace(build(source()), form={})
    plan = make_plan(desired(source(inputs="new")), changed(applied(source(), old), old))
    assert str(flow_action(plan).reason) == (
        "its content, code or files changed: to be rebuilt, then job by job"
    )


class TestContent:
    """Which values of a job changed, and whose."""

    def plan(self, content: dict[str, Any], **contents: str) -> Plan:
        old = build(source())
        one = source(content=content)
        return make_plan(desired(one), changed(applied(source(), old), old, new=build(one, **contents)))

    @pytest.mark.parametrize(
        ("args", "expected"),
        [
            ([7, {"x": 2}], [("args[0]", 1, 7)]),
            ([1, {"x": 3, "y": 4}], [("args[1].x", 2, 3), ("args[1].y", None, 4)]),
            ([1], [("args", [1, {"x": 2}], [1])]),
            ([1, "x" * 900], [("args[1]", {"x": 2}, "x" * 199 + "…")]),
        ],
    )
    def test_values(self, args: list[Any], expected: list[tuple[str, Any, Any]]) -> None:
        content = {"jobs": [{"id": "a", "function": "m.a", "args": args}, CONTENT["jobs"][1]]}
        replaced = next(one for one in self.plan(content, a="new").actions if one.key == "f/a")
        assert replaced.reason.code is ReasonCode.OWN_CONTENT_CHANGED
        assert [(one.field, one.old, one.new) for one in replaced.changes] == expected
        assert all(one.provenance is not None for one in replaced.changes)

    def test_a_job_that_it_needs(self) -> None:
        reasons = {one.key: one.reason.code for one in self.plan(OTHER, a="new", b="new").actions}
        assert reasons["f/a"] is ReasonCode.OWN_CONTENT_CHANGED
        assert reasons["f/b"] is ReasonCode.NEEDED_JOB_CHANGED

    def test_many_values_are_bounded(self) -> None:
        old = flow(spec=FlowSpec(factory={}), content={"factory": {"n": list(range(99))}}, jobs=[])
        new = flow(spec=FlowSpec(factory={}), content={"factory": {"n": list(range(1, 100))}}, jobs=[])
        form = build(old)
        actual = changed(applied(old, form), form, new=build(new))
        fields = [one.field for one in flow_action(make_plan(desired(new), actual)).changes]
        assert fields[0] == "content" and fields[1] == "factory.n[0]" and len(fields) == 21


class TestCode:
    """New code: which results stay, and which jobs failed with older code."""

    def plan(
        self, *, policy: OnCodeChange = OnCodeChange.KEEP, rebuilt: bool = True, **states: JobState
    ) -> Plan:
        old = build(source())
        one = source(code=["2222222bb"], on_code_change=policy)
        new = build(one) if rebuilt else None
        return make_plan(desired(one), changed(applied(source(), old, **states), old, new=new))

    @pytest.mark.parametrize("rebuilt", [True, False])
    @pytest.mark.parametrize("state", sorted(BROKEN))
    def test_failed_jobs_are_named(self, rebuilt: bool, state: JobState) -> None:
        plan = self.plan(rebuilt=rebuilt, a=state, b=JobState.COMPLETED)
        text = str(flow_action(plan).reason)
        assert "kept: 1 result of older code (on_code_change: keep)" in text
        assert "FAILED with older code: a; to run again: `reconcile retry f/a`" in text

    def test_nothing_to_say(self) -> None:
        assert flow_action(self.plan(a=JobState.READY)).reason.also == ()

    @pytest.mark.parametrize("state", sorted(BROKEN))
    def test_retry_failed_runs_them_again_once(self, state: JobState) -> None:
        plan = self.plan(policy=OnCodeChange.RETRY_FAILED, a=state, b=JobState.COMPLETED)
        assert shown(plan) == ["Patch f", "Submit f/a"]
        assert plan.actions[1].reason.code is ReasonCode.RERUN_NEW_CODE
        assert "retry_failed" in str(plan.actions[0].reason) and "to run again" not in str(plan.actions[0])
        old = build(source())
        one = source(code=["2222222bb"], on_code_change=OnCodeChange.RETRY_FAILED)
        actual = changed(applied(source(), old, a=state, b=JobState.COMPLETED), old, new=build(one))
        after = carried_out(plan, actual)
        assert [(job.state, job.code) for job in after.jobs["f"]] == [
            (JobState.WAITING, ["2222222bb"]), (JobState.COMPLETED, ["1111111aa"])
        ]  # fmt: skip
        failed_again = with_jobs(after, "f", a={"state": state})
        assert make_plan(desired(one), failed_again).effective == (), "with the new code it is not retried"

    def test_retry_failed_leaves_other_states(self) -> None:
        for state in set(JobState) - BROKEN:
            plan = self.plan(policy=OnCodeChange.RETRY_FAILED, a=state)
            assert "Submit f/a" not in shown(plan)

    def test_keep_records_with_which_code_a_job_failed(self) -> None:
        old, one = build(source()), source(code=["2222222bb"])
        actual = changed(applied(source(), old, a=JobState.FAILED), old, new=build(one))
        after = carried_out(make_plan(desired(one), actual), actual)
        assert [job.code for job in after.jobs["f"]] == [["1111111aa"], ["2222222bb"]]


class TestEnds:
    """An action that ends work says so."""

    def plan(self, state: JobState, *, rebuilt: bool = True, **fields: Any) -> Plan:
        old = build(source())
        actual = applied(source(), old)
        attempt = JobAttempt(number=1, worker="slow", submitted=100.0)
        actual = with_jobs(actual, "f", a={"state": state, "updated": 182.0, "attempt": attempt} | fields)
        one = source(content=OTHER)
        preview = [msgspec.structs.replace(one.preview[0], digest="new"), *one.preview[1:]]
        one = msgspec.structs.replace(one, preview=preview)
        new = build(one, a="new") if rebuilt else None
        return make_plan(desired(one), changed(actual, old, new=new))

    @pytest.mark.parametrize("rebuilt", [True, False])
    def test_a_running_job(self, rebuilt: bool) -> None:
        plan = self.plan(JobState.RUNNING, rebuilt=rebuilt)
        action = next(one for one in plan.actions if one.key == "f/a")
        assert reason_text([action], 200.0).endswith("; ENDS A RUNNING JOB (slow, 18 s so far)")
        assert plan.ends_running == 1 and "1 job to replace, 1 of them running" in summary_text(plan)

    @pytest.mark.parametrize("state", [JobState.RUN_FINISHED, JobState.DOWNLOADED])
    def test_a_result_that_is_on_its_way(self, state: JobState) -> None:
        action = next(one for one in self.plan(state).actions if one.key == "f/a")
        assert "ENDS A RUNNING JOB (slow, 100 s so far)" in reason_text([action], 200.0)

    @pytest.mark.parametrize("state", [JobState.CHECKED_OUT, JobState.UPLOADED, JobState.SUBMITTED])
    def test_an_attempt_that_has_not_started(self, state: JobState) -> None:
        plan = self.plan(state)
        action = next(one for one in plan.actions if one.key == "f/a")
        assert reason_text([action], 200.0).endswith(f"; cancels its attempt ({state})")
        assert plan.ends_running == 0 and "running" not in summary_text(plan)

    @pytest.mark.parametrize("state", sorted(set(JobState) - ACTIVE))
    def test_no_work(self, state: JobState) -> None:
        plan = self.plan(state)
        action = next(one for one in plan.actions if one.key == "f/a")
        assert action.ends is None and reason_text([action], 200.0) == str(action.reason)

    def test_what_is_being_cancelled_already(self) -> None:
        plan = self.plan(JobState.RUNNING, cancellation=Cancellation(reason="by ada"))
        assert plan.ends_running == 0
        plan = self.plan(JobState.RUNNING, cancellation=Cancellation(reason="by ada", rerun=True))
        assert plan.ends_running == 1

    def test_a_removed_flow(self) -> None:
        one = flow(jobs=["a", "b", "c"])
        actual = applied(one, built(one), a=JobState.RUNNING, b=JobState.RUNNING, c=JobState.SUBMITTED)
        plan = make_plan(desired(), actual, allow_prune=True)
        assert summary_text(plan) == "1 flow and 3 jobs to cancel, 2 of them running"
        jobs = [action for action in plan.actions if action.subject is Subject.JOB]
        assert "ENDS 2 RUNNING JOBS (w1, up to " in reason_text(jobs[:2], 200.0)

    def test_a_flow_whose_jobs_only_code_knows(self) -> None:
        one = flow(spec=FlowSpec(factory={"function": "m.f"}), content={"factory": {"function": "m.f"}})
        old = build(one)
        actual = applied(one, old, a=JobState.RUNNING)
        new = msgspec.structs.replace(one, preview=[], inputs="2", content={"factory": {"function": "m.g"}})
        text = str(flow_action(make_plan(desired(new), changed(actual, old))).reason)
        assert text.endswith("; may end running jobs: a")


class TestRenames:
    """A new flow with the content of a removed one is probably that flow."""

    def hints(self, new: DesiredFlow, old: DesiredFlow) -> list[str | None]:
        form = build(old)
        actual = msgspec.structs.replace(applied(old, form), former={old.name: form}, built={})
        plan = make_plan(desired(new), actual, allow_prune=True)
        return [found.hint for found in plan.diagnostics if found.code == "flow/renamed"]

    def test_the_same_content(self) -> None:
        (hint,) = self.hints(source("new"), source("old"))
        assert hint is not None and "previous_names: [old]" in hint

    @pytest.mark.parametrize("edit", [{"content": OTHER}, {"code": ["3"]}, {"files": []}])
    def test_another_content(self, edit: dict[str, Any]) -> None:
        assert self.hints(source("new", **edit), source("old")) == []

    def test_one_that_says_so(self) -> None:
        new = source("new", previous_names=["old"], identity="identity of old")
        assert self.hints(new, source("old")) == []

    def test_a_factory(self) -> None:
        content = {"factory": {"function": "m.f", "kwargs": {"n": 3}}}
        spec = FlowSpec(factory=content["factory"])
        old, new = (flow(name, spec=spec, content=content, jobs=[]) for name in ("old", "new"))
        assert len(self.hints(new, old)) == 1


class TestResultsThatExist:
    """A revert whose results are there computes nothing, and says so."""

    @pytest.mark.parametrize("keys", [["a"], ["b"], ["a", "b"]])
    def test_a_revert(self, keys: list[str]) -> None:
        one = flow()
        first = applied(one, built(one), a=JobState.COMPLETED, b=JobState.COMPLETED)
        edited = built(one, **{key: f"new {key}" for key in keys})
        actual = msgspec.structs.replace(first, built={"f": edited})
        second = carried_out(make_plan(desired(one), actual), actual)
        back = make_plan(desired(one), msgspec.structs.replace(second, built={"f": built(one)}))
        text = summary_text(back)
        assert text.endswith("; nothing is computed") and "to submit" not in text and "to replace" not in text
        many = f"{len(keys)} job" + ("s" if len(keys) > 1 else "")
        assert f"{many} to take back with {'their results' if len(keys) > 1 else 'its result'}" in text
        assert back.ends_running == 0

    def test_one_without_result_is_computed(self) -> None:
        one = flow()
        first = applied(one, built(one), a=JobState.FAILED)
        actual = msgspec.structs.replace(first, built={"f": built(one, a="new")})
        second = carried_out(make_plan(desired(one), actual), actual)
        back = make_plan(desired(one), msgspec.structs.replace(second, built={"f": built(one)}))
        assert "1 job to replace" in summary_text(back) and "nothing is computed" not in summary_text(back)


class TestSums:
    """The words of the sum."""

    @pytest.mark.parametrize(
        ("prune", "words"),
        [
            (Prune.CANCEL, "1 flow to remove"),
            (Prune.DELETE, "1 flow to delete"),
            (Prune.ORPHAN, "1 flow to orphan"),
        ],
    )
    def test_a_removed_flow_whose_jobs_have_ended(self, prune: Prune, words: str) -> None:
        one = flow(prune=prune)
        actual = applied(one, built(one), a=JobState.COMPLETED, b=JobState.FAILED)
        assert summary_text(make_plan(desired(), actual, allow_prune=True)) == words

    def test_jobs_that_only_code_knows(self) -> None:
        plan = make_plan(desired(flow(), flow("g", jobs=[])), ActualState())
        assert summary_text(plan) == "2 flows and at least 2 jobs to submit; 2 flows to be built first"

    def test_patches_of_completed_jobs(self) -> None:
        one = flow(values={"priority": 2})
        actual = applied(flow(), built(one), a=JobState.COMPLETED)
        assert "2 jobs to patch (1 of them COMPLETED)" in summary_text(make_plan(desired(one), actual))
        actual = applied(flow(), built(one), a=JobState.COMPLETED, b=JobState.COMPLETED)
        assert "2 jobs to patch (COMPLETED)" in summary_text(make_plan(desired(one), actual))

    def test_a_flow_that_is_suspended_and_built_again(self) -> None:
        old = build(source())
        spec = FlowSpec(jobs=CONTENT["jobs"], suspend=True)
        one = msgspec.structs.replace(source(content=OTHER), spec=spec)
        action = flow_action(make_plan(desired(one), changed(applied(source(), old), old)))
        assert [(change.field, change.new) for change in action.changes] == [("suspend", True)]

    def test_superseded_jobs(self) -> None:
        one, fewer = flow(), flow(jobs=["a"])
        actual = applied(one, built(one), b=JobState.COMPLETED)
        plan = make_plan(desired(fewer), msgspec.structs.replace(actual, built={"f": built(fewer)}))
        assert summary_text(plan) == "1 job to supersede"
