"""YAML text to values, places and problems: exact codes and places, and properties of any text."""

from __future__ import annotations

import io
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reconciler.desired.yaml import reader as yaml_reader
from reconciler.desired.yaml.builder import resolve_plain
from reconciler.desired.yaml.reader import ReadResult, parse_file, read_documents
from reconciler.desired.yaml.source_text import (
    INVISIBLE,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_DOCUMENTS,
    MAX_NODES,
    UNSEEN,
    RefusedTextError,
    checked_source,
    diagnostic_with_file,
    escape,
)
from reconciler.diagnostics import Diagnostic, Location
from reconciler.model.manifests import Mark, ParsedFile

ROOT = Path(__file__).resolve().parents[3]


def problems(result: ReadResult) -> list[Diagnostic]:
    found = [problem for document in result.documents for problem in document.problems]
    return found + ([result.failure] if result.failure else [])


def content(text: str) -> Any:
    result = read_documents(text.encode())
    assert problems(result) == []
    (document,) = result.documents
    return document.content


# (text, code, line, column); behind what is in UNREADABLE, the rest of a file is lost
READABLE = {
    "duplicate key": ("a: 1\nb: 2\na: 3\n", "yaml/duplicate-key", 3, 1),
    "duplicate key, quoted": ("x: {a: 1, 'a': 2}\n", "yaml/duplicate-key", 1, 11),
    "integer key": ("a:\n  1: x\n", "yaml/key-type", 2, 3),
    "boolean key": ("true: x\n", "yaml/key-type", 1, 1),
    "empty key": ("a: {: x}\n", "yaml/key-type", 1, 6),
    "list as key": ("? [a, b]\n: c\n", "yaml/key-type", 1, 3),
    "template as key": ("a: {{ name }}\n", "yaml/key-type", 1, 5),
    "@module in kwargs": ('kwargs:\n  x: {"@module": os, b: 1}\n', "yaml/at-key", 2, 7),
    "anchor": ("a: &x 1\n", "yaml/anchor", 1, 4),
    "custom tag": ("a: !!python/name:os.system x\n", "yaml/tag", 1, 4),
    "standard tag": ("a: !!str 1.10\n", "yaml/tag", 1, 4),
    "alias": ("a: [*x]\n", "yaml/alias", 1, 5),
    "alias as key": ("? *x\n: 1\n", "yaml/alias", 1, 3),
    "merge key": ("a:\n  <<: {b: 1}\n", "yaml/merge-key", 2, 3),
    "yaml 1.1": ("%YAML 1.1\n---\na: on\n", "yaml/version", 1, 1),
    "integer beyond 64 bits": ("a: 9223372036854775808\n", "yaml/number-range", 1, 4),
    "float beyond its range": ("a: 1e999\n", "yaml/number-range", 1, 4),
    "integer of 5000 digits": ("a: " + "9" * 5000 + "\n", "yaml/number-range", 1, 4),
    "escaped NUL": ('a: "x\\0y"\n', "yaml/control-character", 1, 4),
    "half a surrogate pair": ('a: "\\ud800"\n', "yaml/control-character", 1, 4),
}
UNREADABLE = {
    "tab": ("spec:\n\tjobs: 1\n", "yaml/tab", 2, 1),
    "tab behind blanks": ("spec:\n  a: 1\n  \tb: 2\n", "yaml/tab", 3, 3),
    "unquoted @module": ("kwargs:\n  x: {@module: os}\n", "yaml/at-key", 2, 7),
    "unclosed list": ("a: [1, 2\nb: 3\n", "yaml/syntax", 2, 2),
    "unclosed mapping": ("a: {b: 1\nc: 2\n", "yaml/syntax", 2, 2),
    "unclosed list at the end": ("a: [1,\n", "yaml/syntax", 1, 7),
    "unclosed quote": ("a: 'x\nb: 1\n", "yaml/syntax", 1, 4),
    "two colons": ("a: b: c\n", "yaml/syntax", 1, 5),
    "deeper than above": ("a: 1\n  b: 2\n", "yaml/syntax", 2, 4),
    "no key": ("a: 1\nb\nc: 2\n", "yaml/syntax", 2, 1),
    "list entry in a line": ("a: - b\n", "yaml/syntax", 1, 4),
    "list in a mapping": ("a: 1\n- b\n", "yaml/syntax", 2, 1),
    "percent": ("a: %x\n", "yaml/syntax", 1, 4),
    "exclamation mark": ("a: !x{b: 1}\n", "yaml/syntax", 1, 4),
    "star": ("a: 1\nb: * c\n", "yaml/syntax", 2, 4),
    "text behind a bar": ("a: |b\n  c\n", "yaml/syntax", 1, 5),
    "unknown escape": ('a: "C:\\q"\n', "yaml/syntax", 1, 8),
    "escape beyond Unicode": ('a: "\\U00110000"\n', "yaml/syntax", 1, 1),
    "control character": ("a: 1\nb: x\x07y\n", "yaml/control-character", 2, 5),
    "NUL": ("a: 1\x00\n", "yaml/control-character", 1, 5),
    "line break of YAML 1.1": ("a: x\u2028y\n", "yaml/control-character", 1, 5),
    "byte order mark inside": ("a: \ufeffx\n", "yaml/control-character", 1, 4),
    "30 KB of brackets": ("[" * 30_000, "yaml/too-deep", 1, MAX_DEPTH + 1),
    "30 KB of list entries": ("- " * 15_000, "yaml/too-deep", 1, 2 * MAX_DEPTH + 1),
    "too many documents": (
        "---\na\n" * (MAX_DOCUMENTS + 1),
        "yaml/too-many-documents",
        2 * MAX_DOCUMENTS + 1,
        1,
    ),
    "too many values": ("- a\n" * (MAX_NODES + 1), "yaml/too-many-values", MAX_NODES, 3),
    "too large": ("#" * (MAX_BYTES + 1), "yaml/too-large", 1, 1),
}


