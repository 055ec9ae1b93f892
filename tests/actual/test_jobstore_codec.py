"""The codec of job outputs: every value comes back with its type."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from typing import Any

import bson
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.actual.codec import decode, encode
from tests.actual.jobstore_support import COMMON, ODD, Document, run_python


class Colour(str):
    """A string that is not exactly a str."""


ROUND_TRIPS = [
    {},
    {"a": None, "b": True, "c": [1, 2.5, "x", [[]], {}], "ü": "€\U0001f600"},
    {"nan": [math.inf, -math.inf, 1e-300, -0.0]},
    {"big": [2**63, 2**64, -(2**63), -(2**63) - 1, 10**400]},
    {"bytes": b"\x00\xff", "nested": [{"deep": [{"deeper": b""}]}]},
    {
        "when": datetime(2025, 2, 3, 4, 5, 6, 789000),
        "early": datetime(1, 1, 1),
        "late": datetime(9999, 12, 31),
    },
    {"ids": [ODD, bson.ObjectId("65f0c0ffee65f0c0ffee65f0"), bson.Decimal128("1.50")]},
    {"$date": 5, "@module": "x", "$oid": "looks like a tag, is none"},
]


@pytest.mark.parametrize("doc", ROUND_TRIPS)
def test_the_codec_keeps_every_value_and_its_type(doc: Document) -> None:
    again = decode(encode(doc))
    assert again == doc
    assert repr(again) == repr(doc)


def test_the_codec_does_with_dates_what_mongodb_does() -> None:
    aware = datetime(2025, 1, 1, 1, 0, 0, 123999, tzinfo=timezone(timedelta(hours=2)))
    before_the_epoch = datetime(1969, 12, 31, 23, 59, 59, 999999)
    stored = decode(encode({"a": aware, "b": before_the_epoch}))
    by_bson = bson.decode(bson.encode({"a": aware, "b": before_the_epoch}))
    assert stored == by_bson == {"a": datetime(2024, 12, 31, 23, 0, 0, 123000), "b": by_bson["b"]}


def test_the_codec_reduces_what_only_looks_special() -> None:
    doc: dict[Any, Any] = {
        Colour("k"): Colour("red"),
        5: (1, (2,)),
        "n": bson.Int64(3),
        "s": bson.SON([("z", 1)]),
    }
    again = decode(encode(doc))
    assert again == {"k": "red", "5": [1, [2]], "n": 3, "s": {"z": 1}}
    assert {type(value) for value in again.values()} == {str, list, int, dict}
    assert math.isnan(decode(encode({"x": [math.nan]}))["x"][0])


@pytest.mark.parametrize("value", [{1, 2}, object(), datetime(2025, 1, 1).date(), [1, {"x": range(3)}]])
def test_the_codec_refuses_what_it_cannot_keep(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot store a value of type"):
        encode({"value": value})


def test_the_codec_refuses_damage() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(encode({"a": "something long"})[:-3])
    with pytest.raises(msgspec.DecodeError, match="newer version"):
        decode(msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(99, b"")}))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(st.dictionaries(st.text(max_size=5), ANYTHING, max_size=6))
@COMMON
def test_the_codec_keeps_random_documents(doc: Document) -> None:
    assert repr(decode(encode(doc))) == repr(doc)


def test_codec_and_outputs_import_nothing_heavy() -> None:
    loaded = run_python(
        """
        import sys
        import reconciler.actual.codec as codec, reconciler.actual.outputs, reconciler.actual.mongo
        codec.decode(codec.encode({"a": [1, b"x", 2**70]}))
        heavy = {"maggma", "jobflow", "numpy", "monty", "pymongo", "bson", "pydantic"}
        heavy |= {"mongomock", "mongomock_ng"}
        print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
        """
    )
    assert loaded.strip() == "[]"


def test_importing_the_store_does_not_import_jobflow() -> None:
    code = "import sys, reconciler.actual.jobstore\nprint('maggma' in sys.modules, 'jobflow' in sys.modules)"
    assert run_python(code).split() == ["True", "False"]
