"""Edits of YAML text that leave every other byte as it is: comments, order, quoting, line breaks.

A round trip through a YAML library rewrites indentation, long lines and spaces. Here the places of the
values are looked up, the text between two of them is exchanged, and old and new text are read and compared:
unless the data is the old data with exactly the wanted change, an edit raises :class:`EditError`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.desired.yaml.builder import RawDocument
from reconciler.desired.yaml.reader import read_documents
from reconciler.desired.yaml.splice import LINE_BREAK, Node, added, line_break, removed, replaced, root_at
from reconciler.desired.yaml.writer import block_lines

_BOM = "\ufeff"


class EditError(Exception):
    """The text cannot be changed in this way without touching anything else."""


def set_value(text: str, document: int, path: Sequence[str], value: Any) -> str:
    """Return the text with ``value`` at a path of keys; the last key may be new.

    ``document`` is the index of the document among those that are not empty, as the reader counts them. A
    mapping that replaces a mapping is set key by key, so that the comments inside it stay.

    Raises
    ------
    EditError
        The text is not readable YAML, the document uses anchors, aliases, tags or merge keys, or there is no
        mapping that could hold the last key.
    """
    bom, text = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    old = _document(text, document).content
    before = _at(old, path[:-1])
    if path[-1] in before:
        now = before[path[-1]]
        if same(now, value):
            return bom + text
        if now and value and isinstance(now, dict) and isinstance(value, Mapping):
            return bom + _set_keys(text, document, path, now, value)
    mapping = _node(text, document, path[:-1])
    entry = mapping.entry(path[-1])
    new = added(text, mapping, path[-1], value) if entry is None else replaced(text, entry, value)
    return bom + _checked(text, new, document, _changed(old, path, value))


def remove_value(text: str, document: int, path: Sequence[str]) -> str:
    """Return the text without the entry at a path of keys, without its lines and the comment after it.

    A mapping that would become empty is written ``{}``.

    Raises
    ------
    EditError
        As for :func:`set_value`, or there is no such entry.
    """
    bom, text = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    old = _document(text, document).content
    mapping = _node(text, document, path[:-1])
    entry = mapping.entry(path[-1])
    if entry is None:
        raise EditError(f"there is no '{'.'.join(path)}'")
    if len(mapping.entries or ()) == 1 and len(path) > 1:
        return bom + set_value(text, document, path[:-1], {})
    new = removed(text, mapping, entry)
    if new is None:
        raise EditError(f"'{path[-1]}' is not on a line of its own")
    return bom + _checked(text, new, document, _without(old, path))


def append_document(text: str, content: Mapping[str, Any]) -> str:
    """Return the text with one more document at its end.

    Raises
    ------
    EditError
        The text is not readable YAML, or nothing can be appended to it.
    """
    bom, text = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    documents = _documents(text)
    separator = line_break(text)
    new = text if not text or LINE_BREAK.fullmatch(text[-1]) else text + separator
    if documents or _has_marker(text):
        new += f"---{separator}"
    new += "".join(line + separator for line in block_lines(content, 0))
    return bom + _compared(text, new, [document.content for document in documents] + [dict(content)])


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of the same type at every level: ``1`` is not ``1.0``."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other or (one != one and other != other))


# finding ----------------------------------------------------------------------------------------------


def _has_marker(text: str) -> bool:
    """Return whether there is a document, even an empty one, that a new one must be separated from."""
    return any(line.startswith(("---", "%")) for line in LINE_BREAK.split(text))


@functools.lru_cache(maxsize=4)
def _documents(text: str) -> list[RawDocument]:
    result = read_documents(text.encode(errors="surrogatepass"))
    if result.failure is not None:
        raise EditError(f"it cannot be read: {result.failure.message}")
    return result.documents


def _document(text: str, document: int) -> RawDocument:
    documents = _documents(text)
    if not 0 <= document < len(documents):
        raise EditError(f"it does not have a document {document + 1}")
    found = documents[document]
    if found.problems:
        raise EditError(found.problems[0].message)
    return found


def _node(text: str, document: int, path: Sequence[str]) -> Node:
    """Return the mapping at a path."""
    mark = _document(text, document).marks[""]
    node = root_at(text, mark.line, mark.column)
    for key in path:
        entry = node.entry(key) if node is not None else None
        node = entry.value if entry is not None else None
    if node is None or node.entries is None:
        raise EditError(f"there is no mapping '{'.'.join(path)}'")
    return node


def _at(content: Any, path: Sequence[str]) -> dict[str, Any]:
    for key in path:
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, dict):
        raise EditError(f"there is no mapping '{'.'.join(path)}'")
    return content


# changing ---------------------------------------------------------------------------------------------


def _set_keys(
    text: str, document: int, path: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]
) -> str:
    """Add new keys before old ones are removed, so that the mapping is never empty in between."""
    for key, value in new.items():
        text = set_value(text, document, [*path, key], value)
    for key in old:
        if key not in new:
            text = remove_value(text, document, [*path, key])
    return text


def _changed(content: Any, path: Sequence[str], value: Any) -> Any:
    first, *rest = path
    return {**content, first: _changed(content[first], rest, value) if rest else value}


def _without(content: Any, path: Sequence[str]) -> Any:
    first, *rest = path
    if rest:
        return {**content, first: _without(content[first], rest)}
    return {key: value for key, value in content.items() if key != first}


# checking ---------------------------------------------------------------------------------------------


def _checked(old: str, new: str, document: int, expected: Any) -> str:
    contents = [found.content for found in _documents(old)]
    contents[document] = expected
    return _compared(old, new, contents)


def _compared(old: str, new: str, expected: list[Any]) -> str:
    """Return the new text if it gives exactly these documents and no new problem."""
    before, after = _documents(old), _documents(new)
    contents = [found.content for found in after]
    known = {problem.message for found in before for problem in found.problems}
    for problem in (problem for found in after for problem in found.problems):
        if problem.message not in known:
            raise EditError(problem.message)
    if len(contents) != len(expected) or not all(map(same, contents, expected)):
        raise EditError("its layout does not allow this change without touching other values")
    return new
