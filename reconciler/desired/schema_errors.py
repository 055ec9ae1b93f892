"""The errors of a JSON Schema validator in plain words, with place and hint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from reconciler.desired.schemas import resolve
from reconciler.desired.yaml.source_text import escape, name_of, related, visible
from reconciler.diagnostics import Diagnostic, did_you_mean, nearest
from reconciler.model.manifests import Manifest


class SchemaError(Protocol):
    """The attributes of a jsonschema ValidationError that are read here."""

    validator: Any
    validator_value: Any
    instance: Any
    schema: Any

    @property
    def absolute_path(self) -> Sequence[str | int]:
        """Keys and indices from the document to the value."""

    @property
    def absolute_schema_path(self) -> Sequence[str | int]:
        """Keys and indices from the schema to the keyword."""


class _Case(NamedTuple):
    """One error: ``instance`` at ``pointer`` breaks ``keyword: bound`` of ``schema``, a part of ``root``.

    ``where`` is the pointer as users write it. ``is_key`` is set when the error is about the key itself.
    """

    manifest: Manifest
    raws: Mapping[str, str]
    root: dict[str, Any]
    pointer: str
    where: str
    instance: Any
    schema: Mapping[str, Any]
    keyword: str
    bound: Any
    is_key: bool

    def problem(self, code: str, message: str, **rest: Any) -> Diagnostic:
        """Return a diagnostic at the value, unless ``pointer`` or ``key`` say otherwise."""
        pointer = rest.pop("pointer", self.pointer)
        return self.manifest.diagnostic(code, message, pointer, key=rest.pop("key", self.is_key), **rest)


def schema_diagnostics(
    manifest: Manifest, raws: Mapping[str, str], root: dict[str, Any], errors: Iterable[SchemaError]
) -> Iterator[Diagnostic]:
    """Yield the diagnostics of all errors. ``raws`` is the text of plain numbers and the like, by pointer."""
    reported: set[tuple[str, str]] = set()
    for error in errors:
        path = list(error.absolute_path)
        is_key = "propertyNames" in error.absolute_schema_path
        if is_key:
            path.append(error.instance)
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        case = _Case(
            manifest=manifest,
            raws=raws,
            root=root,
            pointer="".join(f"/{escape(str(step))}" for step in path),
            where=where.removeprefix(".") or "the document",  # spec.jobs[0].priority
            instance=error.instance,
            schema=error.schema,
            keyword=error.validator,
            bound=error.validator_value,
            is_key=is_key,
        )
        if (case.pointer, case.keyword) not in reported:  # jsonschema has one error for each missing field
            reported.add((case.pointer, case.keyword))
            yield from _REPORTERS[case.keyword](case)


def _unknown_fields(case: _Case) -> Iterator[Diagnostic]:
    known = case.schema.get("properties", {})
    for key in case.instance:
        if key not in known:
            yield case.problem(
                "schema/unknown-field",
                f"{case.where} does not have a field '{visible(key)}'",
                pointer=f"{case.pointer}/{escape(key)}",
                key=True,
                hint=_foreign_letters(key) or did_you_mean(key, known),
            )


def _foreign_letters(key: str) -> str | None:
    """Return a hint that names letters of other alphabets, which can look like ours."""
    foreign = sorted({character for character in key if ord(character) > 127})
    if not foreign or len(foreign) == len(set(key)):
        return None
    return f"it contains {', '.join(map(name_of, foreign[:3]))}; type the key again"


def _meant(case: _Case) -> set[str]:
    """Return the fields that unknown fields probably stand for: reporting those as missing would be noise."""
    known = case.schema.get("properties", {})
    return {guess for key in case.instance if key not in known and (guess := nearest(key, known))}


def _missing_fields(case: _Case) -> Iterator[Diagnostic]:
    for name in case.bound:
        reported_before = name == "apiVersion" and not case.pointer
        if reported_before or name in case.instance or name in _meant(case):
            continue
        hint = None
        for example in resolve(case.root, case.schema["properties"][name]).get("examples", [])[:1]:
            text = example if isinstance(example, str) else msgspec.json.encode(example).decode()
            hint = f"for example '{name}: {text}'"
        message = f"{case.where} needs the field '{name}'"
        yield case.problem("schema/missing-field", message, key=True, hint=hint)


_TYPES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
}


def _wrong_type(case: _Case) -> Iterator[Diagnostic]:
    if "typeErrorMessage" in case.schema:
        # The value may be a secret: show neither the value nor its line.
        found = case.problem("schema/type", f"{case.where}: {case.schema['typeErrorMessage']}")
        yield msgspec.structs.replace(found, excerpt=None)
        return
    types = [case.bound] if isinstance(case.bound, str) else list(case.bound)
    expected = " or ".join(_TYPES[name] for name in types)
    yield case.problem(
        "schema/type", f"{case.where}: expected {expected}, got {_found(case)}", hint=_type_hint(case, types)
    )


def _found(case: _Case) -> str:
    value = case.instance
    raw = case.raws.get(case.pointer)
    if isinstance(value, str):
        return f"the string '{_cut(value)}'"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {raw}"
    if isinstance(value, (int, float)):
        return f"the number {_cut(raw or str(value))}"
    return "a mapping" if isinstance(value, dict) else "a list"


def _type_hint(case: _Case, types: Sequence[str]) -> str | None:
    value, raw = case.instance, case.raws.get(case.pointer)
    if "enum" in case.schema:
        return f"one of {', '.join(case.schema['enum'])}"
    if raw == "":
        return "give a value, or remove the key"
    if "string" in types and raw is not None:
        return f'write it in quotes: "{raw}"'
    if types == ["boolean"] and isinstance(value, str) and value.lower() in _SWITCHES:
        return f"write {_SWITCHES[value.lower()]}"
    if "array" in types and isinstance(value, str):
        return f"write a list with one entry as [{_cut(value)}]"
    if isinstance(value, str) and types[0] in ("integer", "number") and value.lstrip("+-").isdecimal():
        return "remove the quotes"
    return None


_SWITCHES = {"on": "true", "yes": "true", "y": "true", "off": "false", "no": "false", "n": "false"}
_SWITCHES |= {"true": "true without quotes", "false": "false without quotes"}


def _wrong_choice(case: _Case) -> Iterator[Diagnostic]:
    if "type" in case.schema and not isinstance(case.instance, str):
        return  # the type is reported
    choices = [choice if isinstance(choice, str) else str(choice).lower() for choice in case.bound]
    hint = None
    if isinstance(case.instance, str):
        guess = nearest(case.instance, choices)
        hint = f"did you mean '{guess}'?" if guess else None
    yield case.problem(
        "schema/enum", f"{case.where}: expected one of {', '.join(choices)}; got {_found(case)}", hint=hint
    )


def _wrong_pattern(case: _Case) -> Iterator[Diagnostic]:
    if case.instance == "" and "minLength" in case.schema:
        return  # reported as empty
    reason = case.schema["patternErrorMessage"]
    yield case.problem("schema/pattern", f"{case.where}: '{_cut(case.instance)}': {reason}")


def _out_of_bounds(code: str, words: str) -> Callable[[_Case], Iterator[Diagnostic]]:
    def report(case: _Case) -> Iterator[Diagnostic]:
        found = _found(case)
        message = f"{case.where}: expected a number {words} {case.bound}, got {found}"
        yield case.problem(code, message, hint=case.schema.get("description"))

    return report


def _empty(case: _Case) -> Iterator[Diagnostic]:
    what = {"minLength": "text", "minItems": "list"}.get(case.keyword, "mapping")
    yield case.problem(
        "schema/empty", f"{case.where}: the {what} is empty", hint="give a value, or remove the key"
    )


def _too_long(case: _Case) -> Iterator[Diagnostic]:
    length = len(case.instance)
    yield case.problem(
        "schema/too-long", f"{case.where}: {length} characters exceed the limit of {case.bound}"
    )


def _both_given(case: _Case) -> Iterator[Diagnostic]:
    """Report a broken ``not: {required: [...]}``: keys that exclude each other."""
    if not isinstance(case.instance, dict):
        return  # the type is reported
    yield _exclusive(case, "schema/both-given", list(case.bound["required"]), "give only one of them")


def _one_of(case: _Case) -> Iterator[Diagnostic]:
    """Report a broken ``oneOf`` of ``required``: exactly one of some keys."""
    if not isinstance(case.instance, dict):
        return  # the type is reported
    names = [choice["required"][0] for choice in case.bound]
    given = [name for name in case.instance if name in names]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    if given:
        yield _exclusive(case, "schema/one-of", given, f"give exactly one of {listed}")
    elif not _meant(case) & set(names):
        yield case.problem("schema/one-of", f"{case.where} needs exactly one of {listed}", key=True)


def _exclusive(case: _Case, code: str, names: list[str], hint: str) -> Diagnostic:
    """Point at the last one of several keys that exclude each other, and name the others."""
    names = [name for name in case.instance if name in names]
    *others, last = [f"{case.pointer}/{escape(name)}" for name in names]
    notes = tuple(
        related(case.manifest, pointer, f"'{name}' is given here", key=True)
        for pointer, name in zip(others, names, strict=False)
    )
    quoted = " and ".join(f"'{name}'" for name in names)
    message = f"{case.where} has {quoted}, which exclude each other"
    return case.problem(code, message, pointer=last, key=True, hint=hint, related=notes)


def _cut(text: str) -> str:
    return visible(text if len(text) <= 60 else text[:57] + "...")


_REPORTERS: Mapping[str, Callable[[_Case], Iterator[Diagnostic]]] = {
    "additionalProperties": _unknown_fields,
    "required": _missing_fields,
    "type": _wrong_type,
    "enum": _wrong_choice,
    "pattern": _wrong_pattern,
    "minimum": _out_of_bounds("schema/minimum", "of at least"),
    "exclusiveMinimum": _out_of_bounds("schema/minimum", "above"),
    "maximum": _out_of_bounds("schema/maximum", "of at most"),
    "minLength": _empty,
    "minItems": _empty,
    "minProperties": _empty,
    "maxLength": _too_long,
    "not": _both_given,
    "oneOf": _one_of,
}
