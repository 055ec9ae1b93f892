"""Read the FlowSets of a revision: their files from git, their flows beside those of Flow documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from reconciler.desired.flowsets.expansion import (
    Expansion,
    SourceFiles,
    expand,
    flow_name,
    named_files,
    watched_places,
)
from reconciler.desired.source.git import Source
from reconciler.desired.source.objects import TreeEntry
from reconciler.model.desired import DesiredFlowSet, DesiredState
from reconciler.model.flowsets import FlowSetSpec
from reconciler.model.manifests import Kind, Manifest


def expand_all(
    source: Source, state: DesiredState, manifests: Iterable[Manifest], listing: Mapping[str, TreeEntry]
) -> list[Manifest]:
    """Add the FlowSets to the state, and return the documents of their flows.

    ``listing`` are all files of the revision. A Flow document, and a set whose name comes first, has
    precedence over an item that would make a flow of the same name.
    """
    found: list[Manifest] = []
    taken = {
        key.partition("/")[2]: f"the document {m.location()}"
        for key, m in state.manifests.items()
        if key.startswith(f"{Kind.FLOW}/")
    }
    taken |= dict.fromkeys(state.invalid, "a Flow document that is invalid")
    for manifest in manifests:
        name = manifest.name or ""
        spec = msgspec.convert(manifest.spec, FlowSetSpec)
        expansion = expand(manifest, files_of(source, spec, listing))
        stale = f"{Kind.FLOW_SET}/{name}" in state.stale
        if stale:
            state.frozen[name] = "its document is invalid in this revision"
        elif expansion.frozen is not None:
            state.frozen[name] = expansion.frozen
        state.flowsets[name] = DesiredFlowSet(
            name=name,
            manifest=manifest,
            spec=spec,
            items=len(expansion.flows) + len(expansion.invalid),
            watched=watched_places(spec),
        )
        state.diagnostics += expansion.diagnostics
        _reject_taken(expansion, manifest, taken, state)
        state.invalid |= {flow_name(name, key): why for key, why in expansion.invalid.items()}
        for flow in expansion.flows.values():
            assert flow.name is not None
            taken[flow.name] = f"FlowSet '{name}'"
            state.manifests[f"{Kind.FLOW}/{flow.name}"] = flow
            if stale:
                state.stale.add(f"{Kind.FLOW}/{flow.name}")
            found.append(flow)
    return found


def files_of(source: Source, spec: FlowSetSpec, listing: Mapping[str, TreeEntry]) -> SourceFiles:
    """Return the files that the sources of a set need, as the revision has them."""
    paths = [path for path, entry in listing.items() if entry.is_file]
    named = {path: listing[path].object_id for path in named_files(spec) if path in listing}
    named = {path: blob for path, blob in named.items() if listing[path].is_file}
    blobs = dict(source.blobs(sorted(set(named.values()))))
    return SourceFiles({path: blobs[blob] for path, blob in named.items()}, paths)


def _reject_taken(
    expansion: Expansion, manifest: Manifest, taken: Mapping[str, str], state: DesiredState
) -> None:
    """Take out the items whose flow has the name of another one."""
    for key, flow in list(expansion.flows.items()):
        other = taken.get(flow.name or "")
        if other is not None:
            del expansion.flows[key]
            state.diagnostics.append(
                flow.diagnostic(
                    "flowset/name-in-use",
                    f"item '{key}' of FlowSet '{manifest.name}' makes the flow '{flow.name}', "
                    f"a name that {other} has already",
                    "/metadata/name",
                    hint="rename one of them, or change 'spec.key'",
                )
            )
