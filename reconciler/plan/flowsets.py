"""FlowSets in a plan: of which sets nothing is removed, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from reconciler.diagnostics import Diagnostic
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState


def frozen_sets(desired: DesiredState, actual: ActualState, *, allow_prune: bool) -> dict[str, str]:
    """Return the FlowSets of which nothing is removed, and why.

    A set is frozen if it cannot be read in full, whatever is allowed, and if more of its live flows are gone
    than its limit allows, unless ``allow_prune``.
    """
    found = dict(desired.frozen)
    if allow_prune:
        return found
    live = Counter({name: count for name, count in actual.live_elsewhere.items() if name is not None})
    gone: Counter[str] = Counter()
    for name, record in actual.flows.items():
        if record.flowset is not None and not record.removed:
            live[record.flowset] += 1
            gone[record.flowset] += name not in desired.flows and name not in desired.invalid
    for name, count in gone.items():
        flowset = desired.flowsets.get(name)
        if flowset is None or name in found or flowset.spec.limits.allows_removal(count, live[name]):
            continue
        limit = flowset.spec.limits.max_removed
        found[name] = (
            f"{count:,} of its {live[name]:,} flows are gone, more than max_removed ({limit}) allows"
        )
    return found


def shrinking_sets(desired: DesiredState, frozen: Mapping[str, str]) -> Iterator[Diagnostic]:
    """Yield an error for each set that is frozen because of its limit; other sets have their own errors."""
    for name, why in frozen.items():
        if name not in desired.frozen:
            yield desired.flowsets[name].manifest.diagnostic(
                "flowset/shrinks",
                f"nothing of FlowSet '{name}' is removed: {why}",
                "/spec/limits/max_removed",
                hint="check its sources; if the items are meant to go, add --allow-prune",
            )
