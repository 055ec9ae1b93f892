"""Types of columns: what a cell of a csv file means, and which values a column can have.

Without a schema a cell is a number if it is written as one, ``true`` or ``false``, null if it is empty, else
text. That depends on no other row, so that a new row never changes the type of others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from reconciler.desired.flowsets.sources import value_problems
from reconciler.desired.schemas import Check, compile_check
from reconciler.diagnostics import did_you_mean

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "false": False}
_NAMES = {
    "integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text",
    "null": "nothing", "array": "a list", "object": "a mapping",
}  # fmt: skip

ABSENT: Any = object()
"""An empty cell of a column that need not have a value."""


class Column(msgspec.Struct, frozen=True):
    """One column of the schema. ``check`` accepts its values; ``part`` is its schema."""

    types: tuple[str, ...]
    required: bool
    check: Check
    part: dict[str, Any]

    def typed(self, cell: str) -> Any:
        """Return the value of a cell, or ABSENT. Raises ValueError with a sentence."""
        if cell == "":
            if "null" in self.types:
                return None
            if "string" in self.types or not self.types:
                return ""
            if self.required:
                raise ValueError(f"the cell is empty, but {self._wanted} is required")
            return ABSENT
        if "integer" in self.types and _INTEGER.fullmatch(cell):
            return int(cell)
        if "number" in self.types and _DECIMAL.fullmatch(cell):
            return float(cell)
        if "boolean" in self.types and cell.lower() in _BOOLEANS:
            return _BOOLEANS[cell.lower()]
        if {"array", "object"} & {*self.types}:
            try:
                return json.loads(cell)
            except ValueError:
                pass
        if "string" in self.types or not self.types:
            return cell
        raise ValueError(f"expected {self._wanted}, got '{cell[:60]}'")

    @property
    def _wanted(self) -> str:
        return " or ".join(_NAMES[name] for name in self.types)

    def problem(self, value: Any) -> str | None:
        """Return why the column cannot have a value; None if it can."""
        if self.check(value):
            return None
        shown = json.dumps(value, ensure_ascii=False)[:60]
        for keyword, bound in self.part.items():
            if keyword != "type" and not compile_check({keyword: bound})(value):
                return f"{shown} does not fit '{keyword}: {json.dumps(bound, ensure_ascii=False)[:100]}'"
        return f"expected {self._wanted}, got {shown}"


class Columns(msgspec.Struct, frozen=True):
    """The columns of a set. ``closed``: there may be no others."""

    known: dict[str, Column]
    closed: bool = False

    def unknown(self, names: frozenset[str]) -> Iterator[tuple[str, str | None]]:
        """Yield (name, hint) of columns that a closed schema does not have."""
        if self.closed:
            for name in sorted(names - self.known.keys() - {"key"}):
                yield name, did_you_mean(name, self.known)

    def typed(self, cells: Mapping[str, str]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """Return the values of a row of a csv file, and (column, problem) of cells without a value."""
        values, problems = {}, []
        for name, cell in cells.items():
            column = self.known.get(name)
            if column is None:
                value = values[name] = inferred(cell)
                if type(value) is not float or math.isfinite(value):
                    continue
            try:
                value = inferred(cell) if column is None else column.typed(cell)
            except ValueError as error:
                problems.append((name, str(error)))
                continue
            problems += [(name, why) for why in value_problems(value)]
            if value is not ABSENT:
                values[name] = value
        return values, problems

    def problems(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (column, problem) of the values of an item."""
        for name, column in self.known.items():
            if name in values:
                why = column.problem(values[name])
                if why is not None:
                    yield name, why
            elif column.required:
                yield name, "a value is required"


def inferred(cell: str) -> Any:
    """Return the value of a cell of a column without a type: ``007`` and ``1e5`` stay text.

    Names such as ``1e5`` and ``007`` are more common in tables than such numbers; a schema says otherwise.
    """
    if cell == "":
        return None
    if cell[0] not in "+-.0123456789":
        return _BOOLEANS.get(cell, cell)
    if _INTEGER.fullmatch(cell):
        return int(cell)
    if "." in cell and _DECIMAL.fullmatch(cell):
        return float(cell)
    return cell


def read_columns(schema: Mapping[str, Any]) -> Columns:
    """Return the columns of a JSON Schema of one item.

    Raises ValueError for a keyword that is not supported, and for what is not a schema of an object.
    """
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        raise ValueError("the schema of items needs 'properties': one entry for each column")
    required = schema.get("required", [])
    if not isinstance(required, list):
        raise ValueError("'required' must be a list of columns")
    known = {}
    for name, part in properties.items():
        try:
            if not isinstance(part, dict):
                raise ValueError("a column is a mapping such as {type: number}")
            given = part.get("type", [])
            types = (given,) if isinstance(given, str) else tuple(given)
            wrong = [one for one in types if one not in _NAMES]
            if wrong:
                raise ValueError(f"'{wrong[0]}' is not a type; {did_you_mean(str(wrong[0]), _NAMES)}")
            known[name] = Column(types, name in required, compile_check(part), part)
        except (ValueError, TypeError, KeyError, re.error) as error:
            raise ValueError(f"column '{name}': {error}") from error
    missing = [name for name in required if name not in known]
    if missing:
        raise ValueError(f"'required' names '{missing[0]}', which 'properties' does not have")
    return Columns(known, schema.get("additionalProperties", True) is False)


UNTYPED = Columns({})
