"""The job outputs: codec, transactions and the maggma Store, with maggma's MemoryStore as the oracle."""

from __future__ import annotations

import json
import math
import pickle
import re
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import bson
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobflow import Flow, JobStore, job, run_locally
from maggma.core import Sort, StoreError
from maggma.core.store import DateTimeFormat
from maggma.core.validator import Validator
from maggma.stores import MemoryStore

from reconciler.actual import outputs
from reconciler.actual.codec import decode, encode
from reconciler.actual.db import close_database, open_database
from reconciler.actual.jobstore import LMDBStore
from reconciler.actual.mongo import projector

Document = dict[str, Any]
REPOSITORY = Path(__file__).parents[2]
COMMON = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LMDBStore]:
    with LMDBStore(tmp_path / "state") as opened:
        yield opened


def plain(docs: Any) -> list[Document]:
    """Documents as comparable text, without Mongo's _id."""
    return [{key: value for key, value in doc.items() if key != "_id"} for doc in docs]


@contextmanager
def transaction(store: LMDBStore) -> Iterator[Any]:
    """A snapshot of the directory of a store, through the database below it."""
    database = open_database(store.directory)
    with database.read() as txn:
        yield txn
    close_database(database)


def change(store: LMDBStore, by: Callable[[Any], Any]) -> Any:
    database = open_database(store.directory)
    try:
        return database.write(by)
    finally:
        close_database(database)


def run_python(code: str) -> str:
    program = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- codec -------------------------------------------------------------------------------------------------


class Colour(str):
    """A string that is not exactly a str."""


ODD = uuid.UUID(int=7)
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
    with pytest.raises(TypeError, match="cannot keep a value of type"):
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


# ---- inside a transaction ----------------------------------------------------------------------------------


def test_documents_are_written_and_read_inside_a_transaction(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    try:

        def fill(txn: Any) -> None:
            for index in (10, 2, 1):
                outputs.put_document(txn, "outputs", {"uuid": "u", "index": index, "output": index})
            outputs.put_document(
                txn, "outputs", {"uuid": "u", "index": 2, "output": "again", "_id": "dropped"}
            )
            outputs.put_document(txn, "outputs", {"uuid": "u2", "index": 1})
            outputs.put_document(txn, "data", {"blob_uuid": "u", "data": [1]})

        database.write(fill)
        with database.read() as txn:
            found = outputs.get_documents(txn, "outputs", "u")
            assert [doc["output"] for doc in found] == [1, "again", 10]
            assert found[1] == {"uuid": "u", "index": 2, "output": "again"}
            assert outputs.latest_document(txn, "outputs", "u") == found[-1]
            assert outputs.latest_document(txn, "outputs", "nobody") is None
            assert outputs.get_documents(txn, "data", "u") == [{"blob_uuid": "u", "data": [1]}]
            assert outputs.count_documents(txn, "outputs") == 4
        assert database.write(lambda txn: outputs.delete_documents(txn, "outputs", "u")) == 3
        with database.read() as txn:
            assert outputs.get_documents(txn, "outputs", "u") == []
            assert outputs.count_documents(txn, "outputs") == 1
            assert outputs.count_documents(txn, "data") == 1
    finally:
        close_database(database)


def test_keys_of_any_length_and_content_stay_apart(store: LMDBStore) -> None:
    names = ["", "a", "a\0b", "a\0", "é" * 300, "é" * 301, "#", "#a", outputs._digest(b"a\0b").decode()]
    store.update([{"uuid": name, "index": 1, "n": n} for n, name in enumerate(names)], key=["uuid", "index"])
    assert store.count() == len(names)
    for n, name in enumerate(names):
        assert [doc["n"] for doc in store.query({"uuid": name})] == [n]
        with transaction(store) as txn:
            assert [doc["n"] for doc in outputs.get_documents(txn, "outputs", name)] == [n]


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 200])
def test_a_collection_needs_a_usable_name(store: LMDBStore, name: str) -> None:
    with pytest.raises(ValueError, match="not a name of a collection"), LMDBStore(store.path, name) as other:
        other.count()


def test_a_document_without_identity_is_refused(store: LMDBStore) -> None:
    with pytest.raises(ValueError, match="needs a uuid or a blob_uuid"):
        change(store, lambda txn: outputs.put_document(txn, "outputs", {"uuid": 5}))


# ---- a table of queries against the oracle -----------------------------------------------------------------

