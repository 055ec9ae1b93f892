"""The plain shell: jobs are processes; there is no queue and nothing to request."""

from __future__ import annotations

from reconciler.model.schedulers.base import Scheduler


class Shell(Scheduler):
    """The plain shell of a machine."""

    name = "shell"
    title = "shell"
    is_batch = False
    generic_fields = frozenset({"job_name", "output_filepath", "error_filepath"})
    commands = ("setsid", "kill", "nohup")
