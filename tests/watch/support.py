"""A repository with a daemon: a real process that tests start, send signals to, and read the log of."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.model.records import JobRecord
from tests.services import processes
from tests.support import Repository

T = TypeVar("T")

JOBS = Path(__file__).parent.parent / "execution" / "code" / "simple_jobs.py"

PATIENCE = 120.0
"""Seconds after which something that should have happened never will, on however busy a machine."""

_START = "import sys; sys.executable = sys.argv.pop(1); {}; from reconciler.cli.main import main; main()"
"""The program, by the Python of the tests, so that signals reach it as they reach a user's; what it starts
(builds, jobs) it starts by the Python that is its first argument. A fault may be put in before."""


class Watch:
    """A running ``reconcile watch``; its log goes to a file as JSON, one object a line."""

    def __init__(self, command: list[str], cwd: Path, log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        self._stderr = log.open("wb")
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def lines(self) -> list[dict[str, Any]]:
        """Return the log so far; a line that is still being written is left out."""
        text, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in text.splitlines()]

    def told(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines of an event in which these fields have these values."""
        wanted = {"event": event, **fields}
        return [line for line in self.lines() if wanted.items() <= line.items()]

    def until(self, event: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait until a line of the log is the ``count``-th of its kind, and return it."""
        found = eventually(lambda: self.told(event, **fields)[count - 1 :], f"{event} in the log", self)
        return found[0]

    def send(self, number: int) -> None:
        """Send a signal to it, and to nothing that it started."""
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(seconds)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it; return the exit code."""
        self.send(number)
        return self.wait()

    def kill(self) -> None:
        """Let it die at once, and with it nothing else."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._stderr.close()


class WatchWorld:
    """A repository with a project and two workers, a state directory, and daemons that work on them."""

    def __init__(self, root: Path, python: Path) -> None:
        """``python`` runs builds and jobs."""
        self.root = root
        self.work = root / "work"
        self.state = root / "state"
        self.python = python
        self.repository = Repository(root / "repository")
        self._watches: list[Watch] = []
        self._store: Store | None = None
        self.repository.write_yaml(
            "reconciler.yaml",
            """
            apiVersion: reconciler/v1
            kind: Project
            metadata: {name: watched}
            spec: {python_path: [lib], defaults: {worker: w1}}
            """,
        )
        (self.repository.path / "lib").mkdir()
        shutil.copy(JOBS, self.repository.path / "lib")
        self.worker("w1")
        self.worker("w2")

    # documents ----------------------------------------------------------------------------------------

    def put(self, kind: str, name: str, spec: dict[str, Any], folder: str | None = None) -> None:
        """Write a manifest; its spec is JSON, which is YAML."""
        text = f"apiVersion: reconciler/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: "
        path = f"{folder or kind.lower() + 's'}/{name}.yaml"
        self.repository.write(path, text + msgspec.json.encode(spec).decode() + "\n")

    def worker(self, name: str, **spec: Any) -> None:
        """Write a worker of this machine."""
        fields = {"type": "local", "scheduler_type": "shell", "work_dir": str(self.work / name), **spec}
        self.put("Worker", name, fields)

    def flow(self, name: str, *jobs: dict[str, Any], **spec: Any) -> None:
        """Write a flow; the ``function`` of a job is a bare name of ``simple_jobs``."""
        named = [{**job, "function": f"simple_jobs.{job['function']}"} for job in jobs]
        self.put("Flow", name, {"jobs": named, **spec})

    def log_flow(self, name: str, **spec: Any) -> None:
        """Write a flow with one job, ``j``, which writes the name of the flow into ``log``."""
        self.flow(name, {"id": "j", "function": "log_line", "args": [str(self.root / "log"), name]}, **spec)

    def waiting_flow(self, name: str, **spec: Any) -> Path:
        """Write a flow with one job, ``wait``; return the file for which it waits."""
        gate = self.root / f"{name}.gate"
        self.flow(name, {"id": "wait", "function": "wait_for", "args": [str(gate)]}, **spec)
        return gate

    def commit(self) -> str:
        """Commit everything; return the revision as it is printed."""
        return f"main@{self.repository.commit()[:7]}"

    # programs -----------------------------------------------------------------------------------------

    def command(self, *arguments: str, fault: str = "pass") -> list[str]:
        """Return the command line of the program; what it starts runs by ``python``."""
        start = [sys.executable, "-c", _START.format(fault), str(self.python)]
        return [*start, "--state-dir", str(self.state), *arguments]

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        ready: bool = True,
        fault: str = "pass",
    ) -> Watch:
        """Start ``reconcile watch``; with ``ready`` wait until it is at work. ``fault``: code run before."""
        log = self.root / f"watch-{len(self._watches)}.log"
        call = self.command("watch", "--log-format", "json", *arguments, fault=fault)
        watch = Watch(call, self.repository.path, log, env or {})
        self._watches.append(watch)
        if ready:
            watch.until("begun")
        return watch

    def run(
        self, *arguments: str, timeout: float = PATIENCE, fault: str = "pass"
    ) -> subprocess.CompletedProcess[str]:
        """Run any other verb on this state to its end. ``fault``: code run before."""
        return subprocess.run(
            self.command(*arguments, fault=fault),
            cwd=self.repository.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    # looking ------------------------------------------------------------------------------------------

    def read(self, look: Callable[[View], T]) -> T:
        """Look at the store."""
        if self._store is None:
            eventually(lambda: Store.exists(self.state), "a store")
            self._store = Store(self.state)
        with self._store.read() as view:
            return look(view)

    def jobs(self) -> dict[str, JobRecord]:
        """Return all jobs by ``flow/job``."""
        return self.read(lambda view: {job.path: job for job in view.jobs()})

    def until_state(self, path: str, *states: str) -> JobRecord:
        """Wait until a job is in one of these states, and return it."""

        def found() -> JobRecord | None:
            job = self.jobs().get(path)
            return job if job is not None and job.state in states else None

        return eventually(found, f"{path} to be {' or '.join(states)}", *self._watches[-1:])

    def close(self) -> None:
        """End everything that was started, jobs too."""
        for watch in self._watches:
            watch.kill()
        if self._store is not None:
            self._store.close()
        for pid in processes.of_directory(self.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def eventually(look: Callable[[], T | None], what: str, *watches: Watch) -> T:
    """Look until there is something to see (anything but nothing), and return it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        dead = any(watch.process.poll() is not None for watch in watches)  # its last deed may be it
        found = look()
        if found:
            return found
        if dead or time.monotonic() > deadline:
            logs = "\n".join(watch.log.read_text() for watch in watches)
            raise AssertionError(f"{'it ended' if dead else 'too long'}, waiting for {what}\n{logs}")
        time.sleep(0.02)
