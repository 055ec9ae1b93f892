"""A world with a batch worker, and looks at its allocations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from reconciler.execution.batch.tickets import BATCHES, RUNNING, WAITING
from reconciler.model.records import Allocation
from tests.execution.support import World, lines


class BatchWorld(World):
    """A world whose only worker ``b`` is a batch worker of this machine, with one allocation at a time."""

    def __init__(self, root: Path, **batch: Any) -> None:
        super().__init__(root, workers=" ", defaults="worker: b")
        self.log = root / "log"
        self.set_worker(**batch)

    def set_worker(self, **batch: Any) -> None:
        """Write the worker."""
        work_dir = str(self.work / "b")
        fields = {"type": "local", "scheduler_type": "shell", "work_dir": work_dir, "max_jobs": 1}
        self.put("Worker", "b", fields | {"batch": {"parallel_jobs": 2, "max_wait": 2} | batch})

    def waits(self, name: str, *gates: str, **spec: Any) -> None:
        """Write a flow of jobs that each log their line and wait for a gate of the same name."""
        jobs = [
            {"id": gate, "function": "log_and_wait", "args": [str(self.log), gate, str(self.root / gate)]}
            for gate in gates
        ]
        self.flow(name, *jobs, **spec)

    def open(self, *gates: str) -> None:
        """Let waiting jobs go on."""
        for gate in gates:
            (self.root / gate).touch()

    def logged(self) -> list[str]:
        """Return the lines of the jobs that have begun."""
        return list(lines(self.log))

    def allocations(self) -> list[Allocation]:
        """Return the allocations as recorded, oldest first."""
        status = self.view(lambda view: view.worker_status("b"))
        return status.allocations if status is not None else []

    @property
    def batch(self) -> Path:
        """The hand-over directory."""
        return self.work / "b" / BATCHES / "b"

    def waiting(self) -> list[str]:
        """Return the tickets."""
        return sorted(path.name for path in (self.batch / WAITING).iterdir())

    def noted(self) -> list[str]:
        """Return the markers of the jobs that agents have noted as running."""
        return sorted(path.name for path in self.batch.glob(f"*/{RUNNING}/*"))

    def pids(self, pattern: str) -> list[int]:
        """Return the processes of this world whose command line matches."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    place = str((entry / "cwd").readlink())
                except OSError:
                    continue
                if re.search(pattern, command) and place.startswith(str(self.work)):
                    found.append(int(entry.name))
        return found
