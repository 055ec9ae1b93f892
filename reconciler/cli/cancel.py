"""``reconcile cancel``: end jobs, or keep them from ever starting."""

from __future__ import annotations

from reconciler.cli.job_verbs import job_verb

command = job_verb(
    "cancel",
    "End jobs, or keep them from ever starting.",
    "Takes all that have not ended: what is on its way is ended on its worker, the rest will not start. They "
    "become USER_STOPPED; `reconcile rerun` brings them back. One that failed and waits for an automatic "
    "retry gets none, and stays as it is.",
)
