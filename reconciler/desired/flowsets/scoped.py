"""FlowSets in a pass that reads little: which of their flows may differ from the last applied revision.

The items of a set that changed are read in full, as they were and as they are, since their keys must be
unique. Flows are made only of items that differ, and of those that the pass looks at for another reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import msgspec

from reconciler.desired.flowsets.expansion import (
    Expander,
    SourceFiles,
    flow_name,
    named_files,
    read_items,
    watched_places,
)
from reconciler.desired.flowsets.items import Item
from reconciler.desired.flowsets.sources import SourceProblem
from reconciler.desired.flowsets.template import TemplateProblem
from reconciler.desired.scope import TooMuchError
from reconciler.desired.source.git import Source
from reconciler.desired.source.objects import FileChange, TreeEntry
from reconciler.desired.validation import check_expanded_flow
from reconciler.errors import LostError, UnfitError
from reconciler.model.baseline import is_below
from reconciler.model.desired import DesiredFlowSet
from reconciler.model.flowsets import FlowSetSpec
from reconciler.model.manifests import Manifest


class SetVersion:
    """One FlowSet as one revision has it; ``files`` returns what its sources need.

    Its properties and methods raise TooMuchError if something is wrong with the set or with an item.
    """

    def __init__(self, manifest: Manifest, files: Callable[[FlowSetSpec], SourceFiles]) -> None:
        self.manifest = manifest
        self.name = manifest.name or ""
        self.spec = msgspec.convert(manifest.spec, FlowSetSpec)
        self.watched = watched_places(self.spec)
        self._files = files

    @cached_property
    def _expander(self) -> Expander:
        return Expander(self.manifest, self.spec, self._files(self.spec))

    @cached_property
    def items(self) -> dict[str, Item]:
        """The items by key."""
        try:
            items, problems = read_items(self.manifest, self.spec, self._expander.files)
        except SourceProblem as error:
            raise TooMuchError from error
        if problems:
            raise TooMuchError
        return items

    def flow(self, key: str) -> Manifest | None:
        """Return the unchecked document of the flow of an item; None if there is no such item."""
        item = self.items.get(key)
        try:
            return self._expander.flow(key, item) if item is not None else None
        except TemplateProblem as error:
            raise TooMuchError from error

    def check(self, flows: Iterable[Manifest]) -> None:
        """Require that some flows of the set are in order, and that each override matches an item."""
        if any(True for flow in flows for _ in check_expanded_flow(flow)):
            raise TooMuchError
        if self._expander.unused_overrides(self.items):
            raise TooMuchError


class ScopedSets:
    """The FlowSets of a revision, as far as a pass must look at them.

    ``changes`` are the files that differ from the baseline, ``counts`` the items of each set in it. After
    :meth:`compare`, ``changed`` has the flows that the revision adds or that may differ, by name.
    """

    def __init__(
        self,
        source: Source,
        commit: str,
        changes: Iterable[FileChange],
        manifests: Iterable[Manifest],
        counts: Mapping[str, int],
    ) -> None:
        self.source = source
        self.commit = commit
        self.changes = {change.path: change for change in changes}
        self.counts = counts
        versions = [SetVersion(manifest, self._files) for manifest in manifests]
        self.sets = {version.name: version for version in versions}
        self.changed: dict[str, Manifest] = {}
        self.compared: set[str] = set()

    def compare(self, before: Mapping[str, Manifest], edited: set[str]) -> set[str]:
        """Return the names of the flows that may differ, those that are gone included.

        ``edited`` are the sets (``Kind/name``) whose document has changed, ``before`` has the documents of
        the changed files as they were. Raises TooMuchError.
        """
        found: set[str] = set()
        names = {key.partition("/")[2] for key in edited}
        names |= {
            name
            for name, version in self.sets.items()
            if any(is_below(path, version.watched) for path in self.changes)
        }
        if self.sets.keys() - names - self.counts.keys():
            raise TooMuchError
        for name in sorted(names):
            new = self.sets.get(name)
            manifest = before.get(name) or (new.manifest if new is not None else None)
            was_there = manifest is not None and name in self.counts
            old = SetVersion(manifest, self._files_before) if manifest is not None and was_there else None
            keys = differing_keys(old, new)
            found |= {flow_name(name, key) for key in keys}
            if new is None:
                continue
            self.compared.add(name)
            flows = [flow for key in sorted(keys) if (flow := new.flow(key)) is not None]
            new.check(flows)
            for flow in flows:
                if flow.name is None or flow.name in self.changed:
                    raise TooMuchError  # two sets make a flow of this name
                self.changed[flow.name] = flow
        return found

    def flow(self, name: str, flowset: str | None) -> Manifest | None:
        """Return the document of a flow; ``flowset`` made it in the baseline. Raises TooMuchError."""
        version = self.sets.get(flowset or "")
        if name in self.changed or version is None:
            return self.changed.get(name)
        return version.flow(name.removeprefix(flow_name(version.name, "")))

    def expanded(self) -> dict[str, DesiredFlowSet]:
        """Return all sets of the revision for its desired state."""
        return {
            name: DesiredFlowSet(
                name=name, manifest=version.manifest, spec=version.spec, watched=version.watched,
                items=len(version.items) if name in self.compared else self.counts[name],
            )
            for name, version in self.sets.items()
        }  # fmt: skip

    # files --------------------------------------------------------------------------------------------

    def _files(self, spec: FlowSetSpec) -> SourceFiles:
        """Return what the sources of a set need, as the revision has it."""
        return self._files_of(spec, {path: change.new for path, change in self.changes.items()})

    def _files_before(self, spec: FlowSetSpec) -> SourceFiles:
        """Return what the sources of a set needed in the baseline."""
        return self._files_of(spec, {path: change.old for path, change in self.changes.items()})

    def _files_of(self, spec: FlowSetSpec, changed: Mapping[str, TreeEntry | None]) -> SourceFiles:
        """Return the files; ``changed`` has those that differ between the two revisions."""
        named = {
            path: entry.object_id
            for path in named_files(spec)
            if (entry := changed[path] if path in changed else self.source.entry(self.commit, path))
            is not None
            and entry.is_file
        }
        paths = list(named)
        if any("files" in source for source in spec.items.sources):
            listed: dict[str, TreeEntry | None] = {e.path: e for e in self.source.files(self.commit, "")}
            listed.update(changed)
            paths = [path for path, entry in listed.items() if entry is not None and entry.is_file]
        try:
            blobs = dict(self.source.blobs(sorted(set(named.values()))))
        except (LostError, UnfitError) as error:
            raise TooMuchError from error
        return SourceFiles({path: blobs[blob] for path, blob in named.items()}, paths)


def differing_keys(old: SetVersion | None, new: SetVersion | None) -> set[str]:
    """Return the keys of the items whose flows may differ. Raises TooMuchError.

    The encoded form is compared, since ``1 == 1.0 == True`` in Python. With the same document only the values
    of the items count; their order, and the rows that they stand in, do not.
    """
    if old is None or new is None:
        known = old or new
        return set(known.items) if known is not None else set()
    encode = msgspec.msgpack.encode
    if encode(old.manifest.document.content) == encode(new.manifest.document.content):
        before = {key: encode(item.values) for key, item in old.items.items()}
        now = {key: encode(item.values) for key, item in new.items.items()}
    else:
        before, now = _contents(old), _contents(new)
    return {key for key, _ in before.items() ^ now.items()}


def _contents(version: SetVersion) -> dict[str, bytes]:
    """Return all that the flow of each item consists of."""
    found = {}
    for key, item in version.items.items():
        flow = version.flow(key)
        content = flow.document.content if flow is not None else None
        found[key] = msgspec.msgpack.encode([item.values, content])
    return found
