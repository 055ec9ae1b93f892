"""Sources: what they give, and that one which cannot be read in full gives nothing."""

from __future__ import annotations

import pytest

from reconciler.desired.flowsets.expansion import Expansion
from reconciler.diagnostics import Location
from tests.desired.flowsets.conftest import Expand


def items(found: Expansion) -> dict[str, dict[str, object]]:
    assert found.diagnostics == []
    assert found.frozen is None
    return {key: flow.item.item for key, flow in found.flows.items() if flow.item is not None}


def one(expanded: Expand, kind: str, text: str | bytes, more: str = "") -> Expansion:
    return expanded(f"items: {{from: [{{{kind}: d_x{more}}}]}}\nkey: '{{k}}'", d_x=text)


def test_a_csv_gives_numbers_booleans_null_and_text(expanded: Expand) -> None:
    found = one(expanded, "csv", '\ufeffk, n ,b,t,e\na,1,true,007,\nb,2.50,false, "x, y",1e5\r\n\n')
    assert items(found) == {
        "a": {"k": "a", "n": 1, "b": True, "t": "007", "e": None},
        "b": {"k": "b", "n": 2.5, "b": False, "t": "x, y", "e": "1e5"},
    }


def test_a_cell_keeps_its_type_whatever_other_rows_have(expanded: Expand) -> None:
    before = items(one(expanded, "csv", "k,n\na,1\n"))
    after = items(one(expanded, "csv", "k,n\nb,x\na,1\n"))
    assert after["a"] == before["a"] == {"k": "a", "n": 1}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json", '[{"k": "a", "n": 1},\n {"k": "b", "n": [1.5, {"x": null}]}]'),
        ("jsonl", '{"k": "a", "n": 1}\n{"k": "b", "n": [1.5, {"x": null}]}\n'),
        ("yaml", "- {k: a, n: 1}\n- {k: b, n: [1.5, {x: null}]}\n"),
    ],
)
def test_other_formats_give_the_same_with_the_place_of_each_row(
    expanded: Expand, kind: str, text: str
) -> None:
    found = one(expanded, kind, text)
    assert items(found) == {"a": {"k": "a", "n": 1}, "b": {"k": "b", "n": [1.5, {"x": None}]}}
    flow = found.flows["b"]
    assert flow.item is not None
    place = flow.item.row_of("n")
    assert place is not None
    assert (place.file, place.line) == ("d_x", 2)


def test_files_give_a_row_for_each_path(expanded: Expand) -> None:
    found = expanded(
        "items: {from: [{files: 's/**/*.cif', as: n, key: stem}]}\nkey: '{key}'",
        s__a_dot_cif="", s__deep__b_dot_cif="", s__c_dot_txt="",
    )  # fmt: skip
    assert items(found) == {
        "a": {"key": "a", "n": "s/a.cif"},
        "b": {"key": "b", "n": "s/deep/b.cif"},
    }


@pytest.mark.parametrize(
    ("kind", "text", "line", "words"),
    [
        ("csv", "k,n\na,1\nb\n", 3, "row 2 has 1 cell, but the header has 2 columns"),
        ("csv", "k,n\na,1,2\n", 2, "row 1 has 3 cells"),
        ("csv", 'k,n\na,1\nb,"2\n', 3, "row 2 cannot be read"),
        ("csv", "k,k\n", 1, "the column 'k' twice"),
        ("csv", "k,\n", 1, "column 2 of the header does not have a name"),
        ("csv", "", 1, "does not even have a header"),
        ("csv", b"k,n\na,\xff\n", 2, "not UTF-8"),
        ("csv", "k,n\na,\0\n", 2, "NUL"),
        ("csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", 1, "Git LFS"),
        ("json", '[{"k": "a", "n": 1},\n{"k": "b", "n"', 2, "row 2 is not valid JSON"),
        ("json", '[{"k": "a", "n": 1}', 1, "the file is cut off"),
        ("json", '{"k": "a"}', 1, "must contain a list"),
        ("json", "", 1, "must contain a list"),
        ("json", '[{"k": 1}] x', 1, "text follows"),
        ("json", '[\n{"k": 1, "k": 2}]', 2, "'k' is given twice"),
        ("json", '[{"k": NaN}]', 1, "NaN is not a number"),
        ("json", '[{"k": "a", "n": 1e999}]', 1, "not finite"),
        ("json", '[{"k": "a", "n": 123456789012345678901}]', 1, "64 bits"),
        ("json", '[{"k": "a", "n": {"$call": "os.system"}}]', 1, "cannot have keys that begin with '$'"),
        ("json", '[{"k": "a", "n": [{"@module": "os"}]}]', 1, "cannot have keys that begin with"),
        ("json", "[1]", 1, "row 1 must be a mapping"),
        ("jsonl", '{"k": 1}\n{"k": ', 2, "row 2 is not valid JSON"),
        ("yaml", "- {k: a}\n- {k: [\n", 2, ""),
        ("yaml", "k: a\n", 1, "must contain one list"),
        ("yaml", "- 5\n", 1, "row 1 must be a mapping"),
    ],
)
def test_what_cannot_be_read_in_full_gives_nothing(
    expanded: Expand, kind: str, text: str, line: int, words: str
) -> None:
    found = one(expanded, kind, text)
    assert found.flows == {}
    assert found.frozen is not None
    (problem,) = found.diagnostics
    assert words in problem.message
    assert problem.location is not None
    assert (problem.location.file, problem.location.line) == ("d_x", line)


def test_a_missing_file_is_named_with_the_nearest_one(expanded: Expand) -> None:
    found = expanded("items: {from: [{csv: data/matrials.csv}]}\nkey: '{k}'", data__materials_dot_csv="k,n\n")
    (problem,) = found.diagnostics
    assert problem.hint == "did you mean 'data/materials.csv'?"
    assert problem.location == Location("flows/s.yaml", 5, 18)
    assert found.frozen is not None


def test_a_glob_without_a_file_freezes_the_set(expanded: Expand) -> None:
    found = expanded("items: {from: [{files: '*.cif', as: n}]}\nkey: '{key}'", a_dot_txt="")
    assert found.frozen == "no file of this revision matches '*.cif'"


def test_a_table_without_rows_is_read_in_full(expanded: Expand) -> None:
    assert items(one(expanded, "csv", "k,n\n")) == {}