DOCS: list[Document] = [
    {
        "uuid": f"u{n}",
        "index": 1 + n % 3,
        "n": n,
        "name": ["relax", "static", "ünïcode", "Relax 2"][n % 4],
        "mixed": [None, True, n, f"s{n}", {"x": n}, 0.5, b"b", datetime(2025, 1, 1 + n)][n % 8],
        "output": {
            "energy": -n / 3,
            "sites": [{"el": "Si", "z": n}, {"el": "O", "z": -n}],
            "xs": list(range(n % 5)),
        },
        "metadata": {"tags": ["a", "b"][: n % 3]} if n % 2 else None,
        "completed_at": datetime(2025, 1, 1, 0, 0, n),
    }
    for n in range(16)
] + [{"uuid": "u3", "index": 7, "n": 100, "nan": math.nan}, {"uuid": "bare", "n": 101}]

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


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LMDBStore, MemoryStore]]:
    oracle = MemoryStore(key="n")
    with LMDBStore(tmp_path_factory.mktemp("state")) as store, oracle:
        for each in (store, oracle):
            each.update(DOCS, key="n")
        yield store, oracle


def by_number(docs: Any) -> str:
    return repr(sorted(plain(docs), key=lambda doc: doc["n"]))


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


# ---- Mongo's rules where the oracle is poorer than a server ------------------------------------------------


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


# ---- look-ups that read only what they must ----------------------------------------------------------------


def damage(store: LMDBStore, name: str) -> None:
    """Spoil the documents of a uuid, so that whoever decodes one fails."""

    def spoil(txn: Any) -> None:
        for key in [key for key, _ in txn.scan("outputs", b"outputs\0" + name.encode())]:
            txn.put("outputs", key, b"\xc1")

    change(store, spoil)


def test_a_pinned_uuid_reads_no_other_document(store: LMDBStore) -> None:
    store.update([{"uuid": f"u{n}", "index": i} for n in range(4) for i in (1, 2)], key=["uuid", "index"])
    damage(store, "u3")
    assert store.count({"uuid": "u1"}) == 2
    assert store.count({"uuid": {"$in": ["u1", "u2"]}, "index": 2}) == 2
    assert store.query_one({"$and": [{"index": 1}, {"uuid": "u0"}]}) == {"uuid": "u0", "index": 1}
    store.update({"uuid": "u1", "index": 2, "new": 1}, key=["uuid", "index"])
    store.update({"uuid": "u2", "index": 9})
    store.remove_docs({"uuid": "u0"})
    assert store.count() == 6, "without criteria nothing is decoded"
    with pytest.raises(msgspec.DecodeError):
        store.count({"index": 1})


def test_a_pinned_index_reads_no_other_index(store: LMDBStore) -> None:
    store.update([{"uuid": "u", "index": index} for index in (1, 2)], key=["uuid", "index"])
    damage(store, "u\x000000000002")
    assert store.query_one({"uuid": "u", "index": 1}) == {"uuid": "u", "index": 1}
    with pytest.raises(msgspec.DecodeError):
        store.query_one({"uuid": "u", "index": 2})


def test_a_pinned_blob_reads_no_other_blob(tmp_path: Path) -> None:
    with LMDBStore(tmp_path, key="blob_uuid") as blobs:
        blobs.update([{"blob_uuid": f"b{n}", "data": n, "job_uuid": "j"} for n in range(3)])
        damage(blobs, "b2")
        assert [doc["data"] for doc in blobs.query({"blob_uuid": {"$in": ["b1", "b0"]}})] == [0, 1]
        with pytest.raises(msgspec.DecodeError):
            list(blobs.query({"job_uuid": "j"}))


# ---- random documents, criteria and updates ----------------------------------------------------------------

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


# ---- update, validators, life cycle ------------------------------------------------------------------------


def test_update_replaces_by_the_given_key_and_hides_mongo_ids(store: LMDBStore) -> None:
    with MemoryStore() as source:
        source.update([{"uuid": "u", "index": 1, "x": 1}], key="uuid")
        store.update(list(source.query()))
    assert list(store.query()) == [{"uuid": "u", "index": 1, "x": 1}]
    store.update({"uuid": "u", "index": 2, "x": 2})
    assert list(store.query()) == [{"uuid": "u", "index": 2, "x": 2}]
    store.update([{"uuid": "u", "index": 3}, {"uuid": "u", "index": 3, "x": 3}], key=["uuid", "index"])
    assert [doc["index"] for doc in store.query()] == [2, 3]
    store.update([{"name": "a", "x": 1}, {"name": "b", "x": 2}, {"name": "a", "x": 3}], key="name")
    assert store.query_one({"name": "a"}) == {"name": "a", "x": 3}
    assert store.count() == 4
    with pytest.raises(KeyError, match="name"):
        store.update([{"uuid": "kept out"}, {"uuid": "v"}], key=["uuid", "name"])
    assert store.count() == 4


