"""Edits of YAML text: the wanted change in the data, and no other byte of the text."""

from __future__ import annotations

import difflib
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.desired.yaml.edit import EditError, append_document, remove_value, same, set_value
from reconciler.desired.yaml.reader import read_documents
from reconciler.desired.yaml.writer import block_lines, flow_text

RULE = """\
# A rule   with "odd"  spacing.
apiVersion: reconciler/v1
kind: OverrideRule
metadata: {name:   hurry}   # its name

spec:
    order:   100
    flows: ["eos-*",   'x']
    set:
        priority:   10      # soon 🚀
                            # and this goes on
        # about nothing

# The end.
"""


def contents(text: str) -> list[Any]:
    result = read_documents(text.encode())
    assert result.failure is None
    return [document.content for document in result.documents]


def changed_lines(old: str, new: str) -> list[str]:
    """Return the lines of the diff, with the kind of line break that each has."""
    lines = difflib.ndiff(old.splitlines(keepends=True), new.splitlines(keepends=True))
    return [line for line in lines if line[0] in "+-"]


def edited(text: str, path: str, value: Any, document: int = 0) -> list[str]:
    return changed_lines(text, set_value(text, document, path.split("."), value))


class TestBlockMappings:
    def test_a_value_is_replaced_and_the_comment_behind_it_stays(self) -> None:
        assert edited(RULE, "spec.set.priority", -3) == [
            "-         priority:   10      # soon 🚀\n",
            "+         priority:   -3      # soon 🚀\n",
        ]

    def test_a_new_key_goes_behind_the_last_entry_and_its_comments(self) -> None:
        new = set_value(RULE, 0, ["spec", "set", "worker"], "w2")
        assert changed_lines(RULE, new) == ["+         worker: w2\n"]
        before, _, after = new.partition("        worker: w2\n")
        assert before.endswith("# and this goes on\n")
        assert after.startswith("        # about nothing\n")

    def test_the_same_value_changes_nothing(self) -> None:
        assert set_value(RULE, 0, ["spec", "set", "priority"], 10) == RULE

    def test_a_value_that_is_not_written_is_filled_in(self) -> None:
        text = "a:   # nothing yet\nb: 1\nc:"
        assert set_value(text, 0, ["a"], "x") == "a: x   # nothing yet\nb: 1\nc:"
        assert set_value(text, 0, ["c"], "x") == "a:   # nothing yet\nb: 1\nc: x"
        assert set_value(text, 0, ["d"], "x") == "a:   # nothing yet\nb: 1\nc:\nd: x"

    def test_block_scalars(self) -> None:
        text = "a: |   # lines\n  one\n  two\n\n# about b\nb: >-\n  last\n"
        assert set_value(text, 0, ["a"], 1) == "a: 1   # lines\n\n# about b\nb: >-\n  last\n"
        assert set_value(text, 0, ["c"], 1) == text + "c: 1\n"
        kept = "s:\n  a: |+\n    one\n\n\nt: 1\n"
        assert set_value(kept, 0, ["s", "b"], 1) == "s:\n  a: |+\n    one\n\n\n  b: 1\nt: 1\n"
        assert remove_value(set_value(kept, 0, ["s", "b"], 1), 0, ["s", "a"]) == "s:\n  b: 1\nt: 1\n"

    def test_a_mapping_for_a_mapping_is_set_key_by_key(self) -> None:
        text = dedent(
            """\
            set:
              resources:    # for the big ones
                nodes: 1    # one is enough
                # the queue closes at eight
                time: "08:00:00"
              priority: 1
            """
        )
        new = set_value(text, 0, ["set", "resources"], {"nodes": 2, "ntasks": 4})
        assert changed_lines(text, new) == [
            "-     nodes: 1    # one is enough\n",
            "+     nodes: 2    # one is enough\n",
            '-     time: "08:00:00"\n',
            "+     ntasks: 4\n",
        ]
        assert contents(new) == [{"set": {"resources": {"nodes": 2, "ntasks": 4}, "priority": 1}}]

    @pytest.mark.parametrize("value", [{}, "somecode", 5, ["x"]])
    def test_anything_else_for_a_block_replaces_its_lines(self, value: Any) -> None:
        text = "set:\n  x:   # why\n    a: 1\n    b: [1,\n     2]   # inner\n  # next\n  y: 1\n"
        new = set_value(text, 0, ["set", "x"], value)
        assert new == f"set:\n  x: {flow_text(value)}   # why\n  # next\n  y: 1\n"

    def test_a_list_at_the_column_of_its_key(self) -> None:
        text = "flows:\n- a\n-\n- c: 1\n  d:\n# end\n"
        assert set_value(text, 0, ["new"], 1) == "flows:\n- a\n-\n- c: 1\n  d:\nnew: 1\n# end\n"
        assert set_value(text, 0, ["flows"], ["x"]) == "flows: [x]\n# end\n"

    def test_plain_text_over_several_lines(self) -> None:
        text = "a: one\n  two   # both\nb: 1\n"
        assert set_value(text, 0, ["a"], "x") == "a: x   # both\nb: 1\n"

    def test_quoted_keys_and_values(self) -> None:
        text = "\"a b\": 'it''s'  # c\n"
        assert set_value(text, 0, ["a b"], "1.10") == '"a b": "1.10"  # c\n'

    def test_a_long_mapping_gets_lines_of_its_own(self) -> None:
        resources = {f"keyword{number}": f"value {number}" for number in range(8)}
        new = set_value("set:\n  priority: 1\n", 0, ["set", "resources"], resources)
        assert new.splitlines()[2:4] == ["  resources:", "    keyword0: value 0"]
        assert contents(new)[0]["set"]["resources"] == resources


