"""A world with a Slurm behind an sshd, beside a worker of this machine, that counts its commands."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from reconciler.execution.hosts.choice import Hosts
from reconciler.loop import Session
from reconciler.model.records import WorkerStatus
from tests.execution.support import Listener, World, eventually, lines
from tests.services.programs import PATIENCE
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd

HPC = "hpc"


class Cluster(World):
    """A world with the workers ``hpc`` (Slurm over ssh) and ``w1`` (this machine).

    ``shared`` is a directory where jobs of both may write. ``passes`` has the number of remote commands of
    every pass that ran any. ``offset`` (seconds) is how much later the executor believes it is.
    """

    def __init__(self, root: Path, slurm: Slurm, sshd: Sshd, python: Path, **spec: Any) -> None:
        self.slurm, self.sshd = slurm, sshd
        self.passes: list[int] = []
        self.offset = 0.0
        fields = {
            "type": "remote",
            "scheduler_type": "slurm",
            "work_dir": str(sshd.login.home / f"work-{root.parent.name}-{root.name}"),
            **sshd.worker_fields(),
            "python": str(python),
            **spec,
        }
        self.remote = Path(fields["work_dir"])
        self.shared = self.remote.with_name(f"{self.remote.name}-shared")
        self.shared.mkdir()
        self.shared.chmod(0o777)
        super().__init__(root, "", defaults=f"worker: {HPC}")
        self.repository.write("workers/workers.yaml", self.worker("w1", max_jobs=4))
        self.put("Worker", HPC, fields)

    # running ------------------------------------------------------------------------------------------

    def reconcile(self) -> list[str]:
        """Commit, plan and apply; return what was narrated."""
        self.repository.commit()
        listener = Listener()
        session = Session(self.source, self.store, hosts=self.hosts)
        plan = session.reconcile(listener).plan
        assert not plan.has_errors, plan.diagnostics
        self.executor = session.executor()
        return listener.said

    def restart(self) -> None:
        """Forget the executor, its memory and its connections, as a new process would."""
        self.hosts.close()
        self.hosts = Hosts()
        self.executor = Session(self.source, self.store, hosts=self.hosts).executor()

    @property
    def now(self) -> float:
        """What time it is for the executor."""
        return time.time() + self.offset

    def advance(self, now: float | None = None) -> bool:
        """Make one pass, and count its remote commands."""
        before = self.commands
        moved = super().advance(self.now if now is None else now)
        if self.commands > before:
            self.passes.append(self.commands - before)
        return moved

    @property
    def commands(self) -> int:
        """How many commands the host of the cluster was given so far."""
        return self.hosts.commands - self.hosts.of(None).commands

    # looking ------------------------------------------------------------------------------------------

    @property
    def status(self) -> WorkerStatus:
        """How the cluster was when it was last used."""
        found = self.view(lambda view: view.worker_status(HPC))
        assert isinstance(found, WorkerStatus)
        return found

    @property
    def log(self) -> Path:
        """Where jobs append a line each."""
        return self.shared / "log"

    def ran(self) -> Counter[str]:
        """Return how often each job has run, by what it appends."""
        return Counter(lines(self.log))

    def count(self, *states: str) -> int:
        """Return how many jobs are in these states."""
        return sum(job.state.value in states for job in self.jobs().values())

    def logging(self, name: str, count: int, **spec: Any) -> list[str]:
        """Write a flow of jobs that append their names to the log, and return these."""
        names = [f"{name}-{number:03}" for number in range(count)]
        self.flow(name, *(_one(name, "log_line", str(self.log), name) for name in names), **spec)
        return names

    def gated(self, name: str, count: int = 1, **spec: Any) -> Path:
        """Write a flow of jobs that append their names and then wait for the file that is returned."""
        gate = self.shared / f"gate-{name}"
        names = [f"{name}-{number:03}" for number in range(count)]
        self.flow(name, *(_one(one, "log_and_wait", str(self.log), one, str(gate)) for one in names), **spec)
        return gate

    def chain(self, name: str, count: int) -> list[str]:
        """Write a flow of jobs that append their names one after the other, and return these."""
        names = [f"{name}-{number:03}" for number in range(count)]
        jobs = [_one(one, "log_line", str(self.log), one) for one in names]
        for before, job in zip(names, jobs[1:], strict=False):
            job["args"].append({"$output": before})
        self.flow(name, *jobs)
        return names

    def defaults(self, text: str) -> None:
        """Change ``spec.defaults`` of the Project."""
        file = self.repository.path / "reconciler.yaml"
        file.write_text(re.sub(r"defaults: {.*?}", f"defaults: {{{text}}}", file.read_text()))

    def elapse(self, seconds: float) -> bool:
        """Let the executor believe that so much time went by since the last look; always false."""
        self.offset += seconds
        return False

    def markers(self) -> Sequence[Path]:
        """Return the markers in the outbox of the cluster."""
        outbox = self.remote / ".outbox"
        return [file for file in outbox.iterdir() if not file.name.endswith(".partial")]

    def wait_for_markers(self, count: int, seconds: float = 2 * PATIENCE) -> None:
        """Wait, without a pass, until so many jobs have ended there."""
        assert eventually(lambda: len(self.markers()) >= count, seconds), (
            f"{len(self.markers())} of {count} ended: {self.slurm.squeue()}"
        )

    def tells(self) -> dict[str, tuple[str, str]]:
        """Return state and error of every job: what an outage must not change."""
        return {path: (job.state.value, job.error or "") for path, job in self.jobs().items()}


def _one(name: str, function: str, *args: str) -> dict[str, Any]:
    return {"id": name, "function": function, "args": list(args)}


class MakeCluster(Protocol):
    """Makes worlds: ``make_cluster(slurm, sshd, max_jobs=4)``; the rest are fields of the worker ``hpc``."""

    def __call__(self, slurm: Slurm, sshd: Sshd, **spec: Any) -> Cluster:
        """Return a new one; it ends with the test."""
        ...
