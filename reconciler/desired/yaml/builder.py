"""Events of a YAML parser to plain values with the place of each.

No constructor of a library runs, so no tag, alias or merge key can do anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler.desired.yaml.limits import NO_CHARACTER, Guard
from reconciler.desired.yaml.places import SourceText, escape
from reconciler.desired.yaml.scalars import OutOfRangeError, Scalar, resolve_plain
from reconciler.desired.yaml.syntax_errors import at_key_diagnostic, shown
from reconciler.diagnostics import Diagnostic
from reconciler.model.manifests import Mark


class RawDocument:
    """One YAML document as plain values, not yet checked against a schema.

    ``marks`` has the place of every value by JSON pointer, ``raws`` the text of those plain scalars that
    are no strings (``1.10``), ``problems`` what is wrong although the document could be read.
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

    ``pointer`` is None for what is read but not kept; ``entry`` is the key (its name, or None if the
    value is not kept, line, column) that waits for its value; ``is_key`` marks a collection used as a key.
    """

    __slots__ = ("container", "entry", "is_key", "key_places", "pointer")

    def __init__(self, container: Any, pointer: str | None, is_key: bool) -> None:
        self.container = container
        self.pointer = pointer
        self.is_key = is_key
        self.entry: tuple[str | None, int, int] | None = None
        self.key_places: dict[str, tuple[int, int]] = {}

    @property
    def wants_key(self) -> bool:
        return self.entry is None and isinstance(self.container, dict)


class DocumentBuilder:
    """Takes the events of a file one by one and makes its documents."""

    def __init__(self, source: SourceText) -> None:
        self._source = source
        self._guard = Guard(source)
        self._open: list[_Open] = []
        self._current = RawDocument()
        self._read_lines = 0
        self.documents: list[RawDocument] = []

    def feed(self, event: Any) -> None:
        """Take the next event. Raises RefusedTextError when a bound is passed."""
        handler = _HANDLERS.get(type(event).__name__)
        if handler is not None:
            handler(self, event)

    def rest(self) -> str:
        """Return the text behind the last complete document."""
        return "\n".join(self._source.lines[self._read_lines :])

    def _start_document(self, event: Any) -> None:
        line, column = _place(event)
        self._guard.document(line, column)
        self._current = RawDocument()
        if event.version is not None and tuple(event.version) != (1, 2):
            version = ".".join(str(part) for part in event.version)
            message = f"the document says that it is YAML {version}; manifests are YAML 1.2"
            line = self._directive_line(line)
            self._problem("yaml/version", message, line, 1, hint="remove the %YAML line")

    def _directive_line(self, line: int) -> int:
        """Return the %YAML line before a document; the two parsers give different starts."""
        while line > 1 and not self._source.lines[line - 1].startswith("%YAML"):
            line -= 1
        return line

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

    def _start_mapping(self, event: Any) -> None:
        self._start_collection(event, {})

    def _start_sequence(self, event: Any) -> None:
        self._start_collection(event, [])

    def _start_collection(self, event: Any, container: Any) -> None:
        line, column = _place(event)
        self._guard.enter(line, column)
        self._check_node(event, line, column)
        if self._open and self._open[-1].wants_key:
            self._collection_as_key(container, line, column)
        else:
            self._open.append(_Open(container, self._attach(container, line, column), is_key=False))

    def _collection_as_key(self, container: Any, line: int, column: int) -> None:
        what, hint = "a list", None
        if isinstance(container, dict):
            what, hint = "a mapping", "a template such as {{ name }} must be written in quotes"
        if self._open[-1].pointer is not None:
            self._problem("yaml/key-type", f"a key must be a string, not {what}", line, column, hint=hint)
        self._open.append(_Open(container, None, is_key=True))

    def _end_collection(self, event: Any) -> None:
        self._guard.leave()
        if self._open.pop().is_key:
            self._open[-1].entry = (None, *_place(event))

    def _scalar(self, event: Any) -> None:
        line, column = _place(event)
        self._check_node(event, line, column)
        plain = not event.style
        text = event.value if plain else self._without_bad_escapes(event.value, line, column)
        if self._open and self._open[-1].wants_key:
            self._key(text, plain, line, column)
            return
        if plain and text == "":
            line, column = self._place_of_nothing(line, column)
        value = self._value(text, line, column) if plain else text
        pointer = self._attach(value, line, column)
        if plain and pointer is not None and not isinstance(value, str):
            self._current.raws[pointer] = text

    def _place_of_nothing(self, line: int, column: int) -> tuple[int, int]:
        """Return the place of a value that is not written: its key's, or its list's.

        The parsers place it differently, before and behind the comments and line breaks that follow.
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

    def _without_bad_escapes(self, text: str, line: int, column: int) -> str:
        """Refuse what only an escape can bring in and what no program or store can take."""
        if NO_CHARACTER.search(text) is None:
            return text
        message = "an escape in this text gives NUL or half of a surrogate pair, which is no character"
        self._problem("yaml/control-character", message, line, column)
        return NO_CHARACTER.sub("\ufffd", text)

    def _key(self, text: str, plain: bool, line: int, column: int) -> None:
        top = self._open[-1]
        name: str | None = text
        if plain and text == "<<":
            hint = "write the keys out; manifests have neither anchors nor merge keys"
            self._problem("yaml/merge-key", "'<<' would merge another mapping in", line, column, hint=hint)
            name = None
        elif text in top.key_places:
            self._duplicate(text, top.key_places[text], line, column)
            name = None
        else:
            self._check_key(text, plain, line, column)
            top.key_places[text] = (line, column)
        top.entry = (name, line, column)

    def _check_key(self, text: str, plain: bool, line: int, column: int) -> None:
        if plain and not isinstance(self._value(text, line, column), str):
            what = "nothing" if text == "" else text
            hint = f'write it in quotes: "{text}"'
            self._problem("yaml/key-type", f"a key must be a string, not {what}", line, column, hint=hint)
        if text.startswith("@"):
            self._current.problems.append(at_key_diagnostic(self._source, text, line, column))

    def _duplicate(self, text: str, first: tuple[int, int], line: int, column: int) -> None:
        message = f"the key {shown(text)} is given twice in this mapping"
        related = ((*first, "given here before"),)
        self._problem("yaml/duplicate-key", message, line, column, related=related)

    def _alias(self, event: Any) -> None:
        line, column = _place(event)
        self._guard.node(line, column)
        message = f"the alias *{shown(event.anchor, quote='')} repeats another value: aliases are not allowed"
        hint = "write the value out, or let a rule or the project's defaults give it to many jobs"
        if event.anchor[:1].isdigit():
            hint = f"if it is a factor, put it in quotes: '*{event.anchor}'"
        self._problem("yaml/alias", message, line, column, hint=hint)
        if self._open and self._open[-1].wants_key:
            self._open[-1].entry = (None, line, column)
        else:
            self._attach(None, line, column)

    def _check_node(self, event: Any, line: int, column: int) -> None:
        self._guard.node(line, column)
        if event.anchor is not None:
            message = f"the anchor &{shown(event.anchor, quote='')} is not allowed: manifests have no aliases"
            self._problem("yaml/anchor", message, line, column, hint="remove it and write values out")
        if event.tag is not None:
            hint = "remove it; to make an object when the flow is built, use $call or $maker"
            message = f"the tag {shown(str(event.tag), quote='')} is not allowed: values are plain data"
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


_HANDLERS: dict[str, Callable[[DocumentBuilder, Any], None]] = {
    "DocumentStartEvent": DocumentBuilder._start_document,
    "DocumentEndEvent": DocumentBuilder._end_document,
    "MappingStartEvent": DocumentBuilder._start_mapping,
    "MappingEndEvent": DocumentBuilder._end_collection,
    "SequenceStartEvent": DocumentBuilder._start_sequence,
    "SequenceEndEvent": DocumentBuilder._end_collection,
    "ScalarEvent": DocumentBuilder._scalar,
    "AliasEvent": DocumentBuilder._alias,
}
"""By the name of the event's class: it is all that this module must know of the parser."""


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1
