"""From tables to flows: types, joins, the matrix, keys, templates, overrides, and what is wrong with them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from reconciler.desired.flowsets.expansion import Expansion
from reconciler.desired.yaml.reader import parse_file
from reconciler.diagnostics import Location
from tests.desired.flowsets.conftest import Expand

LIST = "items: {from: [{list: [{k: a, n: 1}, {k: b, n: 70}]}]}\nkey: '{k}'\n"
SCHEMA = """
  schema:
    required: [k, n]
    properties:
      k: {type: string, pattern: '^[a-z]+$'}
      n: {type: integer, minimum: 1}
      x: {type: [number, "null"]}
      t: {type: string}
      o: {type: number}
      f: {enum: [oxide, halide]}
"""


def item(found: Expansion, key: str) -> dict[str, Any]:
    origin = found.flows[key].item
    assert origin is not None
    return origin.item


def messages(found: Expansion) -> list[str]:
    return [problem.message for problem in found.diagnostics]


# types ----------------------------------------------------------------------------------------------------


def test_null_empty_and_absent_are_told_apart_as_the_schema_says(expanded: Expand) -> None:
    found = expanded(f"items:\n  from: [{{csv: c}}]{SCHEMA}\nkey: '{{k}}'", c="k,n,x,t,o,f\na,1,,,,oxide\n")
    assert item(found, "a") == {"k": "a", "n": 1, "x": None, "t": "", "f": "oxide"}


def test_numbers_have_the_type_of_the_schema(expanded: Expand) -> None:
    found = expanded(f"items:\n  from: [{{csv: c}}]{SCHEMA}\nkey: '{{k}}'", c="k,n,x,t\na,1,5,1e3\n")
    assert item(found, "a") == {"k": "a", "n": 1, "x": 5.0, "t": "1e3"}
    assert isinstance(item(found, "a")["x"], float)


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ("b,two,1,oxide", 3, "row 2, column 'n': expected a whole number, got 'two'"),
        ('b, 2.5 ,1,"oxide"', 4, "row 2, column 'n': expected a whole number, got '2.5'"),
        ("b,0,1,oxide", 1, "row 2, column 'n': 0 does not fit 'minimum: 1'"),
        ("b,,1,oxide", 3, "row 2, column 'n': the cell is empty, but a whole number is required"),
        ("b,2,x,oxide", 5, "row 2, column 'x': expected a number or nothing, got 'x'"),
        ("B,2,1,oxide", 1, "row 2, column 'k': \"B\" does not fit 'pattern"),
        ("b,2,1,oxid", 1, "row 2, column 'f': \"oxid\" does not fit 'enum"),
    ],
)
def test_an_error_names_row_and_column_and_leaves_the_other_rows(
    expanded: Expand, row: str, column: int, words: str
) -> None:
    found = expanded(
        f"items:\n  from: [{{csv: c}}]{SCHEMA}\nkey: '{{k}}'", c=f"k,n,x,f\na,1,1,oxide\n{row}\n"
    )
    assert list(found.flows) == ["a"]
    assert found.frozen is not None
    (problem,) = found.diagnostics
    assert words in problem.message
    assert problem.location == Location("c", 3, column)
    assert problem.excerpt == row


def test_a_closed_schema_refuses_other_columns(expanded: Expand) -> None:
    schema = "schema: {additionalProperties: false, properties: {k: {}, natoms: {}}}"
    found = expanded(f"items:\n  from: [{{csv: c}}]\n  {schema}\nkey: '{{k}}'", c="k,natom\na,1\n")
    (problem,) = found.diagnostics
    assert "does not have the column 'natom'" in problem.message
    assert problem.hint == "did you mean 'natoms'?"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{}", "needs 'properties'"),
        ("{properties: {k: {type: int}}}", "column 'k': 'int' is not a type"),
        ("{properties: {k: {format: date}}}", "keywords without a check: format"),
        ("{properties: {k: {pattern: '('}}}", "column 'k'"),
        ("{properties: {k: {}}, required: [z]}", "'required' names 'z'"),
        ("s.json", "this revision does not have a file 's.json'"),
    ],
)
def test_a_wrong_schema_freezes_the_set(expanded: Expand, schema: str, words: str) -> None:
    found = expanded(f"items:\n  from: [{{csv: c}}]\n  schema: {schema}\nkey: '{{k}}'", c="k,n\na,1\n")
    assert words in messages(found)[0]
    assert found.frozen is not None
    assert found.flows == {}


# join, matrix, include, exclude ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "keys"), [("left", ["a", "b"]), ("inner", ["a"]), ("outer", ["a", "b", "c"])]
)
def test_a_join_keeps_the_rows_that_it_says(expanded: Expand, how: str, keys: list[str]) -> None:
    found = expanded(
        f"items: {{from: [{{csv: m}}, {{csv: s, key: name}}], join: {{on: key, how: {how}}}}}\n"
        "key: '{key}'\ntemplate: {jobs: [{id: a, function: m.f, args: [{$item: n, default: 0}]}]}",
        m="key,n\na,1\nb,2\n", s="name,path\na,x.cif\nc,y.cif\n",
    )  # fmt: skip
    assert found.diagnostics == []
    assert list(found.flows) == keys
    assert item(found, "a") == {"key": "a", "n": 1, "name": "a", "path": "x.cif"}
    origin = found.flows["a"].item
    assert origin is not None
    assert (origin.row_of("n"), origin.row_of("path")) == (Location("m", 2, 1), Location("s", 2, 1))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("key,n\na,1\n", "has the column 'n', and so does another source"),
        ("name,p\na,1\n", "does not have the column 'key' of the join"),
        ("key,p\na,1\na,2\n", "has several rows for a: see s:2:1"),
    ],
)
def test_a_join_that_is_not_clear_freezes_the_set(expanded: Expand, other: str, words: str) -> None:
    found = expanded(
        "items: {from: [{csv: m}, {csv: s}], join: {on: key}}\nkey: '{key}'", m="key,n\na,1\n", s=other
    )
    assert words in messages(found)[0]
    assert found.frozen is not None


def test_sources_without_a_join_stand_one_below_the_other(expanded: Expand) -> None:
    found = expanded("items: {from: [{csv: m}, {list: [{k: z, n: 3}]}]}\nkey: '{k}'", m="k,n\na,1\n")
    assert {key: item(found, key)["n"] for key in found.flows} == {"a": 1, "z": 3}


def test_matrix_include_and_exclude(expanded: Expand) -> None:
    found = expanded(
        """
        items:
          from: [{list: [{k: a, f: oxide}, {k: b, f: halide}]}]
          matrix: {n: [520, 680]}
          include: [{k: a, n: 800}, {k: new, f: other, n: 1}]
          exclude: [{f: halide, n: ">600"}]
        key: "{k}-{n}"
        """
    )
    assert found.diagnostics == []
    assert list(found.flows) == ["a-520", "a-680", "a-800", "b-520", "new-1"]
    assert item(found, "a-800") == {"k": "a", "f": "oxide", "n": 800}


def test_too_many_items_freeze_the_set_before_they_are_made(expanded: Expand) -> None:
    numbers = ", ".join(map(str, range(1000)))
    found = expanded(
        "items: {from: [{list: [{n: 1}]}], "
        f"matrix: {{a: [{numbers}], b: [{numbers}], c: [{numbers}]}}}}\n"
        "key: '{a}-{b}-{c}'\nlimits: {max_items: 5000}"
    )
    assert found.frozen == "the set has 1,000,000,000 items, more than the 5,000 of limits.max_items"


# keys -----------------------------------------------------------------------------------------------------


def test_the_order_of_rows_means_nothing(expanded: Expand) -> None:
    rows = [f"x{number},{number}" for number in range(50)]
    contents = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        found = expanded("items: {from: [{csv: c}]}\nkey: '{k}'", c="\n".join(["k,n", *rows]))
        contents.append({name: flow.document.content for name, flow in found.flows.items()})
    assert contents[0] == contents[1] == contents[2]
    assert list(contents[0]) == list(contents[1])


@pytest.mark.parametrize(
    ("rows", "key", "left", "words"),
    [
        ("a,1\na,2\nb,3\n", "{k}", ["b"], "row 1: the key 'a' is not unique: row 2 has it too"),
        ("a b,1\nb,3\n", "{k}", ["b"], "row 1: 'a b' cannot be a key"),
        ("-a,1\nb,3\n", "{k}", ["b"], "row 1: '-a' cannot be a key"),
        (f"{'a' * 99},1\nb,3\n", "{k}", ["b"], "cannot be a key"),
        (",1\nb,3\n", "{k}", ["b"], "row 1: the key: column 'k' is null"),
        ("a,x\nb,3\n", "{k}{n:.1f}", ["b3.0"], "row 1: the key: column 'n' cannot be written as '.1f'"),
    ],
)
def test_a_wrong_key_leaves_the_other_items(
    expanded: Expand, rows: str, key: str, left: list[str], words: str
) -> None:
    found = expanded(f"items: {{from: [{{csv: c}}]}}\nkey: '{key}'", c=f"k,n\n{rows}")
    assert list(found.flows) == left
    assert words in messages(found)[0]
    assert found.frozen is not None


# template -------------------------------------------------------------------------------------------------


def test_items_keep_their_type_and_text_is_text(expanded: Expand) -> None:
    found = expanded(
        """
        items:
          from: [{list: [{k: a, n: 1, x: 0.5, l: [1, {y: 2}], b: true, z: null}]}]
          include: [{k: c, n: 2, x: 0.1, l: [], b: false, z: 1, q: 8}]
        key: "{k}"
        template:
          priority: {$item: n}
          jobs:
            - id: one
              name: "relax {k} at {x:.2f} of {n:03d}, {b}, {{literal}}"
              function: m.f
              args:
                - {$item: n}
                - {$item: x}
                - {$item: l}
                - {$item: b}
                - {$item: z}
                - "{n}"
                - {$item: q, default: 7}
            - {id: two, function: m.f, args: [{$output: one}]}
          labels: {kind: "{k}-{n}"}
        """.replace("key:", "key:").replace(
            "{from: [{list: [{k",
            "{include: [{q: 1, k: other, n: 2, x: 0.1, l: [], b: false, z: null}], from: [{list: [{k",
        ),
    )
    assert messages(found) == []
    content = found.flows["a"].document.content
    assert content["metadata"] == {"name": "s-a", "labels": {"kind": "a-1"}}
    one, two = content["spec"]["jobs"]
    assert one["name"] == "relax a at 0.50 of 001, true, {literal}"
    assert one["args"] == [1, 0.5, [1, {"y": 2}], True, None, "1", 7]
    assert two == {"id": "two", "function": "m.f", "args": [{"$output": "one"}]}
    assert content["spec"]["priority"] == 1


@pytest.mark.parametrize(
    ("args", "words", "hint"),
    [
        ("[{$item: m}]", "no source has a column 'm'", "known: k, n"),
        ("['{nn}']", "no source has a column 'nn'", "did you mean 'n'?"),
    ],
)
def test_a_column_that_no_source_has_freezes_the_set(
    expanded: Expand, args: str, words: str, hint: str
) -> None:
    found = expanded(LIST + f"template: {{jobs: [{{id: a, function: m.f, args: {args}}}]}}")
    (problem,) = found.diagnostics
    assert words in problem.message
    assert problem.hint == hint
    assert found.frozen is not None


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{jobs: [{id: a, function: m.f, args: ['${HOME}/{']}]}", "is not a column"),
        ("{jobs: [{id: a, function: m.f, args: [{$item: 5}]}]}", "'$item' must be the name of a column"),
        ("{jobs: [{id: a, function: m.f, args: [{$item: n, x: 5}]}]}", "'x' is not allowed beside '$item'"),
        ("{jobs: [{id: a, function: m.f, args: ['{n:999999999d}']}]}", "is not a column"),
        ("{jobs: [], prune: cancel}", "does not have a field 'prune'"),
    ],
)
def test_a_wrong_template_makes_the_document_invalid(template: str, words: str) -> None:
    text = (
        "apiVersion: reconciler/v1\nkind: FlowSet\nmetadata: {name: s}\n"
        f"spec:\n  items: {{from: [{{list: [{{n: 1}}]}}]}}\n  key: '{{n}}'\n  template: {template}\n"
    )
    parsed = parse_file(text.encode())
    assert words in parsed.diagnostics[0].message
    assert not parsed.documents[0].valid


def test_a_key_without_a_column_is_refused() -> None:
    text = (
        "apiVersion: reconciler/v1\nkind: FlowSet\nmetadata: {name: s}\n"
        "spec:\n  items: {from: [{list: [{n: 1}]}]}\n  key: 'n'\n"
        "  template: {jobs: [{id: a, function: m.f}]}\n"
    )
    (problem,) = parse_file(text.encode()).diagnostics
    assert problem.code == "flowset/key"


def test_what_a_flow_document_could_not_have_is_reported_once_at_the_template(expanded: Expand) -> None:
    found = expanded(
        LIST + "template: {priority: '{k}', jobs: [{id: a, function: m.f, args: [{$output: b}]}]}"
    )
    codes = {problem.code: problem for problem in found.diagnostics}
    assert codes.keys() == {"schema/type", "flow/unknown-job"}
    assert "item 'a' of FlowSet 's'" in codes["schema/type"].message
    assert codes["schema/type"].message.endswith("(and one more item)")
    assert found.flows == {}
    assert found.invalid.keys() == {"a", "b"}


def test_a_wrong_value_of_one_item_is_reported_at_its_row(expanded: Expand) -> None:
    found = expanded(
        "items: {from: [{csv: c}]}\nkey: '{k}'\n"
        "template: {priority: {$item: n}, jobs: [{id: a, function: m.f}]}",
        c="k,n\na,1\nb,high\nc,2\n",
    )
    assert list(found.flows) == ["a", "c"]
    assert [(problem.code, problem.location) for problem in found.diagnostics] == [
        ("schema/type", Location("c", 3, 1))
    ]


# overrides, places ----------------------------------------------------------------------------------------


def test_overrides_by_value_and_key_with_their_places(expanded: Expand) -> None:
    found = expanded(
        LIST
        + """
