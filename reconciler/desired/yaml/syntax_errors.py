"""The errors of the YAML parser, reworded for users."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from reconciler.desired.yaml.source_text import SourceText, visible
from reconciler.diagnostics import Diagnostic


class _Wording(NamedTuple):
    """How one error of the parser is reported.

    ``begin`` labels the place where the faulty construct begins, if that helps; with ``at_begin`` the error
    is reported there.
    """

    pattern: str
    message: str
    hint: str | None = None
    begin: str | None = None
    at_begin: bool = False


_WORDINGS = (
    _Wording(
        r"mapping values are not allowed",
        "a ': ' is not allowed here: this line is already a value, or its indentation is wrong",
        "write text that contains ': ' in quotes; check the indentation of this line and the one above",
    ),
    _Wording(
        r"expected ',' or '\]'",
        "this list is not closed: a ',' or ']' is missing before this point",
        begin="the list begins here",
    ),
    _Wording(
        r"expected ',' or '\}'",
        "this mapping is not closed: a ',' or '}' is missing before this point",
        begin="the mapping begins here",
    ),
    _Wording(
        r"found unexpected (end of stream|document separator)",
        "the quoted string that begins here is not closed",
        at_begin=True,
    ),
    _Wording(
        r"expected <block end>",
        "this line does not fit the block above it",
        "all entries of a list or mapping must start in the same column",
        begin="the block begins here",
    ),
    _Wording(
        r"could not find expected ':'",
        "this line is not a 'key: value' pair",
        "add the missing ': ', or indent the line if it continues the text above",
        at_begin=True,
    ),
    _Wording(
        r"found character .* cannot start any token",
        "a value cannot begin with this character",
        "write the value in quotes",
    ),
    _Wording(
        r"(block sequence|sequence) entries are not allowed",
        "a list entry '- ' is not allowed here",
        "start the list on its own line, below its key",
    ),
    _Wording(
        r"unknown escape|did not find expected hex|expected escape sequence|invalid Unicode|chr\(\) arg",
        "the double-quoted string contains an unknown escape",
        "use single quotes, or double the backslash",
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
        "the line must end after '|' or '>': the text starts on the next line",
        "if '|' or '>' is part of the value, write the value in quotes",
    ),
    _Wording(
        r"expected '<document start>'", "the document ends before this point, and no new document starts here"
    ),
)
_TAB_INDENTATION = re.compile(r" *\t")
_AT_KEY = re.compile(r"(@\w*)\s*:(\s|$)")


def syntax_diagnostic(source: SourceText, error: Exception) -> Diagnostic:
    """Return the diagnostic of the error that stopped the parser."""
    mark = getattr(error, "problem_mark", None)
    begin = getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or error)
    line, column = _place(source, mark or begin)
    tab = _TAB_INDENTATION.match(source.line(line) or "")
    if tab is not None:
        message = "a tab cannot indent a line of YAML"
        return source.diagnostic("yaml/tab", message, line, tab.end(), hint="use spaces, two per level")
    at_key = _AT_KEY.match(source.line(line) or "", column - 1)
    if at_key is not None:
        return at_key_diagnostic(source, at_key.group(1), line, column)
    wording = next((known for known in _WORDINGS if re.search(known.pattern, problem)), None)
    if wording is None:
        first_line = problem.split("\n", 1)[0][:120]
        return source.diagnostic("yaml/syntax", f"this is not valid YAML: {first_line}", line, column)
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
        hint=at_key_hint({}),
    )


def at_key_hint(content: Mapping[str, Any]) -> str:
    """Return what to write instead of a mapping with ``@module`` and ``@class``."""
    keep = "keep a serialised object in a JSON file and write {$load: FILE}"
    module, name = content.get("@module"), content.get("@class")
    if not isinstance(module, str) or not isinstance(name, str):
        call = "use $call or $maker to create an object when the flow is built, and maker for a whole flow"
        return f"{call}; {keep}"
    arguments = ", ".join(f"{visible(key)}: ..." for key in content if not key.startswith("@"))
    kwargs = f", kwargs: {{{arguments}}}" if arguments else ""
    form = f"{{$call: {visible(module)}.{visible(name)}{kwargs}}}"
    return f"write {form if len(form) <= 200 else '{$call: ..., kwargs: ...}'}; or {keep}"


def shown(text: str, *, quote: str = "'") -> str:
    """Return text of the user for a message, shortened if it is long."""
    return f"{quote}{visible(text if len(text) <= 60 else text[:57] + '...')}{quote}"


def _place(source: SourceText, mark: Any) -> tuple[int, int]:
    """Return the place of a mark; the end of the text becomes the end of its last line that is not blank."""
    if mark is None:
        return 1, 1
    line, column = mark.line + 1, mark.column + 1
    if line < len(source.lines) or (source.line(line) or "").strip():
        return min(line, len(source.lines)), column
    filled = [number for number, text in enumerate(source.lines, 1) if text.strip()]
    last = filled[-1] if filled else 1
    return last, len(source.lines[last - 1].rstrip()) + 1
