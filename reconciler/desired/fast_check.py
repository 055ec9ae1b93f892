"""A yes-or-no check made from a JSON Schema, for the documents that are right: nearly all of them.

jsonschema explains well but takes a tenth of a second to import and milliseconds for a large flow. It runs
only on what this check rejects. It knows the keywords that our schemas use and refuses others when it is
compiled, so that a schema can never say more than is checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.desired.schemas import resolve

Check = Callable[[Any], bool]


def is_integer(value: Any) -> bool:
    """Whether a value is an integer; 1.0 and true are none."""
    return type(value) is int


def is_number(value: Any) -> bool:
    """Whether a value is a finite number. NaN passes every comparison, so no bound would hold it."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def schema_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern of a schema as Python reads it: there, a final ``$`` would let a line break pass."""
    return re.compile(f"{pattern[:-1]}\\Z" if pattern.endswith("$") else pattern)


def compile_check(schema: Mapping[str, Any]) -> Check:
    """Return a function that says whether a value fits the schema.

    Raises ValueError for a keyword that it does not know.
    """
    return _compile(schema, _Root(schema))


class _Root(dict[str, Any]):
    """A schema, and the checks of its ``$ref`` so far: None where one is being compiled."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        super().__init__(schema)
        self.checks: dict[str, Check | None] = {}


def _compile(part: Mapping[str, Any], root: _Root) -> Check:
    """Return the check of a part of ``root``."""
    target = part.get("$ref")
    if target is None or part.keys() - _ANNOTATIONS - {"$ref"}:
        return _compile_resolved(part, root)
    if target not in root.checks:
        root.checks[target] = None
        root.checks[target] = _compile_resolved(part, root)
    # A part that contains itself is looked up when it is needed: it is not yet compiled.
    return root.checks[target] or (lambda value: _compiled(root, target)(value))


def _compiled(root: _Root, target: str) -> Check:
    check = root.checks[target]
    assert check is not None, target
    return check


def _compile_resolved(part: Mapping[str, Any], root: _Root) -> Check:
    part = resolve(root, dict(part))
    unknown = part.keys() - _KEYWORDS.keys() - _ANNOTATIONS
    if unknown:
        raise ValueError(f"keywords without a check: {', '.join(sorted(unknown))}")
    checks = [make(part, root) for keyword, make in _KEYWORDS.items() if keyword in part]
    if len(checks) == 1:
        return checks[0]
    return lambda value: all(check(value) for check in checks)


_TYPES: Mapping[str, Check] = {
    "string": lambda value: isinstance(value, str),
    "integer": is_integer,
    "number": is_number,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}


def _type(part: Mapping[str, Any], root: _Root) -> Check:
    names = part["type"]
    if isinstance(names, str):
        return _TYPES[names]
    checks = [_TYPES[name] for name in names]
    return lambda value: any(check(value) for check in checks)


def _properties(part: Mapping[str, Any], root: _Root) -> Check:
    known = {name: _compile(sub, root) for name, sub in part["properties"].items()}
    others = _others(part, root)

    def check(value: Any) -> bool:
        if not isinstance(value, dict):
            return True
        return all(known.get(name, others)(entry) for name, entry in value.items())

    return check


def _others(part: Mapping[str, Any], root: _Root) -> Check:
    additional = part.get("additionalProperties", True)
    if isinstance(additional, bool):
        return lambda value: additional
    return _compile(additional, root)


def _additional(part: Mapping[str, Any], root: _Root) -> Check:
    return _properties({"properties": {}, **part}, root) if "properties" not in part else lambda value: True


def _property_names(part: Mapping[str, Any], root: _Root) -> Check:
    name = _compile(part["propertyNames"], root)
    return lambda value: not isinstance(value, dict) or all(name(key) for key in value)


def _required(part: Mapping[str, Any], root: _Root) -> Check:
    names = frozenset(part["required"])
    return lambda value: not isinstance(value, dict) or names <= value.keys()


def _items(part: Mapping[str, Any], root: _Root) -> Check:
    item = _compile(part["items"], root)
    return lambda value: not isinstance(value, list) or all(item(entry) for entry in value)


def _enum(part: Mapping[str, Any], root: _Root) -> Check:
    allowed = frozenset((type(value), value) for value in part["enum"])
    return lambda value: isinstance(value, (str, int, float)) and (type(value), value) in allowed


def _const(part: Mapping[str, Any], root: _Root) -> Check:
    return _enum({"enum": [part["const"]]}, root)


def _pattern(part: Mapping[str, Any], root: _Root) -> Check:
    search = schema_pattern(part["pattern"]).search
    return lambda value: not isinstance(value, str) or search(value) is not None


def _size(
    keyword: str, kind: type[str] | type[list[Any]] | type[dict[str, Any]], fits: Callable[[int, int], bool]
) -> Callable[..., Check]:
    def make(part: Mapping[str, Any], root: _Root) -> Check:
        bound = part[keyword]
        return lambda value: not isinstance(value, kind) or fits(len(value), bound)

    return make


def _bound(keyword: str, fits: Callable[[float, float], bool]) -> Callable[..., Check]:
    def make(part: Mapping[str, Any], root: _Root) -> Check:
        bound = part[keyword]
        return lambda value: not is_number(value) or fits(value, bound)

    return make


def _not(part: Mapping[str, Any], root: _Root) -> Check:
    refused = _compile(part["not"], root)
    return lambda value: not refused(value)


def _one_of(part: Mapping[str, Any], root: _Root) -> Check:
    choices = [_compile(choice, root) for choice in part["oneOf"]]
    return lambda value: sum(choice(value) for choice in choices) == 1


_KEYWORDS: Mapping[str, Callable[..., Check]] = {
    "type": _type,
    "const": _const,
    "enum": _enum,
    "pattern": _pattern,
    "minLength": _size("minLength", str, lambda size, bound: size >= bound),
    "maxLength": _size("maxLength", str, lambda size, bound: size <= bound),
    "minItems": _size("minItems", list, lambda size, bound: size >= bound),
    "minProperties": _size("minProperties", dict, lambda size, bound: size >= bound),
    "minimum": _bound("minimum", lambda value, bound: value >= bound),
    "maximum": _bound("maximum", lambda value, bound: value <= bound),
    "exclusiveMinimum": _bound("exclusiveMinimum", lambda value, bound: value > bound),
    "required": _required,
    "propertyNames": _property_names,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "not": _not,
    "oneOf": _one_of,
}
_ANNOTATIONS = frozenset(
    (
        *("$schema", "$id", "$defs", "title", "description", "default", "examples"),
        *("patternErrorMessage", "typeErrorMessage"),
    )
)