class TestRemoving:
    def test_the_lines_of_the_entry_go(self) -> None:
        text = "spec:\n  # before\n  a:   # x\n    - 1\n    - 2   # y\n  # after\n  b: 1\n"
        assert remove_value(text, 0, ["spec", "a"]) == "spec:\n  # before\n  # after\n  b: 1\n"
        assert remove_value(text, 0, ["spec", "b"]) == text.removesuffix("  b: 1\n")

    def test_the_only_entry(self) -> None:
        assert remove_value("spec:   # c\n  a: 1\n", 0, ["spec", "a"]) == "spec: {}   # c\n"

    def test_the_last_line_of_a_file_without_line_break(self) -> None:
        assert remove_value("a: 1\nb: 2", 0, ["b"]) == "a: 1"

    def test_in_flow_style(self) -> None:
        text = "spec: {a: 1, b: 2 , c: 3}\n"
        assert remove_value(text, 0, ["spec", "a"]) == "spec: {b: 2 , c: 3}\n"
        assert remove_value(text, 0, ["spec", "b"]) == "spec: {a: 1, c: 3}\n"
        assert remove_value(text, 0, ["spec", "c"]) == "spec: {a: 1, b: 2}\n"

    def test_in_flow_style_comments_stay(self) -> None:
        text = "spec: {\n  a: 1, # one\n  b: 2, # two\n  c: 3  # three\n}\n"
        for key in "abc":
            new = remove_value(text, 0, ["spec", key])
            assert [line.partition("#")[2] for line in new.splitlines()] == ["", " one", " two", " three", ""]

    def test_what_is_not_there(self) -> None:
        with pytest.raises(EditError, match=r"there is no 'spec\.b'"):
            remove_value("spec: {a: 1}\n", 0, ["spec", "b"])

    def test_a_key_that_shares_its_line(self) -> None:
        with pytest.raises(EditError, match="line of its own"):
            remove_value("? a\n: 1\n? b\n: 2\n", 0, ["b"])


class TestFlowMappings:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("{}", "{new: 1}"),
            ("{ }", "{new: 1 }"),
            ("{a: 1}", "{a: 1, new: 1}"),
            ("{a: 1, }", "{a: 1, new: 1, }"),
            ("{a: 1,\n   b: 2}", "{a: 1,\n   b: 2, new: 1}"),
            ("{\n  a: 1,  # x\n  b: 2   # y\n  }", "{\n  a: 1,  # x\n  b: 2,   # y\n  new: 1\n  }"),
            ("{\n  a: 1,\n  b: [2],\n  # y\n  }", "{\n  a: 1,\n  b: [2],\n  new: 1,\n  # y\n  }"),
            ("{  # none\n  }", "{new: 1  # none\n  }"),
            ('{"a":1}', '{"a":1, new: 1}'),
        ],
    )
    def test_a_new_key(self, before: str, after: str) -> None:
        text = f"# top\nset: {before}   # behind\nnext: 1\n"
        assert set_value(text, 0, ["set", "new"], 1) == f"# top\nset: {after}   # behind\nnext: 1\n"

    def test_a_value_in_a_document_on_one_line(self) -> None:
        text = "--- {kind: Flow, spec: {suspend: false, jobs: []}}   # all\n"
        new = set_value(text, 0, ["spec", "suspend"], True)
        assert new == "--- {kind: Flow, spec: {suspend: true, jobs: []}}   # all\n"

    def test_a_value_that_is_not_written(self) -> None:
        assert set_value("set: {a: , b: 1}\n", 0, ["set", "a"], 2) == "set: {a: 2 , b: 1}\n"


