"""How answers are printed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.formats import as_json

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_DATA = st.recursive(
    _LEAVES | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30
)


@given(_DATA, st.booleans())
def test_json_is_that_of_pythons_own_writer(value: Any, ascii_only: bool) -> None:
    expected = json.dumps(value, indent=2, ensure_ascii=ascii_only)
    assert as_json(value, ascii_only=ascii_only) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": math.nan, "b": [math.inf]}, '{\n  "a": null,\n  "b": [\n    null\n  ]\n}'),
        ({"a": b"\x00\xff"}, '{\n  "a": {\n    "@bytes": "AP8="\n  }\n}'),
        ({1: "\ud800"}, '{\n  "1": "\ud800"\n}'),
        ([], "[]"),
        ({}, "{}"),
    ],
)
def test_what_json_does_not_have(value: Any, text: str) -> None:
    assert as_json(value, ascii_only=False) == text


def test_data_of_any_depth() -> None:
    value: Any = 1
    for _ in range(300):
        value = {"a": [value]}
    assert as_json(value) == json.dumps(value, indent=2)
