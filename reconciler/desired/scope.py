"""The part of a desired state that a pass must look at: what may differ from the last applied revision.

Reading all manifests of a campaign takes seconds, and most commits change few of them. What is read here is
what the commit changed, and the flows that this can reach: those that name a changed file, are selected by a
changed rule, refer to a changed flow at any distance, or still have something to do. All else is as the
baseline says.

Of a FlowSet that the commit changes, or whose table it changes, the items of both versions are read, and the
flows of the items that differ are looked at.

The short way is taken only where it gives the same plan as reading everything. Whatever is out of the
ordinary (a problem in a document or in an item, a change of the Project, of a worker, of an ExecConfig or of
code) takes the long way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import msgspec

from reconciler.desired.documents import Collection
from reconciler.desired.source.git import Source
from reconciler.desired.source.objects import FileChange, TreeEntry
from reconciler.desired.spec_content import spec_content
from reconciler.desired.state import Loaded, ParseCache, RevisionReader, assemble, make_rule
from reconciler.desired.uses import refusals
from reconciler.desired.values import parse_output_reference
from reconciler.model.baseline import Baseline, FlowEntry, Scope
from reconciler.model.desired import Revision
from reconciler.model.lineage import Lineage
from reconciler.model.manifests import (
    DEFAULT_DIRECTORIES,
    Document,
    GoodManifest,
    Kind,
    Manifest,
    ParsedFile,
    RuleSpec,
)

if TYPE_CHECKING:
    from reconciler.desired.flowsets.scoped import ScopedSets

_SCOPED_KINDS = frozenset({Kind.FLOW, Kind.FLOW_SET, Kind.OVERRIDE_RULE})
"""Kinds whose changes reach only some flows; a change of any other kind may reach all."""


class LastApplied(Protocol):
    """What the store has of the last applied revision."""

    def good_manifest(self, key: str) -> GoodManifest | None:
        """Return the place of a manifest by ``Kind/name``."""
        ...

    def good_of_kind(self, kind: str) -> dict[str, GoodManifest]:
        """Return the places of all manifests of a kind."""
        ...

    def entry(self, flow: str) -> FlowEntry | None:
        """Return what a flow depends on."""
        ...

    def count_entries(self) -> int:
        """Return the number of flows."""
        ...

    def labels(self) -> Iterable[tuple[str, dict[str, str]]]:
        """Yield name and labels of all flows."""
        ...

    def flows_naming(self, file: str) -> list[str]:
        """Return the flows that name a file."""
        ...

    def referring_to(self, flow: str) -> list[str]:
        """Return the flows that refer to a flow."""
        ...

    def imports(self) -> dict[str, list[str]]:
        """Return by flow the directories of code that its build imported although nothing names them."""
        ...

    def unsettled(self) -> list[str]:
        """Return the flows that a plan must consider in any case."""
        ...


class TooMuchError(Exception):
    """The revision differs in a way that may reach every flow."""


def load_scoped(
    source: Source,
    revision: Revision,
    cache: ParseCache,
    applied: LastApplied,
    baseline: Baseline,
    changes: Iterable[FileChange],
    lineage: Lineage | None,
) -> Loaded | None:
    """Return the part of the desired state that may differ from the baseline; None if that may be all of it.

    ``changes`` are the files that differ. The result is complete but for flows outside its scope.
    """
    source.signer(revision.commit)  # before anything of it is parsed
    try:
        return _ScopedReader(source, revision, cache, applied, baseline).read(list(changes), lineage)
    except TooMuchError:
        return None


class _Place(msgspec.Struct, frozen=True):
    """A document and where it is."""

    document: Document
    pointer: GoodManifest

    @property
    def manifest(self) -> Manifest:
        return Manifest(self.pointer.file, self.document)


class _ScopedReader:
    def __init__(
        self,
        source: Source,
        revision: Revision,
        cache: ParseCache,
        applied: LastApplied,
        baseline: Baseline,
    ) -> None:
        self.source = source
        self.revision = revision
        self.reader = RevisionReader(source, revision, cache)
        self.applied = applied
        self.baseline = baseline
        self.old: dict[str, _Place] = {}
        self.new: dict[str, _Place] = {}
        self.sets: ScopedSets | None = None
        self._files: dict[str, ParsedFile] = {}

    def read(self, changes: list[FileChange], lineage: Lineage | None) -> Loaded:
        """Return the part that may differ. Raises TooMuchError."""
        base, names = self.baseline, set(self.applied.unsettled())
        for change in changes:
            if change.path in base.files or base.is_code(change.path):
                raise TooMuchError
            names.update(self.applied.flows_naming(change.path))
        self._read_changed([change for change in changes if base.is_among_manifests(change.path)])
        collection = Collection()
        for kind in Kind:
            if kind is not Kind.FLOW:
                for key, pointer in self.applied.good_of_kind(kind).items():
                    if key not in self.old:
                        self._use(collection, key, _Place(self._document(pointer), pointer))
        for key, place in self.new.items():
            if not key.startswith(f"{Kind.FLOW}/"):
                self._use(collection, key, place)
        if collection.project is None:
            raise TooMuchError
        names |= self._selected_by_changed_rules()
        names |= {_name(key) for key in (*self.old, *self.new) if key.startswith(f"{Kind.FLOW}/")}
        names |= self._compare_flowsets(collection.of(Kind.FLOW_SET), changes)
        names = self._closed(names | set(base.renamed))
        for name in sorted(names):
            self._use_flow(collection, name)
        expanded = self.sets.expanded() if self.sets is not None else {}
        state = assemble(self.source, self.revision, collection, lineage, expanded, self.applied.imports())
        referred = {ref.partition("/")[0] for flow in state.flows.values() for ref in flow.externals}
        if state.diagnostics or state.invalid or referred - state.flows.keys():
            raise TooMuchError
        rules = {_name(key) for key in self._changed(Kind.OVERRIDE_RULE)}
        witnesses = base.witnesses.items()
        known = sum(1 for name in names if self.applied.entry(name) is not None)
        scope = Scope(
            commit=base.commit, flows=frozenset(names), others=self.applied.count_entries() - known,
            matched={rule: flow for rule, flow in witnesses if flow not in names and rule not in rules},
        )  # fmt: skip
        gone = [key for key in self.old if key not in self.new]
        return Loaded(state, collection.good, self.reader.parsed_files, scope, gone)

    # documents ----------------------------------------------------------------------------------------

    def _read_changed(self, changes: list[FileChange]) -> None:
        """Read the old and the new documents of the files that changed; all must be in order."""
        if any(not entry.is_file for c in changes for entry in (c.old, c.new) if entry is not None):
            raise TooMuchError
        changes = [change for change in changes if change.path.endswith((".yaml", ".yml"))]
        self.old = self._documents([c.old for c in changes if c.old is not None])
        self.new = self._documents([c.new for c in changes if c.new is not None])
        if any(change.new is None for change in changes):
            self._check_directories()
        files = {change.path for change in changes}
        for key, place in self.new.items():
            elsewhere = self.applied.good_manifest(key)
            if elsewhere is not None and elsewhere.file not in files:
                raise TooMuchError  # two documents with one name
            old = self.old.get(key)
            if _kind(key) not in _SCOPED_KINDS and (
                old is None or old.document.content != place.document.content
            ):
                raise TooMuchError
        if any(_kind(key) not in _SCOPED_KINDS and key not in self.new for key in self.old):
            raise TooMuchError

    def _documents(self, entries: list[TreeEntry]) -> dict[str, _Place]:
        found: dict[str, _Place] = {}
        for file, (blob, parsed) in self.reader.parse(entries).items():
            if parsed.diagnostics or not parsed.readable:
                raise TooMuchError
            for position, document in enumerate(parsed.documents):
                key = f"{document.kind}/{document.name}"
                if not document.valid or document.name is None or key in found:
                    raise TooMuchError
                found[key] = _Place(document, GoodManifest(file, blob, position))
                if refusals(self.source.rules, found[key].manifest):
                    raise TooMuchError
        return found

    def _document(self, pointer: GoodManifest) -> Document:
        if pointer.parsed not in self._files:
            parsed = self.reader.parsed_blob(pointer.parsed)
            if parsed is None:
                raise TooMuchError
            self._files[pointer.parsed] = parsed
        return self._files[pointer.parsed].documents[pointer.position]

    def _use(self, collection: Collection, key: str, place: _Place) -> None:
        collection.manifests[key] = place.manifest
        collection.good[key] = place.pointer

    def _check_directories(self) -> None:
        """Require the directories of ``spec.manifests``: one that has become empty may be a mistake."""
        for directory in self.baseline.manifests:
            if directory in ("", *DEFAULT_DIRECTORIES):
                continue
            if self.source.tree_id(self.revision.commit, directory) is None:
                raise TooMuchError

    # flows --------------------------------------------------------------------------------------------

    def _changed(self, kind: Kind) -> set[str]:
        """Return the keys of a kind whose document or place has changed."""
        keys = {key for key in (*self.old, *self.new) if _kind(key) == kind}
        return {key for key in keys if self.old.get(key) != self.new.get(key)}

    def _selected_by_changed_rules(self) -> set[str]:
        """Return the flows that a changed rule selects, as it was or as it is."""
        keys = self._changed(Kind.OVERRIDE_RULE)
        if not keys:
            return set()
        places = [side[key] for key in keys for side in (self.old, self.new) if key in side]
        rules = [
            make_rule(place.manifest, msgspec.convert(place.manifest.spec, RuleSpec)) for place in places
        ]
        return {
            name
            for name, labels in self.applied.labels()
            if any(rule.matches_flow(name, labels) for rule in rules)
        }

    def _use_flow(self, collection: Collection, name: str) -> None:
        """Add the flow of a name, if this revision has it."""
        key = f"{Kind.FLOW}/{name}"
        entry = self.applied.entry(name) or FlowEntry()
        if key in self.new:
            self._use(collection, key, self.new[key])
        elif self.sets is not None and (flow := self.sets.flow(name, entry.flowset)) is not None:
            collection.manifests[key] = flow
        elif entry.flowset is None and key not in self.old:
            pointer = self.applied.good_manifest(key)
            if pointer is not None:
                self._use(collection, key, _Place(self._document(pointer), pointer))

    def _closed(self, names: set[str]) -> set[str]:
        """Return the flows with those that refer to them, and with all that these refer to themselves."""
        found, todo = set(names), list(names)
        while todo:
            name = todo.pop()
            flow = self._changed_flow(name)
            entry = self.applied.entry(name) or FlowEntry()
            earlier = flow.metadata.get("previous_names", []) if flow is not None else entry.previous_names
            more = {*self.applied.referring_to(name), *earlier} - found
            found |= more
            todo += more
        todo = list(found)
        while todo:
            name = todo.pop()
            more = self._refers_to(name) - found
            found |= more
            todo += more
        return found

    def _refers_to(self, name: str) -> set[str]:
        """Return the flows to whose jobs a flow refers in this revision."""
        flow = self._changed_flow(name)
        if flow is None:
            return set((self.applied.entry(name) or FlowEntry()).refers)
        references = (parse_output_reference(text) for _, text in spec_content(flow.spec).outputs)
        return {other for other, *_ in references if other is not None}

    def _changed_flow(self, name: str) -> Manifest | None:
        """Return the document of a flow that this revision adds or may change."""
        place = self.new.get(f"{Kind.FLOW}/{name}")
        if place is not None or self.sets is None:
            return place.manifest if place is not None else None
        return self.sets.changed.get(name)

    def _compare_flowsets(self, manifests: list[Manifest], changes: list[FileChange]) -> set[str]:
        """Return the flows of FlowSets that may differ."""
        before = {
            _name(key): place.manifest for key, place in self.old.items() if _kind(key) == Kind.FLOW_SET
        }
        if not manifests and not before:
            return set()
        from reconciler.desired.flowsets.scoped import ScopedSets

        self.sets = ScopedSets(self.source, self.revision.commit, changes, manifests, self.baseline.flowsets)
        found = self.sets.compare(before, self._changed(Kind.FLOW_SET))
        documents = {_name(key) for key in self.new if _kind(key) == Kind.FLOW}
        for name in self.sets.changed.keys() | documents:
            entry, flow = self.applied.entry(name), self.sets.changed.get(name)
            flowset = flow.item.flowset if flow is not None and flow.item is not None else None
            if (entry is not None and entry.flowset != flowset) or (flow is not None and name in documents):
                raise TooMuchError  # a name that another document has or had
        return found


def _kind(key: str) -> str:
    return key.partition("/")[0]


def _name(key: str) -> str:
    return key.partition("/")[2]
