"""From one commit to the desired state: read, parse what is new, check across documents, resolve.

Nothing here raises for a wrong document. An invalid Flow blocks only itself; an invalid Project, Worker,
ExecConfig or OverrideRule keeps its last good version, and new submissions that it touches wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from reconciler.desired.documents import PROJECT_FILES, Collection, collect, no_plain_file
from reconciler.desired.flows import FlowReader
from reconciler.desired.source.git import Source, TreeEntry, gone
from reconciler.errors import InputError
from reconciler.model.desired import DesiredFlow, DesiredState, Hold, Revision
from reconciler.model.manifests import (
    ExecConfigSpec,
    GoodManifest,
    Kind,
    Manifest,
    ParsedFile,
    ProjectSpec,
    RuleSpec,
    WorkerSpec,
)
from reconciler.model.run_config import Rule, layer_of
from reconciler.model.settings import Layer, Level, Origin

_LOOK_BACK = 20
"""How many earlier versions of an unreadable reconciler.yaml are looked at for the name of its Project."""


class ParseCache(Protocol):
    """Where parsed blobs are remembered."""

    def get(self, blob: str) -> ParsedFile | None:
        """Return what the blob was parsed to, if known."""
        ...

    def put(self, parsed: Mapping[str, ParsedFile]) -> None:
        """Remember parsed blobs."""
        ...


class Loaded(msgspec.Struct):
    """A desired state, with what to remember of it and how many files had to be parsed."""

    state: DesiredState
    good: dict[str, GoodManifest]
    parsed_files: int


def load_desired(
    source: Source, revision: Revision, cache: ParseCache, good: Mapping[str, GoodManifest]
) -> Loaded:
    """Return the desired state of a revision.

    Raises
    ------
    InputError
        There is no ``reconciler.yaml`` at all.
    RefusedError
        There is none any more.
    """
    reader = _Reader(source, revision, cache)
    root = reader.project_file()
    project_files = reader.parse([root])
    manifests = _manifest_directories(project_files, good, reader)
    entries = _manifest_entries(source, revision, manifests)
    files = project_files | reader.parse([entry for entry in entries if entry.is_file])
    files |= {e.path: (e.object_id, no_plain_file(e.what)) for e in entries if not e.is_file}
    collection = collect(files, good, reader.parsed_blob)
    state = _assemble(source, revision, collection)
    for name in state.invalid:  # a flow whose references are wrong is not good either
        key = f"{Kind.FLOW}/{name}"
        collection.good.pop(key, None)
        if key in good:
            collection.good[key] = good[key]
    return Loaded(state, collection.good, reader.parsed_files)


class _Reader:
    """Reads the blobs of a revision, each parsed once ever."""

    def __init__(self, source: Source, revision: Revision, cache: ParseCache) -> None:
        self.source = source
        self.revision = revision
        self.cache = cache
        self.parsed_files = 0

    def project_file(self) -> TreeEntry:
        found = [self.source.entry(self.revision.commit, name) for name in PROJECT_FILES]
        for entry in found:
            if entry is not None and entry.is_file:
                return entry
        where = f"'{self.revision.path}' of {self.revision}" if self.revision.path else str(self.revision)
        for name in PROJECT_FILES if not any(found) else ():
            removed_by = self.source.removed_by(self.revision.commit, self.source.inside(name))
            if removed_by is not None:
                raise gone(f"there is no {name} in {where} any more", removed_by)
        raise InputError(
            f"there is no reconciler.yaml in {where}",
            hint="create it with `kind: Project` and commit it, or point --path at the folder that has it",
        )

    def parse(self, entries: Iterable[TreeEntry]) -> dict[str, tuple[str, ParsedFile]]:
        """Return {file: (blob id, content)}."""
        entries = list(entries)
        known = {entry.object_id: self.cache.get(entry.object_id) for entry in entries}
        missing = [blob for blob, parsed in known.items() if parsed is None]
        fresh = {}
        if missing:
            from reconciler.desired.yaml.reader import parse_file

            fresh = {blob: parse_file(data) for blob, data in self.source.blobs(missing)}
            self.cache.put(fresh)
            self.parsed_files += len(fresh)
        found = {entry.path: known[entry.object_id] or fresh[entry.object_id] for entry in entries}
        return {entry.path: (entry.object_id, found[entry.path]) for entry in entries}

    def parsed_blob(self, blob: str) -> ParsedFile | None:
        """Return an older blob that a last good version refers to."""
        return parsed_blob(self.source, self.cache, blob)


def parsed_blob(source: Source, cache: ParseCache, blob: str) -> ParsedFile | None:
    """Return what a blob of any revision was parsed to; from the cache, else from git."""
    known = cache.get(blob)
    if known is not None:
        return known
    from reconciler.desired.yaml.reader import parse_file

    for _, data in source.blobs([blob]):
        return parse_file(data)
    return None


def project_name(source: Source, revision: Revision) -> str:
    """Return ``metadata.name`` of the Project, to find the default state directory.

    While the Project of the revision cannot be read, that of the last commit in which it could counts.

    Raises
    ------
    InputError
        There is no ``reconciler.yaml``, or never was a readable Project document in it.
    """
    entry = _Reader(source, revision, _NoCache()).project_file()
    found = _project_name_in(source, [entry.object_id])
    if found is None:
        found = _project_name_in(source, source.earlier_versions(revision.commit, entry.path, _LOOK_BACK))
    if found is not None:
        return found
    raise InputError(
        f"{entry.path} of {revision} has no readable `kind: Project` document with metadata.name",
        hint="run `reconcile validate` to see what is wrong with it",
    )


def _project_name_in(source: Source, blobs: Iterable[str]) -> str | None:
    from reconciler.desired.yaml.reader import parse_file

    for _, data in source.blobs(blobs):
        for document in parse_file(data).documents:
            if document.kind == Kind.PROJECT and document.name:
                return document.name
    return None


class _NoCache:
    def get(self, blob: str) -> ParsedFile | None:
        return None

    def put(self, parsed: Mapping[str, ParsedFile]) -> None:
        return None


def _manifest_directories(
    files: Mapping[str, tuple[str, ParsedFile]], good: Mapping[str, GoodManifest], reader: _Reader
) -> list[str]:
    documents = [document for _, parsed in files.values() for document in parsed.documents]
    for key, pointer in good.items():
        if key.startswith(f"{Kind.PROJECT}/"):
            parsed = reader.parsed_blob(pointer.parsed)
            documents += [parsed.documents[pointer.position]] if parsed is not None else []
    for document in documents:
        if document.kind == Kind.PROJECT and document.valid:
            return msgspec.convert(document.content["spec"], ProjectSpec).manifests
    return ProjectSpec().manifests


def _manifest_entries(source: Source, revision: Revision, directories: Iterable[str]) -> list[TreeEntry]:
    found = {
        entry.path: entry
        for entry in source.files_below(revision.commit, directories)
        if entry.path.endswith((".yaml", ".yml")) or not entry.is_file
    }
    return [found[path] for path in sorted(found)]


def _assemble(source: Source, revision: Revision, collection: Collection) -> DesiredState:
    project_manifest = collection.project
    project = (
        msgspec.convert(project_manifest.spec, ProjectSpec) if project_manifest is not None else ProjectSpec()
    )
    name = (project_manifest.name if project_manifest is not None else None) or "unnamed"
    origin = Origin(Level.PROJECT, Kind.PROJECT, name, "")
    state = DesiredState(
        revision=revision,
        project_name=name,
        project=project,
        project_layer=layer_of(project.defaults, origin, "/spec/defaults"),
        workers=_typed(collection, Kind.WORKER, WorkerSpec),
        exec_configs=_typed(collection, Kind.EXEC_CONFIG, ExecConfigSpec),
        rules=_rules(collection),
        flows={},
        manifests=collection.manifests,
        invalid=dict(collection.invalid_flows),
        holds=_holds(collection),
        stale=set(collection.stale),
        diagnostics=collection.diagnostics,
    )
    _read_flows(source, state, collection)
    return state


def _typed(collection: Collection, kind: Kind, into: Callable[..., Any]) -> dict[str, Any]:
    return {m.name: msgspec.convert(m.spec, into) for m in collection.of(kind) if m.name}


def _rules(collection: Collection) -> list[Rule]:
    """Rules in their order: ``spec.order``, then file, then position in the file."""
    manifests = collection.of(Kind.OVERRIDE_RULE)
    keyed = []
    for manifest in manifests:
        spec = msgspec.convert(manifest.spec, RuleSpec)
        keyed.append((spec.order, manifest.file, manifest.document.first_line, make_rule(manifest, spec)))
    return [rule for *_, rule in sorted(keyed, key=lambda entry: entry[:3])]


def make_rule(manifest: Manifest, spec: RuleSpec) -> Rule:
    """Return the rule of a valid manifest."""
    name = manifest.name or ""
    origin = Origin(Level.RULE, Kind.OVERRIDE_RULE, name, "")
    layer: Layer = layer_of(spec.set, origin, "/spec/set")
    return Rule(
        name, spec.flows, spec.labels, spec.name_filter, spec.name_glob, spec.function_filter, spec.dynamic,
        layer,
    )  # fmt: skip


def _holds(collection: Collection) -> list[Hold]:
    holds = [Hold(reason) for reason in collection.hold_reasons]
    for key in sorted(collection.stale):
        kind, _, name = key.partition("/")
        if kind == Kind.PROJECT:
            holds.append(Hold("the Project is invalid in this revision"))
        elif kind == Kind.OVERRIDE_RULE:
            manifest = collection.manifests[key]
            rule = make_rule(manifest, msgspec.convert(manifest.spec, RuleSpec))
            holds.append(Hold(f"OverrideRule '{name}' is invalid in this revision", rule))
    return holds


def _read_flows(source: Source, state: DesiredState, collection: Collection) -> None:
    reader = FlowReader(source, state)
    for manifest in collection.of(Kind.FLOW):
        flow = reader.read(manifest, stale=f"{Kind.FLOW}/{manifest.name}" in collection.stale)
        if flow is not None:
            state.flows[flow.name] = flow
        elif manifest.name:
            state.invalid[manifest.name] = "it refers to something that does not exist"
    reader.check_references_between(state.flows)
    state.diagnostics += reader.diagnostics


def flows_in_build_order(flows: Mapping[str, DesiredFlow]) -> list[DesiredFlow]:
    """Return the flows so that each comes after those it refers to; cycles were refused before."""
    import graphlib

    graph = {
        name: {ref.partition("/")[0] for ref in flow.externals} & flows.keys() for name, flow in flows.items()
    }
    return [flows[name] for name in graphlib.TopologicalSorter(graph).static_order()]