class TestFiles:
    def test_carriage_returns_and_byte_order_mark_stay(self) -> None:
        text = "\ufeff" + RULE.replace("\n", "\r\n")
        new = set_value(text, 0, ["spec", "set", "worker"], "w2")
        assert changed_lines(text, new) == ["+         worker: w2\r\n"]
        assert new.startswith("\ufeff# A rule")
        assert append_document(text, {"a": 1}) == text + "---\r\na: 1\r\n"

    def test_no_line_break_at_the_end(self) -> None:
        assert set_value("a:\n  b: 1", 0, ["a", "c"], 2) == "a:\n  b: 1\n  c: 2"
        assert append_document("a: 1  # x", {"b": 1}) == "a: 1  # x\n---\nb: 1\n"

    def test_the_document_is_counted_as_the_readers_do(self) -> None:
        text = "# first\n---\n# empty\n---\na: 1  # ---\n...\n---   # second\na: 1\nb: 1\n---\n~\n---\na: 1\n"
        assert len(contents(text)) == 3
        assert edited(text, "a", 2, document=1) == ["- a: 1\n", "+ a: 2\n"]
        assert set_value(text, 1, ["a"], 2) == text.replace("second\na: 1", "second\na: 2")
        assert set_value(text, 2, ["a"], 2) == text.removesuffix("a: 1\n") + "a: 2\n"
        with pytest.raises(EditError, match="does not have a document 4"):
            set_value(text, 3, ["a"], 2)

    def test_a_document_is_appended(self) -> None:
        assert append_document("", {"a": {"b": 1}}) == "a:\n  b: 1\n"
        assert append_document("# only words\n", {"a": 1}) == "# only words\na: 1\n"
        assert append_document("---\n# nothing\n", {"a": 1}) == "---\n# nothing\n---\na: 1\n"
        assert append_document("a: 1\n...\n", {"a": 2}) == "a: 1\n...\n---\na: 2\n"

    def test_tabs_in_comments(self) -> None:
        assert edited("a: 1 #\tx\t\n#\ty\nb: 2\n", "b", 3) == ["- b: 2\n", "+ b: 3\n"]


class TestRefusals:
    @pytest.mark.parametrize(
        "text",
        [
            "set: &x {priority: 1}\nother: *x\n",
            "other: &x {priority: 1}\nset: *x\n",
            "other: &x {priority: 1}\nset:\n  <<: *x\n",
            "set: !!map {priority: 1}\n",
            "set: {priority: 1}\nset: {priority: 1}\n",
        ],
        ids=["anchor", "alias", "merge", "tag", "duplicate"],
    )
    def test_what_repeats_or_converts_values(self, text: str) -> None:
        with pytest.raises(EditError, match=r"not allowed|merge|twice"):
            set_value(text, 0, ["set", "priority"], 2)

    def test_an_alias_in_another_document_is_no_obstacle(self) -> None:
        text = "a: &x 1\nb: *x\n---\nset: 1\n"
        assert edited(text, "set", 2, document=1) == ["- set: 1\n", "+ set: 2\n"]

    @pytest.mark.parametrize("text", ["a: [1\n", "a: 1\n\tb: 2\n", "a: b: c\n"])
    def test_no_yaml(self, text: str) -> None:
        for edit in (lambda: set_value(text, 0, ["a"], 1), lambda: append_document(text, {"a": 1})):
            with pytest.raises(EditError, match="cannot be read"):
                edit()

    def test_no_mapping_to_hold_the_key(self) -> None:
        for text in ("a: 1\n", "a: [1]\n", "b: 1\n", "a:\n"):
            with pytest.raises(EditError, match="there is no mapping 'a'"):
                set_value(text, 0, ["a", "b"], 1)

    def test_a_change_that_would_touch_another_value(self) -> None:
        with pytest.raises(EditError, match="without touching other values"):
            set_value("a: |\n  no line break at the end", 0, ["b"], 1)

    def test_text_that_no_file_can_hold(self) -> None:
        for text in ("half \udc80", "nul \0"):
            with pytest.raises(EditError):
                set_value("a: 1\n", 0, ["a"], text)


def test_same_tells_types_apart() -> None:
    assert same({"a": [1, None]}, {"a": [1, None]})
    for one, other in ((1, True), (1, 1.0), ([1], [1, 1]), ({"a": 1}, {"b": 1}), ("1", 1)):
        assert not same(one, other)


