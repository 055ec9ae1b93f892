"""Long plans: what is alike shares lines, and nothing is lost from the counts."""

from __future__ import annotations

import re

import click

from reconciler.cli.context import Context, Options
from reconciler.cli.views.plan_text import plan_lines
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import Change


def lines(actions: list[Action], verbose: int = 0) -> list[str]:
    context = Context(Options(verbose=verbose, color="never"))
    plan = Plan(revision="main@1", base=None, actions=tuple(actions))
    return [click.unstyle(line) for line in plan_lines(context, plan)]


def action(
    key: str, type_: ActionType = ActionType.SUBMIT, code: ReasonCode = ReasonCode.NEW_FLOW, *changes: Change
) -> Action:
    subject = Subject.JOB if "/" in key else Subject.FLOW
    return Action(type=type_, subject=subject, key=key, reason=Reason(code), changes=changes)


def flow(name: str, jobs: int = 2) -> list[Action]:
    return [action(name), *(action(f"{name}/j{number}") for number in range(jobs))]


def test_many_new_flows_are_three_and_a_count() -> None:
    actions = [one for number in range(500) for one in flow(f"s-{number:03}")]
    shown = lines(actions)
    assert len(shown) == 7
    assert shown[-1] == "   + s-003 ... s-499: 497 flows, 994 jobs  (new flow)"
    assert len(lines(actions, verbose=1)) == 1500


def test_a_short_plan_and_a_few_alike_stay_as_they_are() -> None:
    actions = [one for number in range(5) for one in flow(f"s-{number}")]
    assert not any("..." in line for line in lines(actions))
    others = [
        action(f"t-{number}/a", ActionType.PATCH, ReasonCode.RUN_CONFIG_CHANGED) for number in range(50)
    ]
    shown = lines([*actions, *others])
    assert sum("flow s-" in line for line in shown) == 5


def test_flows_with_other_jobs_or_reasons_are_not_alike() -> None:
    actions = [one for number in range(60) for one in flow(f"s-{number:02}", jobs=1 + number % 2)]
    folds = [line for line in lines(actions) if "..." in line]
    assert [re.findall(r"(\d+) flows, (\d+) jobs", line) for line in folds] == [
        [("27", "27")],
        [("27", "54")],
    ]


def test_changes_are_counted_by_field_and_named_where_they_are_the_same() -> None:
    actions = []
    for number in range(60):
        changes = (Change("item.n", number, number + 1), Change("priority", 0, 5))
        actions.append(action(f"s-{number:02}", ActionType.PATCH, ReasonCode.ITEM_CHANGED, *changes))
    assert lines(actions)[-3:] == [
        "   ~ s-03 ... s-59: 57 flows  (its item changed)",
        "            item.n: other values (57 times)",
        "            priority: 0 -> 5 (57 times)",
    ]


def test_flows_that_are_replaced_have_a_line_for_each_kind_of_action() -> None:
    actions = []
    for number in range(60):
        name = f"s-{number:02}"
        actions += [
            action(name, ActionType.PATCH, ReasonCode.ITEM_CHANGED, Change("item.n", 1, 2)),
            action(f"{name}/a", ActionType.REPLACE, ReasonCode.OWN_CONTENT_CHANGED, Change("args[0]", 1, 2)),
            action(f"{name}/b", ActionType.REPLACE, ReasonCode.NEEDED_JOB_CHANGED),
        ]
    shown = lines(actions)
    assert shown[-5:] == [
        "   ~ s-03 ... s-59: 57 flows  (its item changed)",
        "            item.n: 1 -> 2 (57 times)",
        " -/+ s-03 ... s-59: 57 jobs  (its content changed)",
        "            args[0]: 1 -> 2 (57 times)",
        " -/+ s-03 ... s-59: 57 jobs  (a job that it needs changed)",
    ]
    counted = sum(int(number) for line in shown for number in re.findall(r"(\d+) (?:flows|jobs)", line))
    assert counted + 9 == len(actions)
