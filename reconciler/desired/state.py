"""From one commit to the desired state: read, parse new blobs, check across documents, resolve.

Nothing here raises for an invalid document. An invalid Flow blocks only itself; an invalid Project, Worker,
ExecConfig or OverrideRule keeps its last good version, and new submissions that it concerns wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from reconciler.desired.documents import PROJECT_FILES, Collection, collect, not_a_plain_file
from reconciler.desired.flows import FlowReader
from reconciler.desired.source.git import Source, gone
from reconciler.desired.source.objects import UNFIT_HINTS, TreeEntry
from reconciler.desired.uses import restricted
from reconciler.desired.values import is_name
from reconciler.diagnostics import Diagnostic, Location, Severity, did_you_mean
from reconciler.errors import InputError
from reconciler.model.baseline import Scope
from reconciler.model.desired import DesiredFlow, DesiredFlowSet, DesiredState, Hold, Revision
from reconciler.model.lineage import Lineage
from reconciler.model.manifests import (
    DEFAULT_DIRECTORIES,
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
"""How many earlier versions of an unreadable reconciler.yaml are searched for the name of its Project."""


class ParseCache(Protocol):
    """A store of parsed blobs."""

    def get(self, blob: str) -> ParsedFile | None:
        """Return the parsed content of a blob, or None if it is not known."""
        ...

    def put(self, parsed: Mapping[str, ParsedFile]) -> None:
        """Remember parsed blobs."""
        ...


class Loaded(msgspec.Struct):
    """A desired state, where its valid manifests are, and how many files had to be parsed.

    With a ``scope``, the state has only the flows in it; then ``gone`` are the manifests (``Kind/name``) that
    the revision no longer has.
    """

    state: DesiredState
    good: dict[str, GoodManifest]
    parsed_files: int
    scope: Scope | None = None
    gone: list[str] = []


def load_desired(
    source: Source,
    revision: Revision,
    cache: ParseCache,
    good: Mapping[str, GoodManifest],
    lineage: Lineage | None = None,
    imports: Mapping[str, list[str]] | None = None,
) -> Loaded:
    """Return the desired state of a revision.

    ``lineage`` is that of the state: it may know an older name. ``imports`` are by flow the directories of
    code that its builds imported although nothing names them.

    Raises
    ------
    InputError
        There never was a ``reconciler.yaml``.
    RefusedError
        The ``reconciler.yaml`` was removed.
    UnverifiedError
        The revision lacks the signature that the policy requires.
    """
    source.signer(revision.commit)  # before anything of it is parsed
    reader = RevisionReader(source, revision, cache)
    root, ignored = reader.project_file()
    project_files = reader.parse([root])
    # The first valid Project says where manifests are: that of this revision, else the last good one.
    documents = [document for _, parsed in project_files.values() for document in parsed.documents]
    for key, pointer in good.items():
        if key.startswith(f"{Kind.PROJECT}/") and (parsed := reader.parsed_blob(pointer.parsed)) is not None:
            documents.append(parsed.documents[pointer.position])
    projects = [document for document in documents if document.kind == Kind.PROJECT and document.valid]
    project = msgspec.convert(projects[0].content["spec"], ProjectSpec) if projects else ProjectSpec()
    entries = [
        entry
        for entry in source.files_below(revision.commit, project.manifests)
        if entry.path.endswith((".yaml", ".yml")) or not entry.is_file
    ]
    entries.sort(key=lambda entry: entry.path)
    files = project_files | reader.parse([entry for entry in entries if entry.is_file])
    files |= {e.path: (e.object_id, not_a_plain_file(e.what)) for e in entries if not e.is_file}
    collection = collect(files, good, reader.parsed_blob, source.rules)
    if ignored is not None:
        collection.diagnostics.append(
            Diagnostic(
                code="manifest/second-project-file",
                message=f"{ignored.path} is ignored, because {root.path} exists too",
                location=Location(ignored.path, 1, 1),
                hint="keep one of the two files",
            )
        )
    collection.diagnostics += _missing_directories(source, revision, collection, [e.path for e in entries])
    state = assemble(source, revision, collection, lineage, imports=imports)
    for name in state.invalid:  # includes flows whose references are wrong
        key = f"{Kind.FLOW}/{name}"
        collection.good.pop(key, None)
        if key in good:
            collection.good[key] = good[key]
    return Loaded(state, collection.good, reader.parsed_files)


def _missing_directories(
    source: Source, revision: Revision, collection: Collection, paths: list[str]
) -> Iterator[Diagnostic]:
    """Yield a warning for each directory of ``spec.manifests`` that does not exist.

    The default directories are no mistake: git does not keep empty ones.
    """
    project = collection.project
    listed = project.spec.get("manifests", []) if project is not None else []
    for number, directory in enumerate(listed):
        name = directory.strip("/")
        if name in ("", ".", *DEFAULT_DIRECTORIES) or any(path.startswith(f"{name}/") for path in paths):
            continue
        if project is not None and source.tree_id(revision.commit, name) is None:
            yield project.diagnostic(
                "reference/unknown-directory",
                f"{revision} does not have a directory '{directory}'",
                f"/spec/manifests/{number}",
                hint=did_you_mean(name, source.directories(revision.commit)),
                severity=Severity.WARNING,
            )


class RevisionReader:
    """Reads the blobs of a revision; each blob is parsed only once."""

    def __init__(self, source: Source, revision: Revision, cache: ParseCache) -> None:
        self.source = source
        self.revision = revision
        self.cache = cache
        self.parsed_files = 0

    def project_file(self) -> tuple[TreeEntry, TreeEntry | None]:
        """Return the file of the Project, and a second one that is ignored, if there is one."""
        found = [self.source.entry(self.revision.commit, name) for name in PROJECT_FILES]
        usable = [entry for entry in found if entry is not None and entry.is_file]
        if usable:
            return usable[0], usable[1] if len(usable) > 1 else None
        where = f"'{self.revision.path}' of {self.revision}" if self.revision.path else str(self.revision)
        for name in PROJECT_FILES if not any(found) else ():
            removed_by = self.source.removed_by(self.revision.commit, self.source.inside(name))
            if removed_by is not None:
                raise gone(f"{where} no longer has a {name}", removed_by)
        for entry in found:
            if entry is not None:
                raise InputError(
                    f"{entry.path} in {where} is a {entry.what}, not a file", hint=UNFIT_HINTS[entry.what]
                )
        raise InputError(
            f"{where} does not have a reconciler.yaml",
            hint="create it with `kind: Project` and commit it, or name the folder that has it with --path",
        )

    def parse(self, entries: Iterable[TreeEntry]) -> dict[str, tuple[str, ParsedFile]]:
        """Return {file: (blob id, content)}."""
        entries = list(entries)
        known = {entry.object_id: self.cache.get(entry.object_id) for entry in entries}
        missing = [blob for blob, parsed in known.items() if parsed is None]
        fresh = {}
        if missing:
            fresh = dict(_parsed(self.source, missing))
            self.cache.put(fresh)
            self.parsed_files += len(fresh)
        found = {entry.path: known[entry.object_id] or fresh[entry.object_id] for entry in entries}
        return {entry.path: (entry.object_id, found[entry.path]) for entry in entries}

    def parsed_blob(self, blob: str) -> ParsedFile | None:
        """Return the content of an older blob that a last good version refers to."""
        return parsed_blob(self.source, self.cache, blob)


def parsed_blob(source: Source, cache: ParseCache, blob: str) -> ParsedFile | None:
    """Return the parsed content of a blob of any revision, from the cache or else from git."""
    known = cache.get(blob)
    if known is not None:
        return known
    return next((parsed for _, parsed in _parsed(source, [blob])), None)


def _parsed(source: Source, blobs: Iterable[str]) -> Iterator[tuple[str, ParsedFile]]:
    """Yield (blob, content) of manifests; one that is too large is not read to its end."""
    from reconciler.desired.yaml.reader import parse_file
    from reconciler.desired.yaml.source_text import MAX_BYTES

    for blob, size, data in source.heads(blobs, MAX_BYTES):
        yield blob, parse_file(data, size)


def project_name(source: Source, revision: Revision) -> str:
    """Return ``metadata.name`` of the Project, to find the default state directory.

    If the Project of the revision cannot be read, the last commit with a readable one counts.

    Raises
    ------
    InputError
        There is no ``reconciler.yaml``, or it never had a readable Project document.
    UnverifiedError
        The revision lacks the signature that the policy requires.
    """
    source.signer(revision.commit)
    entry, _ = RevisionReader(source, revision, _NoCache()).project_file()

    def blobs() -> Iterator[str]:
        yield entry.object_id
        yield from source.earlier_versions(revision.commit, entry.path, _LOOK_BACK)

    for blob in blobs():
        for _, parsed in _parsed(source, [blob]):
            for document in parsed.documents:
                # It becomes part of a path, so the name of an invalid document does not count.
                if document.kind == Kind.PROJECT and document.name and is_name(document.name):
                    return document.name
    raise InputError(
        f"{entry.path} of {revision} does not have a readable `kind: Project` document with metadata.name",
        hint="run `reconcile validate` to see why",
    )


class _NoCache:
    def get(self, blob: str) -> ParsedFile | None:
        return None

    def put(self, parsed: Mapping[str, ParsedFile]) -> None:
        return None


def assemble(
    source: Source,
    revision: Revision,
    collection: Collection,
    lineage: Lineage | None,
    expanded: Mapping[str, DesiredFlowSet] | None = None,
    imports: Mapping[str, list[str]] | None = None,
) -> DesiredState:
    """Return the desired state of a collection, with all checks across documents.

    If the FlowSets are already ``expanded``, the collection has their flows beside those of documents.
    """

    def typed(kind: Kind, into: Callable[..., Any]) -> dict[str, Any]:
        return {m.name: msgspec.convert(m.spec, into) for m in collection.of(kind) if m.name}

    rules = []  # in their order: spec.order, then file, then position in the file
    for manifest in collection.of(Kind.OVERRIDE_RULE):
        spec = msgspec.convert(manifest.spec, RuleSpec)
        rules.append((spec.order, manifest.file, manifest.document.first_line, make_rule(manifest, spec)))
    rules.sort(key=lambda entry: entry[:3])
    project_manifest = collection.project
    project = (
        msgspec.convert(project_manifest.spec, ProjectSpec) if project_manifest is not None else ProjectSpec()
    )
    if source.rules is not None and project_manifest is not None:
        project, refused = restricted(source.rules, project_manifest, project)
        collection.diagnostics += refused
    name = (project_manifest.name if project_manifest is not None else None) or "unnamed"
    origin = Origin(Level.PROJECT, Kind.PROJECT, name, "")
    state = DesiredState(
        revision=revision,
        project_name=name,
        name_in_uuids=lineage.name_in_uuids if lineage is not None else name,
        project=project,
        project_layer=layer_of(project.defaults, origin, "/spec/defaults"),
        workers=typed(Kind.WORKER, WorkerSpec),
        exec_configs=typed(Kind.EXEC_CONFIG, ExecConfigSpec),
        rules=[rule for *_, rule in rules],
        flows={},
        manifests=collection.manifests,
        invalid=dict(collection.invalid_flows),
        holds=_holds(collection),
        stale=set(collection.stale),
        unusable=collection.unusable,
        diagnostics=collection.diagnostics,
        policy=source.rules,
        signer=source.signer(revision.commit),
    )
    reader = FlowReader(source, state, imports)
    flows = collection.of(Kind.FLOW)
    flowsets = collection.of(Kind.FLOW_SET)
    state.frozen |= {
        key.partition("/")[2]: why
        for key, why in collection.unusable.items()
        if key.startswith(f"{Kind.FLOW_SET}/")
    }
    if expanded is not None:
        state.flowsets |= expanded
    elif flowsets:
        from reconciler.desired.flowsets.reader import expand_all

        flows += expand_all(source, state, flowsets, reader.all_files())
    reader.read_all(flows)
    reader.check_references_between(state.flows)
    state.diagnostics += reader.diagnostics
    return state


def make_rule(manifest: Manifest, spec: RuleSpec) -> Rule:
    """Return the rule of a valid manifest."""
    name = manifest.name or ""
    origin = Origin(Level.RULE, Kind.OVERRIDE_RULE, name, "")
    layer: Layer = layer_of(spec.set, origin, "/spec/set")
    return Rule(
        name, spec.flows, spec.labels, spec.name_filter, spec.name_glob, spec.function_filter, spec.dynamic,
        layer, spec.makers,
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


def flows_in_build_order(flows: Mapping[str, DesiredFlow]) -> list[DesiredFlow]:
    """Return the flows so that each comes after the flows it refers to; cycles have been refused before."""
    import graphlib

    graph = {
        name: {ref.partition("/")[0] for ref in flow.externals} & flows.keys() for name, flow in flows.items()
    }
    return [flows[name] for name in graphlib.TopologicalSorter(graph).static_order()]
