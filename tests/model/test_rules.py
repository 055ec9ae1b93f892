"""Which jobs a rule matches."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.model.run_config import JobFacts, Rule

JOB = JobFacts("arithmetic-1", {"campaign": "x", "owner": "ada"}, "add more", "m.add", aliases=["pkg.add"])


def rule(**selector: Any) -> Rule:
    fields: dict[str, Any] = {
        "flows": [],
        "labels": {},
        "name_filter": None,
        "name_glob": None,
        "function_filter": None,
        "dynamic": True,
    }
    return Rule(name="r", layer={}, **(fields | selector))


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({}, True),
        ({"flows": ["arith*"]}, True),
        ({"flows": ["other", "*-1"]}, True),
        ({"flows": ["Arith*"]}, False),
        ({"flows": ["arith"]}, False),
        ({"labels": {"campaign": "x"}}, True),
        ({"labels": {"campaign": "x", "owner": "eve"}}, False),
        ({"labels": {"missing": "x"}}, False),
        ({"name_filter": "dd m"}, True),
        ({"name_filter": "ADD"}, False),
        ({"name_filter": "a*"}, False),
        ({"name_filter": "arithmetic"}, False),
        ({"name_glob": "a*"}, True),
        ({"name_glob": "add m[no]r?"}, True),
        ({"name_glob": "add"}, False),
        ({"name_glob": "ADD*"}, False),
        ({"name_glob": "arithmetic*"}, False),
        ({"name_glob": "add*", "name_filter": "more"}, True),
        ({"name_glob": "add*", "name_filter": "less"}, False),
        ({"function_filter": "m.add"}, True),
        ({"function_filter": "pkg.add"}, True),
        ({"function_filter": "add"}, False),
        ({"name_filter": "add", "function_filter": "m.value"}, False),
        ({"flows": ["arith*"], "name_filter": "more", "labels": {"owner": "ada"}}, True),
        ({"dynamic": False}, True),
    ],
)
def test_every_part_that_is_given_must_match(selector: dict[str, Any], matches: bool) -> None:
    assert rule(**selector).matches(JOB) is matches


def test_generated_jobs_are_for_dynamic_rules_only() -> None:
    born = JobFacts("f", {}, "add", "m.add", generated=True)
    assert rule(name_filter="add").matches(born)
    assert not rule(name_filter="add", dynamic=False).matches(born)


def test_jobs_that_are_not_known_yet_match_rules_without_job_filters_only() -> None:
    unknown = JobFacts("f", {}, None, None)
    assert rule(flows=["f"]).matches(unknown)
    assert not rule(name_filter="a").matches(unknown)
    assert not rule(function_filter="m.add").matches(unknown)
