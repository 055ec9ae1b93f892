"""Templates: values in which ``{$item: column}`` and ``"{column}"`` stand for values of an item.

``{$item: column}`` keeps the type of the value. In text, ``{column}`` and ``{column:.2f}`` are replaced, and
``{{`` and ``}}`` are braces. Compiled once for a set, a template makes a value for each item; the parts that
are the same for all items are shared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reconciler.desired.yaml.source_text import escape

Fill = Callable[[Mapping[str, Any]], Any]

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INSIDE = re.compile(
    r"([A-Za-z_][A-Za-z0-9_.-]*?)(?::([<>^=]?[+ -]?0?[0-9]{0,3}[,_]?(?:\.[0-9]{1,2})?[a-zA-Z%]?))?"
)


class TemplateProblem(Exception):  # noqa: N818 (it is a finding about the user's data)
    """A value cannot be made for an item; ``pointer`` is the place in the template."""

    def __init__(self, message: str, pointer: str, column: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.pointer = pointer
        self.column = column


class Template:
    """A compiled value.

    ``columns`` maps the columns that it needs to the place of their first use, ``direct`` maps the JSON
    pointers of ``{$item: column}`` to the column.
    """

    def __init__(self, content: Any, pointer: str) -> None:
        """Compile a value that is at ``pointer``. Raises TemplateProblem."""
        self.content = content
        self.columns: dict[str, str] = {}  # column -> pointer of its first use
        self.direct: dict[str, str] = {}
        self._fill = self._compile(content, pointer)

    def fill(self, item: Mapping[str, Any]) -> Any:
        """Return the value for an item. Raises TemplateProblem."""
        return self.content if self._fill is None else self._fill(item)

    def _compile(self, value: Any, pointer: str) -> Fill | None:
        """Return what makes the value for an item; None if it is the same for all."""
        if isinstance(value, str):
            return self._text(value, pointer)
        if isinstance(value, dict):
            if "$item" in value:
                return self._item(value, pointer)
            below = {key: self._compile(inner, f"{pointer}/{escape(key)}") for key, inner in value.items()}
            if not any(below.values()):
                return None
            return lambda item: {
                key: inner if (fill := below[key]) is None else fill(item) for key, inner in value.items()
            }
        if isinstance(value, list):
            entries = [self._compile(inner, f"{pointer}/{at}") for at, inner in enumerate(value)]
            if not any(entries):
                return None
            pairs = list(zip(entries, value, strict=True))
            return lambda item: [inner if fill is None else fill(item) for fill, inner in pairs]
        return None

    def _item(self, value: Mapping[str, Any], pointer: str) -> Fill:
        column = value["$item"]
        if not isinstance(column, str) or not column:
            raise TemplateProblem("'$item' must be the name of a column", f"{pointer}/$item")
        extra = value.keys() - {"$item", "default"}
        if extra:
            message = f"'{min(extra)}' is not allowed beside '$item'; only 'default' is"
            raise TemplateProblem(message, pointer)
        self.direct[pointer] = column
        if "default" in value:
            default = value["default"]
            return lambda item: item.get(column, default)
        self.columns.setdefault(column, pointer)

        def fill(item: Mapping[str, Any]) -> Any:
            if column not in item:
                raise TemplateProblem(f"the item does not have a value in column '{column}'", pointer, column)
            return item[column]

        return fill

    def _text(self, text: str, pointer: str) -> Fill | None:
        if "{" not in text and "}" not in text:
            return None
        parts: list[str | tuple[str, str]] = []
        for literal, found in _pieces(text):
            if found is None:
                parts.append(literal)
                continue
            inside = _INSIDE.fullmatch(found)
            if inside is None:
                raise TemplateProblem(
                    f"'{{{found}}}' is not a column: write {{column}}, or double the braces to mean them",
                    pointer,
                )
            parts.append((inside[1], inside[2] or ""))
            self.columns.setdefault(inside[1], pointer)

        def fill(item: Mapping[str, Any]) -> str:
            texts = []
            for part in parts:
                if isinstance(part, str):
                    texts.append(part)
                    continue
                column, form = part
                value = item.get(column)
                plain = isinstance(value, str) and not form
                texts.append(str(value) if plain else as_text(item, column, form, pointer))
            return "".join(texts)

        return fill


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield (literal text, None) and ("", inside of a placeholder)."""
    at = 0
    for found in _PLACEHOLDER.finditer(text):
        yield text[at : found.start()], None
        at = found.end()
        if found[0] in ("{{", "}}"):
            yield found[0][0], None
        else:
            yield "", found[1] if found[1] is not None else found[0]
    yield text[at:], None


def as_text(item: Mapping[str, Any], column: str, form: str, pointer: str) -> str:
    """Return a value of an item for use inside text. Raises TemplateProblem."""
    if column not in item:
        raise TemplateProblem(f"the item does not have a value in column '{column}'", pointer, column)
    value = item[column]
    if value is None or isinstance(value, dict | list):
        what = "null" if value is None else "a mapping" if isinstance(value, dict) else "a list"
        raise TemplateProblem(f"column '{column}' is {what}, which cannot be part of text", pointer, column)
    if isinstance(value, bool) and not form:
        return str(value).lower()
    if not form:
        return str(value)
    try:
        return format(value, form)
    except ValueError as error:
        raise TemplateProblem(
            f"column '{column}' cannot be written as '{form}': {error}", pointer, column
        ) from error
