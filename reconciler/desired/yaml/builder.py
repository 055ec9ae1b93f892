"""From the events of a YAML parser to plain values with the place of each.

No constructor of a library runs, so tags, aliases and merge keys have no effect. Plain scalars follow the
core schema of YAML 1.2 and nothing else: ``8:00:00``, ``on``, ``yes``, ``1_000`` and ``2024-01-01`` are
strings, and ``010`` is ten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from reconciler.desired.yaml.source_text import NO_CHARACTER, UNSEEN, Guard, SourceText, escape, name_of
from reconciler.desired.yaml.syntax_errors import at_key_diagnostic, at_key_hint, shown
from reconciler.diagnostics import Diagnostic
from reconciler.model.manifests import Mark

Scalar = None | bool | int | float | str

_INT_RANGE = range(-(2**63), 2**63)
_LONGEST_INT = 64  # digits; far above 64 bits, far below where int() gives up


class OutOfRangeError(ValueError):
    """The text is a number that cannot be kept without changing it."""


def resolve_plain(text: str) -> Scalar:
    """Return the value of an unquoted scalar.

    Raises OutOfRangeError for an integer beyond 64 bits and for a float that would become infinite.
    """
    if text and text[0] not in _FIRST:
        return text
    for pattern, convert in _TABLE:
        if pattern.fullmatch(text):
            return convert(text)
    return text


def _integer(text: str, base: int = 10) -> int:
    value = int(text, base) if len(text) <= _LONGEST_INT else _INT_RANGE.stop
    if value not in _INT_RANGE:
        raise OutOfRangeError("does not fit into 64 bits")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise OutOfRangeError("is too large for a floating-point number")
    return value


_FIRST = frozenset("nN~tTfF+-.0123456789")
_TABLE: tuple[tuple[re.Pattern[str], Callable[[str], Scalar]], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda text: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text[0] in "tT"),
    (re.compile(r"[-+]?[0-9]+"), _integer),
    (re.compile(r"0o[0-7]+"), lambda text: _integer(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: _integer(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), _float),
    (re.compile(r"\+?\.(inf|Inf|INF)"), lambda text: math.inf),
    (re.compile(r"-\.(inf|Inf|INF)"), lambda text: -math.inf),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda text: math.nan),
)


class RawDocument:
    """One YAML document as plain values, not yet checked against a schema.

    ``marks`` has the place of every value by JSON pointer, ``raws`` the text of those plain scalars that
    are not strings (``1.10``), ``problems`` what is wrong although the document could be read.
    """

    def __init__(self) -> None:
        self.content: Any = None
        self.marks: dict[str, Mark] = {}
        self.raws: dict[str, str] = {}
        self.problems: list[Diagnostic] = []
        self.first_line = 1
        self.lines: list[str] = []


class _Open:
    """A list or mapping that is not closed yet.

    ``pointer`` is None for a collection that is read but not kept. ``entry`` is the key that waits for its
    value: (name, or None if the value is not kept, line, column). ``is_key`` marks a collection that is used
    as a key.
    """

    __slots__ = ("at_key", "container", "entry", "is_key", "key_places", "pointer")

    def __init__(self, container: Any, pointer: str | None, is_key: bool) -> None:
        self.container = container
        self.pointer = pointer
        self.is_key = is_key
        self.entry: tuple[str | None, int, int] | None = None
        self.key_places: dict[str, tuple[int, int]] = {}
        self.at_key: int | None = None
        """The number of the problem that it has keys which begin with ``@``."""

    @property
    def wants_key(self) -> bool:
        return self.entry is None and isinstance(self.container, dict)


class DocumentBuilder:
    """Makes documents from the events of a file, one event at a time."""

    def __init__(self, source: SourceText) -> None:
        self._source = source
        self._guard = Guard(source)
        self._open: list[_Open] = []
        self._current = RawDocument()
        self._read_lines = 0
        self.documents: list[RawDocument] = []

    def feed(self, event: Any) -> None:
        """Process the next event. Raises RefusedTextError when a bound is exceeded."""
        # The name of the event's class is all that this module must know of the parser.
        match type(event).__name__:
            case "ScalarEvent":
                self._scalar(event)
            case "MappingStartEvent":
                self._start_collection(event, {})
            case "SequenceStartEvent":
                self._start_collection(event, [])
            case "MappingEndEvent" | "SequenceEndEvent":
                self._guard.leave()
                closed = self._open.pop()
                if closed.at_key is not None:
                    problem = self._current.problems[closed.at_key]
                    hint = at_key_hint(closed.container)
                    self._current.problems[closed.at_key] = msgspec.structs.replace(problem, hint=hint)
                if closed.is_key:
                    self._open[-1].entry = (None, *_place(event))
            case "AliasEvent":
                self._alias(event)
            case "DocumentStartEvent":
                self._start_document(event)
            case "DocumentEndEvent":
                self._end_document(event)

    def rest(self) -> str:
        """Return the text after the last complete document."""
        return "\n".join(self._source.lines[self._read_lines :])

    # documents ----------------------------------------------------------------------------------------

    def _start_document(self, event: Any) -> None:
        line, column = _place(event)
        self._guard.document(line, column)
        self._current = RawDocument()
        if event.version is not None and tuple(event.version) != (1, 2):
            version = ".".join(str(part) for part in event.version)
            while line > 1 and not self._source.lines[line - 1].startswith("%YAML"):
                line -= 1  # the two parsers give different starts of a document
            message = f"the document declares YAML {version}, but manifests are YAML 1.2"
            self._problem("yaml/version", message, line, 1, hint="remove the %YAML line")

    def _end_document(self, event: Any) -> None:
        end = min(event.start_mark.line, len(self._source.lines))
        document = self._current
        self._read_lines = end
        if "" in document.marks:
            start = document.marks[""].line
            lines = self._source.lines[start - 1 : max(start, end + 1)]
            while len(lines) > 1 and (not lines[-1].strip() or lines[-1].startswith(("---", "...", "#"))):
                lines.pop()
            document.first_line, document.lines = start, lines
        if document.content is not None or document.problems:
            self.documents.append(document)

    # values -------------------------------------------------------------------------------------------

    def _start_collection(self, event: Any, container: Any) -> None:
        line, column = _place(event)
        self._guard.enter(line, column)
        self._check_node(event, line, column)
        if not (self._open and self._open[-1].wants_key):
            self._open.append(_Open(container, self._attach(container, line, column), is_key=False))
            return
        what, hint = "a list", None
        if isinstance(container, dict):
            what, hint = "a mapping", "write a template such as {{ name }} in quotes"
        if self._open[-1].pointer is not None:
            self._problem("yaml/key-type", f"a key must be a string, not {what}", line, column, hint=hint)
        self._open.append(_Open(container, None, is_key=True))

    def _scalar(self, event: Any) -> None:
        line, column = _place(event)
        self._check_node(event, line, column)
        plain = not event.style
        text = event.value
        if not plain and NO_CHARACTER.search(text):
            message = (
                "an escape in this string gives NUL or half of a surrogate pair, which is not a character"
            )
            self._problem("yaml/control-character", message, line, column)
            text = NO_CHARACTER.sub("\ufffd", text)
        if self._open and self._open[-1].wants_key:
            self._key(text, plain, line, column)
            return
        if plain and text == "":
            line, column = self._place_of_nothing(line, column)
        if plain:
            self._check_unseen(text, "value", line, column)
        value = self._value(text, line, column) if plain else text
        pointer = self._attach(value, line, column)
        if plain and pointer is not None and not isinstance(value, str):
            self._current.raws[pointer] = text

    def _place_of_nothing(self, line: int, column: int) -> tuple[int, int]:
        """Return the place of a value that is not written: that of its key, or of its list.

        The parsers disagree: one places it before, the other after the comments and line breaks that follow.
        """
        if not self._open:
            return line, column
        top = self._open[-1]
        if top.entry is not None:
            return top.entry[1], top.entry[2]
        mark = self._current.marks.get(top.pointer or "")
        return (mark.line, mark.column) if mark is not None else (line, column)

    def _value(self, text: str, line: int, column: int) -> Scalar:
        try:
            return resolve_plain(text)
        except OutOfRangeError as error:
            hint = f'write it in quotes if it is a name: "{text[:40]}"'
            self._problem("yaml/number-range", f"the number {shown(text)} {error}", line, column, hint=hint)
            return text

    def _key(self, text: str, plain: bool, line: int, column: int) -> None:
        top = self._open[-1]
        if plain and text == "<<":
            hint = "write the keys out; manifests do not support anchors and merge keys"
            message = "the merge key '<<' is not allowed"
            self._problem("yaml/merge-key", message, line, column, hint=hint)
            top.entry = (None, line, column)
            return
        if text in top.key_places:
            first = (*top.key_places[text], "first given here")
            message = f"the key {shown(text)} appears twice in this mapping"
            self._problem("yaml/duplicate-key", message, line, column, related=(first,))
            top.entry = (None, line, column)
            return
        if plain and not isinstance(self._value(text, line, column), str):
            what = text or "nothing"
            message = f"a key must be a string, not {what}"
            hint = f'write it in quotes: "{text}"'
            if text:
                hint += f"; in arguments, {{$map: [[{text}, value]]}} is a mapping whose keys are not strings"
            self._problem("yaml/key-type", message, line, column, hint=hint)
        if plain:
            self._check_unseen(text, "key", line, column)
        # A serialised JobStore is made of such keys; validation checks what they name.
        if (
            text.startswith("@")
            and top.at_key is None
            and not (top.pointer or "").startswith("/spec/jobstore")
        ):
            top.at_key = len(self._current.problems)
            self._current.problems.append(at_key_diagnostic(self._source, text, line, column))
        top.key_places[text] = (line, column)
        top.entry = (text, line, column)

    def _check_unseen(self, text: str, what: str, line: int, column: int) -> None:
        """Report a character in a key or an unquoted value that looks like a space or like nothing."""
        found = UNSEEN.search(text)
        if found is None:
            return
        message = f"this {what} contains {name_of(found[0])}, which cannot be seen or looks like a space"
        hint = "replace it by a space, or remove it; if it belongs to the text, write the text in quotes"
        self._problem("yaml/invisible-character", message, line, column + found.start(), hint=hint)

    def _alias(self, event: Any) -> None:
        line, column = _place(event)
        self._guard.node(line, column)
        message = f"the alias *{shown(event.anchor, quote='')} is not allowed"
        hint = "write the value out, or set it for many jobs with a rule or the project's defaults"
        entry = self._open[-1].entry if self._open else None
        if entry is not None and entry[0] is not None:
            hint = f'write text that begins with * in quotes: {entry[0]}: "*{event.anchor}"'
        elif self._open:
            hint = f'write text that begins with * in quotes: "*{event.anchor}"'
        self._problem("yaml/alias", message, line, column, hint=hint)
        if self._open and self._open[-1].wants_key:
            self._open[-1].entry = (None, line, column)
        else:
            self._attach(None, line, column)

    def _check_node(self, event: Any, line: int, column: int) -> None:
        self._guard.node(line, column)
        if event.anchor is not None:
            message = f"the anchor &{shown(event.anchor, quote='')} is not allowed"
            hint = "remove it and write the values out; manifests do not support aliases"
            self._problem("yaml/anchor", message, line, column, hint=hint)
        if event.tag is not None:
            message = f"the tag {shown(str(event.tag), quote='')} is not allowed: values are plain data"
            hint = "remove it; to create an object when the flow is built, use $call or $maker"
            self._problem("yaml/tag", message, line, column, hint=hint)

    def _attach(self, value: Any, line: int, column: int) -> str | None:
        """Put a value where it belongs; return its pointer, or None if it is not kept."""
        if not self._open:
            self._current.content = value
            self._current.marks[""] = Mark(line, column, line, column)
            return ""
        top = self._open[-1]
        if top.entry is None:
            name, key_line, key_column = str(len(top.container)), line, column
            top.container.append(value)
        else:
            entry_name, key_line, key_column = top.entry
            top.entry = None
            if entry_name is None:
                return None
            name = entry_name
            top.container[name] = value
        if top.pointer is None:
            return None
        pointer = f"{top.pointer}/{escape(name)}"
        self._current.marks[pointer] = Mark(key_line, key_column, line, column)
        return pointer

    def _problem(self, code: str, message: str, line: int, column: int, **rest: Any) -> None:
        self._current.problems.append(self._source.diagnostic(code, message, line, column, **rest))


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1
