"""A repository whose flows run in this process: session, executor, and looks at what came of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.desired.source.git import Source, open_source
from reconciler.execution.executor import Executor
from reconciler.execution.hosts.choice import Hosts
from reconciler.loop import Session, open_outputs
from reconciler.model.records import JobRecord
from tests.services.programs import PATIENCE
from tests.support import Repository

CODE = Path(__file__).parent / "code"
KILLER = Path(__file__).with_name("killer.py")


class Listener:
    """Hears what a reconcile narrates."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        """Take a line."""
        self.said.append(line)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Whatever else the loop tells is of no interest here."""
        return lambda *_args, **_kwargs: None


class World:
    """A project, its state, and an executor that the test moves by hand."""

    def __init__(self, root: Path, workers: str = "", defaults: str = "worker: w1") -> None:
        """``workers`` are Worker documents; without any there is ``w1`` with four places."""
        self.root = root
        self.work = root / "work"
        self.repository = Repository(root / "repository")
        self.repository.write_yaml(
            "reconciler.yaml",
            f"""
            apiVersion: reconciler/v1
            kind: Project
            metadata: {{name: test}}
            spec: {{python_path: [lib], defaults: {{{defaults}}}}}
            """,
        )
        self.repository.write("workers/workers.yaml", workers or self.worker("w1", max_jobs=4))
        shutil.copytree(CODE, self.repository.path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
        self.store = Store(root / "state")
        self.hosts = Hosts()
        self.executor: Executor | None = None

    def close(self) -> None:
        """Give the store back, and let go of all connections."""
        self.hosts.close()
        self.store.close()

    # documents ----------------------------------------------------------------------------------------

    def worker(self, name: str, **spec: Any) -> str:
        """Return the document of a local shell worker."""
        fields = {"type": "local", "scheduler_type": "shell", "work_dir": str(self.work / name)} | spec
        return self.document("Worker", name, fields)

    def document(self, kind: str, name: str, spec: dict[str, Any]) -> str:
        """Return a manifest; its spec is JSON, which is YAML."""
        text = msgspec.json.encode(spec).decode()
        return f"---\napiVersion: reconciler/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {text}\n"

    def flow(self, name: str, *jobs: dict[str, Any], **spec: Any) -> None:
        """Write a flow of jobs of ``simple_jobs``; ``function`` may be a bare name of that module."""
        for job in jobs:
            if "." not in job["function"]:
                job["function"] = f"simple_jobs.{job['function']}"
        self.put("Flow", name, {"jobs": list(jobs)} | spec)

    def factory(self, name: str, function: str, *args: Any, **spec: Any) -> None:
        """Write a flow that a function of the repository makes."""
        self.put("Flow", name, {"factory": {"function": function, "args": list(args)}} | spec)

    def put(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Write a manifest of any kind."""
        folder = {"Flow": "flows", "OverrideRule": "rules", "ExecConfig": "exec_configs", "Worker": "workers"}
        self.repository.write(f"{folder[kind]}/{name}.yaml", self.document(kind, name, spec))

    def yaml(self, path: str, text: str) -> None:
        """Write any file of the repository."""
        self.repository.write(path, dedent(text))

    # running ------------------------------------------------------------------------------------------

    @property
    def source(self) -> Source:
        """The repository as the product reads it."""
        return open_source(str(self.repository.path), None, "", self.root / "mirrors")

    def reconcile(self, *, allow_prune: bool = False) -> list[str]:
        """Commit, plan and apply; return what was narrated. The executor is a new one."""
        self.repository.commit()
        listener = Listener()
        session = Session(self.source, self.store, hosts=self.hosts)
        plan = session.reconcile(listener, allow_prune=allow_prune).plan
        # A rule for jobs that are yet to be generated matches nothing so far.
        wrong = [found.message for found in plan.diagnostics if found.code != "rule/matches-nothing"]
        assert not wrong, wrong
        self.executor = session.executor()
        return listener.said

    def restart(self) -> None:
        """Forget the executor and its memory, as a new process would."""
        self.executor = Session(self.source, self.store, hosts=self.hosts).executor()

    def advance(self, now: float | None = None) -> bool:
        """Make one pass."""
        assert self.executor is not None
        return self.executor.advance(time.time() if now is None else now)

    def until(self, true: Callable[[], Any], timeout: float = 120.0) -> None:
        """Make passes until something is true."""
        deadline = time.monotonic() + timeout
        while not true():
            ends = {path: (job.state.value, job.error) for path, job in self.jobs().items()}
            assert time.monotonic() < deadline, ends
            if not self.advance():
                time.sleep(0.02)

    def run(self, timeout: float = 240.0) -> None:
        """Make passes until nothing runs and nothing could."""
        self.until(self.is_idle, timeout)
        assert self.executor is not None
        self.executor.tidy_up()

    def is_idle(self) -> bool:
        """Whether no job runs, none is ready and none waits for a retry."""
        with self.store.read() as view:
            return view.is_idle() and view.next_retry() is None

    # looking ------------------------------------------------------------------------------------------

    def jobs(self) -> dict[str, JobRecord]:
        """Return all records by ``flow/job``; of two with the same name the last one."""
        with self.store.read() as view:
            return {job.path: job for job in sorted(view.jobs(), key=lambda job: job.sequence)}

    def job(self, path: str) -> JobRecord:
        """Return a record by ``flow/job``."""
        return self.jobs()[path]

    def state(self, path: str) -> str:
        """Return the state of a job."""
        return self.job(path).state.value

    def states(self, *paths: str) -> list[str]:
        """Return the states of jobs."""
        jobs = self.jobs()
        return [jobs[path].state.value for path in paths]

    def output(self, path: str) -> Any:
        """Return the last output of a job, as stored."""
        config = self.view(View.config)
        assert config is not None
        found = open_outputs(self.store, config).latest(self.job(path).uuid)
        return found["output"] if found is not None else None

    def view(self, read: Callable[[View], Any]) -> Any:
        """Read something."""
        with self.store.read() as view:
            return read(view)

    def events(self, path: str) -> list[str]:
        """Return what happened to a job, as text."""
        with self.store.read() as view:
            return [event.message for event in view.events(f"job/{path}")]

    def edit(self, path: str, **fields: Any) -> None:
        """Change a record behind the back of everybody, as another program with the lease may."""
        job = self.job(path)
        self.store.write(lambda writer: writer.put_job(msgspec.structs.replace(job, **fields)))


def reconcile_killed_at(world: World, moment: str) -> int:
    """Run ``reconcile --once --wait`` that kills itself at a step of ``killer.py``; return its exit code."""
    arguments = ["--repo", str(world.repository.path), "--state-dir", str(world.root / "state"), "-q"]
    done = subprocess.run(
        [sys.executable, str(KILLER), *arguments, "--once", "--wait", "--timeout", "120"],
        env=os.environ | {"RECONCILER_TEST_KILL_AT": moment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def kill_at(step: str, repository: Path, *arguments: str) -> None:
    """Run the program on a repository until it kills itself at a step of ``killer.py``, which it must."""
    died = subprocess.run(
        [sys.executable, str(KILLER), *arguments],
        cwd=repository,
        env=os.environ | {"RECONCILER_TEST_KILL_AT": step},
        capture_output=True,
    )
    assert died.returncode == -signal.SIGKILL, f"{step}: {died.stderr.decode()}"


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def eventually(true: Callable[[], bool], timeout: float = PATIENCE) -> bool:
    """Wait until something is true; return whether it came to be."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def processes_below(directory: Path) -> list[int]:
    """Return the processes that work in a directory or name it on their command line."""
    here, found = str(directory), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            where, command = str((entry / "cwd").readlink()), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if (where.startswith(here) or here.encode() in command) and is_running(int(entry.name)):
            found.append(int(entry.name))
    return found


def end_processes_below(directory: Path) -> None:
    """Kill what still works in a directory."""
    for pid in processes_below(directory):
        with contextlib.suppress(ProcessLookupError):  # it ends with one that was killed before
            os.kill(pid, signal.SIGKILL)


def lines(path: Path) -> Sequence[str]:
    """Return the lines of a file; none if it does not exist."""
    return path.read_text().splitlines() if path.exists() else []


def running(world: World, path: str) -> Callable[[], bool]:
    """Return a question: does this job run?"""
    return lambda: world.state(path) == "RUNNING"


def gate(world: World, name: str) -> Path:
    """Return a path that a job of ``wait_for`` waits for."""
    return world.root / name