def test_a_batch_sees_what_it_replaced_itself(store: LMDBStore) -> None:
    store.update([{"uuid": name, "name": "same"} for name in "abc"], key="name")
    assert list(store.query()) == [{"uuid": "c", "name": "same"}]


@pytest.mark.parametrize("index", [-1, 1.5, None, [7, 8], 10**12, 2**70], ids=repr)
def test_an_odd_index_is_found_and_replaced_like_any_other(store: LMDBStore, index: Any) -> None:
    keys = ["uuid", "index"]
    store.update([{"uuid": "u", "index": index, "n": n} for n in (1, 2)], key=keys)
    store.update([{"uuid": "u", "index": 1, "n": 3}, {"uuid": "u", "index": 1.0, "n": 4}], key=keys)
    element = index[0] if isinstance(index, list) else index
    assert {"uuid": "u", "index": index, "n": 2} in list(store.query({"uuid": "u", "index": element}))
    assert [doc["n"] for doc in store.query({"uuid": "u"})] == [2, 4]
    with transaction(store) as txn:
        assert outputs.latest_document(txn, "outputs", "u") == {"uuid": "u", "index": 1.0, "n": 4}


def test_an_aware_date_as_key_replaces_its_document(store: LMDBStore) -> None:
    for hours in (0, 2):
        when = datetime(2025, 1, 1, 12 + hours, 0, 0, 123456, tzinfo=timezone(timedelta(hours=hours)))
        store.update({"when": when, "hours": hours}, key="when")
    assert list(store.query()) == [{"when": datetime(2025, 1, 1, 12, 0, 0, 123000), "hours": 2}]


