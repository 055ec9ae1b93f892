"""From bytes to checked documents: where YAML is read.

The parsers give events only. The one of libyaml in PyYAML reads first, six times as fast. What it stumbles
over, and text in which it is known to differ, is read once more by the parser of ruamel.yaml in Python, so
that values, messages and places are the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reconciler.desired.validation import checked_document, suspected_kinds
from reconciler.desired.yaml.builder import DocumentBuilder, RawDocument
from reconciler.desired.yaml.source_text import BOUNDS, RefusedTextError, SourceText, checked_source
from reconciler.desired.yaml.syntax_errors import syntax_diagnostic
from reconciler.diagnostics import Diagnostic, bounded
from reconciler.model.manifests import Document, ParsedFile

try:
    # First the package: a thread that imports its submodule and one that imports the package wait for each
    # other, and Python ends that by showing one of them a module that is not complete.
    import yaml  # type: ignore[import-untyped]  # noqa: F401
    from yaml.cyaml import CParser  # type: ignore[import-untyped]
except ImportError:  # the extension is not built for every platform
    CParser = None


def parse_file(data: bytes, size: int | None = None) -> ParsedFile:
    """Return all documents and all problems of a blob. Never raises, whatever the bytes are.

    The locations have no file name: see :func:`reconciler.desired.yaml.source_text.diagnostic_with_file`.
    A document is ``valid`` when it can be used; the others are kept for their kind, name and marks.
    ``readable`` is False when the YAML of the file, or of its end, cannot be read. ``size`` is that of the
    blob, if ``data`` is only its beginning.
    """
    result = read_documents(data, size)
    documents: list[Document] = []
    diagnostics: list[Diagnostic] = []
    for raw in result.documents:
        document, problems = checked_document(raw)
        documents.append(document)
        diagnostics += problems
    if result.failure is not None:
        diagnostics.append(bounded(result.failure))
    diagnostics.sort(key=Diagnostic.sort_key)
    readable = result.failure is None
    return ParsedFile(documents, diagnostics, readable, [] if readable else suspected_kinds(result.rest))


class ForeignYAMLError(Exception):
    """The YAML of another program cannot be read; the message begins with line and column."""


def load_foreign(text: str) -> Any:
    """Return the one document of a file of another program, where anchors and all keys are allowed.

    Raises
    ------
    ForeignYAMLError
        It is not YAML, or has tags or several documents.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}: " if mark is not None else ""
        raise ForeignYAMLError(f"{place}{error.problem or error.context}") from error
    except Exception as error:  # ruamel.yaml raises others, too
        raise ForeignYAMLError(f" {error}") from error


class ReadResult:
    """The readable documents of a blob. ``failure`` stopped the reading; ``rest`` is the text after it."""

    def __init__(
        self, documents: list[RawDocument], failure: Diagnostic | None = None, rest: str = ""
    ) -> None:
        self.documents = documents
        self.failure = failure
        self.rest = rest


def read_documents(data: bytes, size: int | None = None) -> ReadResult:
    """Return the documents of a blob that are not empty. Never raises, whatever the bytes are."""
    try:
        source = checked_source(data, size)
    except RefusedTextError as refused:
        return ReadResult([], refused.diagnostic, data[: 2**20].decode("utf-8", "replace"))
    if CParser is not None:
        result = _read(source, _c_events(source.text))
        if _is_final(result, source):
            return result
    from ruamel.yaml import YAML

    events: Iterator[Any] = YAML(typ="safe", pure=True).parse(source.text)
    return _read(source, events)


_ODD = re.compile(r"\t|^\.\.\.|[|>][-+0-9]*\ *(?:\#|(?:\r\n|\r|\n)\ *(?:[\r\n]|\Z))", re.MULTILINE)
"""Where libyaml accepts more, or reads differently: tabs, ends of documents, and texts in blocks (``|``) with
a comment after the ``|`` or an empty first line."""


def _is_final(result: ReadResult, source: SourceText) -> bool:
    """Return whether the parser in Python would give the same result as the one in C.

    It would if there is no problem, nothing odd, and every document is a mapping. An exceeded bound is final
    too, since the parser in Python is slow where the bounds are needed.
    """
    if result.failure is not None:
        return result.failure.code in BOUNDS
    usual = all(isinstance(document.content, dict) and not document.problems for document in result.documents)
    return usual and _ODD.search(source.text) is None


def _c_events(text: str) -> Iterator[Any]:
    parser = CParser(text)
    while parser.check_event():
        yield parser.get_event()


def _read(source: SourceText, events: Iterator[Any]) -> ReadResult:
    builder = DocumentBuilder(source)
    try:
        for event in events:
            builder.feed(event)
    except RefusedTextError as refused:
        return ReadResult(builder.documents, refused.diagnostic, builder.rest())
    except Exception as error:
        # Not only YAMLError: both parsers have raised others (ValueError for an escape that is not a
        # character), and one file of a user must never end a reconcile.
        return ReadResult(builder.documents, syntax_diagnostic(source, error), builder.rest())
    return ReadResult(builder.documents)
