"""One document as it was read to a checked one: find its kind, check its schema, check the flow.

Only a document that breaks its schema makes this module import jsonschema.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from reconciler.desired.fast_check import Check, compile_check, is_integer, is_number, schema_pattern
from reconciler.desired.flow_checks import check_flow
from reconciler.desired.schema_errors import SchemaError, schema_diagnostics
from reconciler.desired.schemas import load_schema
from reconciler.desired.yaml.builder import RawDocument
from reconciler.diagnostics import Diagnostic, Related, did_you_mean, nearest
from reconciler.model.manifests import API_VERSION, Document, Kind, Manifest

MAX_PROBLEMS = 50
"""How many problems of one document are told; a file that is no manifest at all could have thousands."""

_KINDS: frozenset[str] = frozenset(Kind)


_KIND_LINE = re.compile(r"""(?:^|[{,])[ \t]*["']?kind["']?[ \t]*:[ \t]*["']?([A-Za-z]+)""", re.MULTILINE)


def suspected_kinds(text: str) -> list[str]:
    """Return the kinds that a text which is no readable YAML seems to have, in order."""
    found = dict.fromkeys(_KIND_LINE.findall(text))
    return [kind for kind in found if kind in _KINDS]


def checked_document(raw: RawDocument) -> tuple[Document, list[Diagnostic]]:
    """Return the document, valid or not, and all its problems, those of the reader included."""
    document = _document(raw)
    manifest = Manifest("", document)
    told = {problem.location for problem in raw.problems}
    # what the reader already said of a place (a number out of range) is not said again by the schema
    others = (problem for problem in _problems(raw, manifest) if problem.location not in told)
    problems = _limited([*raw.problems], others)
    valid = not any(problem.is_error for problem in problems)
    return msgspec.structs.replace(document, valid=valid), [bounded(problem) for problem in problems]


def _limited(first: list[Diagnostic], others: Iterable[Diagnostic]) -> list[Diagnostic]:
    problems = list(itertools.islice(itertools.chain(first, others), MAX_PROBLEMS + 1))
    if len(problems) > MAX_PROBLEMS:
        message = f"this document has more than {MAX_PROBLEMS} problems; the others are not shown"
        problems[-1] = msgspec.structs.replace(
            problems[-1], code="manifest/more-problems", message=message, hint=None, related=()
        )
    return problems


_LONGEST_TEXT = 400
_LONGEST_EXCERPT = 4000


def bounded(problem: Diagnostic) -> Diagnostic:
    """Cut what quotes the user's text: one line of a file may be a megabyte, and diagnostics are stored."""
    excerpt, hint = problem.excerpt, problem.hint
    if (
        len(problem.message) > _LONGEST_TEXT
        or len(excerpt or "") > _LONGEST_EXCERPT
        or len(hint or "") > _LONGEST_TEXT
    ):
        return msgspec.structs.replace(
            problem,
            message=_cut(problem.message),
            hint=None if hint is None else _cut(hint),
            excerpt=None if len(excerpt or "") > _LONGEST_EXCERPT else excerpt,
            related=tuple(Related(note.location, _cut(note.label)) for note in problem.related),
        )
    return problem


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."


def _document(raw: RawDocument) -> Document:
    content: dict[str, Any] = raw.content if isinstance(raw.content, dict) else {}
    kind, metadata = content.get("kind"), content.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return Document(
        kind=kind if isinstance(kind, str) else None,
        name=name if isinstance(name, str) else None,
        content=content,
        marks=raw.marks,
        valid=True,
        first_line=raw.first_line,
        lines=raw.lines,
    )


def _problems(raw: RawDocument, manifest: Manifest) -> Iterator[Diagnostic]:
    if not isinstance(raw.content, dict):
        yield _not_a_mapping(manifest, raw.content)
        return
    yield from _head_problems(manifest)
    if manifest.kind not in _KINDS or raw.content.get("apiVersion", API_VERSION) != API_VERSION:
        return  # no schema can be chosen
    kind = Kind(manifest.kind)
    yield from _schema_problems(kind, raw, manifest)
    if kind is Kind.FLOW:
        yield from check_flow(manifest)


def _not_a_mapping(manifest: Manifest, content: Any) -> Diagnostic:
    what = "a list" if isinstance(content, list) else "a single value"
    return manifest.diagnostic(
        "manifest/not-a-mapping",
        f"a manifest is a mapping with apiVersion, kind, metadata and spec; this document is {what}",
        hint="every YAML file in the manifest directories must be a manifest: keep data elsewhere",
    )


def _head_problems(manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield what is wrong with apiVersion and kind, which choose the schema."""
    content = manifest.document.content
    if "kind" not in content and "apiVersion" not in content:
        yield manifest.diagnostic(
            "manifest/kind",
            "this document is no manifest: it has neither apiVersion nor kind",
            hint="every YAML file in the manifest directories must be a manifest: keep data elsewhere",
        )
        return
    yield from _api_version_problems(manifest, content)
    yield from _kind_problems(manifest, content)


def _api_version_problems(manifest: Manifest, content: Mapping[str, Any]) -> Iterator[Diagnostic]:
    hint = f"write 'apiVersion: {API_VERSION}'"
    if "apiVersion" not in content:
        key = nearest("apiVersion", content)
        hint = f"did you mean '{key}' to be 'apiVersion'?" if key else hint
        yield manifest.diagnostic("manifest/api-version", "the document lacks 'apiVersion'", hint=hint)
    elif content["apiVersion"] != API_VERSION:
        message = f"this version of reconciler reads apiVersion {API_VERSION}, not '{content['apiVersion']}'"
        yield manifest.diagnostic("manifest/api-version", message, "/apiVersion", hint=hint)


def _kind_problems(manifest: Manifest, content: Mapping[str, Any]) -> Iterator[Diagnostic]:
    kind = content.get("kind")
    if "kind" not in content:
        key = nearest("kind", content)
        hint = f"did you mean '{key}' to be 'kind'?" if key else f"one of {', '.join(Kind)}"
        yield manifest.diagnostic("manifest/kind", "the document lacks 'kind'", hint=hint)
    elif not isinstance(kind, str):
        yield manifest.diagnostic("manifest/kind", f"kind must be one of {', '.join(Kind)}", "/kind")
    elif kind not in _KINDS:
        message = f"there is no kind '{kind[:60]}'"
        yield manifest.diagnostic("manifest/kind", message, "/kind", hint=did_you_mean(kind, Kind))


def _schema_problems(kind: Kind, raw: RawDocument, manifest: Manifest) -> Iterator[Diagnostic]:
    if _fast_check(kind)(raw.content):
        return
    errors = _explainer(kind)(raw.content)
    yield from schema_diagnostics(manifest, raw.raws, load_schema(kind), errors)


@functools.cache
def _fast_check(kind: Kind) -> Check:
    return compile_check(load_schema(kind))


@functools.cache
def _explainer(kind: Kind) -> Callable[[Any], Iterator[SchemaError]]:
    """Return a function that yields jsonschema's errors of a document of this kind."""
    from jsonschema import Draft202012Validator, ValidationError, validators

    def pattern(validator: Any, text: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if validator.is_type(instance, "string") and not schema_pattern(text).search(instance):
            yield ValidationError(f"{instance!r} does not match {text!r}")

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: is_integer(value))
    types = types.redefine("number", lambda _, value: is_number(value))
    extend: Callable[..., Any] = validators.extend
    explained = extend(Draft202012Validator, {"pattern": pattern}, type_checker=types)
    errors: Callable[[Any], Iterator[SchemaError]] = explained(load_schema(kind)).iter_errors
    return errors
