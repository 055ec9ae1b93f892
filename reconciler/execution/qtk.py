"""The one door to qtoolkit: its commands and parsers, and its table of states, for the schedulers it knows.

qtoolkit is imported when it is first used.
"""

from __future__ import annotations

from functools import cache
from typing import Any

STDOUT, STDERR = "queue.out", "queue.err"
"""Where a scheduler writes what a script prints, in the directory in which the script is submitted."""


@cache
def scheduler_io(scheduler_type: str) -> Any:
    """Return qtoolkit's view of a scheduler."""
    from qtoolkit.io import PBSIO, SGEIO, ShellIO, SlurmIO

    if scheduler_type == "shell":
        return ShellIO(stdout_path=STDOUT, stderr_path=STDERR)
    return {"slurm": SlurmIO, "pbs": PBSIO, "sge": SGEIO}[scheduler_type]()


def standard_state(scheduler_type: str, code: str) -> str | None:
    """Return the name of qtoolkit's standard state for a code of a scheduler; None if it is unknown."""
    # Import the package before its modules: two threads that import one and the other at the same time
    # wait for each other, and Python ends that with an error.
    import qtoolkit.io  # noqa: F401
    from qtoolkit.io.pbs import PBSState
    from qtoolkit.io.shell import ShellState
    from qtoolkit.io.slurm import SlurmState

    known: Any = {"pbs": PBSState, "shell": ShellState, "slurm": SlurmState}[scheduler_type]
    try:
        return str(known(code).qstate.name)
    except (ValueError, KeyError):
        return None
