"""The single changes of a YAML text: a value replaced, an entry added or taken out. Nothing else moves.

Each returns the new text; the caller reads it again and compares the data.
"""

from __future__ import annotations

import re
from typing import Any

from reconciler.desired.yaml.nodes import (
    MappingEntry,
    Node,
    block_header,
    line_break,
    line_end,
    line_start,
    next_line,
    skip_blank,
)
from reconciler.desired.yaml.writer import entry_lines, flow_text

_COMMENT_LINE = re.compile(r"( *)#")


def replaced(text: str, entry: MappingEntry, value: Any) -> str:
    """Return the text with another value in an entry; the comment behind the old one stays."""
    old, new = entry.value, flow_text(value)
    if old.start == old.end:
        return _spliced(text, old.start, old.end, f" {new}")
    if old.style == "block":
        rest = _without_lines(text, line_start(text, old.start), old.end)
        return _spliced(rest, entry.colon, entry.colon, f" {new}")
    if old.style == "block-scalar":
        header = len(block_header(text, old.start))
        rest = _without_lines(text, next_line(text, old.start), old.end)
        return _spliced(rest, old.start, old.start + header, new)
    return _spliced(text, old.start, old.end, new)


def added(text: str, mapping: Node, key: str, value: Any) -> str:
    """Return the text with a new last entry in a mapping."""
    if mapping.style == "flow":
        return _added_to_flow(text, mapping, key, value)
    last = (mapping.entries or [])[-1].value
    lines = entry_lines(key, value, mapping.column)
    if last.end == line_start(text, last.end):  # behind a block scalar that keeps its blank lines
        return _spliced(text, last.end, last.end, "".join(line + line_break(text) for line in lines))
    end = _end_of_comments(text, line_end(text, last.end), mapping.column)
    return _spliced(text, end, end, "".join(line_break(text) + line for line in lines))


def removed(text: str, mapping: Node, entry: MappingEntry) -> str | None:
    """Return the text without an entry that is not the only one; None if its line is not its own."""
    if mapping.style == "flow":
        return _removed_from_flow(text, mapping, entry)
    start = line_start(text, entry.start)
    if text[start : entry.start].strip(" "):
        return None
    return _without_lines(text, start, entry.value.end)


def _spliced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _without_lines(text: str, start: int, end: int) -> str:
    """Take out the lines from ``start`` (the begin of one) to that which ``end`` is in or behind."""
    if end <= start:
        return text
    after = end if end == line_start(text, end) else next_line(text, end)
    if after == len(text) and line_end(text, end) == after and end != line_start(text, end):
        start = len(text[:start].rstrip("\r\n"))  # the file ended without a line break, and still does
    return text[:start] + text[after:]


def _end_of_comments(text: str, end: int, column: int) -> int:
    """Go on over comment lines that are further in than the keys: they continue the last comment."""
    while (start := next_line(text, end)) < len(text):
        comment = _COMMENT_LINE.match(text, start)
        if comment is None or len(comment[1]) <= column:
            return end
        end = line_end(text, start)
    return end


# flow style -------------------------------------------------------------------------------------------


def _added_to_flow(text: str, mapping: Node, key: str, value: Any) -> str:
    new = f"{flow_text(key)}: {flow_text(value)}"
    if not mapping.entries:
        return _spliced(text, mapping.start + 1, mapping.start + 1, new)
    last = mapping.entries[-1]
    start = line_start(text, last.start)
    indent = text[start : last.start]
    if indent.strip(" \t"):
        return _spliced(text, last.value.end, last.value.end, f", {new}")
    return _added_on_its_own_line(text, last.value.end, indent, new)


def _added_on_its_own_line(text: str, end: int, indent: str, new: str) -> str:
    """One entry a line, perhaps with a comma and a comment behind the last one."""
    at = skip_blank(text, end)
    comma = text[at] == ","
    behind = at + 1 if comma else end
    rest = text[behind : line_end(text, behind)].strip()
    if rest and not rest.startswith("#"):
        return _spliced(text, end, end, f", {new}")  # the closing bracket stands on the same line
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
