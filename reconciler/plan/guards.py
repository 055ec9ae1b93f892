"""Guards: plans that are refused until the user says that they are meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.model.actions import Action, Subject, Verb
from reconciler.model.actual import ActualState
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Prune

_WORDS = {Prune.CANCEL: "cancel", Prune.DELETE: "delete", Prune.ORPHAN: "let go of"}
"""What becomes of a flow that is removed. To delete is to delete records and outputs, too."""


def refusals(desired: DesiredState, actual: ActualState, actions: Sequence[Action]) -> Iterator[str]:
    """Yield why this plan must not be applied without ``--allow-prune``, and what it would do."""
    live = {name for name, flow in actual.flows.items() if not flow.removed}
    # What is forgotten after its cancellation was allowed before.
    gone = [a.key for a in actions if a.subject is Subject.FLOW and a.verb in (Verb.CANCEL, Verb.FORGET)]
    removed = [name for name in gone if name in live]
    if not removed:
        return
    what = _what_happens(actual, removed, len(live))
    if actual.rewritten:
        yield (
            f"history was rewritten: {desired.revision} does not follow from {actual.base}, which was "
            f"applied last; applying it would {what}"
        )
    if not desired.flows and not desired.invalid:
        yield f"{desired.revision} has no flow at all; applying it would {what}"
    elif len(live) > 2 and len(removed) > desired.project.max_prune * len(live):
        limit = f"{desired.project.max_prune:.0%}"
        yield f"{desired.revision} would {what}; that is more than max_prune ({limit}) allows"


def _what_happens(actual: ActualState, removed: Sequence[str], live: int) -> str:
    """Return what would become of the flows, and of how many jobs that have not ended."""
    parts = []
    for prune, word in _WORDS.items():
        names = [name for name in removed if actual.flows[name].prune is prune]
        if names:
            shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            outputs = ", with all records and outputs" if prune is Prune.DELETE else ""
            parts.append(f"{word} {len(names)} of {live} flows: {shown}{outputs}")
    jobs = (job for name in removed for job in actual.jobs.get(name, ()))
    unfinished = sum(1 for job in jobs if job.current and not job.ended)
    if unfinished:
        parts.append(f"{unfinished} of their jobs {'has' if unfinished == 1 else 'have'} not ended")
    return "; ".join(parts)
