"""Expand one FlowSet: a pure function of its document and of the files that it names.

A problem of the set as a whole (a source, the join, a column that does not exist) means that no item is
known. A problem of one item leaves the others in use. Both freeze the set: nothing of it is removed.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from reconciler.desired.flowsets.columns import UNTYPED, Columns, read_columns
from reconciler.desired.flowsets.items import Item, ItemProblem, expanded, joined, keyed, typed_table
from reconciler.desired.flowsets.sources import SourceProblem, file_of, read_source
from reconciler.desired.flowsets.template import Template, TemplateProblem
from reconciler.desired.validation import check_expanded_flow
from reconciler.diagnostics import Diagnostic, Location, Severity, did_you_mean
from reconciler.model.flowsets import FlowSetSpec, matches
from reconciler.model.manifests import API_VERSION, Document, ItemOrigin, Kind, Manifest, Mark

_MOST_PROBLEMS = 20
_LONGEST_NAME = 100


class SourceFiles(msgspec.Struct, frozen=True):
    """What the sources of a set need: the content of the files they name, and the paths of all files."""

    contents: dict[str, bytes]
    paths: Sequence[str]


class Expansion(msgspec.Struct):
    """The flows of a set as documents, by key, and what is wrong.

    ``invalid`` maps the key of each item that cannot be used to the reason. ``frozen`` is why nothing of the
    set is removed; None if all of it could be read.
    """

    flows: dict[str, Manifest] = {}
    invalid: dict[str, str] = {}
    diagnostics: list[Diagnostic] = []
    frozen: str | None = None


def named_files(spec: FlowSetSpec) -> list[str]:
    """Return the files whose content the set needs: its sources and the schema of its items."""
    found = [file[1] for source in spec.items.sources if (file := file_of(source)) is not None]
    return [*found, spec.items.schema] if isinstance(spec.items.schema, str) else found


def watched_places(spec: FlowSetSpec) -> list[str]:
    """Return the files and folders from which the items come: of a glob, the folder before its first star."""
    globs = [source["files"] for source in spec.items.sources if "files" in source]
    folders = [re.split(r"[*?]", glob, maxsplit=1)[0].rpartition("/")[0] for glob in globs]
    return sorted({*named_files(spec), *folders})


def flow_name(flowset: str, key: str) -> str:
    """Return the name of the flow of an item."""
    return f"{flowset}-{key}"


def expand(manifest: Manifest, files: SourceFiles) -> Expansion:
    """Return the flows of a valid FlowSet. Raises nothing: what is wrong with the data is in the result."""
    spec = msgspec.convert(manifest.spec, FlowSetSpec)
    try:
        items, problems = read_items(manifest, spec, files)
        return Expander(manifest, spec, files).expand(items, problems)
    except SourceProblem as error:
        place = error.place or manifest.location("/spec/items")
        problem = Diagnostic(
            code="flowset/source",
            message=f"FlowSet '{manifest.name}': {error.message}",
            location=place,
            excerpt=_line(manifest, files, place),
            hint=error.hint,
        )
        return Expansion(diagnostics=[problem], frozen=error.message)


def read_items(
    manifest: Manifest, spec: FlowSetSpec, files: SourceFiles
) -> tuple[dict[str, Item], list[ItemProblem]]:
    """Return the items of a set by key, and the problems of those that cannot be used.

    Raises
    ------
    SourceProblem
        A source cannot be read in full, or the items as a whole are wrong.
    """
    columns = _columns(manifest, spec, files)
    tables, names = [], []
    problems: list[ItemProblem] = []
    for number, source in enumerate(spec.items.sources):
        own = manifest.location(f"/spec/items/from/{number}")
        try:
            table = read_source(source, own, files.contents, files.paths)
            typed = typed_table(table, columns, files.contents)
        except SourceProblem as error:
            raise SourceProblem(error.message, error.place or own, error.hint) from error
        tables.append(typed)
        problems += typed.problems
        kind = next(name for name in _SOURCES if name in source)
        names.append(f"list {number + 1}" if kind == "list" else f"'{source[kind]}'")
    rows = joined(tables, spec.items.join, names)
    every = frozenset[str]().union(*(table.columns for table in tables), spec.items.matrix, columns.known)
    every = every.union(*spec.items.include)
    for pointer, template in (("/spec/key", spec.key), ("/spec/template", spec.template)):
        needed = Template(template, pointer)
        used = {column: at for at, column in needed.direct.items()} | needed.columns
        for column, at in used.items():
            if rows and column not in every:
                hint = did_you_mean(column, every)
                raise SourceProblem(f"no source has a column '{column}'", manifest.location(at), hint)
    own = manifest.location("/spec/items")
    items, found = keyed(
        expanded(rows, spec.items, own, spec.limits.max_items),
        columns, Template(spec.key, "/spec/key"), _LONGEST_NAME - len(manifest.name or "") - 1,
    )  # fmt: skip
    return items, problems + found


_SOURCES = ("csv", "json", "jsonl", "yaml", "files", "list")


def _columns(manifest: Manifest, spec: FlowSetSpec, files: SourceFiles) -> Columns:
    schema = spec.items.schema
    if schema is None:
        return UNTYPED
    place = manifest.location("/spec/items/schema")
    if isinstance(schema, str):
        if schema not in files.contents:
            hint = did_you_mean(schema, (path for path in files.paths if path.endswith(".json")))
            raise SourceProblem(f"this revision does not have a file '{schema}'", place, hint)
        place = Location(schema, 1, 1)
        try:
            schema = json.loads(files.contents[schema])
        except ValueError as error:
            raise SourceProblem(f"'{place.file}' is not valid JSON: {error}", place) from error
    try:
        if not isinstance(schema, dict):
            raise ValueError("it must be a mapping")
        return read_columns(schema)
    except ValueError as error:
        raise SourceProblem(f"the schema of the items cannot be used: {error}", place) from error


class Expander:
    """Makes the documents of the flows. What the items share is made once: marks, templates, labels."""

    def __init__(self, manifest: Manifest, spec: FlowSetSpec, files: SourceFiles) -> None:
        self.manifest = manifest
        self.spec = spec
        self.files = files
        template = {name: value for name, value in spec.template.items() if name != "labels"}
        self.template = Template(template, "/spec/template")
        self.labels = Template(spec.template.get("labels", {}), "/spec/template/labels")
        direct = self.template.direct | self.labels.direct
        self.direct = {_of_flow(pointer) or "": column for pointer, column in direct.items()}
        self.used: set[int] = set()
        self.diagnostics: dict[tuple[str, Location | None], list[Diagnostic]] = {}
        self._shared: dict[tuple[int, ...], tuple[dict[str, Mark], dict[str, str]]] = {}

    def expand(self, items: Mapping[str, Item], problems: Iterable[ItemProblem]) -> Expansion:
        """Return the checked flows of all items; ``problems`` are those of items that cannot be used."""
        flows: dict[str, Manifest] = {}
        invalid: dict[str, str] = {}
        for problem in problems:
            place = problem.place or self.manifest.location("/spec/items")
            self._note(
                Diagnostic(
                    code="flowset/item",
                    message=f"FlowSet '{self.manifest.name}': {problem.message}",
                    location=place,
                    excerpt=_line(self.manifest, self.files, place),
                    hint=problem.hint,
                )
            )
            if problem.key is not None:
                invalid[problem.key] = problem.message
        unreadable = any(True for _ in self.diagnostics)
        for key, item in items.items():
            try:
                flow = self.flow(key, item)
            except TemplateProblem as error:
                place = self.manifest.location(error.pointer)
                found = [self.manifest.diagnostic("flowset/template", error.message, error.pointer)]
            else:
                found = list(check_expanded_flow(flow))
                flows[key] = flow
            errors = [one for one in found if one.is_error]
            for one in found:
                message = f"item '{key}' of FlowSet '{self.manifest.name}': {one.message}"
                self._note(msgspec.structs.replace(one, message=message))
            if errors:
                invalid[key] = errors[0].message
                flows.pop(key, None)
        for number in self.unused_overrides(items):
            self._note(
                self.manifest.diagnostic(
                    "flowset/unused-override",
                    f"override {number + 1} of FlowSet '{self.manifest.name}' matches none of its items",
                    f"/spec/overrides/{number}",
                    severity=Severity.WARNING,
                    hint="see the items with `reconcile expand`",
                )
            )
        diagnostics = list(self._folded())
        frozen = None
        if unreadable or invalid:
            count = len(invalid) or len(diagnostics)
            frozen = (
                f"{count} of its items cannot be used" if count > 1 else "one of its items cannot be used"
            )
        return Expansion(flows, invalid, diagnostics, frozen)

    def unused_overrides(self, items: Mapping[str, Item]) -> list[int]:
        """Return the overrides that match none of the items; a set without items has none to match."""
        return [
            number
            for number, override in enumerate(self.spec.overrides)
            if number not in self.used
            and items
            and not any(_applies(override, key, item) for key, item in items.items())
        ]

    def flow(self, key: str, item: Item) -> Manifest:
        """Return the document of the flow of an item, unchecked. Raises TemplateProblem."""
        spec = self.template.fill(item.values)
        overrides = enumerate(self.spec.overrides)
        matched = [number for number, override in overrides if _applies(override, key, item)]
        self.used.update(matched)
        if matched or self.spec.suspend or self.spec.on_removed is not None:
            spec = dict(spec)
            for number in matched:
                self._override(spec, self.spec.overrides[number])
            if self.spec.suspend:
                spec["suspend"] = True
            if self.spec.on_removed is not None:
                spec["prune"] = str(self.spec.on_removed.prune)
        name = flow_name(self.manifest.name or "", key)
        own = self.manifest.metadata
        metadata: dict[str, Any] = {"name": name}
        metadata["labels"] = {**own.get("labels", {}), **self.labels.fill(item.values)}
        if "annotations" in own:
            metadata["annotations"] = own["annotations"]
        if "previous_names" in own:
            metadata["previous_names"] = [flow_name(old, key) for old in own["previous_names"]]
        marks, columns = self._places(tuple(matched))
        document = Document(
            kind=Kind.FLOW,
            name=name,
            content={"apiVersion": API_VERSION, "kind": "Flow", "metadata": metadata, "spec": spec},
            marks=marks,
            valid=True,
            first_line=self.manifest.document.first_line,
            lines=self.manifest.document.lines,
        )
        origin = ItemOrigin(self.manifest.name or "", key, item.values, item.rows, columns)
        return Manifest(self.manifest.file, document, origin)

    @staticmethod
    def _override(spec: dict[str, Any], override: Mapping[str, Any]) -> None:
        values = override.get("set", {})
        if {"resources", "qresources"} & values.keys():
            spec.pop("resources", None)
            spec.pop("qresources", None)
        spec.update(values)
        for name in ("suspend", "suspend_reason"):
            if name in override:
                spec[name] = override[name]

    def _places(self, matched: tuple[int, ...]) -> tuple[dict[str, Mark], dict[str, str]]:
        """Return the marks of a flow, and which of its values come from the item, by overrides that match."""
        if matched not in self._shared:
            marks: dict[str, Mark] = {}
            columns = dict(self.direct)
            for pointer, mark in self.manifest.document.marks.items():
                at = _of_flow(pointer)
                if at is not None:
                    marks[at] = mark
            for number in matched:
                prefix = f"/spec/overrides/{number}"
                for pointer, mark in self.manifest.document.marks.items():
                    for below in (f"{prefix}/set/", f"{prefix}/"):
                        if pointer.startswith(below):
                            at = f"/spec/{pointer.removeprefix(below)}"
                            marks[at] = mark
                            columns = {
                                one: name
                                for one, name in columns.items()
                                if not f"{one}/".startswith(f"{at}/")
                            }
                            break
            self._shared[matched] = marks, columns
        return self._shared[matched]

    def _note(self, problem: Diagnostic) -> None:
        self.diagnostics.setdefault((problem.code, problem.location), []).append(problem)

    def _folded(self) -> Iterator[Diagnostic]:
        """Yield the problems, those at one place once, and of very many only the first."""
        for several in list(self.diagnostics.values())[:_MOST_PROBLEMS]:
            more = len(several) - 1
            message = several[0].message + (f" (and {more:,} more items)" if more > 1 else "")
            message += " (and one more item)" if more == 1 else ""
            yield msgspec.structs.replace(several[0], message=message)
        hidden = len(self.diagnostics) - _MOST_PROBLEMS
        if hidden > 0:
            yield self.manifest.diagnostic(
                "flowset/more-problems",
                f"FlowSet '{self.manifest.name}' has problems at {hidden:,} more places, which are not shown",
                "/spec/items",
            )


def _applies(override: Mapping[str, Any], key: str, item: Item) -> bool:
    keys = override.get("keys")
    by_key = keys is None or any(fnmatch.fnmatchcase(key, pattern) for pattern in keys)
    return by_key and matches(item.values, override.get("match", {}))


def _of_flow(pointer: str) -> str | None:
    """Return the pointer of a flow for one of its FlowSet; None if flows do not have it."""
    if pointer.startswith("/spec/template/labels"):
        return f"/metadata{pointer.removeprefix('/spec/template')}"
    if pointer.startswith("/spec/template"):
        return f"/spec{pointer.removeprefix('/spec/template')}"
    if pointer == "/spec/key":
        return "/metadata/name"
    if pointer in ("", "/spec/suspend") or pointer.startswith("/metadata/annotations"):
        return pointer
    return "/spec/prune" if pointer == "/spec/on_removed" else None


def _line(manifest: Manifest, files: SourceFiles, place: Location) -> str | None:
    """Return the source line at a place of the set's document or of one of its sources."""
    if place.file == manifest.file:
        return manifest.excerpt(place.line)
    lines = files.contents.get(place.file, b"").decode(errors="replace").split("\n")
    return lines[place.line - 1].rstrip("\r") if place.line <= len(lines) else None