template:
  qresources: {processes: 1}
  jobs: [{id: a, function: m.f, args: [{$item: n}]}]
overrides:
  - {match: {n: ">60"}, set: {resources: {nodes: 2}}}
  - {keys: ["b*"], suspend: true}
  - {match: {n: 5}, set: {priority: 1}}
"""
    )
    a, b = (found.flows[key].document.content["spec"] for key in "ab")
    assert a["qresources"] == {"processes": 1}
    assert "suspend" not in a
    assert (b["resources"], b["suspend"], "qresources" in b) == ({"nodes": 2}, True, False)
    (unused,) = found.diagnostics
    assert unused.code == "flowset/unused-override"
    assert not unused.is_error
    assert found.frozen is None
    flow = found.flows["b"]
    assert flow.location("/spec/resources/nodes").line == 12
    assert flow.location("/spec/suspend").line == 13


def test_a_value_of_the_item_has_the_place_of_its_row(expanded: Expand) -> None:
    found = expanded("items: {from: [{csv: c}]}\nkey: '{k}'", c="k,n\na,1\nb,2\n")
    flow = found.flows["b"]
    assert flow.location("/spec/jobs/id=a/args/0") == Location("c", 3, 1)
    assert flow.location("/spec/jobs/0/function").file == "flows/s.yaml"
    assert flow.lines("/spec/jobs/0/args/0") == (3, 3)


def test_the_set_gives_labels_annotations_names_and_policies(expanded: Expand) -> None:
    found = expanded(
        LIST + "on_removed: keep\nsuspend: true",
        "{name: s, labels: {c: d}, previous_names: [old], annotations: {reconciler/prune: disabled}}",
    )
    content = found.flows["a"].document.content
    assert content["metadata"] == {
        "name": "s-a", "labels": {"c": "d"}, "annotations": {"reconciler/prune": "disabled"},
        "previous_names": ["old-a"],
    }  # fmt: skip
    assert (content["spec"]["suspend"], content["spec"]["prune"]) == (True, "orphan")


def test_very_many_problems_are_folded(expanded: Expand) -> None:
    rows = "".join(f"a{number} x,{number}\n" for number in range(300))
    found = expanded("items: {from: [{csv: c}]}\nkey: '{k}'", c=f"k,n\n{rows}ok,1\n")
    assert len(found.diagnostics) == 21
    assert "280 more places" in found.diagnostics[-1].message
    assert list(found.flows) == ["ok"]
