"""The run config of random rules, flows and jobs equals that of an independent reading of the levels."""

from __future__ import annotations

import fnmatch
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.records import GeneratedBy
from reconciler.model.run_config import FIELDS
from reconciler.model.settings import Resources
from reconciler.plan.checks import worker_defaults
from reconciler.plan.configs import FlowConfigs
from tests.plan.plan_support import built_job, desired, flow, own_layer, record, rule, worker

NAMES = ("add", "add more", "value", "Add")
RESOURCES: list[dict[str, Any]] = [{}, {"nodes": 1}, {"ntasks": 2, "nodes": 2}]

levels = st.fixed_dictionaries(
    {},
    optional={
        "worker": st.sampled_from(["w1", "w2", "w3"]),
        "exec_config": st.sampled_from(["ec1", "ec2", {}, {"pre_run": "x"}]),
        "resources": st.sampled_from(RESOURCES),
        "priority": st.integers(-3, 3),
        "retries": st.sampled_from([{"limit": 0}, {"limit": 2, "backoff": "1m"}]),
    },
)
rules = st.fixed_dictionaries(
    {"set": levels.filter(bool), "dynamic": st.booleans()},
    optional={
        "flows": st.lists(st.sampled_from(["f", "f*", "g*", "*"]), max_size=2),
        "labels": st.sampled_from([{}, {"campaign": "x"}, {"campaign": "y"}]),
        "name_filter": st.sampled_from(["add", "more", "v", "x"]),
        "function_filter": st.sampled_from(["m.add", "m.value"]),
    },
)
jobs = st.fixed_dictionaries(
    {"name": st.sampled_from(NAMES), "function": st.sampled_from(["m.add", "m.value", "m.other"])}
)


def matches(one: dict[str, Any], job: dict[str, Any], generated: bool) -> bool:
    """The selector, read from the design."""
    if generated and not one["dynamic"]:
        return False
    if one.get("flows") and not any(fnmatch.fnmatchcase("f1", glob) for glob in one["flows"]):
        return False
    if any({"campaign": "x"}.get(key) != value for key, value in one.get("labels", {}).items()):
        return False
    if "name_filter" in one and one["name_filter"] not in job["name"]:
        return False
    return "function_filter" not in one or one["function_filter"] == job["function"]


def expected(
    job: dict[str, Any], all_rules: list[dict[str, Any]], weaker: list[dict[str, Any]], *, generated: bool
) -> dict[str, Any]:
    """Return the effective values: levels from strong to weak, presence decides, later rules first."""
    found: dict[str, Any] = {}
    strong = [one["set"] for one in reversed(all_rules) if matches(one, job, generated)]
    for level in [*strong, *weaker]:
        found = level | found
    return found


def with_default(found: dict[str, Any], defaults: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The weakest level, for resources only: the worker's default."""
    if "resources" not in found and found.get("worker") in defaults:
        return found | {"resources": defaults[found["worker"]]}
    return found


def plain(config: Any) -> dict[str, Any]:
    """Return the values of a run config that some level gave."""
    given_by = {field: config.setting(field) for field in FIELDS if config.setting(field) is not None}
    return {
        field: setting.value.values if isinstance(setting.value, Resources) else setting.value
        for field, setting in given_by.items()
    }


@settings(max_examples=400, deadline=None)
@pytest.mark.slow
@given(
    job=jobs,
    child=jobs,
    all_rules=st.lists(rules, max_size=5),
    own=levels,
    child_own=levels,
    of_flow=levels,
    project=levels,
    defaults=st.dictionaries(st.sampled_from(["w1", "w2"]), st.sampled_from(RESOURCES)),
)
def test_the_levels(
    job: dict[str, Any],
    child: dict[str, Any],
    all_rules: list[dict[str, Any]],
    own: dict[str, Any],
    child_own: dict[str, Any],
    of_flow: dict[str, Any],
    project: dict[str, Any],
    defaults: dict[str, dict[str, Any]],
) -> None:
    """For a job of the manifest, and for one that it generates."""
    made = [
        rule(f"r{number}", one["set"], **{key: value for key, value in one.items() if key != "set"})
        for number, one in enumerate(all_rules)
    ]
    workers = {"w1": worker(), "w2": worker(), "w3": worker()}
    workers |= {name: worker(resources=values) for name, values in defaults.items()}
    one = flow("f1", jobs=["a"], values=of_flow, labels={"campaign": "x"}, own={"a": own})
    preview = msgspec.structs.replace(one.preview[0], name=job["name"], function=job["function"])
    one = msgspec.structs.replace(one, preview=[preview])
    state = desired(one, rules=made, defaults=project, workers=workers)
    configs = FlowConfigs(state, one, worker_defaults(state))

    by_levels = expected(job, all_rules, [own, of_flow, project], generated=False)
    parent = configs.of_built(msgspec.structs.replace(built_job("a", "a", "f1"), **job))[1]
    assert plain(parent) == with_default(by_levels, defaults)
    assert configs.of_preview(preview) == parent

    born = msgspec.structs.replace(
        record(
            built_job("c", "c"), "f1", generated_by=GeneratedBy(uuid="f1-a"), own=own_layer("f1", child_own)
        ),
        **child,
    )
    passed_on = expected(child, all_rules, [child_own, by_levels, of_flow, project], generated=True)
    assert plain(configs.of_record(born, parent)) == with_default(passed_on, defaults)
    alone = msgspec.structs.replace(born, generated_by=GeneratedBy(uuid="f1-a", inherits=False))
    not_passed = expected(child, all_rules, [child_own, of_flow, project], generated=True)
    assert plain(configs.of_record(alone, parent)) == with_default(not_passed, defaults)
