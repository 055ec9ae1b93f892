"""What the YAML parser says, in the user's words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from reconciler.desired.yaml.places import SourceText
from reconciler.diagnostics import Diagnostic


class _Wording(NamedTuple):
    """How one error of the parser is told. ``begin`` labels the place where it began, if that helps."""

    pattern: str
    message: str
    hint: str | None = None
    begin: str | None = None
    at_begin: bool = False


_WORDINGS = (
    _Wording(
        r"mapping values are not allowed",
        "a ': ' does not fit here: this line already is a value, or its indentation is wrong",
        "write a text that has ': ' in it in quotes; check the indentation of this line and the one above",
    ),
    _Wording(
        r"expected ',' or '\]'",
        "this list is not closed: a ',' or ']' is missing before this place",
        begin="the list begins here",
    ),
    _Wording(
        r"expected ',' or '\}'",
        "this mapping is not closed: a ',' or '}' is missing before this place",
        begin="the mapping begins here",
    ),
    _Wording(
        r"found unexpected (end of stream|document separator)",
        "the quoted text that begins here is not closed",
        at_begin=True,
    ),
    _Wording(
        r"expected <block end>",
        "this line does not fit into the block above it",
        "entries of one list or mapping begin in the same column",
        begin="the block begins here",
    ),
    _Wording(
        r"could not find expected ':'",
        "this line is no 'key: value'",
        "a ': ' is missing here, or the line belongs to the text above and is not indented",
        at_begin=True,
    ),
    _Wording(
        r"found character .* cannot start any token",
        "a value cannot begin with this character",
        "write the value in quotes",
    ),
    _Wording(
        r"(block sequence|sequence) entries are not allowed",
        "a list entry '- ' cannot stand here",
        "begin the list on a line of its own, below its key",
    ),
    _Wording(
        r"unknown escape|did not find expected hex|expected escape sequence|invalid Unicode|chr\(\) arg",
        "the text in double quotes has a backslash that begins no known escape",
        "write the text in single quotes, or write the backslash twice",
    ),
    _Wording(
        r"expected the node content",
        "a value is missing here, or a list or mapping above is not closed",
    ),
    _Wording(
        r"undefined tag handle|did not find expected tag|expected URI|expected ' ', but found|expected '>'",
        "a value cannot begin with '!' unless it is in quotes: tags are not allowed",
        "write the value in quotes",
        at_begin=True,
    ),
    _Wording(
        r"expected alphabetic or numeric",
        "a value cannot begin with '&' or '*' unless it is in quotes: anchors and aliases are not allowed",
        "write the value in quotes",
        at_begin=True,
    ),
    _Wording(
        r"expected chomping or indentation",
        "behind '|' or '>' the line must end: the text begins on the next one",
        "write the value in quotes if '|' or '>' belongs to it",
    ),
    _Wording(
        r"expected '<document start>'", "the document ends before this place and no new one begins here"
    ),
)
_AT_KEY = re.compile(r"(@\w*)\s*:(\s|$)")
_OTHER = "this is not readable as YAML"


def syntax_diagnostic(source: SourceText, error: Exception) -> Diagnostic:
    """Return the diagnostic of what stopped the parser."""
    mark = getattr(error, "problem_mark", None)
    begin = getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or error)
    line, column = _place(source, mark or begin)
    tab = _tab_indentation(source, line)
    if tab is not None:
        return tab
    at_key = _AT_KEY.match(source.line(line) or "", column - 1)
    if at_key is not None:
        return at_key_diagnostic(source, at_key.group(1), line, column)
    wording = next((known for known in _WORDINGS if re.search(known.pattern, problem)), None)
    if wording is None:
        first_line = problem.split("\n", 1)[0][:120]
        return source.diagnostic("yaml/syntax", f"{_OTHER}: {first_line}", line, column)
    if wording.at_begin and begin is not None:
        line, column = _place(source, begin)
    related = ((*_place(source, begin), wording.begin),) if wording.begin and begin is not None else ()
    return source.diagnostic("yaml/syntax", wording.message, line, column, hint=wording.hint, related=related)


def at_key_diagnostic(source: SourceText, key: str, line: int, column: int) -> Diagnostic:
    """Return the diagnostic of a key that begins with ``@``, whether it was quoted or not."""
    return source.diagnostic(
        "yaml/at-key",
        f"the key {shown(key)} begins with '@': monty would import and call whatever it names",
        line,
        column,
        hint="use $call or $maker for an object that is made when the flow is built, maker for a whole flow",
    )


def shown(text: str, *, quote: str = "'") -> str:
    """Return a text of the user for a message, cut when it is long."""
    return f"{quote}{text if len(text) <= 60 else text[:57] + '...'}{quote}"


def _place(source: SourceText, mark: Any) -> tuple[int, int]:
    """Return the place of a mark; one at the end of the text becomes the end of its last line with text."""
    if mark is None:
        return 1, 1
    line, column = mark.line + 1, mark.column + 1
    if line < len(source.lines) or (source.line(line) or "").strip():
        return min(line, len(source.lines)), column
    filled = [number for number, text in enumerate(source.lines, 1) if text.strip()]
    last = filled[-1] if filled else 1
    return last, len(source.lines[last - 1].rstrip()) + 1


_INDENTATION: Callable[[str], re.Match[str] | None] = re.compile(r" *\t").match


def _tab_indentation(source: SourceText, line: int) -> Diagnostic | None:
    found = _INDENTATION(source.line(line) or "")
    if found is None:
        return None
    return source.diagnostic(
        "yaml/tab",
        "a tab cannot indent a line of YAML",
        line,
        found.end(),
        hint="use blanks: two for each level",
    )
