"""``reconcile rerun``: run jobs again, whatever became of them."""

from __future__ import annotations

from reconciler.cli.job_verbs import job_verb

command = job_verb(
    "rerun",
    "Run jobs again, whatever became of them.",
    "Takes COMPLETED, FAILED, REMOTE_ERROR, STOPPED, USER_STOPPED, and jobs on their way: those are "
    "cancelled, and start again once the old attempt is gone. An output stays until there is a new one. "
    "What needs the job and has ended keeps its result, unless --with-descendants is given; while some of "
    "it is on its way, the job is refused. What the job had generated becomes history.",
    descendants=True,
)
