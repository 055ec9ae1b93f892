"""Problems in the user's documents, and where they are.

A :class:`Diagnostic` is data: the reader, the desired state and the planner create diagnostics, and the
command line shows them. All diagnostics of a revision are collected; none is raised.
"""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """An error blocks something; a warning never does."""

    ERROR = "error"
    WARNING = "warning"


class Location(msgspec.Struct, frozen=True, order=True):
    """A place in a file of the revision; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Related(msgspec.Struct, frozen=True):
    """A second place that explains the first one."""

    location: Location
    label: str


class Diagnostic(msgspec.Struct, frozen=True, kw_only=True):
    """One problem of one revision.

    ``code`` is stable (``yaml/duplicate-key``). ``excerpt`` is the source line of ``location``, and ``width``
    the number of characters that the caret underlines.
    """

    code: str
    message: str
    location: Location | None = None
    excerpt: str | None = None
    width: int = 1
    hint: str | None = None
    related: tuple[Related, ...] = ()
    severity: Severity = Severity.ERROR

    @property
    def is_error(self) -> bool:
        """Return whether this blocks something."""
        return self.severity is Severity.ERROR

    def sort_key(self) -> tuple[str, int, int, str]:
        """Return the key for the order of a report: by place, then by code."""
        if self.location is None:
            return ("", 0, 0, self.code)
        return (self.location.file, self.location.line, self.location.column, self.code)


_EXCERPT_WIDTH = 100


def render(diagnostic: Diagnostic) -> str:
    """Return the plain text of one diagnostic: headline, place, excerpt with caret, notes, hint."""
    message = diagnostic.message.replace("\n", "\n  ")
    lines = [f"{diagnostic.severity}[{diagnostic.code}]: {message}"]
    if diagnostic.location is not None:
        number = str(diagnostic.location.line)
        gutter = " " * len(number)
        lines.append(f"{gutter} --> {diagnostic.location}")
        if diagnostic.excerpt is not None:
            shown, column = _window(diagnostic.excerpt, diagnostic.location.column)
            caret = " " * (column - 1) + "^" * max(1, min(diagnostic.width, len(shown) - column + 1))
            lines += [f"{gutter} |", f"{number} | {shown}", f"{gutter} | {caret}"]
    lines += [f"  note: {note.label}: {note.location}" for note in diagnostic.related]
    if diagnostic.hint:
        lines.append(f"  help: {diagnostic.hint}")
    return "\n".join(lines)


def _window(line: str, column: int) -> tuple[str, int]:
    """Cut a long line around ``column``; a tab becomes one space, so that the caret is at the right place."""
    line = line.replace("\t", " ").rstrip("\r\n")
    if len(line) <= _EXCERPT_WIDTH:
        return line, column
    start = max(0, min(column - 1 - _EXCERPT_WIDTH // 2, len(line) - _EXCERPT_WIDTH))
    return line[start : start + _EXCERPT_WIDTH], column - start


_LONGEST_TEXT = 400
_LONGEST_EXCERPT = 4000


def bounded(problem: Diagnostic) -> Diagnostic:
    """Shorten what quotes the user's text: a line may be a megabyte long, and diagnostics are stored."""

    def cut(text: str) -> str:
        return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."

    excerpt = problem.excerpt
    return msgspec.structs.replace(
        problem,
        message=cut(problem.message),
        hint=None if problem.hint is None else cut(problem.hint),
        excerpt=None if len(excerpt or "") > _LONGEST_EXCERPT else excerpt,
        related=tuple(Related(note.location, cut(note.label)) for note in problem.related),
    )


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that the user most likely meant, or None."""
    known = sorted(set(candidates))
    by_lower = {candidate.lower(): candidate for candidate in known}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    close = difflib.get_close_matches(name, _comparable(name, known), n=1, cutoff=0.6)
    return close[0] if close else None


_LONGEST_NAME = 100
_MOST_COMPARED = 200


def _comparable(name: str, known: Sequence[str]) -> Sequence[str]:
    """Return the sorted candidates worth a comparison: a document may have thousands of wrong names.

    Of many candidates, these are the ones around the place of the name in alphabetical order. A comparison
    takes time quadratic in the length, so long names have none.
    """
    if len(name) > _LONGEST_NAME:
        return ()
    if len(known) > _MOST_COMPARED:
        start = max(0, bisect.bisect(known, name) - _MOST_COMPARED // 2)
        known = known[start : start + _MOST_COMPARED]
    return [candidate for candidate in known if len(candidate) <= _LONGEST_NAME]


def nearest_path(path: str, candidates: Iterable[str]) -> str | None:
    """Return the file that the user most likely meant, or None.

    It has a similar name in the same folder, or the same name in another one: ``lib/run.py`` is not meant by
    ``lib/x.npy`` only because both are in ``lib``.
    """
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    beside, same_name = {}, []
    for candidate in candidates:
        other_folder, _, other = candidate.rpartition("/")
        if other_folder == folder and candidate != path:
            beside[other] = candidate
        elif other == name:
            same_name.append(candidate)
    ranked = []
    for other in _comparable(name, sorted(beside)):
        other_stem = other.rpartition(".")[0] or other
        ranked.append((_likeness(stem.lower(), other_stem.lower()), _likeness(name, other), beside[other]))
    nearest_beside = max(ranked, default=None)
    if nearest_beside is not None and nearest_beside[0] >= 0.6:
        return nearest_beside[2]
    return same_name[0] if len(same_name) == 1 else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """Return a hint that names the nearest candidate, else all of a short list, else None.

    If several candidates are equally near, it names them all, or none if they are many.
    """
    known = sorted(set(candidates) - {name})
    guess = nearest(name, known)
    if guess is not None:
        best = _likeness(name, guess)
        equal = [other for other in _comparable(name, known) if _likeness(name, other) == best]
        if guess.lower() == name.lower() or len(equal) == 1:
            return f"did you mean '{guess}'?"
        if len(equal) <= _MOST_GUESSES:
            return f"did you mean {', '.join(map(repr, equal[:-1]))} or '{equal[-1]}'?"
    if known and len(known) <= 12:
        return "known: " + ", ".join(known)
    return None


_MOST_GUESSES = 3


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, name).ratio()
