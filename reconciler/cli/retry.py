"""``reconcile retry``: run jobs again that failed."""

from __future__ import annotations

from reconciler.cli.job_verbs import job_verb

command = job_verb(
    "retry",
    "Run jobs again that failed.",
    "Takes FAILED and REMOTE_ERROR. Each gets a new attempt in its own directory, with the run config "
    "that it has now. One that waits for an automatic retry gets that at once.",
)