class PositiveX(Validator):
    """Wants x to be positive."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def is_valid(self, doc: Document) -> bool:
        return bool(doc["x"] > 0)

    def validation_errors(self, doc: Document) -> list[str]:
        return [] if self.is_valid(doc) else [f"x is {doc['x']}"]


def test_a_validator_is_honoured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    docs = [{"uuid": "good", "x": 1}, {"uuid": "bad", "x": -1}]
    with LMDBStore(tmp_path, validator=PositiveX(strict=True)) as store:
        with pytest.raises(ValueError, match="x is -1"):
            store.update(docs)
        assert store.count() == 0
    with LMDBStore(tmp_path, validator=PositiveX(strict=False)) as store:
        store.update(docs)
        assert store.distinct("uuid") == ["good"]
    assert "x is -1" in caplog.text


def test_a_store_is_used_between_connect_and_close(tmp_path: Path) -> None:
    store = LMDBStore(tmp_path / "state")
    with pytest.raises(StoreError, match="not connected"):
        store.count()
    store.connect()
    store.connect()
    store.update({"uuid": "u", "index": 1})
    store.connect(force_reset=True)
    assert store.count() == 1
    with pytest.raises(StoreError, match="no pymongo collection"):
        store._collection.find()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="not connected"):
        next(store.query())
    assert (tmp_path / "state" / "lmdb" / "data.mdb").exists()
    assert store.ensure_index("uuid") and not store.ensure_index("name")


def test_the_lmdb_directory_itself_is_accepted(tmp_path: Path) -> None:
    with LMDBStore(tmp_path) as store:
        store.update({"uuid": "u", "index": 1})
        direct = LMDBStore(tmp_path / "lmdb")
        assert direct == store and hash(direct) == hash(store) and direct.name == store.name
        with direct:
            assert direct.count() == 1
        assert store.count() == 1, "closing one of two leaves the other open"
    assert LMDBStore(tmp_path, "data") != store
    assert store != MemoryStore()


def test_a_document_may_be_written_while_a_query_is_consumed(store: LMDBStore) -> None:
    store.update([{"uuid": f"u{n}", "index": 1} for n in range(20)])
    for doc in store.query():
        store.update({**doc, "seen": b"x" * 2**20}, key=["uuid", "index"])
        store.update({"uuid": doc["uuid"], "index": 2}, key=["uuid", "index"])
    assert store.count({"seen": {"$exists": True}}) == 20
    assert store.count() == 40


def test_a_store_survives_pickle_and_monty(tmp_path: Path) -> None:
    store = LMDBStore(
        tmp_path,
        "data",
        key="blob_uuid",
        last_updated_field="at",
        last_updated_type=DateTimeFormat.IsoFormat,
        validator=PositiveX(strict=True),
    )
    with store:
        store.update({"blob_uuid": "b", "x": 1})
        copies = [
            pickle.loads(pickle.dumps(store)),
            LMDBStore.from_dict(store.as_dict()),
            LMDBStore.from_dict(json.loads(store.to_json())),
        ]
        for copy in copies:
            assert copy == store and copy.key == "blob_uuid" and copy.last_updated_field == "at"
            assert copy.last_updated_type is DateTimeFormat.IsoFormat
            assert copy.validator.strict is True
            with copy:
                assert copy.count() == 1


# ---- under jobflow's JobStore ------------------------------------------------------------------------------


@job
def add(a: float, b: float) -> float:
    return a + b


@job(data="trajectory")
def simulate(steps: int) -> Document:
    return {"energy": -1.5, "trajectory": [[float(n)] * 3 for n in range(steps)]}


@job(data="trajectory")
def summarise(result: Document, total: float) -> Document:
    return {"frames": len(result["trajectory"]), "total": total}


def job_store(path: Path) -> JobStore:
    return JobStore(LMDBStore(path), additional_stores={"data": LMDBStore(path, collection_name="data")})


def test_a_flow_runs_on_it_and_its_outputs_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, run = add(1, 2), simulate(50)
    second = summarise(run.output, first.output)
    store = job_store(tmp_path / "state")
    run_locally(Flow([first, run, second]), store=store, ensure_success=True, log=False)

    copy = pickle.loads(pickle.dumps(store))
    for each in (store, copy):
        each.connect()
        assert each.get_output(first.uuid) == 3
        assert each.get_output(run.uuid, load=True)["trajectory"][49] == [49.0] * 3
        assert each.get_output(run.uuid)["trajectory"]["store"] == "data"
        assert each.get_output(second.uuid, which="all") == [{"frames": 50, "total": 3}]
        assert each.count({"name": {"$in": ["add", "simulate"]}}) == 2
        assert each.query_one({"output.energy": {"$lt": 0}}, ["name"])["name"] == "simulate"
        assert [doc["name"] for doc in each.query(sort={"name": 1}, skip=1, properties=["name"])] == [
            "simulate",
            "summarise",
        ]
        assert each.additional_stores["data"].count({"job_uuid": run.uuid}) == 1
    store.remove_docs({"uuid": run.uuid})
    assert copy.additional_stores["data"].count() == 0
    with pytest.raises(ValueError, match="has no outputs"):
        copy.get_output(run.uuid)


def test_the_last_index_is_the_output(tmp_path: Path) -> None:
    with JobStore(LMDBStore(tmp_path)) as store:
        store.update([{"uuid": "u", "index": index, "output": index} for index in (2, 10, 1)])
        store.update({"uuid": "u", "index": 2, "output": "again"})
        assert store.get_output("u") == 10
        assert store.get_output("u", which="first") == 1
        assert store.get_output("u", which=2) == "again"
        assert store.get_output("u", which="all") == [1, "again", 10]


# ---- several users of one directory ------------------------------------------------------------------------

WRITER = """
    import sys
    from reconciler.actual.jobstore import LMDBStore

    with LMDBStore(sys.argv[1]) as store:
        for n in range(int(sys.argv[2])):
            mark = bytes([n % 256])
            docs = [{"uuid": f"u{n}", "index": i, "n": n, "mark": mark, "data": mark * 2**20} for i in (1, 2)]
            store.update(docs, key=["uuid", "index"])
"""


def test_a_reader_sees_whole_updates_while_another_process_grows_the_store(store: LMDBStore) -> None:
    count = 40  # 80 MiB: more than the first size of the map
    program = [sys.executable, "-c", textwrap.dedent(WRITER), store.path, str(count)]
    with subprocess.Popen(program, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as writer:
        looks = 0
        while writer.poll() is None:
            looks += 1
            newest = list(store.query(sort={"n": -1}, limit=2))
            assert len({doc["n"] for doc in newest}) <= 1, "both documents of an update, or none"
            assert all(doc["data"] == doc["mark"] * 2**20 for doc in newest)
        assert writer.returncode == 0, writer.stderr and writer.stderr.read()
    assert looks > 5
    assert store.count() == 2 * count
    assert (store.directory / "data.mdb").stat().st_size > 64 * 2**20
    store.update({"uuid": "u0", "index": 1, "n": 0, "mine": True}, key=["uuid", "index"])
    assert store.count({"uuid": "u0", "mine": True}) == 1


def test_two_processes_that_write_lose_nothing(store: LMDBStore) -> None:
    code = """
        import sys
        from reconciler.actual.jobstore import LMDBStore
        with LMDBStore(sys.argv[1]) as store:
            for n in range(60):
                store.update({"uuid": f"{sys.argv[2]}{n}", "index": 1})
    """
    programs = [[sys.executable, "-c", textwrap.dedent(code), store.path, name] for name in ("a", "b")]
    writers = [subprocess.Popen(program, cwd=REPOSITORY) for program in programs]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert store.count() == 120
