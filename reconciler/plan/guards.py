"""Guards: plans that are refused until the user says that they are meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.model.actions import Action, Subject, Verb
from reconciler.model.actual import ActualState
from reconciler.model.desired import DesiredState


def refusals(desired: DesiredState, actual: ActualState, actions: Sequence[Action]) -> Iterator[str]:
    """Yield why this plan must not be applied without ``--allow-prune``."""
    live = {name for name, flow in actual.flows.items() if not flow.removed}
    # What is forgotten after its cancellation was allowed before.
    gone = [a.key for a in actions if a.subject is Subject.FLOW and a.verb in (Verb.CANCEL, Verb.FORGET)]
    removed = [name for name in gone if name in live]
    if not removed:
        return
    names = ", ".join(removed[:5]) + (" ..." if len(removed) > 5 else "")
    if actual.rewritten:
        yield (
            f"history was rewritten: {desired.revision} does not follow from {actual.base}, which was "
            f"applied last; applying it would cancel {len(removed)} of {len(live)} flows: {names}"
        )
    if not desired.flows and not desired.invalid:
        yield f"{desired.revision} has no flow at all; applying it would cancel all {len(removed)}: {names}"
    elif len(live) > 2 and len(removed) > desired.project.max_prune * len(live):
        limit = f"{desired.project.max_prune:.0%}"
        yield (
            f"{desired.revision} would cancel {len(removed)} of {len(live)} flows, "
            f"more than max_prune ({limit}): {names}"
        )
