"""Text of users inside of Markdown, so that it is shown and never read: GitHub's and GitLab's dialect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_LONGEST = 300
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Breaks of lines and of what people see: no reader should be shown another order of characters."""


def _one_line(text: str) -> str:
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def code(text: str) -> str:
    """Return a code span that shows the text as it is, on one line."""
    text = _one_line(text)
    if not text:
        return ""
    runs = {len(run) for run in re.findall("`+", text)}
    fence = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def cell(text: str) -> str:
    """Return a code span for a cell of a table: there a bar would end the cell, even inside of a span."""
    return code(text).replace("|", "\\|")


_SPECIAL = re.compile(r"[\\`*_{}\[\]()#!|~$]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LINK = re.compile(r"([@#!%&~])(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)")
"""What would call a person, or become a link to an issue or a page: broken by a joiner of no width."""


def plain(text: str) -> str:
    """Return text that is shown as it is."""
    text = _LINK.sub(lambda found: f"{found[0]}\u2060", _one_line(text))
    text = "".join(_HTML.get(character, character) for character in text)
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the cells must have been made by :func:`cell`, or hold no bar."""
    return [_line(header), _line(["---"] * len(header)), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def details(summary: str, lines: Iterable[str]) -> list[str]:
    """Return lines that are folded until the reader clicks on ``summary``."""
    return [f"<details><summary>{summary}</summary>", "", *lines, "", "</details>"]