@pytest.mark.parametrize(("text", "code", "line", "column"), READABLE.values(), ids=READABLE)
def test_a_problem_of_a_readable_document_is_at_its_place(
    text: str, code: str, line: int, column: int
) -> None:
    result = read_documents(text.encode())
    assert result.failure is None
    first = problems(result)[0]
    assert (first.code, first.location.line, first.location.column) == (code, line, column)
    assert first.excerpt == text.split("\n")[line - 1]


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if name == "too many values" else [])
        for name, case in UNREADABLE.items()
    ],
)
def test_what_stops_the_reader_is_at_its_place(text: str, code: str, line: int, column: int) -> None:
    failure = read_documents(text.encode()).failure
    assert failure is not None
    assert (failure.code, failure.location.line, failure.location.column) == (code, line, column)
    assert "\n" not in failure.message


def test_bytes_that_are_not_utf8_are_named_with_their_place() -> None:
    failure = read_documents(b"a: 1\nb: caf\xe9\n").failure
    assert failure is not None
    assert (failure.code, failure.location.line, failure.location.column) == ("yaml/not-utf8", 2, 7)
    assert "0xe9" in failure.message


def test_the_size_limit_is_said() -> None:
    failure = read_documents(b"#" * (MAX_BYTES + 1)).failure
    assert failure is not None
    assert "1048577" in failure.message
    assert "1048576" in failure.message
    assert read_documents(b"#" * MAX_BYTES).failure is None


def test_a_duplicate_key_names_both_places_and_the_first_value_stays() -> None:
    result = read_documents(b"a:\n  x: 1\n  y: 2\n  x: 3\n")
    (problem,) = problems(result)
    assert [(note.location.line, note.location.column) for note in problem.related] == [(2, 3)]
    assert result.documents[0].content == {"a": {"x": 1, "y": 2}}


def test_a_tab_says_what_to_do() -> None:
    failure = read_documents(b"spec:\n\tjobs: 1\n").failure
    assert failure is not None
    assert failure.hint is not None
    assert "spaces" in failure.hint


def test_an_at_key_says_why() -> None:
    (problem,) = problems(read_documents(b'"@class": X\n'))
    assert "monty would import and call" in problem.message
    assert "$call" in (problem.hint or "")