# random values ----------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.sampled_from(
        ["on", "yes", "null", "~", "1.10", "010", "0x1f", "1_000", "2024-01-01", "8:00:00", "1e3", ".inf",
         "-", "<<", "?", "9" * 30,
         "- a", "a: b", "a #b", "#", "", " a", "a ", "*x", "&x", "!t", "%d", "@k", "`", "a,b", "[a]", "{a}",
         "é 🚀", "it's", '"', "\\", "two\nlines", "tab\t", "\x85", "\u2028", "---", "...", "=",
         "vasp/6.4", "a=b", "~/x", "-3", "+", "1.", "Null", "TRUE", "\ufeff", "\x7f"],
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)  # fmt: skip
SCALARS = st.one_of(
    TEXTS, st.booleans(), st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
)
KEYS = TEXTS.filter(lambda key: not key.startswith("@"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FAST
@given(VALUES, st.dictionaries(KEYS, VALUES, max_size=3))
def test_what_is_written_reads_as_the_same_data(value: Any, mapping: dict[str, Any]) -> None:
    (read,) = contents(f"a: {flow_text(value)}\n")
    assert same(read, {"a": value})
    if mapping:
        (read,) = contents("\n".join(block_lines(mapping, 0)))
        assert same(read, mapping)


# random documents -------------------------------------------------------------------------------------

COMMENTS = st.sampled_from(["", " # why", "   #\tä 🚀 'x' {", "  # a: 1"])
FILLERS = st.lists(st.sampled_from(["", "# alone", "  # in", "      # far in", "   "]), max_size=2)
PRIORITIES = st.sampled_from(["1", "0x1", "+7", "-3"])
WORKERS = st.sampled_from(
    ["w1", '"w1"', "'w 1'", "'it''s'", '"\\u00e9"', ">-\n        far\n        in", "|\n        x"]
)
RESOURCES = st.sampled_from(
    ["{}", "{nodes: 1}", '{ "nodes":1 , t: \'x\'}',
     "\n        nodes: 1 # n\n        t: '8:00:00'", "{nodes: 1,\n        t: x}"]
)  # fmt: skip


@st.composite
def rules(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Return the lines of a rule before, and those behind, the entries of ``set``, which is a block."""
    step = draw(st.sampled_from(["  ", "    "]))
    head = ["apiVersion: reconciler/v1", "kind:   OverrideRule", "metadata: {name: r}"]
    head += ["spec:" + draw(COMMENTS), *draw(FILLERS), f"{step}flows: [ 'a' ,b]" + draw(COMMENTS)]
    return [*draw(FILLERS), *head, *draw(FILLERS), f"{step}set:" + draw(COMMENTS)], draw(FILLERS)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, str, str, str, Any]:
    """Return the text before, of and behind one value of a rule, its key and a new value."""
    (head, _), entries = draw(rules()), []
    choices = {"priority": PRIORITIES, "worker": WORKERS, "resources": RESOURCES}
    for key in draw(st.permutations(sorted(choices))):
        entries.append((key, draw(choices[key]), draw(COMMENTS)))
    at = draw(st.integers(0, 2))
    key, old, comment = entries[at]
    line = "".join(f"      {k}: {_with_comment(v, c)}\n" for k, v, c in entries[:at])
    rest = "".join(f"      {k}: {_with_comment(v, c)}\n" for k, v, c in entries[at + 1 :])
    behind = draw(st.sampled_from(["", "# end\n", "\n\n# end", "---\na: 1 # x\n", "...\n"]))
    before = "".join(f"{text}\n" for text in head) + line + f"      {key}:"
    comment = "" if "\n " in old and old[0] in "|>\n" else comment
    return before, old, f"{comment}\n{rest}{behind}", key, draw(st.integers(-9, 9) | TEXTS | st.just({}))


def _with_comment(value: str, comment: str) -> str:
    return value if value[0] in "|>\n" else value + comment


@FAST
@given(edits(), st.booleans(), st.booleans())
def test_only_the_value_changes(edit: tuple[str, str, str, str, Any], returns: bool, mark: bool) -> None:
    before, old, behind, key, value = edit
    if old.startswith("\n"):
        before, text = before, before + old + behind
    else:
        before, text = before + " ", before + " " + old + behind
    if returns:
        before, behind, text = (part.replace("\n", "\r\n") for part in (before, behind, text))
    if mark:
        before, text = "\ufeff" + before, "\ufeff" + text
    new = set_value(text, 0, ["spec", "set", key], value)
    documents = contents(text)
    documents[0]["spec"]["set"][key] = value
    assert all(map(same, contents(new), documents))
    if new != text:
        assert new == before + (" " if old.startswith("\n") else "") + flow_text(value) + behind


@FAST
@given(edits(), st.sampled_from(["exec_config", "qresources"]), SCALARS)
def test_only_a_line_is_added_or_removed(edit: tuple[str, str, str, str, Any], key: str, value: Any) -> None:
    before, old, behind, _, _ = edit
    text = before + (old if old.startswith("\n") else f" {old}") + behind
    new = set_value(text, 0, ["spec", "set", key], value)
    assert changed_lines(text, new) == [f"+       {flow_text(key)}: {flow_text(value)}\n"]
    assert remove_value(new, 0, ["spec", "set", key]) == text
