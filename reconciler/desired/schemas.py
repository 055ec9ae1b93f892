"""The JSON Schemas of the kinds: the only source of validation, ``explain``, editor completion and the docs.

:func:`compile_check` makes a yes-or-no check from a schema, for the documents that are valid: nearly all of
them. jsonschema explains well, but takes a tenth of a second to import and milliseconds for a large flow, so
it runs only on documents that this check rejects. The check supports the keywords that our schemas use and
refuses all others when it is compiled, so that a schema never says more than is checked. Decision 0013
compares it with jsonschema-rs.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from reconciler.errors import WorldError
from reconciler.model.manifests import Kind

_FILES = {
    Kind.PROJECT: "project.schema.json",
    Kind.WORKER: "worker.schema.json",
    Kind.EXEC_CONFIG: "exec-config.schema.json",
    Kind.FLOW: "flow.schema.json",
    Kind.OVERRIDE_RULE: "override-rule.schema.json",
    Kind.FLOW_SET: "flow-set.schema.json",
    Kind.MAKER: "maker.schema.json",
    Kind.POLICY: "policy.schema.json",
}


def schema_path(kind: Kind) -> Path:
    """Return the schema file of a kind: from the installed package, else from the source tree.

    Raises WorldError when neither has it because the installation is broken.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_schemas", package.parent / "schemas"):
        if (folder / _FILES[kind]).is_file():
            return folder / _FILES[kind]
    raise WorldError(
        f"the schema of {kind} is missing from this installation", hint="install reconciler again"
    )


@functools.cache
def load_schema(kind: Kind) -> dict[str, Any]:
    """Return the schema of a kind. The value is shared: do not change it. Raises WorldError if missing."""
    return msgspec.json.decode(schema_path(kind).read_bytes(), type=dict[str, Any])


def resolve(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of ``schema`` with its ``$ref`` filled in; keys beside the ``$ref`` win."""
    while "$ref" in part:
        target: Any = schema
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = {**target, **{key: value for key, value in part.items() if key != "$ref"}}
    return part


@functools.cache
def reader_version() -> str:
    """Return a digest of the schemas: a parsed blob is valid only together with them."""
    digest = hashlib.sha256()
    for kind in _FILES:
        digest.update(schema_path(kind).read_bytes())
    return digest.hexdigest()[:16]


# The check of valid documents.

Check = Callable[[Any], bool]


def is_integer(value: Any) -> bool:
    """Return whether a value is an integer; 1.0 and true are not."""
    return type(value) is int


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number. NaN passes every comparison, so no bound could hold it."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def schema_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern of a schema for Python, where a final ``$`` would also accept a line break."""
    return re.compile(f"{pattern[:-1]}\\Z" if pattern.endswith("$") else pattern)


_TYPES: Mapping[str, Check] = {
    "string": lambda value: isinstance(value, str),
    "integer": is_integer,
    "number": is_number,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}
_KEYWORDS = (
    *("type", "const", "enum", "pattern", "minLength", "maxLength", "minItems", "minProperties"),
    *("minimum", "maximum", "exclusiveMinimum", "required", "propertyNames", "properties"),
    *("additionalProperties", "items", "not", "oneOf"),
)
"""The supported keywords, in the order in which they are checked."""

_ANNOTATIONS = frozenset(
    (
        *("$schema", "$id", "$defs", "title", "description", "default", "examples"),
        *("patternErrorMessage", "typeErrorMessage"),
    )
)


class _Root(dict[str, Any]):
    """A schema with the compiled checks of its ``$ref`` targets; None while one is being compiled."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        super().__init__(schema)
        self.checks: dict[str, Check | None] = {}


def compile_check(schema: Mapping[str, Any]) -> Check:
    """Return a function that tells whether a value fits the schema.

    Raises ValueError for an unsupported keyword.
    """
    return _compile(schema, _Root(schema))


def _compile(part: Mapping[str, Any], root: _Root) -> Check:
    """Return the check of a part of ``root``; a part that is only a ``$ref`` is compiled once."""
    target = part.get("$ref")
    if target is None or part.keys() - _ANNOTATIONS - {"$ref"}:
        return _compile_resolved(part, root)
    if target not in root.checks:
        root.checks[target] = None
        root.checks[target] = _compile_resolved(part, root)

    def later(value: Any) -> bool:
        """Look the check up when it is needed: a part that contains itself is not compiled yet."""
        check = root.checks[target]
        assert check is not None, target
        return check(value)

    return root.checks[target] or later


def _compile_resolved(part: Mapping[str, Any], root: _Root) -> Check:
    part = resolve(root, dict(part))
    unknown = part.keys() - set(_KEYWORDS) - _ANNOTATIONS
    if unknown:
        raise ValueError(f"keywords without a check: {', '.join(sorted(unknown))}")
    checks = [
        check
        for keyword in _KEYWORDS
        if keyword in part and (check := _keyword_check(keyword, part, root)) is not None
    ]
    if len(checks) == 1:
        return checks[0]
    return lambda value: all(check(value) for check in checks)


def _keyword_check(keyword: str, part: Mapping[str, Any], root: _Root) -> Check | None:
    """Return the check of one keyword; None if another keyword of ``part`` covers it.

    As JSON Schema has it, a keyword accepts every value of a type that it says nothing about.
    """
    bound = part[keyword]
    match keyword:
        case "type":
            if isinstance(bound, str):
                return _TYPES[bound]
            types = [_TYPES[name] for name in bound]
            return lambda value: any(is_type(value) for is_type in types)
        case "enum" | "const":
            allowed = {(type(value), value) for value in ([bound] if keyword == "const" else bound)}
            return lambda value: isinstance(value, (str, int, float)) and (type(value), value) in allowed
        case "pattern":
            search = schema_pattern(bound).search
            return lambda value: not isinstance(value, str) or search(value) is not None
        case "minLength":
            return lambda value: not isinstance(value, str) or len(value) >= bound
        case "maxLength":
            return lambda value: not isinstance(value, str) or len(value) <= bound
        case "minItems":
            return lambda value: not isinstance(value, list) or len(value) >= bound
        case "minProperties":
            return lambda value: not isinstance(value, dict) or len(value) >= bound
        case "minimum":
            return lambda value: not is_number(value) or value >= bound
        case "maximum":
            return lambda value: not is_number(value) or value <= bound
        case "exclusiveMinimum":
            return lambda value: not is_number(value) or value > bound
        case "required":
            names = frozenset(bound)
            return lambda value: not isinstance(value, dict) or names <= value.keys()
        case "propertyNames":
            fits = _compile(bound, root)
            return lambda value: not isinstance(value, dict) or all(fits(key) for key in value)
        case "properties":
            return _properties_check(bound, part.get("additionalProperties", True), root)
        case "additionalProperties":
            return None if "properties" in part else _properties_check({}, bound, root)
        case "items":
            fits = _compile(bound, root)
            return lambda value: not isinstance(value, list) or all(fits(entry) for entry in value)
        case "not":
            refused = _compile(bound, root)
            return lambda value: not refused(value)
        case _:  # oneOf
            choices = [_compile(choice, root) for choice in bound]
            return lambda value: sum(choice(value) for choice in choices) == 1


def _properties_check(properties: Mapping[str, Any], additional: Any, root: _Root) -> Check:
    known = {name: _compile(sub, root) for name, sub in properties.items()}
    others: Check = (lambda value: additional) if isinstance(additional, bool) else _compile(additional, root)
    return lambda value: (
        not isinstance(value, dict) or all(known.get(name, others)(entry) for name, entry in value.items())
    )