def test_an_alias_bomb_is_refused_without_being_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 30)]
    parsed = parse_file("\n".join(lines).encode())
    assert {problem.code for problem in parsed.diagnostics} >= {"yaml/anchor", "yaml/alias"}
    assert len(msgspec.json.encode(parsed)) < 100_000


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            '{"@module": a.b, "@class": C, x: 1, y: {z: 2}}',
            "write {$call: a.b.C, kwargs: {x: ..., y: ...}}; or",
        ),
        ('{"@class": C, "@module": a}', "write {$call: a.C}; or"),
        ('{"@module": a, "@callable": f, "@bound": null}', "use $call or $maker"),
        ('{"@module": 1, "@class": [C]}', "use $call or $maker"),
        (
            f'{{"@module": a, "@class": C, {", ".join(f"key{n}: 1" for n in range(50))}}}',
            "write {$call: ..., kwargs",
        ),
    ],
)
def test_a_mapping_with_several_at_keys_is_one_problem_with_the_form_to_write(text: str, hint: str) -> None:
    (problem,) = problems(read_documents(f"args:\n  - {text}\n  - 2\n".encode()))
    assert (problem.code, problem.location.line, problem.location.column) == ("yaml/at-key", 2, 6)
    assert (problem.hint or "").startswith(hint)
    assert "{$load: FILE}" in (problem.hint or "")


def test_each_mapping_with_at_keys_is_a_problem_of_its_own() -> None:
    text = b'a: {"@module": x, "@class": Y, inner: {"@module": z}}\nb: {"@class": Q}\n'
    assert [problem.code for problem in problems(read_documents(text))] == ["yaml/at-key"] * 3


def test_all_problems_of_a_document_are_told() -> None:
    text = b"a: 1\na: 2\n<<: 3\n1: 2\n'@m': 2\nb: *x\nc: !t 1\n"
    assert [problem.code for problem in problems(read_documents(text))] == [
        "yaml/duplicate-key",
        "yaml/merge-key",
        "yaml/key-type",
        "yaml/at-key",
        "yaml/alias",
        "yaml/tag",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8:00:00", "8:00:00"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("n", "n"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("0b11", "0b11"),
        ("1.2.3", "1.2.3"),
        ("+", "+"),
        (".", "."),
        ("-.", "-."),
        ("1e", "1e"),
        ("nUll", "nUll"),
        ("0x", "0x"),
        ("-0x1", "-0x1"),
        (" ", " "),
        ("=", "="),
        ("010", 10),
        ("-7", -7),
        ("+7", 7),
        ("0o17", 15),
        ("0xfF", 255),
        ("9223372036854775807", 2**63 - 1),
        ("1.10", 1.1),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1e3", -1000.0),
        ("6.02E+23", 6.02e23),
        (".inf", math.inf),
        ("+.INF", math.inf),
        ("-.Inf", -math.inf),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("~", None),
        ("", None),
        ("Null", None),
    ],
)
def test_plain_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    found = resolve_plain(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_float_and_quoted_scalars_are_strings() -> None:
    found = content("a: .nan\nb: '1'\nc: \"true\"\nd: |\n  12\ne: >-\n  null\n")
    assert math.isnan(found.pop("a"))
    assert found == {"b": "1", "c": "true", "d": "12\n", "e": "null"}


def test_every_value_has_a_mark_with_the_places_of_key_and_value() -> None:
    text = "a~b: 1\n\nc/d:\n  - ü: {𝒳: z}\n  -   q\nempty:\n# comment\nlast: x\n"
    (document,) = read_documents(text.encode()).documents
    assert document.marks == {
        "": Mark(1, 1, 1, 1),
        "/a~0b": Mark(1, 1, 1, 6),
        "/c~1d": Mark(3, 1, 4, 3),
        "/c~1d/0": Mark(4, 5, 4, 5),
        "/c~1d/0/ü": Mark(4, 5, 4, 8),
        "/c~1d/0/ü/𝒳": Mark(4, 9, 4, 12),
        "/c~1d/1": Mark(5, 7, 5, 7),
        "/empty": Mark(6, 1, 6, 1),
        "/last": Mark(8, 1, 8, 7),
    }


def test_the_text_of_numbers_is_kept() -> None:
    (document,) = read_documents(b"a: 1.10\nb: '1.10'\nc: [010, x]\n").documents
    assert document.raws == {"/a": "1.10", "/c/0": "010"}


def test_documents_know_their_lines_and_empty_ones_are_skipped() -> None:
    text = "# head\n---\na: 1\n\n---\n---\n# only a comment\n---\n\nb:\n  - 2\n# tail\n...\n"
    first, second = read_documents(text.encode()).documents
    assert (first.first_line, first.lines) == (3, ["a: 1"])
    assert (second.first_line, second.lines) == (10, ["b:", "  - 2"])


def test_line_breaks_of_every_system_count() -> None:
    for line_break in ("\n", "\r\n", "\r"):
        (document,) = read_documents(f"a: 1{line_break}b: [{line_break} 2]".encode()).documents
        assert document.marks["/b/0"] == Mark(3, 2, 3, 2)


def test_a_byte_order_mark_shifts_no_column() -> None:
    (document,) = read_documents(b"\xef\xbb\xbfa: 1\n").documents
    assert document.marks["/a"] == Mark(1, 1, 1, 4)


def test_documents_before_a_broken_one_stay_readable() -> None:
    text = (
        "apiVersion: reconciler/v1\nkind: ExecConfig\nmetadata: {name: a}\nspec: {}\n---\nkind: Flow\nx: [1\n"
    )
    parsed = parse_file(text.encode())
    assert [(document.kind, document.valid) for document in parsed.documents] == [("ExecConfig", True)]
    assert not parsed.readable
    assert parsed.suspected_kinds == ["Flow"]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("kind: Worker\nx: [", ["Worker"]),
        ("{'kind': \"Flow\", x: [", ["Flow"]),
        ("  kind : Project\n\tkind: Worker\n", ["Project", "Worker"]),
        ("kind: Nonsense\nx: [", []),
        ("kind: Flow\n---\nkind: OverrideRule\nkind: Flow\n\x00", ["Flow", "OverrideRule"]),
    ],
)
def test_an_unreadable_file_is_searched_for_kinds(text: str, kinds: list[str]) -> None:
    parsed = parse_file(text.encode())
    assert not parsed.readable
    assert parsed.suspected_kinds == kinds


