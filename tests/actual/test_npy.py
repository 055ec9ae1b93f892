"""NumPy files from packed numbers: what NumPy reads is what was stored."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from monty.json import jsanitize

from reconciler.actual.codec import encode
from reconciler.actual.npy import npy_pieces


def read(value: Any) -> Any:
    """Return what NumPy reads."""
    return np.load(io.BytesIO(b"".join(npy_pieces(encode({"v": value})[3:]))))


@pytest.mark.parametrize(
    "value",
    [
        [n / 7 for n in range(100_000)],
        [[[1.5, -2.0, 3.25]] * 2] * 50,
        [1, 2, -3, 2**40],
        [1, 2.5, 10**9],
        [float("nan"), float("inf")],
        [True, False],
        [],
        [[], []],
        4.5,
        7,
    ],
)
def test_lists_of_numbers(value: Any) -> None:
    expected = np.array(value)
    found = read(value)
    assert found.shape == expected.shape
    assert found.dtype == (expected.dtype if expected.size else np.float64)
    assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")


@pytest.mark.parametrize("kind", ["float64", "float32", "int32", "uint8", "int64", "bool"])
def test_arrays_keep_their_type(kind: str) -> None:
    array = (np.arange(12).reshape(3, 4) % 2).astype(kind)
    found = read({"@module": "numpy", "@class": "array", "dtype": kind, "data": jsanitize(array.tolist())})
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"a": 1}, "a mapping"),
        ([1, "x"], "contains a str"),
        ([[1], [1, 2]], "differ in length"),
        ([[1], 2], "not only numbers|differ in length"),
        ([1, [2]], "differ in length|not only numbers"),
        ("text", "contains a str"),
        ([None], "contains a NoneType"),
        ({"@class": "array", "dtype": "complex128", "data": [[1.0], [2.0]]}, "complex128"),
        ({"@class": "array", "dtype": "uint8", "data": [300]}, "cannot hold"),
        ([1, 2**63], "cannot hold"),
    ],
)
def test_anything_else_is_said(value: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        read(value)
