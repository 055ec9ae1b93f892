"""From one document as it was read to a checked one: its kind, its schema, and what no schema can say.

Only a document that breaks its schema makes this module import jsonschema.
"""

from __future__ import annotations

import functools
import graphlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from reconciler.desired.flowsets.template import Template, TemplateProblem
from reconciler.desired.schema_errors import SchemaError, schema_diagnostics
from reconciler.desired.schemas import (
    Check,
    compile_check,
    is_integer,
    is_number,
    load_schema,
    schema_pattern,
)
from reconciler.desired.values import (
    DOTTED,
    check_arguments,
    entries,
    iter_directives,
    parse_output_reference,
)
from reconciler.desired.yaml.builder import RawDocument
from reconciler.desired.yaml.source_text import related
from reconciler.diagnostics import Diagnostic, Severity, bounded, did_you_mean, nearest
from reconciler.model.manifests import API_VERSION, Document, Kind, Manifest

MAX_PROBLEMS = 50
"""How many problems of one document are reported: a file that is not a manifest could have thousands."""

_KINDS: frozenset[str] = frozenset(Kind)
_KIND_LINE = re.compile(r"""(?:^|[{,])[ \t]*["']?kind["']?[ \t]*:[ \t]*["']?([A-Za-z]+)""", re.MULTILINE)


def suspected_kinds(text: str) -> list[str]:
    """Return the kinds that unreadable YAML seems to contain, in order."""
    return [kind for kind in dict.fromkeys(_KIND_LINE.findall(text)) if kind in _KINDS]


def checked_document(raw: RawDocument) -> tuple[Document, list[Diagnostic]]:
    """Return the document, valid or not, and all its problems, including those of the reader."""
    content: dict[str, Any] = raw.content if isinstance(raw.content, dict) else {}
    kind, metadata = content.get("kind"), content.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    document = Document(
        kind=kind if isinstance(kind, str) else None,
        name=name if isinstance(name, str) else None,
        content=content,
        marks=raw.marks,
        valid=True,
        first_line=raw.first_line,
        lines=raw.lines,
    )
    # The schema does not repeat what the reader already reported at a place (a number out of range).
    reported = {problem.location for problem in raw.problems}
    others = (
        problem for problem in _problems(raw, Manifest("", document)) if problem.location not in reported
    )
    problems = list(itertools.islice(itertools.chain(raw.problems, others), MAX_PROBLEMS + 1))
    if len(problems) > MAX_PROBLEMS:
        message = f"this document has more than {MAX_PROBLEMS} problems; the rest is not shown"
        problems[-1] = msgspec.structs.replace(
            problems[-1], code="manifest/more-problems", message=message, hint=None, related=()
        )
    valid = not any(problem.is_error for problem in problems)
    return msgspec.structs.replace(document, valid=valid), [bounded(problem) for problem in problems]


_DATA_HINT = "every YAML file in the manifest directories must be a manifest: keep data elsewhere"


def _problems(raw: RawDocument, manifest: Manifest) -> Iterator[Diagnostic]:
    if not isinstance(raw.content, dict):
        what = "a list" if isinstance(raw.content, list) else "a single value"
        yield manifest.diagnostic(
            "manifest/not-a-mapping",
            f"a manifest is a mapping with apiVersion, kind, metadata and spec, but this document is {what}",
            hint=_DATA_HINT,
        )
        return
    yield from _head_problems(manifest)
    if manifest.kind not in _KINDS or raw.content.get("apiVersion", API_VERSION) != API_VERSION:
        return  # no schema can be chosen
    kind = Kind(manifest.kind)
    if not _fast_check(kind)(raw.content):
        errors = _explainer(kind)(raw.content)
        yield from schema_diagnostics(manifest, raw.raws, load_schema(kind), errors)
    if kind is Kind.FLOW:
        yield from check_flow(manifest)
    if kind is Kind.FLOW_SET:
        yield from _check_templates(manifest)
    if kind is Kind.MAKER:
        yield from _check_maker(manifest)
    yield from check_exports(manifest)
    if kind is Kind.PROJECT and isinstance(manifest.spec, Mapping):
        yield from _check_jobstore(manifest, manifest.spec.get("jobstore"), "/spec/jobstore")
        yield from _check_notify_names(manifest, manifest.spec.get("notify"))


