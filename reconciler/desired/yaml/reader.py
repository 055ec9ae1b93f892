"""Bytes to checked documents: the only door to ruamel.yaml.

The parser gives events only. Its C version reads when it is there. Whatever that one stumbles over is read
once more by the parser in Python, so that messages and places are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML

from reconciler.desired.validation import bounded, checked_document, suspected_kinds
from reconciler.desired.yaml.builder import DocumentBuilder, RawDocument
from reconciler.desired.yaml.limits import BOUNDS, RefusedTextError, checked_source
from reconciler.desired.yaml.places import SourceText
from reconciler.desired.yaml.syntax_errors import syntax_diagnostic
from reconciler.diagnostics import Diagnostic
from reconciler.model.manifests import Document, ParsedFile

try:
    from ruamel.yaml.cyaml import CParser  # type: ignore[attr-defined]
except ImportError:  # the extension is not built for every platform
    CParser = None


def parse_file(data: bytes) -> ParsedFile:
    """Return all documents and all problems of a blob. Never raises, whatever the bytes are.

    The locations have no file name: see :func:`reconciler.desired.yaml.places.diagnostic_with_file`.
    A document is ``valid`` when it can be used; the others are there for their kind, name and marks.
    ``readable`` is False when the YAML of the file, or of its end, cannot be read.
    """
    result = read_documents(data)
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


class ReadResult:
    """What could be read of a blob. ``failure`` stopped it; ``rest`` is the text that was not read."""

    def __init__(
        self, documents: list[RawDocument], failure: Diagnostic | None = None, rest: str = ""
    ) -> None:
        self.documents = documents
        self.failure = failure
        self.rest = rest


def read_documents(data: bytes) -> ReadResult:
    """Return the documents of a blob that are not empty. Never raises, whatever the bytes are."""
    try:
        source = checked_source(data)
    except RefusedTextError as refused:
        return ReadResult([], refused.diagnostic, data[: 2**20].decode("utf-8", "replace"))
    if CParser is not None:
        result = _read(source, _c_events(source.text))
        if _is_final(result, source):
            return result
    return _read(source, _python_events(source.text))


def _is_final(result: ReadResult, source: SourceText) -> bool:
    """Whether the parser in Python would give the same: no problem, and none of the tabs that C lets pass.

    A bound that was passed is final too, since the other parser is slow where the bounds are needed.
    """
    if result.failure is not None:
        return result.failure.code in BOUNDS
    return "\t" not in source.text and not any(document.problems for document in result.documents)


def _c_events(text: str) -> Iterator[Any]:
    parser = CParser(text)
    while parser.check_event():
        yield parser.get_event()


def _python_events(text: str) -> Iterator[Any]:
    events: Iterator[Any] = YAML(typ="safe", pure=True).parse(text)
    return events


def _read(source: SourceText, events: Iterator[Any]) -> ReadResult:
    builder = DocumentBuilder(source)
    try:
        for event in events:
            builder.feed(event)
    except RefusedTextError as refused:
        return ReadResult(builder.documents, refused.diagnostic, builder.rest())
    except Exception as error:
        # Not only YAMLError: both parsers have raised others (ValueError for an escape that is no
        # character), and one file of a user must never end a reconcile.
        return ReadResult(builder.documents, syntax_diagnostic(source, error), builder.rest())
    return ReadResult(builder.documents)
