"""Where every value of a YAML document begins and ends in its text, to the character."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from ruamel.yaml import YAML

LINE_BREAK = re.compile(r"\r\n|\n|\r")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\r\n]*)*")
_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*")


class Node(msgspec.Struct):
    """One value: ``text[start:end]`` without the comments and line breaks that follow it.

    ``style`` is ``plain`` (a scalar, quoted or not), ``block-scalar``, ``flow`` or ``block`` (collections).
    A value that is not written has ``start == end``, behind the colon of its key. ``column`` counts from 0.
    """

    style: str
    start: int
    end: int
    column: int
    entries: list[MappingEntry] | None = None

    def entry(self, key: str) -> MappingEntry | None:
        """Return the entry of a mapping with that key."""
        return next((entry for entry in self.entries or () if entry.key == key), None)


class MappingEntry(msgspec.Struct):
    """One entry of a mapping. ``colon`` is behind its colon; ``key`` is None for a key that is no scalar."""

    key: str | None
    start: int
    colon: int
    value: Node


def root_at(text: str, line: int, column: int) -> Node | None:
    """Return the document whose value begins at that place (both from 1), or None."""
    events = _events(text)
    for event in events:
        if type(event).__name__ == "DocumentStartEvent":
            root = next(events)
            mark = root.start_mark
            found = _Reader(text, events).node(root, mark.index)
            if (mark.line + 1, mark.column + 1) == (line, column):
                return found
    return None


def _events(text: str) -> Iterator[Any]:
    # The parser in Python: the one in C gives other places for values that are not written.
    return iter(YAML(typ="safe", pure=True).parse(text))


class _Reader:
    """Makes nodes of the events of a parser. Without anchors, aliases and tags: those were refused before."""

    def __init__(self, text: str, events: Iterator[Any]) -> None:
        self.text = text
        self.events = events

    def node(self, event: Any, behind: int) -> Node:
        """Return the value that begins with ``event``; ``behind`` is where it stands if it is not written."""
        kind = type(event).__name__
        start, column = event.start_mark.index, event.start_mark.column
        if kind == "MappingStartEvent":
            return self._mapping(event, start, column)
        if kind == "SequenceStartEvent":
            return self._sequence(event, start, column)
        end = event.end_mark.index
        if start == end:
            return Node("plain", behind, behind, column)
        if getattr(event, "style", None) in ("|", ">"):
            return Node("block-scalar", start, self._block_scalar_end(start, end), column)
        return Node("plain", start, end, column)

    def _mapping(self, event: Any, start: int, column: int) -> Node:
        entries: list[MappingEntry] = []
        while type(first := next(self.events)).__name__ != "MappingEndEvent":
            key = self.node(first, first.start_mark.index)
            colon = self._behind(":", key.end)
            name = first.value if type(first).__name__ == "ScalarEvent" else None
            entries.append(MappingEntry(name, key.start, colon, self.node(next(self.events), colon)))
        end = first.end_mark.index
        if not event.flow_style and entries:
            end = entries[-1].value.end
        return Node("flow" if event.flow_style else "block", start, end, column, entries)

    def _sequence(self, event: Any, start: int, column: int) -> Node:
        end = start
        while type(first := next(self.events)).__name__ != "SequenceEndEvent":
            end = self.node(first, self._behind("-", end)).end
        if event.flow_style:
            end = first.end_mark.index
        return Node("flow" if event.flow_style else "block", start, end, column)

    def _behind(self, sign: str, offset: int) -> int:
        """Return where it goes on behind the next ``sign``; ``offset`` itself if that is not next."""
        at = skip_blank(self.text, offset)
        return at + 1 if self.text[at : at + 1] == sign else offset

    def _block_scalar_end(self, start: int, end: int) -> int:
        """The blank lines behind a block scalar are part of it only where its header keeps them (``|+``)."""
        if "+" in block_header(self.text, start):
            return end
        return start + len(self.text[start:end].rstrip(" \t\r\n"))


def block_header(text: str, start: int) -> str:
    """Return the header of the block scalar that begins there: ``|``, ``>-``, ``|2+``."""
    found = _BLOCK_HEADER.match(text, start)
    return found[0] if found is not None else ""


def skip_blank(text: str, offset: int) -> int:
    """Return the first character from ``offset`` on that is no blank, line break or comment."""
    found = _BLANK.match(text, offset)
    return found.end() if found is not None else offset


def line_start(text: str, offset: int) -> int:
    """Return where the line of a character begins."""
    return max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1


def line_end(text: str, offset: int) -> int:
    """Return where the line of a character ends, before its line break."""
    found = LINE_BREAK.search(text, offset)
    return found.start() if found is not None else len(text)


def next_line(text: str, offset: int) -> int:
    """Return where the line after that of a character begins; the end of the text if there is none."""
    found = LINE_BREAK.search(text, offset)
    return found.end() if found is not None else len(text)


def line_break(text: str) -> str:
    """Return the line break that a text uses first; a newline if it has none."""
    found = LINE_BREAK.search(text)
    return found[0] if found is not None else "\n"
