"""The text of one YAML file: lines, places, and the bounds that it must keep.

The text is checked as a whole first (size, encoding, characters). A :class:`Guard` then counts the events of
the parser as they stream by, so that a bomb is refused after its first few events, not after it has gone off.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import msgspec

from reconciler.diagnostics import Diagnostic, Location, Related
from reconciler.model.manifests import Manifest

MAX_BYTES = 1024 * 1024
MAX_DOCUMENTS = 1000
MAX_DEPTH = 64
MAX_NODES = 200_000

NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
"""Characters that only an escape in double quotes can produce, and that no program or store accepts."""

INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""C0 and C1 controls, the line breaks that only YAML 1.1 knows, and other characters without a shape."""

UNSEEN = re.compile(
    "[\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e\u2000-\u200f\u202a-\u202f"
    "\u205f-\u2064\u2066-\u206f\u3000\u3164\ufff9-\ufffb]"
)
"""Spaces that are not spaces for YAML, characters without width, and marks of the direction of text.

They look like nothing or like a space. Quoted strings and comments can contain them.
"""

_CONFLICT_MARKER = re.compile(r"^(<{7} .*|>{7} .*|\|{7} .*|<{7}|>{7})$", re.MULTILINE)
_LINE_BREAK = re.compile(r"\r\n|\n|\r")  # not str.splitlines: YAML breaks lines at these only
_WORD_END = re.compile(r"[\s,\]}#]|:(?=\s|$)")


class SourceText:
    """The text of one blob, cut into lines. Its diagnostics do not have a file name yet."""

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
        rest = (excerpt or "")[column - 1 :]
        word_end = _WORD_END.search(rest)
        return Diagnostic(
            code=code,
            message=message,
            location=Location("", line, column),
            excerpt=excerpt,
            width=max(1, word_end.start() if word_end else len(rest)),
            hint=hint,
            related=tuple(Related(Location("", *place), label) for *place, label in related),
        )


def visible(text: str) -> str:
    r"""Return text for a message, with characters that cannot be seen as escapes such as ``\u200b``."""
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def name_of(character: str) -> str:
    """Return how a character is called: ``U+00A0 (no-break space)``."""
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'without a name').lower()})"


def escape(key: str) -> str:
    """Return a key as one step of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


def related(manifest: Manifest, pointer: str, label: str, *, key: bool = False) -> Related:
    """Return a second place of a diagnostic: the value, or the key, at ``pointer`` of the manifest."""
    return Related(manifest.location(pointer, key=key), label)


def diagnostic_with_file(diagnostic: Diagnostic, file: str) -> Diagnostic:
    """Return the diagnostic with ``file`` in every location that lacks one.

    A diagnostic without a location gets the top of the file.
    """

    def in_file(location: Location) -> Location:
        return location if location.file else Location(file, location.line, location.column)

    return msgspec.structs.replace(
        diagnostic,
        location=in_file(diagnostic.location or Location("", 1, 1)),
        related=tuple(Related(in_file(note.location), note.label) for note in diagnostic.related),
    )


class RefusedTextError(Exception):
    """The blob exceeds a bound, so reading stops. ``diagnostic`` says which bound and where."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def checked_source(data: bytes, size: int | None = None) -> SourceText:
    """Return the text of a blob. Raises RefusedTextError if it cannot be that of a manifest.

    ``size`` is that of the blob, if ``data`` is only its beginning.
    """
    size = len(data) if size is None else size
    if size > MAX_BYTES:
        raise RefusedTextError(
            Diagnostic(
                code="yaml/too-large",
                message=f"the file has {size} bytes, but a manifest is limited to {MAX_BYTES} (1 MiB)",
                location=Location("", 1, 1),
                hint="move large data to a file outside the manifest directories and name it with $path",
            )
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        source = SourceText(data[: error.start].decode("utf-8"))
        place = source.place_of(len(source.text))
        message = f"byte 0x{data[error.start]:02x} is not valid UTF-8"
        raise RefusedTextError(
            source.diagnostic("yaml/not-utf8", message, *place, hint="save the file as UTF-8")
        ) from error
    source = SourceText(text.removeprefix("\ufeff"))
    forbidden = INVISIBLE.search(source.text)
    if forbidden:
        raise RefusedTextError(
            source.diagnostic(
                "yaml/control-character",
                f"the invisible character U+{ord(forbidden[0]):04X} is not allowed",
                *source.place_of(forbidden.start()),
                hint="remove it, or write it as an escape in double quotes, such as \\u2028",
            )
        )
    conflict = _CONFLICT_MARKER.search(source.text)
    if conflict:
        raise RefusedTextError(
            source.diagnostic(
                "yaml/conflict",
                "this line is the marker of a merge conflict: the conflict was committed unresolved",
                *source.place_of(conflict.start()),
                hint="choose between the two versions, remove the markers, and commit the file again",
            )
        )
    return source


BOUNDS = frozenset({"yaml/too-many-documents", "yaml/too-many-values", "yaml/too-deep"})
"""The codes of the diagnostics of a Guard."""


class Guard:
    """Counts the documents, depth and nodes of one file.

    Its methods raise RefusedTextError when a bound is exceeded. ``line`` and ``column`` are for the message.
    """

    def __init__(self, source: SourceText) -> None:
        self._source = source
        self._documents = 0
        self._depth = 0
        self._nodes = 0

    def document(self, line: int, column: int) -> None:
        """Count a document."""
        self._documents += 1
        if self._documents > MAX_DOCUMENTS:
            self._refuse(
                "yaml/too-many-documents", f"the file has more than {MAX_DOCUMENTS} documents", line, column
            )

    def node(self, line: int, column: int) -> None:
        """Count a value or key."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse("yaml/too-many-values", f"the file has more than {MAX_NODES} values", line, column)

    def enter(self, line: int, column: int) -> None:
        """Count one level down."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            message = f"lists and mappings are nested more than {MAX_DEPTH} levels deep"
            self._refuse("yaml/too-deep", message, line, column)

    def leave(self) -> None:
        """Count one level up."""
        self._depth -= 1

    def _refuse(self, code: str, message: str, line: int, column: int) -> None:
        raise RefusedTextError(self._source.diagnostic(code, message, line, column))
