"""MongoDB's rules where the oracle is poorer than a server."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import pytest

from reconciler.actual.codec import decode, encode
from reconciler.actual.jobstore import LMDBStore
from reconciler.actual.mongo import projector
from tests.actual.jobstore_support import ODD, Document


def test_lists_sort_by_their_lowest_or_highest_element_and_nan_before_numbers(store: LMDBStore) -> None:
    values = [[5, 1], [3], 2, [], None, math.nan, "a", {"z": 1}, [4, 9]]
    store.update([{"uuid": str(n), "v": value} for n, value in enumerate(values)] + [{"uuid": "9"}])
    up = [doc["uuid"] for doc in store.query(sort={"v": 1, "uuid": 1})]
    down = [doc["uuid"] for doc in store.query(sort={"v": -1, "uuid": 1})]
    assert up == ["3", "4", "9", "5", "0", "2", "1", "8", "6", "7"]
    assert down == ["7", "6", "8", "0", "1", "2", "5", "4", "9", "3"]


def test_distinct_tells_types_apart_and_sorts_mixed_ones(store: LMDBStore) -> None:
    values = [1, 1.0, True, "1", None, {"a": 1}, [2, [3]], b"x", datetime(2025, 1, 1), ODD]
    store.update([{"uuid": str(n), "v": value} for n, value in enumerate(values)])
    found = [None, 1, 2, str(ODD), "1", {"a": 1}, [3], b"x", True, datetime(2025, 1, 1)]
    assert [(type(value), value) for value in store.distinct("v")] == [
        (type(value), value) for value in found
    ]
    groups = [head["v"] for head, _ in store.groupby("v")]
    assert groups == [None, 1, str(ODD), "1", {"a": 1}, [2, [3]], b"x", True, datetime(2025, 1, 1)]


NESTED = {"a": {"b": 1, "c": [{"d": 1, "e": 2}, 5, [{"d": 3}]]}, "s": 7, "xs": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (["a.c.d", "s.t"], {"a": {"c": [{"d": 1}, [{"d": 3}]]}}),
        ({"a.c.d": 0, "s.t": 0, "xs": 0}, {"a": {"b": 1, "c": [{"e": 2}, 5, [{}]]}, "s": 7}),
        ({"xs": {"$slice": -2}}, {**NESTED, "xs": [3, 4]}),
        ({"xs": {"$slice": [1, 2]}, "s": 1}, {"s": 7, "xs": [2, 3]}),
        ({"xs": {"$slice": [-3, 1]}, "a": 0}, {"s": 7, "xs": [2]}),
        ({"xs": {"$elemMatch": {"$gt": 2}}}, {"xs": [3]}),
        ({"xs": {"$elemMatch": {"$gt": 9}}, "s": 1}, {"s": 7}),
        ({"a.c": {"$elemMatch": {"d": 1}}}, {"a": {"c": [{"d": 1, "e": 2}]}}),
        ({"s": {"$slice": 1}, "a": 0, "xs": 0}, {"s": 7}),
    ],
    ids=repr,
)
def test_projections_follow_mongodb(properties: Any, expected: Document) -> None:
    assert projector(properties)(decode(encode(NESTED))) == expected


@pytest.mark.parametrize(
    "properties",
    [{"a": 1, "b": 0}, {"a": 0, "b": {"$elemMatch": {}}}, ["a", "a.b"], ["a.b", "a"], {"a.$": 1}, {"a": "$b"},
     {"a": {"$meta": "x"}}, {"a": {"$slice": "x"}}],
    ids=repr,
)  # fmt: skip
def test_projections_that_make_no_sense_are_refused(properties: Any) -> None:
    with pytest.raises(ValueError, match=r"projection|project|\$slice"):
        projector(properties)


def test_a_direction_other_than_up_or_down_is_refused(store: LMDBStore) -> None:
    with pytest.raises(ValueError, match="direction of 'n' must be 1 or -1"):
        list(store.query(sort={"n": 2}))
