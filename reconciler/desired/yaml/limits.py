"""Bounds on what a manifest may be, checked before anything is made of it.

The text is checked as a whole (size, encoding, characters); the parser's events are counted as they
stream by, so that a bomb is refused after its first few events, not after it has gone off.
"""

from __future__ import annotations

import re

from reconciler.desired.yaml.places import SourceText
from reconciler.diagnostics import Diagnostic, Location

MAX_BYTES = 1024 * 1024
MAX_DOCUMENTS = 1000
MAX_DEPTH = 64
MAX_NODES = 200_000

BOUNDS = frozenset({"yaml/too-many-documents", "yaml/too-many-values", "yaml/too-deep"})
"""The codes of what a Guard refuses."""

NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
"""What only an escape in double quotes can bring in, and what no program or store can take."""

INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""C0 and C1 controls, the line breaks that only YAML 1.1 knows, and other characters without a shape."""


class RefusedTextError(Exception):
    """The blob is over a bound; reading stops here. ``diagnostic`` says which and where."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def checked_source(data: bytes) -> SourceText:
    """Return the text of a blob. Raises RefusedTextError when size, encoding or characters are wrong."""
    if len(data) > MAX_BYTES:
        raise RefusedTextError(_too_large(len(data)))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedTextError(_not_utf8(data, error.start)) from error
    source = SourceText(text.removeprefix("\ufeff"))
    forbidden = INVISIBLE.search(source.text)
    if forbidden:
        raise RefusedTextError(_control_character(source, forbidden.start()))
    return source


def _too_large(size: int) -> Diagnostic:
    return Diagnostic(
        code="yaml/too-large",
        message=f"the file has {size} bytes; a manifest may have at most {MAX_BYTES} (1 MiB)",
        location=Location("", 1, 1),
        hint="keep large data in a file outside of the manifest directories and name it with $path",
    )


def _not_utf8(data: bytes, offset: int) -> Diagnostic:
    source = SourceText(data[:offset].decode("utf-8"))
    line, column = source.place_of(len(source.text))
    return source.diagnostic(
        "yaml/not-utf8",
        f"byte 0x{data[offset]:02x} is not UTF-8",
        line,
        column,
        hint="save the file as UTF-8",
    )


def _control_character(source: SourceText, offset: int) -> Diagnostic:
    name = f"U+{ord(source.text[offset]):04X}"
    return source.diagnostic(
        "yaml/control-character",
        f"the character {name} cannot be seen and is not allowed",
        *source.place_of(offset),
        hint="remove it; inside of double quotes it may be written as an escape, such as \\u2028",
    )


class Guard:
    """Counts documents, depth and nodes of one file."""

    def __init__(self, source: SourceText) -> None:
        self._source = source
        self._documents = 0
        self._depth = 0
        self._nodes = 0

    def document(self, line: int, column: int) -> None:
        """Count a document. Raises RefusedTextError above MAX_DOCUMENTS."""
        self._documents += 1
        if self._documents > MAX_DOCUMENTS:
            self._refuse(
                "yaml/too-many-documents", f"more than {MAX_DOCUMENTS} documents in a file", line, column
            )

    def node(self, line: int, column: int) -> None:
        """Count a value or key. Raises RefusedTextError above MAX_NODES."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse("yaml/too-many-values", f"more than {MAX_NODES} values in a file", line, column)

    def enter(self, line: int, column: int) -> None:
        """Count one level down. Raises RefusedTextError below MAX_DEPTH levels."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(
                "yaml/too-deep", f"lists and mappings nest deeper than {MAX_DEPTH} levels", line, column
            )

    def leave(self) -> None:
        """Count one level up."""
        self._depth -= 1

    def _refuse(self, code: str, message: str, line: int, column: int) -> None:
        raise RefusedTextError(self._source.diagnostic(code, message, line, column))
