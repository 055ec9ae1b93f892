"""Single changes of a YAML text: a value replaced, an entry added or removed. Nothing else moves.

The first half finds where every value of a document begins and ends in its text, to the character; the second
half exchanges the text between two such places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from ruamel.yaml import YAML

from reconciler.desired.yaml.writer import entry_lines, flow_text

LINE_BREAK = re.compile(r"\r\n|\n|\r")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\r\n]*)*")
_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*")


class Node(msgspec.Struct):
    """One value: ``text[start:end]`` without the comments and line breaks that follow it.

    ``style`` is ``plain`` (a scalar, quoted or not), ``block-scalar``, ``flow`` or ``block`` (collections).
    A value that is not written has ``start == end``, after the colon of its key. ``column`` counts from 0.
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
    """One entry of a mapping. ``colon`` is just after its colon; ``key`` is None if it is not a scalar."""

    key: str | None
    start: int
    colon: int
    value: Node


def root_at(text: str, line: int, column: int) -> Node | None:
    """Return the document whose value begins at that place (both from 1), or None."""
    # The parser in Python: the one in C gives other places for values that are not written.
    events: Iterator[Any] = iter(YAML(typ="safe", pure=True).parse(text))
    for event in events:
        if type(event).__name__ == "DocumentStartEvent":
            root = next(events)
            mark = root.start_mark
            found = _NodeReader(text, events).node(root, mark.index)
            if (mark.line + 1, mark.column + 1) == (line, column):
                return found
    return None


class _NodeReader:
    """Makes nodes of the events of a parser. Anchors, aliases and tags have been refused before."""

    def __init__(self, text: str, events: Iterator[Any]) -> None:
        self.text = text
        self.events = events

    def node(self, event: Any, behind: int) -> Node:
        """Return the value that begins with ``event``; ``behind`` is its place if it is not written."""
        kind = type(event).__name__
        start, column = event.start_mark.index, event.start_mark.column
        if kind == "MappingStartEvent":
            return self._mapping(event, start, column)
        if kind == "SequenceStartEvent":
            return self._sequence(event, start, column)
        end = event.end_mark.index
        if start == end:
            return Node("plain", behind, behind, column)
        if getattr(event, "style", None) not in ("|", ">"):
            return Node("plain", start, end, column)
        if "+" not in _block_header(self.text, start):
            # The blank lines after a block scalar belong to it only where its header keeps them (``|+``).
            end = start + len(self.text[start:end].rstrip(" \t\r\n"))
        return Node("block-scalar", start, end, column)

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
        """Return the offset just after the next ``sign``; ``offset`` itself if something else comes next."""
        at = skip_blank(self.text, offset)
        return at + 1 if self.text[at : at + 1] == sign else offset


def _block_header(text: str, start: int) -> str:
    """Return the header of the block scalar that begins there: ``|``, ``>-``, ``|2+``."""
    found = _BLOCK_HEADER.match(text, start)
    return found[0] if found is not None else ""


def skip_blank(text: str, offset: int) -> int:
    """Return the first offset from ``offset`` on that is not a space, a line break or a comment."""
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
    """Return where the next line begins; the end of the text if there is none."""
    found = LINE_BREAK.search(text, offset)
    return found.end() if found is not None else len(text)


def line_break(text: str) -> str:
    """Return the first line break of a text; a newline if it has none."""
    found = LINE_BREAK.search(text)
    return found[0] if found is not None else "\n"


# The single changes of a text. Each returns the new text; the caller reads it again and compares the data.

_COMMENT_LINE = re.compile(r"( *)#")


def replaced(text: str, entry: MappingEntry, value: Any) -> str:
    """Return the text with another value in an entry; the comment after the old value stays."""
    old, new = entry.value, flow_text(value)
    if old.start == old.end:
        return _spliced(text, old.start, old.end, f" {new}")
    if old.style == "block":
        rest = _without_lines(text, line_start(text, old.start), old.end)
        return _spliced(rest, entry.colon, entry.colon, f" {new}")
    if old.style == "block-scalar":
        header = len(_block_header(text, old.start))
        rest = _without_lines(text, next_line(text, old.start), old.end)
        return _spliced(rest, old.start, old.start + header, new)
    return _spliced(text, old.start, old.end, new)


def added(text: str, mapping: Node, key: str, value: Any) -> str:
    """Return the text with a new last entry in a mapping."""
    if mapping.style == "flow":
        return _added_to_flow(text, mapping, f"{flow_text(key)}: {flow_text(value)}")
    last = (mapping.entries or [])[-1].value
    lines = entry_lines(key, value, mapping.column)
    if last.end == line_start(text, last.end):  # after a block scalar that keeps its blank lines
        return _spliced(text, last.end, last.end, "".join(line + line_break(text) for line in lines))
    end = line_end(text, last.end)
    # Comment lines that are indented deeper than the keys continue the last comment: skip them.
    while (start := next_line(text, end)) < len(text):
        comment = _COMMENT_LINE.match(text, start)
        if comment is None or len(comment[1]) <= mapping.column:
            break
        end = line_end(text, start)
    return _spliced(text, end, end, "".join(line_break(text) + line for line in lines))


def removed(text: str, mapping: Node, entry: MappingEntry) -> str | None:
    """Return the text without an entry that is not the only one; None if it shares its line with others."""
    if mapping.style == "flow":
        return _removed_from_flow(text, mapping, entry)
    start = line_start(text, entry.start)
    if text[start : entry.start].strip(" "):
        return None
    return _without_lines(text, start, entry.value.end)


def _spliced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _without_lines(text: str, start: int, end: int) -> str:
    """Remove the lines from ``start`` (the start of a line) to the line that ``end`` is in or follows."""
    if end <= start:
        return text
    after = end if end == line_start(text, end) else next_line(text, end)
    if after == len(text) and line_end(text, end) == after and end != line_start(text, end):
        start = len(text[:start].rstrip("\r\n"))  # the file ended without a line break, and still does
    return text[:start] + text[after:]


def _added_to_flow(text: str, mapping: Node, new: str) -> str:
    """Add ``new`` to ``{a: 1}``: after the last entry, on a line of its own if that entry has one."""
    if not mapping.entries:
        return _spliced(text, mapping.start + 1, mapping.start + 1, new)
    last = mapping.entries[-1]
    end = last.value.end
    indent = text[line_start(text, last.start) : last.start]
    at = skip_blank(text, end)
    comma = text[at] == ","
    behind = at + 1 if comma else end
    rest = text[behind : line_end(text, behind)].strip()
    closes_here = rest and not rest.startswith("#")  # the closing bracket is on the same line
    if indent.strip(" \t") or closes_here:
        return _spliced(text, end, end, f", {new}")
    stop = line_end(text, behind)
    text = _spliced(text, stop, stop, f"{line_break(text)}{indent}{new}{',' if comma else ''}")
    return text if comma else _spliced(text, end, end, ",")


def _removed_from_flow(text: str, mapping: Node, entry: MappingEntry) -> str:
    entries = mapping.entries or []
    number = entries.index(entry)
    at = skip_blank(text, entry.value.end)
    end = at + 1 if text[at] == "," else entry.value.end
    if number + 1 < len(entries):
        between = text[end : entries[number + 1].start]
        return _spliced(text, entry.start, end + len(between) if not between.strip() else end, "")
    before = entries[number - 1].value.end
    gap = text[before : entry.start]
    start = before if "#" not in gap else entry.start
    return _spliced(text, start, entry.value.end if start == before else end, "")
