"""From the tables of a set to its items: types, join, matrix, include, exclude, and keys.

The order of rows means nothing: items come out by their keys.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from reconciler.desired.flowsets.columns import Columns
from reconciler.desired.flowsets.sources import Row, SourceProblem, SourceTable, cell_place
from reconciler.desired.flowsets.template import Template, TemplateProblem
from reconciler.diagnostics import Location
from reconciler.model.flowsets import ItemsSpec, matches

Rows = tuple[tuple[frozenset[str], Location], ...]

_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


class Item(msgspec.Struct, frozen=True, gc=False):
    """One item: its values, and the rows that they come from; ``number`` is its row in the first of them."""

    values: dict[str, Any]
    rows: Rows
    number: int


class ItemProblem(msgspec.Struct, frozen=True):
    """Why an item cannot be used. ``place`` is None where the FlowSet's own document is meant.

    ``key`` is that of the item, if it is known.
    """

    message: str
    place: Location | None
    hint: str | None = None
    key: str | None = None


class TypedTable(msgspec.Struct, frozen=True):
    """A table whose values have their types, and the rows that do not."""

    columns: frozenset[str]
    rows: list[Item]
    problems: list[ItemProblem]


def typed_table(table: SourceTable, columns: Columns, texts: Mapping[str, bytes]) -> TypedTable:
    """Give the cells of a csv file their types; other tables have them. ``texts`` are for the places.

    Raises
    ------
    SourceProblem
        The table has a column that the schema does not have.
    """
    for name, hint in columns.unknown(table.columns):
        place = table.rows[0].place if table.rows else None
        place = Location(place.file, 1, 1) if place is not None and table.delimiter else place
        raise SourceProblem(f"the schema does not have the column '{name}'", place, hint)
    rows: list[Item] = []
    problems: list[ItemProblem] = []
    for number, row in enumerate(table.rows, start=1):
        values = row.values
        if table.delimiter:
            values, wrong = columns.typed(row.values)
            problems += [
                ItemProblem(
                    f"row {number}, column '{name}': {why}", _place(row, name, table.delimiter, texts)
                )
                for name, why in wrong
            ]
            if wrong:
                continue
        rows.append(Item(values, ((table.columns, row.place),), number))
    return TypedTable(table.columns, rows, problems)


def _place(row: Row, column: str, delimiter: str, texts: Mapping[str, bytes]) -> Location:
    lines = texts[row.place.file].decode(errors="replace").split("\n", row.place.line)
    return cell_place(row, lines[row.place.line - 1], column, delimiter)


def joined(tables: Sequence[TypedTable], join: Mapping[str, Any] | None, names: Sequence[str]) -> list[Item]:
    """Return the rows of all tables: one below the other, or joined to those of the first.

    ``names`` are those of the tables for messages.

    Raises
    ------
    SourceProblem
        A table lacks a column of the join, has several rows for one value, or repeats another column.
    """
    if join is None:
        return [row for table in tables for row in table.rows]
    on = [join["on"]] if isinstance(join["on"], str) else list(join["on"])
    how = join.get("how", "left")
    for table, name in zip(tables, names, strict=True):
        missing = [column for column in on if column not in table.columns]
        if missing:
            have = ", ".join(sorted(table.columns))
            raise SourceProblem(
                f"{name} does not have the column '{missing[0]}' of the join",
                hint=f"its columns are {have}; 'key: COLUMN' in a source names the one that is its key",
            )
    rows, columns = tables[0].rows, set(tables[0].columns)
    for table, name in zip(tables[1:], names[1:], strict=True):
        twice = sorted((columns & table.columns) - {*on})
        if twice:
            raise SourceProblem(f"{name} has the column '{twice[0]}', and so does another source")
        columns |= table.columns
        others: dict[str, Item] = {}
        for row in table.rows:
            same = others.setdefault(_join_key(row, on), row)
            if same is not row:
                value = ", ".join(str(row.values.get(column)) for column in on)
                raise SourceProblem(
                    f"{name} has several rows for {value}: see {same.rows[0][1]}", row.rows[0][1]
                )
        found, used = [], set[str]()
        for row in rows:
            key = _join_key(row, on)
            other = others.get(key)
            if other is not None:
                used.add(key)
                found.append(Item({**row.values, **other.values}, (*row.rows, *other.rows), row.number))
            elif how != "inner":
                found.append(row)
        if how == "outer":
            found += [other for key, other in others.items() if key not in used]
        rows = found
    return rows


def _join_key(row: Item, on: Sequence[str]) -> str:
    return json.dumps([row.values.get(column) for column in on], sort_keys=True)


def expanded(rows: Sequence[Item], spec: ItemsSpec, own: Location, most: int) -> list[Item]:
    """Return the items: the rows times the matrix, with what is included and without what is excluded.

    ``own`` is the place of the items in the FlowSet, ``most`` how many there may be.

    Raises
    ------
    SourceProblem
        There are more.
    """
    count = len(rows)
    for values in spec.matrix.values():
        count *= len(values)
    if count + len(spec.include) > most:
        raise SourceProblem(
            f"the set has {count + len(spec.include):,} items, more than the {most:,} of limits.max_items",
            hint="check the sources and the matrix, or raise limits.max_items",
        )
    items = list(rows)
    if spec.matrix:
        names = list(spec.matrix)
        points = [
            dict(zip(names, values, strict=True)) for values in itertools.product(*spec.matrix.values())
        ]
        items = [Item({**row.values, **point}, row.rows, row.number) for row in rows for point in points]
    for number, extra in enumerate(spec.include, start=1):
        fixed = {name: value for name, value in extra.items() if name not in spec.matrix}
        meant = [row for row in rows if fixed and spec.matrix and matches(row.values, fixed)]
        if meant:
            items += [Item({**row.values, **extra}, row.rows, row.number) for row in meant]
        else:
            items.append(Item(dict(extra), ((frozenset(extra), own),), number))
    return [item for item in items if not any(matches(item.values, wanted) for wanted in spec.exclude)]


def keyed(
    items: Iterable[Item], columns: Columns, key: Template, longest: int
) -> tuple[dict[str, Item], list[ItemProblem]]:
    """Return the items by key, and the problems of the others: wrong values, no key, or one that repeats.

    ``longest`` is how many characters a key may have.
    """
    found: dict[str, Item] = {}
    twice: dict[str, list[Item]] = {}
    problems: list[ItemProblem] = []
    for item in items:
        try:
            name = key.fill(item.values)
        except TemplateProblem as error:
            problems.append(
                ItemProblem(f"{_row(item)}: the key: {error.message}", _origin(item, error.column))
            )
            continue
        if not isinstance(name, str) or not _KEY.fullmatch(name) or len(name) > longest:
            problems.append(
                ItemProblem(
                    f"{_row(item)}: '{name}' cannot be a key: it becomes a part of the flow's name",
                    _origin(item, None),
                    "make the key of columns with letters, digits, '-', '_' and '.' only, "
                    f"at most {longest} characters",
                )
            )
            continue
        wrong = (
            [
                ItemProblem(f"{_row(item)}, column '{column}': {why}", _origin(item, column), key=name)
                for column, why in columns.problems(item.values)
            ]
            if columns.known
            else []
        )
        if wrong:
            problems += wrong
        elif name in found:
            twice.setdefault(name, [found[name]]).append(item)
        else:
            found[name] = item
    for name, several in twice.items():
        del found[name]
        for item in several:
            other = next(one for one in several if one is not item)
            problems.append(
                ItemProblem(
                    f"{_row(item)}: the key '{name}' is not unique: {_row(other)} has it too",
                    _origin(item, None),
                    "add a column that tells them apart to 'spec.key'",
                    name,
                )
            )
    return dict(sorted(found.items())), problems


def _row(item: Item) -> str:
    return f"row {item.number}"


def _origin(item: Item, column: str | None) -> Location | None:
    """Return the place of the row that gives a column; by default that of the first row."""
    for columns, place in item.rows:
        if column is None or column in columns:
            return place
    return item.rows[0][1] if item.rows else None
