"""Which flows of a revision have been built before, and what their builds refer to."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.actual.view import View
from reconciler.desired.state import flows_in_build_order
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow, build_key
from reconciler.model.records import FlowRecord


def known_builds(view: View, desired: DesiredState) -> dict[str, BuiltFlow]:
    """Return the flows that were built before with exactly these inputs."""
    built: dict[str, BuiltFlow] = {}
    for flow in flows_in_build_order(desired.flows):
        externals = external_jobs(flow, built)
        known = view.build(build_key(flow.inputs, externals)) if externals is not None else None
        if known is not None:
            built[flow.name] = known
    return built


def previous_previews(
    view: View, flows: Mapping[str, FlowRecord], built: Mapping[str, BuiltFlow]
) -> dict[str, dict[str, str]]:
    """Return how the manifests of flows looked when they were last applied, for those to be rebuilt."""
    old = {name: view.build(flow.build_key) for name, flow in flows.items() if name not in built}
    return {name: found.preview for name, found in old.items() if found is not None}


def external_jobs(flow: DesiredFlow, built: Mapping[str, BuiltFlow]) -> dict[str, tuple[str, str]] | None:
    """Return uuid and content of the jobs of other flows it refers to; None if one is not built yet."""
    found = {}
    exports = {other: built[other].exports for other in _others(flow) if other in built}
    for reference in flow.externals:
        other, _, job = reference.partition("/")
        exported = exports.get(other, {}).get(job)
        if exported is None:
            return None
        found[reference] = exported
    return found


def _others(flow: DesiredFlow) -> set[str]:
    return {reference.partition("/")[0] for reference in flow.externals}
