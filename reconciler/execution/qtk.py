"""The one door to qtoolkit: its templates, commands and parsers by scheduler, and its generic resources.

Imported when first used; what it raises becomes an error of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.schedulers import KEYWORDS

STDOUT, STDERR = "queue.out", "queue.err"
"""Where a scheduler writes what a script prints: in the directory in which it is submitted."""


def _import_whole() -> None:
    """Import qtoolkit as a whole before a module of it.

    Two threads that import a package and a module of it at the same time may wait for each other; Python ends
    that by an error.
    """
    import qtoolkit.io  # noqa: F401


@cache
def scheduler_io(scheduler_type: str) -> Any:
    """Return qtoolkit's view of a scheduler.

    Raises
    ------
    InputError
        There is no such scheduler.
    """
    if scheduler_type not in KEYWORDS:
        hint = did_you_mean(scheduler_type, KEYWORDS)
        raise InputError(f"there is no scheduler '{scheduler_type}'", hint=hint)
    from qtoolkit.io import PBSIO, SGEIO, ShellIO, SlurmIO

    if scheduler_type == "shell":
        return ShellIO(stdout_path=STDOUT, stderr_path=STDERR)
    return {"slurm": SlurmIO, "pbs": PBSIO, "sge": SGEIO}[scheduler_type]()


def standard_state(scheduler_type: str, code: str) -> str | None:
    """Return the name of qtoolkit's standard state (QState) for a scheduler's own code; None if none fits."""
    _import_whole()
    from qtoolkit.io.pbs import PBSState
    from qtoolkit.io.shell import ShellState
    from qtoolkit.io.slurm import SlurmState

    known: Any = {"pbs": PBSState, "shell": ShellState, "slurm": SlurmState}[scheduler_type]
    try:
        return str(known(code).qstate.name)
    except (ValueError, KeyError):
        return None


def converted(scheduler_type: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of QResources as keywords of a scheduler.

    Raises
    ------
    InputError
        qtoolkit cannot do that.
    """
    _import_whole()
    from qtoolkit.core.data_objects import ProcessPlacement, QResources
    from qtoolkit.core.exceptions import QTKError

    values = dict(fields)
    if "process_placement" in values:
        values["process_placement"] = ProcessPlacement(values["process_placement"])
    try:
        found: dict[str, Any] = scheduler_io(scheduler_type).check_convert_qresources(QResources(**values))
    except (QTKError, TypeError, ValueError) as error:
        raise InputError(f"these qresources are impossible with {scheduler_type}: {error}") from error
    return found
