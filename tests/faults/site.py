"""A project on real workers, its daemon as a process of its own, and a look at what its jobs did.

The world of :mod:`tests.execution.support` without its executor: here only ``reconcile`` itself moves jobs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reconciler.actual.store import Store
from reconciler.model.records import JobRecord, WorkerStatus
from reconciler.model.states import ACTIVE
from tests.execution.support import World, eventually, lines, processes_below
from tests.support import ROOT, Reconcile

KILLER = ROOT / "tests" / "execution" / "killer.py"
CLOCKED = Path(__file__).with_name("clocked.py")
PYTHON = sys.executable
"""The cold Python of the tests, whatever the fixture ``warm`` says: the process itself is to be killed."""

PATIENCE = 120.0
"""Seconds that anything may take on a busy machine; a test that needs them is slow, not wrong."""


class Site(World):
    """A project whose jobs append their ids to ``log``.

    ``shared`` is a directory of these files, where the users of all workers may write. ``python`` is a warm
    one for builds and for jobs of this machine.
    """

    def __init__(self, root: Path, shared: Path, python: Path, state: Path | None = None) -> None:
        super().__init__(root, workers=" ")
        if state is not None:
            self.store.close()
            self.store = Store(state)
        self.python = python
        self.shared = shared
        shared.mkdir(parents=True, exist_ok=True)
        shared.chmod(0o777)
        self.log.touch()
        self.log.chmod(0o666)
        shutil.copy(Path(__file__).parent / "code" / "fault_jobs.py", self.repository.path / "lib")
        self.project()

    @property
    def log(self) -> Path:
        """Where jobs append a line each."""
        return self.shared / "log"

    # the repository -----------------------------------------------------------------------------------

    def project(self, **spec: Any) -> None:
        """Write the Project; any part of it may be removed by a commit."""
        fields = {"python_path": ["lib"], "defaults": {"worker": "here"}, "max_prune": 1.0} | spec
        self.repository.write("reconciler.yaml", self.document("Project", "faults", fields))

    def local(self, name: str, **spec: Any) -> None:
        """Write a worker of this machine."""
        fields = {"type": "local", "scheduler_type": "shell", "work_dir": str(self.work / name)}
        self.put("Worker", name, fields | {"python": str(self.python), "max_jobs": 4} | spec)

    def jobs_flow(self, name: str, *jobs: dict[str, Any], **spec: Any) -> None:
        """Write a flow of jobs of ``fault_jobs``; their first argument, the log, is added."""
        for job in jobs:
            job["function"] = f"fault_jobs.{job['function']}"
            job["args"] = [str(self.log), *job.get("args", [])]
        self.put("Flow", name, {"jobs": list(jobs)} | spec)

    def chain(self, name: str, count: int, **spec: Any) -> None:
        """Write a flow of jobs that run one after the other."""
        jobs: list[dict[str, Any]] = []
        for number in range(count):
            after = [{"$output": jobs[-1]["id"]}] if jobs else [name]
            jobs.append({"id": f"j{number}", "function": "line", "args": after})
        self.jobs_flow(name, *jobs, **spec)

    # programs -----------------------------------------------------------------------------------------

    @property
    def arguments(self) -> list[str]:
        """What every call of the program begins with."""
        return ["--repo", str(self.repository.path), "--state-dir", str(self.store.path)]

    def call(self, *arguments: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run the program to its end, quickly: by the warm Python."""
        return Reconcile(self.root)(*self.arguments, *arguments, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        """Return what a verb tells as JSON."""
        done = self.call(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def watch(self, *, kill_at: str = "", clock: Path | None = None) -> Daemon:
        """Start the daemon."""
        return Daemon(self, ["watch"], kill_at=kill_at, clock=clock)

    # looking ------------------------------------------------------------------------------------------

    def wait(self, true: Callable[[], Any], seconds: float = PATIENCE) -> None:
        """Wait until something is true."""
        assert eventually(true, seconds), f"{self.states_by_job()}\n{self.told()}"

    def wait_completed(self, *flows: str, seconds: float = PATIENCE) -> None:
        """Wait until all jobs of these flows (all if none is named) have completed."""
        self.wait(lambda: self.completed(*flows), seconds)

    def completed(self, *flows: str) -> bool:
        """Whether these flows have jobs, and all have completed."""
        jobs = [job for job in self.jobs().values() if not flows or job.flow in flows]
        return {job.flow for job in jobs} >= set(flows) and all(job.state == "COMPLETED" for job in jobs)

    def all_jobs(self) -> list[JobRecord]:
        """Return all records, history included."""
        with self.store.read() as view:
            return list(view.jobs())

    def states_by_job(self) -> dict[str, str]:
        """Return state and error of all jobs that have not completed."""
        found = {job.path: f"{job.state} {job.error or ''}" for job in self.all_jobs()}
        return {path: text for path, text in found.items() if not text.startswith("COMPLETED")}

    def status(self, worker: str) -> WorkerStatus:
        """Return how a worker stands."""
        with self.store.read() as view:
            return view.worker_status(worker) or WorkerStatus(reachable=True)

    def ran(self) -> Counter[str]:
        """Return how often each job has run, by its id."""
        return Counter(lines(self.log))

    def told(self, last: int = 30) -> str:
        """Return the end of what the daemons have logged."""
        return "\n".join(lines(self.root / "watch.log")[-last:])

    def events_told(self) -> list[dict[str, Any]]:
        """Return all that the daemons have logged."""
        found = []
        for line in lines(self.root / "watch.log"):
            if line.endswith("}"):  # one that was killed may have left half a line
                found.append(json.loads(line))
        return found


class Daemon:
    """One process of the program that reconciles: ``watch``, or ``--once``."""

    def __init__(
        self,
        site: Site,
        arguments: list[str],
        *,
        kill_at: str = "",
        clock: Path | None = None,
        env: Mapping[str, str] = {},
    ) -> None:
        self.site = site
        extra = {"RECONCILER_TEST_PYTHON": str(site.python), "RECONCILER_TEST_KILL_AT": kill_at}
        if clock is not None:
            extra["RECONCILER_TEST_CLOCK"] = str(clock)
        log = ["--log-format", "json", "--log-file", str(site.root / "watch.log")]
        command = [*arguments, *(log if arguments[0] == "watch" else []), *site.arguments]
        self.errors = site.root / "stderr"
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [PYTHON, str(KILLER if clock is None else CLOCKED), *command],
                env={**os.environ, **extra, **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def died_within(self, seconds: float) -> bool:
        """Wait for its end, at most so long; return whether it has ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self, seconds: float = PATIENCE) -> None:
        """Ask it to end; it must do so by itself, without a complaint."""
        self.process.send_signal(signal.SIGTERM)
        assert self.died_within(seconds), f"it does not end\n{self.site.told()}"
        assert self.process.returncode == 0, f"{self.errors.read_text()}\n{self.site.told()}"

    def memory(self) -> int:
        """Return the bytes of its resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024

    def descriptors(self) -> int:
        """Return how many files it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def assert_sound(site: Site) -> None:
    """Assert what holds after all faults: each job ran once, the store is sound, no bug was told."""
    assert_ran_once(site)
    assert_store_is_sound(site)
    bugs = [event for event in site.events_told() if event["event"].endswith("bug")]
    assert not bugs, bugs
    said = (site.root / "stderr").read_text()
    assert "Traceback" not in said, said[said.index("Traceback") :][:4000]


def assert_ran_once(site: Site) -> None:
    """Each completed job has one line, each cancelled one at most one, and nothing else has any."""
    ran = site.ran()
    jobs = {job.id: job for job in site.all_jobs()}
    assert not set(ran) - jobs.keys(), "jobs ran that nobody knows"
    wrong = {
        job.path: (str(job.state), ran[job_id])
        for job_id, job in jobs.items()
        if ran[job_id] > 1 or (_should_have_run(job) and ran[job_id] != 1)
    }
    assert not wrong, f"jobs ran twice, or not at all: {wrong}"


def _should_have_run(job: JobRecord) -> bool:
    """Whether it completed, and is not the job by which jobflow itself keeps the output of a replacement."""
    return job.state == "COMPLETED" and not job.function.endswith(".store_inputs")


def assert_store_is_sound(site: Site) -> None:
    """``fsck`` finds nothing."""
    done = site.call("fsck")
    assert done.returncode == 0, done.stdout + done.stderr


def assert_nothing_is_left(site: Site, *work_dirs: Path) -> None:
    """No process of a job or of a program is left, and no marker in an outbox that somebody still needs.

    That of a job which was taken in just before a kill is removed when its worker is looked at next.
    """
    places = [site.root, site.shared, *work_dirs]
    left = lambda: [pid for place in places for pid in processes_below(place)]  # noqa: E731
    assert eventually(lambda: not left(), PATIENCE), [
        Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left()
    ]
    markers = [file.name for place in places for file in place.glob("**/.outbox/*")]
    with site.store.read() as view:
        jobs = {name: view.job(name.rpartition(".")[0]) for name in markers}
    assert [name for name, job in jobs.items() if job is None or job.state in ACTIVE] == []
