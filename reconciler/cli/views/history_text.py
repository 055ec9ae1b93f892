"""Applied revisions as rows, as text, and what each did to one flow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from reconciler.cli.context import Context
from reconciler.cli.views.words import many
from reconciler.model.actions import ActionType
from reconciler.model.records import AppliedRevision, FlowActions

_DONE = {
    ActionType.SUBMIT: "submitted",
    ActionType.REPLACE: "replaced",
    ActionType.PATCH: "patched",
    ActionType.DEFER: "deferred",
    ActionType.CANCEL: "cancelled",
    ActionType.FORGET: "forgotten",
}


def revision_data(applied: AppliedRevision) -> dict[str, Any]:
    """Return an applied revision; the contract of ``history -o json``."""
    return {
        "revision": str(applied),
        "branch": applied.branch,
        "commit": applied.commit,
        "path": applied.path,
        "time": applied.time,
        "author": applied.author,
        "subject": applied.subject,
        "summary": applied.summary,
        "flows": {name: _flow_data(did) for name, did in applied.flows.items()},
        "outcome": "Partial" if applied.errors else "Applied",
        "errors": applied.errors,
    }


def _flow_data(did: FlowActions) -> dict[str, Any]:
    return {"action": did.action, "jobs": did.jobs, "was": did.was}


def of_flow(revisions: Sequence[AppliedRevision], name: str) -> list[tuple[str, AppliedRevision]]:
    """Return the revisions that changed a flow, oldest first, each with the name that the flow had after it.

    What a revision did to other flows is left out. A flow is followed through its renames.
    """
    found = []
    for applied in reversed(revisions):
        did = applied.flows.get(name)
        if did is None:
            continue
        counts = Counter(did.jobs) + Counter([did.action] if did.action is not None else [])
        summary = {verb: counts[verb] for verb in (*applied.summary, *counts)}
        found.append((name, msgspec.structs.replace(applied, flows={name: did}, summary=summary)))
        name = did.was or name
    return found[::-1]


def text_row(applied: AppliedRevision, time: str) -> dict[str, Any]:
    """Return an applied revision as a row of a table."""
    return {
        "time": time,
        "revision": short(applied),
        "author": _person(applied.author),
        "actions": actions_text(applied),
        "outcome": outcome_text(applied),
        "subject": applied.subject,
        "commit": applied.commit,
        "path": applied.path or ".",
    }


def short(applied: AppliedRevision) -> str:
    """Return ``main@9a07e55``, or ``commit@9a07e55`` where a commit was given for the branch."""
    given = applied.commit.startswith(applied.branch)
    return f"commit@{applied.commit[:7]}" if given else str(applied)


def _person(author: str | None) -> str | None:
    """Return a name without the address."""
    return (author.partition(" <")[0].strip() or author) if author is not None else None


def outcome_text(applied: AppliedRevision) -> str:
    """Return whether all of a revision could be applied."""
    return f"partial: {many(applied.errors, 'error')}" if applied.errors else "applied"


def actions_text(applied: AppliedRevision) -> str:
    """Return ``1 flow and 4 jobs submitted, 2 jobs patched``, or ``no changes``."""
    flows: Counter[str] = Counter(did.action for did in applied.flows.values() if did.action is not None)
    jobs: Counter[str] = Counter()
    for did in applied.flows.values():
        jobs.update(did.jobs)
    parts = [f"{many(n, 'flow')} renamed" for n in [sum(1 for d in applied.flows.values() if d.was)] if n]
    parts += list(_parts(flows, jobs))
    return ", ".join(parts) or "no changes"


def _parts(flows: Mapping[str, int], jobs: Mapping[str, int]) -> Iterator[str]:
    known = [str(verb) for verb in _DONE]
    for verb in [*known, *sorted({*flows, *jobs} - set(known))]:
        counted = [many(flows[verb], "flow")] if verb in flows else []
        counted += [many(jobs[verb], "job")] if verb in jobs else []
        if counted:
            yield f"{' and '.join(counted)} {_DONE.get(ActionType(verb), verb)}"


def heading(context: Context, applied: AppliedRevision, time: str) -> str:
    """Return the line above what a revision did to one flow."""
    who = applied.author or "unknown author"
    line = f"{time}  {context.style(short(applied), bold=True)}  {applied.subject or '(no subject)'}  ({who})"
    did = f"{actions_text(applied)}; {outcome_text(applied)}" if applied.errors else actions_text(applied)
    return f"{line}\n    {did}"