def test_the_file_name_is_filled_in_everywhere() -> None:
    problems = parse_file(b"a: 1\na: 2\n").diagnostics
    duplicate = next(problem for problem in problems if problem.code == "yaml/duplicate-key")
    duplicate = diagnostic_with_file(duplicate, "flows/x.yaml")
    assert str(duplicate.location) == "flows/x.yaml:2:1"
    assert str(duplicate.related[0].location) == "flows/x.yaml:1:1"


def test_without_the_c_parser_every_answer_is_the_same(tmp_path: Path) -> None:
    """The extension is not built for every platform: the same text must give the same answer there."""
    texts = [text for text, *_ in (READABLE | UNREADABLE).values() if len(text) < 50_000]
    texts += [
        "a: 1\t# tab\n",
        "a: b\n\tc\n",
        '{"a":1, b:2}',
        "!t &a x",
        "- \n- # c\n- 1\n",
        "a:\n\n# c\n\nb: 1\n",
    ]
    (tmp_path / "texts.json").write_bytes(msgspec.json.encode(texts))
    script = (
        "import sys, msgspec\n"
        "sys.modules['yaml._yaml'] = None\n"
        "from reconciler.desired.yaml import reader as yaml_reader\n"
        "assert yaml_reader.CParser is None\n"
        "texts = msgspec.json.decode(open(sys.argv[1], 'rb').read())\n"
        "parsed = [yaml_reader.parse_file(text.encode()) for text in texts]\n"
        "sys.stdout.buffer.write(msgspec.msgpack.encode(parsed))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "texts.json")]
    result = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    elsewhere = msgspec.msgpack.decode(result.stdout, type=list[ParsedFile])
    for text, other in zip(texts, elsewhere, strict=True):
        assert parse_file(text.encode()) == other, text


_INDICATORS = list("-?:,[]{}'\"#|>&*!%@`\\~ü𝒳")
_WORDS = ["a", "key", "1", "010", "1.10", "on", "null", "--", "---", "...", "<<", "$output", "$call", "Flow"]
_KEYS = [
    "kind:",
    "apiVersion:",
    "reconciler/v1",
    "spec:",
    "metadata:",
    "name:",
    "jobs:",
    "id:",
    "args:",
    "kwargs:",
]


def check_that_both_parsers_agree(data: bytes) -> bool:
    """Compare what both parsers read, unless the one in C leaves the text to the other; return if it does."""
    try:
        source = checked_source(data)
    except RefusedTextError:
        return True
    fast = yaml_reader._read(source, yaml_reader._c_events(source.text))
    if not yaml_reader._is_final(fast, source) or fast.failure is not None:
        return True
    slow = yaml_reader._read(source, YAML(typ="safe", pure=True).parse(source.text))
    assert slow.failure is None, source.text
    # As text, since 1 equals True and the order of keys counts.
    found, expected = ([repr(vars(document)) for document in one.documents] for one in (fast, slow))
    assert found == expected, source.text
    return False


def test_both_parsers_read_all_manifests_alike() -> None:
    files = [*(ROOT / "example-repo").rglob("*.y*ml"), *(ROOT / "docs").rglob("*.y*ml")]
    blocks = [
        block.split("\n", 1)[1].rpartition("\n")[0]
        for file in (ROOT / "docs").rglob("*.md")
        for block in file.read_text().split("```")[1::2]
        if block.startswith(("yaml", "yml"))
    ]
    texts = [file.read_bytes() for file in files] + [block.encode() for block in blocks]
    left = [check_that_both_parsers_agree(text) for text in texts]
    assert len(texts) > 40
    assert sum(left) < len(texts) / 10, "most manifests are read fast"


_PARTS = [
    *_INDICATORS, *_WORDS, *_KEYS, "\n", "\n  ", "\n    ", "\n- ", "\r\n", "\r", " ", ": ", "---\n", "...\n",
    "- - ", "a: ", "b: 1\n", "{a: ", "[1, ", "|\n  t\n", "> \n", "|-\n  x", "|+\n y\n\n", "|2\n", "|\n\n",
    ">\n   \n     x\n", "> # c\n", "# c\n", " #c", "'a b'", '"\\n"', "''", "://", "http://x.y:80/a?b", "a:b",
    "? a\n: b\n", "%YAML 1.2\n---\n", "\ufeff", '"a\n b"', "'a\n\n b'", "a\n b",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_both_parsers_read_random_texts_alike(seed: int) -> None:
    dice = random.Random(seed)
    read = 0
    for _ in range(5000):
        text = "".join(dice.choices(_PARTS, k=dice.randint(1, 14)))
        text = "spec:\n  " + text.replace("\n", "\n  ") if dice.random() < 0.5 else text
        read += not check_that_both_parsers_agree(text.encode())
    assert read > 100


def test_only_parsing_imports_the_parser_and_only_errors_import_jsonschema() -> None:
    script = (
        "import sys\n"
        "from reconciler.desired import schemas, values\nfrom reconciler.desired.yaml import source_text\n"
        "assert not {'ruamel', 'yaml', 'jsonschema'} & sys.modules.keys()\n"
        "from reconciler.desired.yaml.reader import parse_file\n"
        "valid = b'{apiVersion: reconciler/v1, kind: ExecConfig, metadata: {name: a}, spec: {}}'\n"
        "assert parse_file(valid).diagnostics == []\n"
        "assert not {'ruamel', 'jsonschema'} & sys.modules.keys()\n"
        "assert parse_file(valid.replace(b'spec', b'spek')).diagnostics\n"
        "assert 'jsonschema' in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


_yaml_text = st.lists(
    st.sampled_from(
        [
            *_INDICATORS,
            *_WORDS,
            *_KEYS,
            "\n",
            "\n  ",
            "\n    ",
            "\n- ",
            "\r\n",
            "\t",
            " ",
            ": ",
            "---\n",
            "\x85",
            "\x00",
        ]
    )
).map("".join)


def check_parsed(data: bytes) -> None:
    parsed = parse_file(data)
    assert parsed.readable or parsed.diagnostics
    assert all(problem.location is not None for problem in parsed.diagnostics)
    assert len(msgspec.msgpack.encode(parsed)) < 2_000_000
    for document in parsed.documents:
        assert "" in document.marks


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_no_bytes_raise(data: bytes) -> None:
    check_parsed(data)


@given(_yaml_text)
@settings(deadline=None, max_examples=300)
def test_no_text_raises(text: str) -> None:
    check_parsed(text.encode("utf-8"))


_HEAD = "apiVersion: reconciler/v1\nkind: Flow\nmetadata: {name: a}\nspec:\n  "


@given(_yaml_text)
@settings(deadline=None, max_examples=200)
def test_no_spec_raises(text: str) -> None:
    check_parsed((_HEAD + text.replace("\n", "\n  ")).encode("utf-8"))


_texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
_keys = _texts.filter(lambda key: not key.startswith("@"))
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | _texts
    | st.sampled_from(
        ["8:00:00", "on", "1.10", "010", "0o7", "1_0", "~", "2024-01-01", "<<", "=", "- a", "a: b"]
    )
)
_data = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=15,
)


def pointers(value: Any, pointer: str = "") -> list[str]:
    found = [pointer]
    if isinstance(value, dict):
        found += [at for key, entry in value.items() for at in pointers(entry, f"{pointer}/{escape(key)}")]
    elif isinstance(value, list):
        found += [at for index, entry in enumerate(value) for at in pointers(entry, f"{pointer}/{index}")]
    return found


def check_read(text: str, data: Any) -> None:
    result = read_documents(text.encode())
    assert problems(result) == []
    (document,) = result.documents
    assert document.content == data
    assert json.dumps(document.content, sort_keys=True) == json.dumps(data, sort_keys=True)  # 1 is not True
    assert sorted(document.marks) == sorted(pointers(data))


@given(data=_data)
@settings(deadline=None, max_examples=300)
def test_yaml_of_another_program_is_read_as_it_was(data: Any) -> None:
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.representer.ignore_aliases = lambda *_: True
    stream = io.StringIO()
    writer.dump({"data": data}, stream)
    assume(not INVISIBLE.search(stream.getvalue()) and not UNSEEN.search(stream.getvalue()))
    check_read(stream.getvalue(), {"data": data})


@given(data=_data)
@settings(deadline=None, max_examples=200)
def test_json_is_yaml(data: Any) -> None:
    text = json.dumps({"data": data}, ensure_ascii=False)
    assume("Infinity" not in text and not INVISIBLE.search(text))
    check_read(text, {"data": data})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> feature\n", 2),
        ("a: 1\n>>>>>>> feature\n", 2),
        ("a: |\n  text\n||||||| base\nb: 1\n", 3),
        ("<<<<<<<\na: 1\n", 1),
    ],
)
def test_a_merge_conflict_is_called_one(text: str, line: int) -> None:
    failure = read_documents(text.encode()).failure
    assert failure is not None
    assert (failure.code, failure.location) == ("yaml/conflict", Location("", line, 1))


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("metadata:\n\u00a0\u00a0name: a\n", "2:1", "U+00A0 (no-break space)"),
        ("na\u200bme: a\n", "1:3", "U+200B (zero width space)"),
        ("name: a\u200d\n", "1:8", "U+200D (zero width joiner)"),
        ("- \u202ea\n", "1:3", "U+202E (right-to-left override)"),
        ("a\u2060: 1\n", "1:2", "U+2060 (word joiner)"),
        ("x: {\u3000y: 1}\n", "1:5", "U+3000 (ideographic space)"),
    ],
)
def test_a_character_that_cannot_be_seen_is_named(text: str, place: str, name: str) -> None:
    (problem,) = problems(read_documents(text.encode()))
    assert problem.code == "yaml/invisible-character"
    assert name in problem.message
    assert str(problem.location) == f":{place}"


