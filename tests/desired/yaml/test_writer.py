"""YAML that is printed reads back alike in every reader: of YAML 1.2, and of YAML 1.1 as PyYAML is."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import yaml as pyyaml
from ruamel.yaml import YAML

from reconciler.desired.yaml.writer import dump

READERS: dict[str, Callable[[str], Any]] = {
    "PyYAML": pyyaml.safe_load,
    "YAML 1.1": lambda text: _ruamel("1.1").load(text),
    "YAML 1.2": lambda text: _ruamel("1.2").load(text),
}


def _ruamel(version: str) -> YAML:
    reader = YAML(typ="safe", pure=True)
    reader.version = version
    return reader


NOT_ONLY_STRINGS = [
    *("on", "Off", "yes", "NO", "y", "N", "true", "null", "~", ""),
    *("1:30:00", "12:30", "190:20:30.15", "1_000", "685_230.15", "0777", "0o17", "0x1f", "0b11", "08"),
    *("1e5", "1e+16", "1.", ".5", "+1", "1e400", ".inf", "-.inf", ".nan"),
    *("2024-01-01", "2024-01-01T12:00:00Z", "2024-01-01 12:00:00", "=", "<<", "---", "..."),
]
TEXTS = [
    *NOT_ONLY_STRINGS,
    *(" ", " a", "a ", "-", "- a", "a: b", "a:b", "#x", "x #y", "*a", "&b", "!c", "%d", "@e", "`f", "{a}"),
    *("[b]", ",", "?", "|", ">", "'", '"', "\\", "é", "世", "\U0001f600", "\x00", "\x1b[31m", "\x7f", "\x85"),
    *("\u2028", "\ud800", "\ufeff", "a\tb", "a\nb", "a\nb\n", "a\n\nb", "\na", " a\nb", "a\nb ", "a\n  b"),
    *("a\n\n", "a\n#b", "a\n---\nb", "a\r\nb", "a\n\tb", "x" * 3000, "long key " * 100),
]
NUMBERS = [0, -3, 2**70, 1e16, 1e-7, 1.5, -2.5e300, 5e-324, 100000.0, math.inf, -math.inf]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", NOT_ONLY_STRINGS)
def test_strings_that_some_reader_takes_for_something_else(reader: str, text: str) -> None:
    for value in ([text], {text: 1}, {"key": text}, text):
        assert READERS[reader](dump(value)) == value


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_random_data(reader: str, ascii_only: bool) -> None:
    draw = random.Random(5)

    def value(depth: int = 0) -> Any:
        kind = draw.random() if depth < 4 else 1
        if kind < 0.25:
            return {draw.choice(TEXTS): value(depth + 1) for _ in range(draw.randrange(4))}
        if kind < 0.5:
            return [value(depth + 1) for _ in range(draw.randrange(4))]
        return draw.choice([*TEXTS, *NUMBERS, True, False, None])

    for _ in range(400):
        written = value()
        text = dump(written, ascii_only=ascii_only)
        found = READERS[reader](text)
        assert (found, type(found)) == (written, type(written)), text
        assert text.isascii() or not ascii_only


def test_nan() -> None:
    assert all(math.isnan(read(dump(math.nan))) for read in READERS.values())


def test_text_of_several_lines_is_readable() -> None:
    assert dump({"a": [{"error": "Traceback\n  File x\n\nValueError: 1\n"}]}) == (
        "a:\n- error: |\n    Traceback\n      File x\n\n    ValueError: 1\n"
    )


def test_numbers_keep_their_type() -> None:
    for value in NUMBERS:
        for read in READERS.values():
            found = read(dump(value))
            assert (found, type(found)) == (value, type(value))


def test_deep_data() -> None:
    value: Any = "end"
    for number in range(350):
        value = {"a": value} if number % 2 else [value]
    assert json.loads(json.dumps(_ruamel("1.2").load(dump([1])))) == [1]
    assert dump(value).rstrip().endswith("end")
