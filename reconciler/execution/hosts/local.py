"""The machine that this program runs on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.hosts.process import run_script

_INHERITED = frozenset(
    [
        *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
        # Where the clients of a scheduler find it. Not all of SLURM_*: in a job the rest describes that job.
        *("SLURM_CONF", "PBS_CONF_FILE", "PBS_SERVER", "PBS_DEFAULT", "PBS_HOME", "PBS_EXEC"),
        *("SGE_ROOT", "SGE_CELL", "SGE_CLUSTER_NAME", "SGE_QMASTER_PORT", "SGE_EXECD_PORT", "SGE_ARCH"),
    ]
)
_INHERITED_PREFIXES = ("LC_", "MODULE", "LMOD_")


class LocalHost:
    """This machine, with a clean environment: that of the reconciler may hold secrets, and reaches no job."""

    name = "localhost"
    is_local = True

    def __init__(self) -> None:
        self.commands = 0

    def run(
        self,
        script: str,
        timeout: float,
        *,
        data: Iterable[bytes] | None = None,
        sink: BinaryIO | None = None,
    ) -> CommandResult:
        """Run a bash script to its end; see :class:`~reconciler.execution.hosts.base.Host`.

        Raises
        ------
        TransientError
            It cannot be started, or gave no answer in time: its whole process group is dead then.
        """
        self.commands += 1
        environment = clean_environment(os.environ)
        return run_script(self.name, ["/bin/bash", "-s"], environment, script, timeout, data, sink)

    def close(self) -> None:
        """There is no connection to let go of."""


def expand(path: str) -> str:
    """Return an absolute path of this machine for one that may begin with ``~``."""
    return str(Path(path).expanduser().absolute())


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a job may inherit: who the user is, the search path, language, modules, scheduler."""
    return {
        key: value
        for key, value in environment.items()
        if key in _INHERITED or key.startswith(_INHERITED_PREFIXES)
    }