@pytest.mark.parametrize(
    "text", ['"a\u2060": 1\n', 'a: "10\u00a0GB"\n', "a: 1  # caf\u00e9\u200b\n", "a: |\n  x\u00a0y\n"]
)
def test_quoted_text_and_comments_may_have_any_character(text: str) -> None:
    result = read_documents(text.encode())
    assert (result.failure, problems(result)) == (None, [])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("name_glob: *vol\n", 'write text that begins with * in quotes: name_glob: "*vol"'),
        ("flows: [*eos]\n", 'write text that begins with * in quotes: "*eos"'),
        ("cpus: *2\n", 'write text that begins with * in quotes: cpus: "*2"'),
    ],
)
def test_an_alias_is_probably_text_without_quotes(text: str, hint: str) -> None:
    (problem,) = problems(read_documents(text.encode()))
    assert (problem.code, problem.hint) == ("yaml/alias", hint)


def test_it_can_be_imported_while_another_thread_imports_yaml() -> None:
    """The daemon imports it in the thread of the source, and libraries import yaml in those of workers."""
    code = """
import importlib.abc, sys, threading, time
import reconciler.desired.validation, reconciler.desired.yaml.syntax_errors
assert "yaml" not in sys.modules
within, problems = threading.Event(), []
threading.excepthook = lambda found: problems.append(found.exc_value)
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "yaml.nodes":
            within.set()
            time.sleep(1)
sys.meta_path.insert(0, Slow())
names = ("yaml", "reconciler.desired.yaml.reader")
threads = [threading.Thread(target=__import__, args=[name]) for name in names]
threads[0].start()
within.wait()
threads[1].start()
for thread in threads:
    thread.join()
sys.exit(str(problems) if problems else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
