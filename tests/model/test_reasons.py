"""Reasons of actions: each code has a text, and the schema of a plan has each code."""

from __future__ import annotations

import json
import string

import pytest

from reconciler.model.reasons import TEXTS, Reason, ReasonCode
from tests.support import ROOT


@pytest.mark.parametrize("code", list(ReasonCode))
def test_each_code_has_a_text_with_its_parameters(code: ReasonCode) -> None:
    names = {name for _, name, _, _ in string.Formatter().parse(TEXTS[code]) if name}
    samples = {name: f"some {name}" for name in names}
    text = str(Reason(code, samples))
    assert all(sample in text for sample in samples.values()) and "{" not in text
    assert text[0].islower() or text.startswith("FAILED")
    assert not text.endswith(".")


def test_texts_differ() -> None:
    assert len(set(TEXTS.values())) == len(ReasonCode)


def test_notes_follow_the_reason() -> None:
    note = Reason(ReasonCode.JOBS_UNKNOWN)
    text = str(Reason(ReasonCode.FLOW_CHANGED, also=(note,)))
    assert text == f"{TEXTS[ReasonCode.FLOW_CHANGED]}; {TEXTS[ReasonCode.JOBS_UNKNOWN]}"


@pytest.mark.parametrize("output", ["plan", "diff"])
def test_the_schema_lists_the_codes(output: str) -> None:
    schema = json.loads((ROOT / "schemas/output" / f"{output}.schema.json").read_text())
    assert schema["$defs"]["action"]["properties"]["code"]["enum"] == list(ReasonCode)
