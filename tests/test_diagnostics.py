"""Diagnostics: their text, their order, and the guess at what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from textwrap import dedent

import pytest

from reconciler.desired.yaml.source_text import SourceText, diagnostic_with_file
from reconciler.diagnostics import (
    Diagnostic,
    Location,
    Related,
    Severity,
    did_you_mean,
    nearest,
    nearest_path,
    render,
)


def make(file: str = "f.yaml", line: int = 3, column: int = 5, **rest: object) -> Diagnostic:
    return Diagnostic(code="x/y", message="it is wrong", location=Location(file, line, column), **rest)


def test_a_full_report() -> None:
    problem = make(
        excerpt="    worker: slrum  # here",
        width=6,
        hint="did you mean 'slurm'?",
        related=(Related(Location("g.yaml", 1, 1), "the other one"),),
    )
    assert render(problem) == dedent("""\
        error[x/y]: it is wrong
          --> f.yaml:3:5
          |
        3 |     worker: slrum  # here
          |     ^^^^^^
          note: the other one: g.yaml:1:1
          help: did you mean 'slurm'?""")


def test_a_report_without_a_place_is_its_headline() -> None:
    assert render(Diagnostic(code="a/b", message="m", severity=Severity.WARNING)) == "warning[a/b]: m"
    assert not Diagnostic(code="a/b", message="m", severity=Severity.WARNING).is_error


def test_the_gutter_is_as_wide_as_the_number() -> None:
    lines = render(make(line=1234, column=1, excerpt="abc")).split("\n")
    assert lines[1:] == ["     --> f.yaml:1234:1", "     |", "1234 | abc", "     | ^"]


@pytest.mark.parametrize("column", [1, 60, 250, 400])
def test_a_long_line_is_cut_around_the_caret(column: int) -> None:
    line = "".join(chr(ord("a") + number % 26) for number in range(400))
    *_, shown, caret = render(make(line=1, column=column, excerpt=line)).split("\n")
    assert len(shown) <= 104
    assert shown[caret.index("^")] == line[column - 1]


def test_the_caret_never_leaves_the_line_and_a_tab_is_one_blank() -> None:
    *_, shown, caret = render(make(line=1, column=3, excerpt="\tab", width=50)).split("\n")
    assert (shown, caret) == ("1 |  ab", "  |   ^")


def test_problems_are_ordered_by_place_then_code() -> None:
    nowhere = Diagnostic(code="a/a", message="m")
    problems = [make("b"), make("a", 10), make("a", 9), make("a", 9, 1), nowhere]
    ordered = sorted(problems, key=Diagnostic.sort_key)
    assert ordered == [nowhere, problems[3], problems[2], problems[1], problems[0]]


@pytest.mark.parametrize(
    ("name", "guess"),
    [("woker", "worker"), ("WORKER", "worker"), ("exec-config", "exec_config"), ("zebra", None), ("", None)],
)
def test_the_nearest_name(name: str, guess: str | None) -> None:
    assert nearest(name, ["worker", "exec_config", "priority"]) == guess


NUMBERED = [f"structure-{number:05}" for number in range(5000)]


@pytest.mark.parametrize(
    ("name", "known", "most"),
    [
        ("structure-02500x", NUMBERED, 200),
        ("astructure-0", NUMBERED, 200),
        ("zstructure-0", NUMBERED, 200),
        ("structure-1" * 100, NUMBERED, 0),
        ("structure-1", ["structure-1" * 1000] * 3, 0),
    ],
    ids=["in the middle", "before all", "after all", "a long name", "long candidates"],
)
def test_a_guess_costs_a_bounded_number_of_comparisons(
    monkeypatch: pytest.MonkeyPatch, name: str, known: list[str], most: int
) -> None:
    """A document may have as many wrong names as there are right ones."""
    compared = 0

    class Counting(difflib.SequenceMatcher[str]):
        def set_seq1(self, a: Sequence[str]) -> None:
            nonlocal compared
            compared += bool(a)
            super().set_seq1(a)

    monkeypatch.setattr(difflib, "SequenceMatcher", Counting)
    guess = nearest(name, known)
    assert compared <= most
    assert (guess is not None) == (most > 0)
    compared = 0
    did_you_mean(name, known)
    nearest_path(f"data/{name}.cif", [f"data/{other}.cif" for other in known])
    assert compared <= 5 * most


@pytest.mark.parametrize("wrong", ["structure-02500x", "structure-0250", "Structure-02500", "structur-02500"])
def test_a_guess_among_many_names(wrong: str) -> None:
    assert nearest(wrong, NUMBERED) is not None
    assert nearest_path(f"data/{wrong}.cif", [f"data/{name}.cif" for name in NUMBERED]) is not None


def test_without_a_near_name_a_short_list_is_shown_and_a_long_one_is_not() -> None:
    assert did_you_mean("zebra", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zebra", [f"name{number}" for number in range(13)]) is None
    assert did_you_mean("zebra", []) is None


@pytest.mark.parametrize(
    ("line", "column", "width"),
    [
        ("key: value", 1, 3),
        ("key: value", 6, 5),
        ("{a: b, c}", 5, 1),
        ("a:b c", 1, 3),
        ("x", 2, 1),
        ("key:", 1, 3),
    ],
)
def test_the_caret_is_as_wide_as_the_word(line: str, column: int, width: int) -> None:
    assert SourceText(line).diagnostic("a/b", "m", 1, column).width == width


def test_a_place_outside_of_the_text_has_no_excerpt() -> None:
    assert SourceText("a\nb").diagnostic("a/b", "m", 3, 1).excerpt is None


def test_a_file_name_is_filled_in_only_where_none_is() -> None:
    problem = make("", related=(Related(Location("other.yaml", 1, 1), "l"), Related(Location("", 2, 2), "m")))
    named = diagnostic_with_file(problem, "x.yaml")
    assert str(named.location) == "x.yaml:3:5"
    assert [str(note.location) for note in named.related] == ["other.yaml:1:1", "x.yaml:2:2"]
    assert str(diagnostic_with_file(Diagnostic(code="a/b", message="m"), "x.yaml").location) == "x.yaml:1:1"
