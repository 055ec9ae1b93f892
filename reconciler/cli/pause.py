"""``reconcile pause``: keep jobs from starting."""

from __future__ import annotations

from reconciler.cli.job_verbs import job_verb

command = job_verb(
    "pause",
    "Keep jobs from starting.",
    "Takes READY and WAITING, and what failed and waits for an automatic retry: they are PAUSED until "
    "`reconcile resume`.",
)
