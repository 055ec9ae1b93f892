"""Which conditions are told, to whom, and how often."""

from __future__ import annotations

import pytest

from reconciler.model.notifications import DEFAULT_REASONS, Notice, NotifyRule, cut, message_of


def notice(reason: str = "JobsFailed", flow: str | None = "eos-al", **fields: object) -> Notice:
    named = {"object": f"flow/{flow}" if flow else "worker/hpc", "message": "strain-1 FAILED", **fields}
    return Notice(reason=reason, flow=flow, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ({}, {"JobsFailed", "Unreachable"}),
        ({"reasons": ["Completed"]}, {"Completed"}),
        ({"flows": ["eos-*"]}, {"JobsFailed"}),
        ({"flows": ["md-*"]}, set()),
        ({"labels": {"campaign": "p25"}}, {"JobsFailed"}),
        ({"labels": {"campaign": "p26"}}, set()),
        ({"reasons": ["Unreachable"], "labels": {"campaign": "p25"}}, set()),
    ],
)
def test_a_rule_selects_by_reason_flow_and_label(rule: dict[str, object], chosen: set[str]) -> None:
    labels = {"campaign": "p25", "metal": "Al"}
    notices = [
        notice(labels=labels),
        notice("Completed", labels=labels),
        notice("Unreachable", flow=None),
    ]
    made = NotifyRule(name="r", **rule)  # type: ignore[arg-type]
    assert {one.reason for one in notices if made.selects(one)} == chosen


def test_the_default_reasons_are_those_that_wait_for_a_person() -> None:
    assert "JobsFailed" in DEFAULT_REASONS
    assert not {"Completed", "JobFailed", "JobCompleted", "RevisionApplied"} & set(DEFAULT_REASONS)


def test_one_notice_is_the_subject_and_many_are_counted() -> None:
    assert message_of("p", "r", [notice()]).subject == "[p] flow/eos-al: JobsFailed"
    many = [notice(flow=f"f{number}") for number in range(70)] + [notice("Completed")]
    made = message_of("p", "r", many)
    assert made.subject == "[p] 70 JobsFailed, 1 Completed"
    assert made.text.count("JobsFailed") == 50
    assert "... and 21 more" in made.text
    assert len(made.data["notices"]) == 71
    big = message_of("p", "r", [notice(flow=f"f{number}") for number in range(1200)])
    assert (len(big.data["notices"]), big.data["left_out"]) == (1000, 200)


def test_a_fix_is_below_its_notice() -> None:
    text = message_of("p", "r", [notice(fix="`reconcile retry eos-al`")]).text
    assert text == "flow/eos-al: JobsFailed: strain-1 FAILED\n    `reconcile retry eos-al`\n"


@pytest.mark.parametrize(
    "text", ["a\nSubject: b", "a\x1b[31mSubject: b", "a\r\n\r\nSubject: b", "a\u202eSubject: b"]
)
def test_text_of_jobs_is_one_line_without_control_characters(text: str) -> None:
    shown = cut(text)
    assert shown.isprintable()
    assert shown.startswith("a ")
    assert len(cut("x" * 10_000)) == 500


def test_names_of_jobs_break_no_line() -> None:
    """A job's name is any text: it must not end the header of a mail."""
    made = message_of("p", "r", [notice(object="job/f/a\nBcc: b@example.org")])
    assert made.subject == "[p] job/f/a Bcc: b@example.org: JobsFailed"
    assert made.text.count("\n") == 1
