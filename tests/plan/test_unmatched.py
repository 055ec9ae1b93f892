"""A rule that matches no job is a warning that says what would match."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.diagnostics import Severity
from reconciler.model.applied import ActualState
from reconciler.model.manifests import FlowSpec
from reconciler.plan.planner import make_plan
from tests.plan import plan_support as support

JOBS = ("relax", "relax more", "strain-1", "fit")


def warning(selector: dict[str, Any], labels: dict[str, str] | None = None) -> tuple[str, str | None]:
    """Return message and hint of the only warning, for two flows of four jobs each."""
    flows = [support.flow(f"eos-{metal}", JOBS, labels=labels or {}) for metal in ("al", "cu")]
    state = support.desired(*flows, rules=[support.rule("r", {"priority": 1}, **selector)])
    (found,) = make_plan(state, ActualState()).diagnostics
    assert (found.code, found.severity) == ("rule/matches-nothing", Severity.WARNING)
    return found.message.removeprefix("rule 'r' matches no job: "), found.hint


@pytest.mark.parametrize(
    ("selector", "message", "hint"),
    [
        ({"name_filter": "Relax"}, "name_filter 'Relax' matches nothing", "'relax' would match 4 jobs"),
        (
            {"name_filter": "strain*"},
            "name_filter 'strain*' matches nothing",
            "name_glob: 'strain*' would match 2 jobs",
        ),
        (
            {"name_filter": "x*"},
            "name_filter 'x*' matches nothing",
            "it is plain text, not a glob: use name_glob",
        ),
        (
            {"name_filter": "eos-al"},
            "name_filter 'eos-al' matches nothing",
            "name_filter selects by the name of the job; to select the flow write `flows: [eos-al]`",
        ),
        (
            {"name_filter": "straim-1"},
            "name_filter 'straim-1' matches nothing",
            "'strain-1' would match 2 jobs",
        ),
        ({"name_glob": "strain"}, "name_glob 'strain' matches nothing", "'strain*' would match 2 jobs"),
        ({"name_glob": "more"}, "name_glob 'more' matches nothing", "'*more*' would match 2 jobs"),
        ({"name_glob": "FIT"}, "name_glob 'FIT' matches nothing", "'fit' would match 2 jobs"),
        (
            {"name_filter": "fit", "name_glob": "relax*"},
            "no job's name has both 'fit' in it and the form 'relax*'",
            "all parts of a selector must match; leave one out",
        ),
        (
            {"function_filter": "other.relax"},
            "no job's function is other.relax",
            "'m.relax' would match 2 jobs",
        ),
        (
            {"function_filter": "m.fit", "name_filter": "relax"},
            "its name selects 4 jobs and its function_filter 2 jobs, but none is selected by both",
            "all parts of a selector must match; leave one out",
        ),
        ({"flows": ["eos"]}, "no flow is named 'eos'", "'eos*' would match 2 flows"),
        ({"flows": ["EOS-*"]}, "no flow is named 'EOS-*'", "'eos-*' would match 2 flows"),
        ({"flows": ["eos-cv"]}, "no flow is named 'eos-cv'", "did you mean 'eos-cu'?"),
    ],
)
def test_near_misses(selector: dict[str, Any], message: str, hint: str) -> None:
    assert warning(selector) == (message, hint)


def test_labels() -> None:
    labels = {"campaign": "tutorial"}
    assert warning({"labels": {"campaign": "tutorail"}}, labels) == (
        "no flow has the label campaign: tutorail",
        "did you mean 'tutorial'?",
    )
    assert warning({"labels": {"campain": "x"}}, labels)[1] == "did you mean 'campaign'?"


def test_silent_while_the_jobs_are_not_known() -> None:
    """A factory that was not built, or a flow whose document is broken, may have just that job."""
    rule = support.rule("r", {"priority": 1}, name_filter="nothing")
    factory = support.flow("made", (), spec=FlowSpec(factory={"function": "m.made"}))
    assert make_plan(support.desired(factory, rules=[rule]), ActualState()).diagnostics == ()
    broken = support.desired(support.flow("known", JOBS), rules=[rule], invalid={"other": "broken"})
    assert make_plan(broken, ActualState()).diagnostics == ()
    elsewhere = support.rule("r", {"priority": 1}, name_filter="nothing", flows=["known"])
    broken.rules = [elsewhere]
    assert len(make_plan(broken, ActualState()).diagnostics) == 1


def test_silent_where_something_matches() -> None:
    rule = support.rule("r", {"priority": 1}, name_filter="fit", flows=["eos-*"])
    state = support.desired(support.flow("eos-al", JOBS), rules=[rule])
    assert make_plan(state, ActualState()).diagnostics == ()


@pytest.mark.parametrize(
    "selector", [{"name_filter": "fit"}, {"flows": ["eos-*"]}, {"labels": {"a": "b"}}, {}]
)
def test_a_revision_without_flows(selector: dict[str, Any]) -> None:
    state = support.desired(rules=[support.rule("r", {"priority": 1}, **selector)])
    found = [one for one in make_plan(state, ActualState()).diagnostics if one.code == "rule/matches-nothing"]
    assert [one.message for one in found] == ["rule 'r' matches no job: the revision has no flows"]
