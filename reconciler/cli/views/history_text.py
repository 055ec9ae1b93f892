"""Applied revisions as data, as rows of a table, and with what each of them did to one flow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from reconciler.cli.context import Context
from reconciler.cli.views.words import many
from reconciler.model.actions import DONE
from reconciler.model.applied import AppliedRevision


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
        "flows": {
            name: {"action": did.action, "jobs": did.jobs, "was": did.was}
            for name, did in applied.flows.items()
        },
        "outcome": "Partial" if applied.errors else "Applied",
        "errors": applied.errors,
    }


def of_flow(revisions: Sequence[AppliedRevision], name: str) -> list[tuple[str, AppliedRevision]]:
    """Return the revisions that changed a flow, oldest first, each with the flow's name after that revision.

    The actions on other flows are left out. A flow that was renamed keeps its history.
    """
    found = []
    for applied in reversed(revisions):
        did = applied.flows.get(name)
        if did is None:
            continue
        counts = Counter(did.jobs) + Counter([did.action] if did.action is not None else [])
        summary = {action_type: counts[action_type] for action_type in (*applied.summary, *counts)}
        found.append((name, msgspec.structs.replace(applied, flows={name: did}, summary=summary)))
        name = did.was or name
    return found[::-1]


def text_row(applied: AppliedRevision, time: str) -> dict[str, Any]:
    """Return an applied revision as a row of a table."""
    return {
        "time": time,
        "revision": short(applied),
        "author": (applied.author.partition(" <")[0].strip() or applied.author) if applied.author else None,
        "actions": actions_text(applied),
        "outcome": outcome_text(applied),
        "subject": applied.subject,
        "commit": applied.commit,
        "path": applied.path or ".",
    }


def short(applied: AppliedRevision) -> str:
    """Return ``main@9a07e55``, or ``commit@9a07e55`` if ``--branch`` was a commit."""
    is_commit = applied.commit.startswith(applied.branch)
    return f"commit@{applied.commit[:7]}" if is_commit else str(applied)


def outcome_text(applied: AppliedRevision) -> str:
    """Return ``applied``, or ``partial: 2 errors`` if invalid documents blocked a part of the revision."""
    return f"partial: {many(applied.errors, 'error')}" if applied.errors else "applied"


def actions_text(applied: AppliedRevision) -> str:
    """Return ``1 flow and 4 jobs submitted, 2 jobs patched``, or ``no changes``."""
    flows: Counter[str] = Counter(did.action for did in applied.flows.values() if did.action is not None)
    jobs: Counter[str] = Counter()
    for did in applied.flows.values():
        jobs.update(did.jobs)
    renamed = sum(1 for did in applied.flows.values() if did.was)
    parts = [f"{many(renamed, 'flow')} renamed"] if renamed else []
    for action_type in DONE:
        counted = [many(flows[action_type], "flow")] if action_type in flows else []
        counted += [many(jobs[action_type], "job")] if action_type in jobs else []
        if counted:
            parts.append(f"{' and '.join(counted)} {action_type.done.lower()}")
    return ", ".join(parts) or "no changes"


def heading(context: Context, applied: AppliedRevision, time: str) -> str:
    """Return the two lines above the actions of a revision on one flow."""
    author = applied.author or "unknown author"
    revision = context.style(short(applied), bold=True)
    outcome = f"; {outcome_text(applied)}" if applied.errors else ""
    return (
        f"{time}  {revision}  {applied.subject or '(no subject)'}  ({author})\n"
        f"    {actions_text(applied)}{outcome}"
    )
