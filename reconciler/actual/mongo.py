"""MongoDB's query language on plain documents: filter, sort order, projection, distinct values.

The filter is mongomock-ng, the engine of maggma's MemoryStore, imported when first needed. Sort order and
projection are implemented here by MongoDB's rules: those of the engine are private and stricter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from reconciler.actual.codec import Document, stored_date

Tree = dict[str, Any]
"""A projection by path: each name leads to another tree, or to True at the end of a path."""


def matcher(criteria: Mapping[str, Any]) -> Callable[[Document], bool]:
    """Return a function that tests a document against MongoDB criteria."""
    if not criteria:
        return lambda doc: True
    from mongomock_ng.filtering import filter_applies

    query = as_stored(criteria)
    return lambda doc: bool(filter_applies(query, doc))


def as_stored(value: Any) -> Any:
    """Return criteria with dates in the form that documents have: naive, in UTC, in milliseconds."""
    if isinstance(value, datetime):
        return stored_date(value)
    if isinstance(value, Mapping):
        return {key: as_stored(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_stored(item) for item in value]
    return value


def values_at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yield the values at a dotted path, through dicts, list indexes and every dict of a list."""
    if not path:
        yield value
    elif isinstance(value, dict):
        if path[0] in value:
            yield from values_at(value[path[0]], path[1:])
    elif isinstance(value, list):
        if path[0].isdecimal() and int(path[0]) < len(value):
            yield from values_at(value[int(path[0])], path[1:])
        for item in value:
            if isinstance(item, dict):
                yield from values_at(item, path)


def distinct(docs: Iterable[Document], field: str) -> list[Any]:
    """Return the distinct values of a field in MongoDB's order; a list counts by its elements."""
    found: dict[Any, Any] = {}
    for doc in docs:
        for value in _elements(values_at(doc, field.split("."))):
            found.setdefault(order_key(value), value)
    return [found[key] for key in sorted(found)]


