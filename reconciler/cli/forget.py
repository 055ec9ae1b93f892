"""``reconcile forget``: delete records and outputs of jobs that are history."""

from __future__ import annotations

from reconciler.cli.job_verbs import job_verb

command = job_verb(
    "forget",
    "Delete records and outputs of jobs that are history.",
    "Takes what has ended and has no place in any flow: jobs that newer content or a rerun has replaced, and "
    "those of flows that were removed from git. Run directories stay.",
    reach="Globs reach only such jobs, never one of a flow that is wanted.",
)