def _check_notify_names(manifest: Manifest, rules: Any) -> Iterator[Diagnostic]:
    """Yield each notify rule that has the name of an earlier one."""
    places: dict[str, str] = {}
    for number, rule in enumerate(rules if isinstance(rules, list) else []):
        name = rule.get("name") if isinstance(rule, dict) else None
        if not isinstance(name, str):
            continue  # the schema reports it
        pointer = f"/spec/notify/{number}/name"
        if name in places:
            earlier = related(manifest, places[name], "the first one is here")
            yield manifest.diagnostic(
                "project/duplicate-notify-rule",
                f"there are two notify rules named '{name}'",
                pointer,
                hint="give each rule a name of its own",
                related=(earlier,),
            )
        places.setdefault(name, pointer)


def check_expanded_flow(manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield the problems of a flow that a FlowSet makes: those that its document would have."""
    if not _fast_check(Kind.FLOW)(manifest.document.content):
        errors = _explainer(Kind.FLOW)(manifest.document.content)
        yield from schema_diagnostics(manifest, {}, load_schema(Kind.FLOW), errors)
    yield from check_flow(manifest)


def _check_templates(manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield what is wrong with the placeholders of a FlowSet, whatever its items are."""
    spec = manifest.spec if isinstance(manifest.spec, Mapping) else {}
    for name in ("key", "template"):
        try:
            template = Template(spec.get(name), f"/spec/{name}")
        except TemplateProblem as error:
            yield manifest.diagnostic("flowset/template", error.message, error.pointer)
            continue
        if name == "key" and isinstance(spec.get(name), str) and not template.columns:
            yield manifest.diagnostic(
                "flowset/key",
                "the key is the same for all items: it does not name a column",
                "/spec/key",
                hint="write columns in braces: '{formula}-e{encut}'",
            )


_STORE_MODULE = re.compile(r"maggma\.stores(\.\w+)*|jobflow\.core\.store")


def _check_jobstore(manifest: Manifest, value: Any, pointer: str) -> Iterator[Diagnostic]:
    """Yield what is wrong with a part of a job store.

    It may forget what is written: memory, and files that are only read. As a serialised object, it may name
    nothing but stores, because monty imports and calls whatever it names.
    """
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _check_jobstore(manifest, inner, f"{pointer}/{number}")
    if not isinstance(value, Mapping):
        return
    at_keys = [key for key in value if isinstance(key, str) and key.startswith("@")]
    module = str(value.get("@module", "maggma.stores"))
    if not {"@module", "@class", "@version"}.issuperset(at_keys) or not _STORE_MODULE.fullmatch(module):
        yield manifest.diagnostic(
            "project/jobstore-class",
            "a serialised JobStore names stores of maggma and jobflow only, with @module and @class",
            pointer,
            hint="write what JobStore.as_dict() gives, or `docs_store: {type: ...}` as in jobflow.yaml",
        )
    kind = value.get("type", value.get("@class"))
    if kind == "MemoryStore":
        yield manifest.diagnostic(
            "project/forgetful-jobstore",
            "a MemoryStore keeps nothing: outputs would be lost when the program ends",
            pointer,
            hint="leave spec.jobstore out for the embedded store, or name a store such as MongoStore",
        )
    elif kind == "FileStore":
        yield manifest.diagnostic(
            "project/forgetful-jobstore",
            "a FileStore describes files that exist: it cannot keep outputs",
            pointer,
            hint="name a store such as S3Store, GridFSStore or MongoStore, or leave spec.jobstore out",
        )
    elif kind == "JSONStore" and value.get("read_only", True) is not False:
        yield manifest.diagnostic(
            "project/forgetful-jobstore",
            "a JSONStore keeps nothing unless it can be written: outputs would be lost",
            pointer,
            hint="add 'read_only: false'",
        )
    for key, inner in value.items():
        yield from _check_jobstore(manifest, inner, f"{pointer}/{key}")


def _head_problems(manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield the problems of apiVersion and kind, which select the schema."""
    content = manifest.document.content
    if "kind" not in content and "apiVersion" not in content:
        yield manifest.diagnostic(
            "manifest/kind",
            "this document is not a manifest: it has neither apiVersion nor kind",
            hint=_DATA_HINT,
        )
        return
    hint = f"write 'apiVersion: {API_VERSION}'"
    if "apiVersion" not in content:
        key = nearest("apiVersion", content)
        hint = f"rename '{key}' to 'apiVersion'" if key else hint
        yield manifest.diagnostic("manifest/api-version", "the document needs 'apiVersion'", hint=hint)
    elif content["apiVersion"] != API_VERSION:
        message = f"this version of reconciler reads apiVersion {API_VERSION}, not '{content['apiVersion']}'"
        yield manifest.diagnostic("manifest/api-version", message, "/apiVersion", hint=hint)
    kind = content.get("kind")
    if "kind" not in content:
        key = nearest("kind", content)
        hint = f"rename '{key}' to 'kind'" if key else f"use one of {', '.join(Kind)}"
        yield manifest.diagnostic("manifest/kind", "the document needs 'kind'", hint=hint)
    elif not isinstance(kind, str):
        yield manifest.diagnostic("manifest/kind", f"kind must be one of {', '.join(Kind)}", "/kind")
    elif kind not in _KINDS:
        message = f"'{kind[:60]}' is not a kind of manifest"
        yield manifest.diagnostic("manifest/kind", message, "/kind", hint=did_you_mean(kind, Kind))


@functools.cache
def _fast_check(kind: Kind) -> Check:
    return compile_check(load_schema(kind))


@functools.cache
def _explainer(kind: Kind) -> Callable[[Any], Iterator[SchemaError]]:
    """Return a function that yields the errors that jsonschema finds in a document of this kind."""
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


_SHELL_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)[}:%#/-]|([A-Za-z_][A-Za-z0-9_]*))")


def check_exports(manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield a warning for each value of ``export`` with a variable that the shell does not expand.

    An explicit ``expand`` says what is meant. Accepts documents that break the schema too.
    """
    pending: list[tuple[str, Any]] = [("/spec", manifest.spec)]
    while pending:
        pointer, value = pending.pop()
        if not isinstance(value, Mapping):
            pending += [(f"{pointer}/{step}", inner) for step, inner in entries(value)]
            continue
        is_exec_config = pointer == "/spec" and manifest.kind == Kind.EXEC_CONFIG
        for key, inner in value.items():
            at = f"{pointer}/{key}"
            if key == "exec_config" or (is_exec_config and key == "export"):
                config, where = (value, pointer) if is_exec_config else (inner, at)
                yield from _unexpanded(manifest, config, where)
            elif key not in ("args", "kwargs"):
                pending.append((at, inner))


def _unexpanded(manifest: Manifest, exec_config: Any, pointer: str) -> Iterator[Diagnostic]:
    if not isinstance(exec_config, Mapping) or "expand" in exec_config:
        return
    exports = exec_config.get("export")
    for name, value in exports.items() if isinstance(exports, Mapping) else ():
        found = _SHELL_VARIABLE.search(value) if isinstance(value, str) else None
        if found is not None:
            yield manifest.diagnostic(
                "exec-config/not-expanded",
                f"'${found[1] or found[2]}' in {name} is not expanded: the job gets the text as written",
                f"{pointer}/export/{name}",
                hint="to expand variables, add `expand: true` beside `export`; if the text is meant, "
                "`expand: false`",
                severity=Severity.WARNING,
            )


# What no schema can say of a flow: ids are unique, and references lead somewhere and never in a circle.

_MAX_CYCLES = 10


class _Reference(NamedTuple):
    """``user`` (None for a maker or factory) uses the output of ``job``; written at ``pointer``."""

    user: str | None
    job: str
    pointer: str


def check_flow(manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield the problems of a flow beyond its schema. Accepts documents that break the schema too."""
    spec = manifest.spec
    if not isinstance(spec, Mapping):
        return
    listed = spec.get("jobs")
    jobs = [
        (f"/spec/jobs/{index}", job)
        for index, job in enumerate(listed if isinstance(listed, list) else [])
        if isinstance(job, Mapping)
    ]
    ids: dict[str, str] = {}  # id -> pointer of the first job that has it
    for pointer, job in jobs:
        name, at = job.get("id"), f"{pointer}/id"
        if isinstance(name, str) and ids.setdefault(name, at) != at:
            yield manifest.diagnostic(
                "flow/duplicate-job-id",
                f"two jobs of this flow have the id '{name}'",
                at,
                hint="give each job an id of its own; jobs can share a 'name'",
                related=(related(manifest, ids[name], f"'{name}' is first used here"),),
            )
    for pointer, job in jobs:
        for name in ("args", "kwargs"):
            if "maker" in job and name in job:
                yield manifest.diagnostic(
                    "flow/arguments-of-maker",
                    f"'{name}' beside 'maker' has no effect: only its class and make() take arguments",
                    f"{pointer}/{name}",
                    key=True,
                    hint="write them as maker.kwargs, or as maker.make.args and maker.make.kwargs",
                )
    # Everything that may have args and kwargs, with the id of the job that it belongs to.
    holders: list[tuple[str, Any, str | None]] = []
    for pointer, job in jobs:
        job_id = job.get("id")
        user = job_id if isinstance(job_id, str) else None
        holders.append((pointer, job, user))
        holders += [(at, holder, user) for at, holder in _maker_holders(job, pointer)]
    holders += [(at, holder, None) for at, holder in _maker_holders(spec, "/spec")]
    holders.append(("/spec/factory", spec.get("factory"), None))
    for pointer, holder, _ in holders:
        yield from check_arguments(manifest, holder, pointer)
    for pointer, holder, _ in holders:
        yield from _missing_dollars(manifest, holder, pointer, ids)
    makers = {job["id"] for _, job in jobs if "maker" in job and isinstance(job.get("id"), str)}
    references = [
        found for pointer, holder, user in holders for found in _references(manifest, pointer, holder, user)
    ]
    for reference in references:
        root, inner, _ = reference.job.partition("/")
        if root in ids and (not inner or root in makers):
            continue
        hint = did_you_mean(reference.job, ids)
        message = f"this flow does not have a job with the id '{reference.job}'"
        if not ids:
            message = f"'{reference.job}' is not a job: this flow does not list jobs with ids"
            hint = "write a job of another flow as 'flow/job'"
        elif inner and root in ids:
            message = f"'{root}' is one job, so '{reference.job}' does not exist"
        elif not reference.job:
            message = "a flow cannot use its own output"
            hint = "name a job of this flow"
        yield manifest.diagnostic("flow/unknown-job", message, reference.pointer, hint=hint)
    yield from _cycles(manifest, references)


def _check_maker(manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield the problems of the arguments of a Maker: many flows share it, so it cannot refer to jobs."""
    yield from check_arguments(manifest, manifest.spec, "/spec")
    for pointer, directive, _ in iter_directives(manifest.spec, "/spec"):
        if directive == "$output":
            yield manifest.diagnostic(
                "maker/reference",
                "a Maker cannot use '$output': the flows that share it have jobs of their own",
                f"{pointer}/$output",
                key=True,
                hint="give it in the flow, as an argument of make or in the kwargs beside 'ref'",
            )


def _maker_holders(holder: Mapping[str, Any], pointer: str) -> Iterator[tuple[str, Any]]:
    """Yield (pointer, value) of the parts of ``maker`` in a spec or job that have arguments."""
    maker = holder.get("maker")
    if isinstance(maker, Mapping):
        yield f"{pointer}/maker", maker
        yield f"{pointer}/maker/make", maker.get("make")


def _missing_dollars(
    manifest: Manifest, holder: Any, pointer: str, ids: Mapping[str, str]
) -> Iterator[Diagnostic]:
    """Yield a warning for each mapping in the arguments that is probably a directive without its ``$``.

    ``{output: a}`` counts if ``a`` is a job of the flow, ``{call: m.f}`` and ``{maker: {class: m.M}}`` by
    form.
    """
    if not isinstance(holder, Mapping):
        return
    pending = [
        (f"{pointer}/{name}/{step}", value)
        for name in ("kwargs", "args")
        for step, value in entries(holder.get(name))
    ]
    while pending:
        at, value = pending.pop()
        pending += [(f"{at}/{step}", inner) for step, inner in entries(value)]
        if not isinstance(value, Mapping):
            continue
        name = next(iter(value), "")
        given = value.get(name)
        slip = False
        if name == "output" and len(value) == 1 and isinstance(given, str):
            try:
                flow, job, _ = parse_output_reference(given)
                slip = job in ids if flow is None else True
            except ValueError:
                pass
        elif name == "call" and value.keys() <= {"call", "args", "kwargs"}:
            slip = isinstance(given, str) and DOTTED.fullmatch(given) is not None
        elif name == "maker" and len(value) == 1:
            slip = isinstance(given, Mapping) and "class" in given
        if slip:
            yield manifest.diagnostic(
                "value/missing-dollar",
                f"'{name}' without '$' is plain data: the function gets the mapping as it is written",
                f"{at}/{name}",
                key=True,
                hint=f"if you mean the directive, write '${name}'",
                severity=Severity.WARNING,
            )


def _references(manifest: Manifest, pointer: str, holder: Any, user: str | None) -> Iterator[_Reference]:
    """Yield the references of ``holder`` to jobs of its own flow; check_arguments reports unreadable ones."""
    if not isinstance(holder, Mapping):
        return
    for name in ("args", "kwargs"):
        for at, directive, value in iter_directives(holder.get(name), f"{pointer}/{name}"):
            if directive != "$output" or not isinstance(value, str | Mapping):
                continue
            try:
                flow, job, _ = parse_output_reference(value)
            except ValueError:
                continue
            if flow in (None, manifest.name):
                yield _Reference(user, job, f"{at}/$output")


def _cycles(manifest: Manifest, references: list[_Reference]) -> Iterator[Diagnostic]:
    """Yield one diagnostic for each cycle; a cycle that is found is cut open to find the next one."""
    needs: dict[str, dict[str, str]] = {}
    for reference in references:
        if reference.user is not None:
            needed = reference.job.partition("/")[0]
            needs.setdefault(reference.user, {}).setdefault(needed, reference.pointer)
    for _ in range(_MAX_CYCLES):
        try:
            graphlib.TopologicalSorter({user: list(jobs) for user, jobs in needs.items()}).prepare()
            return
        except graphlib.CycleError as error:
            chain: list[str] = error.args[1][::-1]  # each job needs the next one; the first comes again last
        # Begin with the smallest name, so that the same cycle always reads the same.
        first = chain.index(min(chain))
        chain = [*chain[first:-1], *chain[: first + 1]] if first else chain
        steps = list(itertools.pairwise(chain))
        shown = chain if len(chain) <= 9 else [*chain[:4], "...", *chain[-4:]]
        message = f"these jobs wait for each other: {' -> '.join(shown)} (each needs the output of the next)"
        if len(steps) == 1:
            message = f"the job '{chain[0]}' needs its own output"
        notes = tuple(
            related(manifest, needs[user][job], f"'{user}' needs '{job}' here") for user, job in steps[1:9]
        )
        yield manifest.diagnostic("flow/cycle", message, needs[chain[0]][chain[1]], related=notes)
        del needs[chain[0]][chain[1]]
