"""A table of queries, with maggma's MemoryStore as the oracle."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from maggma.core import Sort
from maggma.stores import MemoryStore

from reconciler.actual.jobstore import LMDBStore
from tests.actual.jobstore_support import Document, by_number, plain

CRITERIA: list[Document | None] = [
    None,
    {},
    {"uuid": "u3"},
    {"uuid": "nobody"},
    {"uuid": "u3", "index": 7},
    {"uuid": "u3", "index": {"$in": [1, 7]}},
    {"uuid": {"$in": ["u1", "u9", "nobody", "u1"]}},
    {"uuid": {"$eq": "u5"}, "n": 5},
    {"uuid": {"$in": []}},
    {"uuid": {"$nin": ["u1", "u2"]}},
    {"uuid": {"$regex": "^u1"}},
    {"uuid": {"$in": [re.compile("^u1."), "u2"]}},
    {"$and": [{"uuid": "u4"}, {"n": {"$gt": 3}}]},
    {"$and": [{"n": {"$gt": 3}}, {"$and": [{"uuid": {"$in": ["u4", "u2"]}}]}]},
    {"$or": [{"uuid": "u4"}, {"uuid": "u6"}]},
    {"$nor": [{"n": {"$gt": 3}}, {"name": "relax"}]},
    {"n": {"$gte": 4, "$lt": 9}},
    {"n": {"$ne": 4}},
    {"n": {"$not": {"$gt": 3}}},
    {"n": {"$in": [2, 4]}},
    {"name": "ünïcode"},
    {"name": {"$regex": "relax", "$options": "i"}},
    {"name": re.compile("^R")},
    {"mixed": None},
    {"mixed": {"$type": "string"}},
    {"mixed": True},
    {"mixed": {"x": 4}},
    {"mixed": b"b"},
    {"mixed.x": {"$exists": True}},
    {"nan": math.nan},
    {"nan": {"$exists": True}},
    {"metadata": None},
    {"metadata.tags": "b"},
    {"metadata.tags": []},
    {"metadata.tags": ["a", "b"]},
    {"metadata.tags": {"$size": 2}},
    {"metadata.tags": {"$all": ["a", "b"]}},
    {"output.energy": {"$lt": -2.5}},
    {"output.sites.el": "O"},
    {"output.sites.1.z": -3},
    {"output.sites": {"$elemMatch": {"el": "Si", "z": {"$gt": 7}}}},
    {"output.xs": {"$elemMatch": {"$gt": 1, "$lt": 3}}},
    {"output.xs.2": {"$exists": True}},
    {"$expr": {"$gt": ["$n", 10]}},
    {"completed_at": {"$gt": datetime(2025, 1, 1, 0, 0, 9)}},
    {"completed_at": {"$lte": datetime(2025, 1, 1, 1, 0, 3, tzinfo=timezone(timedelta(hours=1)))}},
    {"completed_at": datetime(2025, 1, 1, 0, 0, 4, 999, tzinfo=UTC)},
]

OPTIONS: list[Document] = [
    {"sort": {"n": -1}, "limit": 3},
    {"sort": {"index": 1, "n": -1}, "skip": 2, "limit": 5},
    {"sort": {"mixed": 1, "n": 1}},
    {"sort": {"mixed": -1, "n": 1}},
    {"sort": {"name": Sort.Descending, "output.energy": Sort.Ascending, "n": 1}, "skip": 1},
    {"sort": {"completed_at": -1, "n": 1}, "skip": 100},
    {"properties": ["n", "output"]},
    {"properties": ["uuid", "output.energy", "output.sites.el"]},
    {"properties": {"n": 1, "_id": 0}},
    {"properties": {"output": 0, "name": 0}},
    {"properties": {"output.sites.el": False, "output.energy": False}},
    {"properties": {"n": 1, "output.sites.z": True}},
    {"properties": {"_id": 0}},
    {"properties": {"_id": 1}},
    {"properties": []},
    {"properties": {"n": 1, "output": {"$slice": 1}}, "criteria": {"uuid": "nobody"}},
    {"properties": ["absent", "metadata.absent"]},
]


@pytest.mark.parametrize("criteria", CRITERIA, ids=repr)
def test_criteria_find_what_the_oracle_finds(
    pair: tuple[LMDBStore, MemoryStore], criteria: Document | None
) -> None:
    store, oracle = pair
    assert by_number(store.query(criteria)) == by_number(oracle.query(criteria))
    assert store.count(criteria) == oracle.count(criteria)
    first = store.query_one(criteria, sort={"n": 1})
    assert repr(first) == repr(next(iter(plain(oracle.query(criteria, sort={"n": 1}, limit=1))), None))


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_order_window_and_projection_are_those_of_the_oracle(
    pair: tuple[LMDBStore, MemoryStore], options: Document
) -> None:
    store, oracle = pair
    options = {"sort": {"n": 1}, **options}
    assert repr(list(store.query(**options))) == repr(plain(oracle.query(**options)))


@pytest.mark.parametrize(
    "field", ["name", "index", "metadata.tags", "output.sites.el", "output.xs", "absent"]
)
@pytest.mark.parametrize("criteria", [None, {"n": {"$lt": 9}}, {"uuid": "u3"}], ids=repr)
def test_distinct_values_are_those_of_the_oracle(
    pair: tuple[LMDBStore, MemoryStore], field: str, criteria: Document | None
) -> None:
    store, oracle = pair
    assert store.distinct(field, criteria) == sorted(oracle.distinct(field, criteria))


@pytest.mark.parametrize("keys", ["index", ["name", "index"], ["output.energy"], "absent"], ids=repr)
@pytest.mark.parametrize("properties", [["n"], {"n": 1, "name": 1}], ids=repr)
def test_groups_are_those_of_the_oracle(
    pair: tuple[LMDBStore, MemoryStore], keys: list[str] | str, properties: Any
) -> None:
    store, oracle = pair

    def shown(groups: Any) -> Any:
        return [(head, by_number(docs)) for head, docs in groups]

    criteria = {"n": {"$lt": 12}}
    assert shown(store.groupby(keys, criteria, properties)) == shown(
        oracle.groupby(keys, criteria, properties)
    )


def test_groups_hold_whole_documents_unless_cut(pair: tuple[LMDBStore, MemoryStore]) -> None:
    store, _ = pair
    groups = {head["index"]: docs for head, docs in store.groupby("index", sort={"n": -1}, limit=9)}
    assert [doc["n"] for doc in groups[1]] == [15, 12, 9]
    assert groups[2][0] == store.query_one({"n": 13})
    cut = list(store.groupby("output.energy", {"uuid": "u6"}, {"output": 0, "mixed": 0, "index": 0}))
    assert cut[0][0] == {"output": {"energy": -2.0}}
    assert set(cut[0][1][0]) == {"uuid", "n", "name", "metadata", "completed_at"}


def test_last_updated_and_newer_in_work_as_in_maggma(tmp_path: Path) -> None:
    docs = [{"uuid": f"u{n}", "index": 1, "at": datetime(2025, 1, 1 + n)} for n in range(5)]
    with (
        LMDBStore(tmp_path, last_updated_field="at") as old,
        LMDBStore(tmp_path, "copy", last_updated_field="at") as new,
    ):
        assert old.last_updated == datetime.min
        new.update(docs)
        old.update(docs[:3])
        assert old.last_updated == datetime(2025, 1, 3)
        assert old.newer_in(new) == ["u3", "u4"]
        assert sorted(old.newer_in(new, exhaustive=True)) == ["u3", "u4"]
