"""Random documents, criteria and updates, with maggma's MemoryStore as the oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maggma.stores import MemoryStore

from reconciler.actual.jobstore import LMDBStore
from tests.actual.jobstore_support import COMMON, Document, by_number, plain

FIELDS = st.sampled_from(["a", "b", "s", "d.x", "d.y", "l.x", "l.0.x", "a.0", "d", "l"])
SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, -1.5]),
    st.sampled_from(["", "p", "pq", "é"]),
)
VALUES = SIMPLE | st.lists(SIMPLE, max_size=3)
INNER = st.dictionaries(st.sampled_from(["x", "y"]), VALUES, max_size=2)
UUIDS = st.sampled_from(["u0", "u1", "u2"])
INDEXES = st.sampled_from([0, 1, 2, 1.0, None, -1])
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "uuid": UUIDS | UUIDS | UUIDS | st.lists(UUIDS, max_size=2) | st.just(4),
        "index": INDEXES | st.just([1, 2]),
        "blob_uuid": UUIDS | st.lists(UUIDS, max_size=1),
        "a": VALUES,
        "b": VALUES,
        "s": SIMPLE,
        "d": INNER,
        "l": st.lists(INNER, max_size=3),
    },
)
ORDERED = st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"])
CONDITIONS = st.one_of(
    VALUES,
    st.builds(lambda op, value: {op: value}, ORDERED, SIMPLE),
    st.builds(
        lambda op, values: {op: values},
        st.sampled_from(["$in", "$nin", "$all"]),
        st.lists(SIMPLE, max_size=3),
    ),
    st.builds(lambda flag: {"$exists": flag}, st.booleans()),
    st.builds(lambda size: {"$size": size}, st.integers(0, 3)),
    st.builds(lambda value: {"$not": {"$gt": value}}, SIMPLE),
    st.just({"$regex": "^p"}),
    st.builds(lambda value: {"$elemMatch": {"x": value}}, SIMPLE),
)
PLACES = st.one_of(UUIDS, st.builds(lambda names: {"$in": names}, st.lists(UUIDS | st.none(), max_size=3)))
LEAVES = st.one_of(
    st.dictionaries(FIELDS, CONDITIONS, max_size=2),
    st.builds(lambda name, place: {name: place}, st.sampled_from(["uuid", "blob_uuid"]), PLACES),
    st.builds(lambda place, index: {"uuid": place, "index": index}, PLACES, INDEXES),
)
QUERIES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda op, parts, rest: {**rest, op: parts},
        st.sampled_from(["$and", "$or", "$nor"]),
        st.lists(inner, min_size=1, max_size=3),
        LEAVES,
    ),
    max_leaves=4,
)
PROJECTIONS = st.one_of(
    st.none(),
    st.lists(st.sampled_from(["a", "b", "s", "d.x", "l.y"]), unique=True).map(lambda names: [*names, "n"]),
    st.sampled_from([{"a": 0, "d.x": 0}, {"l.x": 0}, {"s": 0}]),
)


@pytest.mark.slow
@given(
    docs=st.lists(DOCUMENTS, max_size=8),
    queries=st.lists(QUERIES, min_size=1, max_size=6),
    properties=PROJECTIONS,
    sort=st.sampled_from([{"s": 1, "n": 1}, {"s": -1, "n": 1}, {"n": -1}, {"d.z": 1, "s": -1, "n": -1}]),
    skip=st.integers(0, 2),
    limit=st.integers(0, 4),
)
@settings(COMMON, max_examples=300)
def test_random_queries_find_what_the_oracle_finds(
    pair: tuple[LMDBStore, MemoryStore],
    docs: list[Document],
    queries: list[Document],
    properties: Any,
    sort: dict[str, int],
    skip: int,
    limit: int,
) -> None:
    numbered = [{**doc, "n": n} for n, doc in enumerate(docs)]
    with LMDBStore(pair[0].path, "random") as store, MemoryStore() as oracle:
        store.remove_docs({})
        for each in (store, oracle):
            each.update(numbered, key="n")
        for criteria in queries:
            options = {"sort": sort, "skip": skip, "limit": limit, "properties": properties}
            assert list(store.query(criteria, **options)) == plain(oracle.query(criteria, **options))
            assert store.count(criteria) == oracle.count(criteria)
        store.remove_docs(queries[0])
        oracle.remove_docs(queries[0])
        assert by_number(store.query()) == by_number(oracle.query())


KEYED = st.builds(
    lambda name, index, value, blob: {"uuid": name, "index": index, "s": value, "blob_uuid": blob},
    UUIDS,
    st.integers(0, 2),
    st.none() | st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2),
    st.sampled_from(["b0", "b1"]),
)
UPDATES = st.tuples(
    st.lists(KEYED, max_size=3),
    st.sampled_from(
        [None, "uuid", ["uuid", "index"], ["index", "uuid", "blob_uuid"], "blob_uuid", ["uuid", "s"]]
    ),
)


@given(st.lists(UPDATES, max_size=6))
@settings(COMMON, max_examples=150)
def test_random_updates_leave_what_they_leave_in_the_oracle(
    pair: tuple[LMDBStore, MemoryStore], updates: list[tuple[list[Document], Any]]
) -> None:
    with LMDBStore(pair[0].path, "updates") as store, MemoryStore(key="uuid") as oracle:
        store.remove_docs({})
        for docs, key in updates:
            names = [key or "uuid"] if not isinstance(key, list) else key
            for doc in docs:  # one match at most, else MongoDB itself does not say which one is replaced
                wanted = {name: doc[name] for name in names}
                if oracle.count(wanted) > 1:
                    oracle.remove_docs(wanted)
                    store.remove_docs(wanted)
                oracle.update(doc, key=key)
                store.update(doc, key=key)
        assert sorted(map(repr, store.query())) == sorted(map(repr, plain(oracle.query())))
        for name in ("u0", "u1"):
            assert store.count({"uuid": name}) == oracle.count({"uuid": name})
        assert store.count({"blob_uuid": "b1"}) == oracle.count({"blob_uuid": "b1"})
