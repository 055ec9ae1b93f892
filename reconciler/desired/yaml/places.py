"""Places in a source text: its lines, diagnostics that point into it, and the file's name filled in later."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from reconciler.diagnostics import Diagnostic, Location, Related
from reconciler.model.manifests import Manifest

_LINE_BREAK = re.compile(r"\r\n|\n|\r")  # not str.splitlines: YAML breaks lines at these only
_WORD_END = re.compile(r"[\s,\]}#]|:(?=\s|$)")


class SourceText:
    """The text of one blob, cut into lines. Its diagnostics have no file name yet."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = _LINE_BREAK.split(text)

    def line(self, number: int) -> str | None:
        """Return the line with that number (from 1); None outside of the text."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else None

    def place_of(self, offset: int) -> tuple[int, int]:
        """Return line and column (from 1) of a character of the text."""
        before = _LINE_BREAK.split(self.text[:offset])
        return len(before), len(before[-1]) + 1

    def diagnostic(
        self,
        code: str,
        message: str,
        line: int,
        column: int,
        *,
        hint: str | None = None,
        related: Sequence[tuple[int, int, str]] = (),
    ) -> Diagnostic:
        """Return a diagnostic at that place; ``related`` are (line, column, label)."""
        excerpt = self.line(line)
        return Diagnostic(
            code=code,
            message=message,
            location=Location("", line, column),
            excerpt=excerpt,
            width=_word_width(excerpt, column),
            hint=hint,
            related=tuple(Related(Location("", *place), label) for *place, label in related),
        )


def _word_width(line: str | None, column: int) -> int:
    rest = (line or "")[column - 1 :]
    end = _WORD_END.search(rest)
    return max(1, end.start() if end else len(rest))


def escape(key: str) -> str:
    """Return a key as one step of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


def related(manifest: Manifest, pointer: str, label: str, *, key: bool = False) -> Related:
    """Return a second place of a diagnostic: the value, or the key, at ``pointer`` of the manifest."""
    return Related(manifest.location(pointer, key=key), label)


def diagnostic_with_file(diagnostic: Diagnostic, file: str) -> Diagnostic:
    """Return the diagnostic with ``file`` in each of its locations that has none; without any, its top."""
    return msgspec.structs.replace(
        diagnostic,
        location=_in_file(diagnostic.location or Location("", 1, 1), file),
        related=tuple(Related(_in_file(note.location, file), note.label) for note in diagnostic.related),
    )


def _in_file(location: Location, file: str) -> Location:
    return location if location.file else Location(file, location.line, location.column)