def _elements(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def ordered(docs: Iterable[Document], sort: Mapping[str, Any]) -> list[Document]:
    """Return the documents sorted by several fields, the first of which is the major one; stable.

    Raises
    ------
    ValueError
        A direction is neither 1 nor -1 (nor an enum of these).
    """
    found = list(docs)
    for field, direction in reversed(list(sort.items())):
        step = getattr(direction, "value", direction)
        if step not in (1, -1):
            raise ValueError(f"the direction of {field!r} must be 1 or -1, not {direction!r}")
        found.sort(key=_sort_key(field, max if step < 0 else min), reverse=step < 0)
    return found


_EMPTY_LIST, _NULL = (4,), (5,)


def _sort_key(field: str, pick: Callable[[Iterable[Any]], Any]) -> Callable[[Document], Any]:
    """Return the sort key of a value. A list sorts by its lowest element, or descending by its highest."""
    path = field.split(".")

    def key(doc: Document) -> Any:
        values = list(values_at(doc, path))
        keys = [order_key(value) for value in _elements(values)]
        return pick(keys) if keys else (_EMPTY_LIST if values else _NULL)

    return key


def order_key(value: Any) -> tuple[Any, ...]:
    """Return a hashable key that sorts values of all types as MongoDB does; equal values have equal keys."""
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return (40, value)
    if isinstance(value, int | float):
        return (10, 0, 0) if math.isnan(value) else (10, 1, value)
    if isinstance(value, str):
        return (15, value)
    if isinstance(value, dict):
        parts = [(name, order_key(item)) for name, item in value.items()]
        return (20, tuple((key[0], name, key) for name, key in parts))
    if isinstance(value, list):
        return (25, tuple(map(order_key, value)))
    if isinstance(value, UUID):
        value = value.bytes
    if isinstance(value, bytes):
        return (30, len(value), bytes(value))
    if isinstance(value, datetime):
        return (45, value)
    if hasattr(value, "to_decimal"):  # bson's Decimal128
        number = value.to_decimal()
        return (10, 0, 0) if number.is_nan() else (10, 1, number)
    return (35 if type(value).__name__ == "ObjectId" else 50, str(value))


def projector(
    properties: Mapping[str, Any] | Iterable[str] | None, keep: Sequence[str] = ()
) -> Callable[[Document], Document]:
    """Return a function that reduces a document to ``properties``: fields or a MongoDB projection.

    ``keep`` are fields that always stay. ``_id`` is ignored, because documents have none. Besides inclusion
    and exclusion, ``$slice`` and ``$elemMatch`` work.

    Raises
    ------
    ValueError
        Inclusion and exclusion are mixed, one path contains another, or an operator is unknown.
    """
    if not properties:
        return lambda doc: doc
    fields = dict(properties) if isinstance(properties, Mapping) else dict.fromkeys(properties, 1)
    if fields.pop("_id", 0) and not fields:
        return lambda doc: {}
    operators = {field: value for field, value in fields.items() if isinstance(value, Mapping)}
    flags = {field: value for field, value in fields.items() if field not in operators}
    for field, value in flags.items():
        if not isinstance(value, int | float) or "$" in field:
            raise ValueError(f"cannot project {field!r} by {value!r}: use 1, 0, $slice or $elemMatch")
    matching = any("$elemMatch" in value for value in operators.values())
    if len({bool(value) for value in flags.values()}) > 1 or (matching and not all(flags.values())):
        raise ValueError("a projection cannot both include and exclude fields")
    including = matching or any(flags.values())
    changes = [(field.split("."), _change(field, value)) for field, value in operators.items()]
    if including:
        named = [*flags, *operators]
        added = [field for field in keep if not any(_holds(other, field) for other in named)]
        named = [field for field in named if not any(_holds(other, field) for other in added)] + added
    else:
        named = [field for field in flags if field not in keep]
    tree = _tree(named)

    def project(doc: Document) -> Document:
        kept = _included(doc, tree) if including else _excluded(doc, tree)
        for path, change in changes:
            _apply(kept, path, change)
        return kept

    return project


def _holds(field: str, other: str) -> bool:
    return other == field or other.startswith(field + ".")


def _tree(fields: Iterable[str]) -> Tree:
    tree: Tree = {}
    for field in fields:
        *parents, last = field.split(".")
        branch: Any = tree
        for name in parents:
            branch = branch.setdefault(name, {})
            if branch is True:
                raise ValueError(f"a projection names {field!r} and a field that contains it")
        if branch.setdefault(last, True) is not True:
            raise ValueError(f"a projection names {field!r} and a field inside it")
    return tree


def _included(doc: Document, tree: Tree) -> Document:
    kept: Document = {}
    for name, value in doc.items():
        branch = tree.get(name)
        if branch is True:
            kept[name] = value
        elif branch is not None and isinstance(value, dict | list):
            kept[name] = _inside(value, branch, _included, keep_scalars=False)
    return kept


def _excluded(doc: Document, tree: Tree) -> Document:
    kept: Document = {}
    for name, value in doc.items():
        branch = tree.get(name)
        if branch is None:
            kept[name] = value
        elif branch is not True:
            kept[name] = _inside(value, branch, _excluded, keep_scalars=True)
    return kept


def _inside(value: Any, tree: Tree, cut: Callable[[Document, Tree], Document], *, keep_scalars: bool) -> Any:
    """Apply a branch to a dict, or to every dict in nested lists."""
    if isinstance(value, dict):
        return cut(value, tree)
    if isinstance(value, list):
        items = value if keep_scalars else [item for item in value if isinstance(item, dict | list)]
        return [_inside(item, tree, cut, keep_scalars=keep_scalars) for item in items]
    return value


def _change(field: str, operator: Mapping[str, Any]) -> Callable[[Any], list[Any]]:
    """Return the result of an operator on the value of its field; an empty list means an absent field."""
    if set(operator) == {"$slice"}:
        window = _window(operator["$slice"])
        return lambda value: [window(value) if isinstance(value, list) else value]
    if set(operator) == {"$elemMatch"}:
        matches = matcher({"item": {"$elemMatch": operator["$elemMatch"]}})
        return lambda value: (
            [[item] for item in value if matches({"item": [item]})][:1] if isinstance(value, list) else []
        )
    raise ValueError(f"cannot project {field!r} by {dict(operator)!r}: use 1, 0, $slice or $elemMatch")


def _window(spec: Any) -> Callable[[list[Any]], list[Any]]:
    if isinstance(spec, int):
        return lambda value: value[:spec] if spec >= 0 else value[spec:]
    try:
        skip, limit = spec
    except (TypeError, ValueError):
        raise ValueError(f"$slice needs a number or [skip, limit], not {spec!r}") from None

    def window(value: list[Any]) -> list[Any]:
        start = skip if skip >= 0 else max(0, len(value) + skip)
        return value[start : start + limit]

    return window


def _apply(doc: Document, path: Sequence[str], change: Callable[[Any], list[Any]]) -> None:
    holder: Any = doc
    for name in path[:-1]:
        holder = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or path[-1] not in holder:
        return
    changed = change(holder.pop(path[-1]))
    if changed:
        holder[path[-1]] = changed[0]
