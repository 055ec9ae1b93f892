"""Some thirty jobs on one place, all at the same time, and what is done to them while they run.

The jobs are written as flows of a real repository, and are cancelled by a commit that removes their flows.
Everything else happens behind the back of the executor: processes are killed, jobs ended, markers removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconciler.execution.executor import WorkerRunner
from reconciler.execution.run_files import OUTBOX, marker_name
from reconciler.model.states import ACTIVE, JobState
from tests.contract.schedulers import Request, scheduler_of
from tests.execution.support import World
from tests.services.places import Place
from tests.services.programs import PATIENCE

ODD = 'it\'s "our" wörk $dir; `x`'
"""Part of every work_dir: nothing in it may mean anything to a shell or a scheduler."""

VALUE = "ö 😀 ' \" $HOME `id` \\ %s\nsecond line"

SECRET = "a-token-that-no-job-may-see"

Job = dict[str, Any]


class Campaign:
    """The jobs of one place.

    ``python`` runs jobs that are not about processes; the others run by that of the place, or of the tests.
    ``batch``: whether all workers are batch workers, with as many slots as others may have jobs.
    ``overdue``: whether to wait for a time limit. ``samples`` are (active, ready) jobs of the worker ``two``
    after each pass; ``seen`` is what was found out about jobs while they were there.
    """

    def __init__(
        self, place: Place, root: Path, python: str, own: str, *, overdue: bool, batch: bool = False
    ) -> None:
        self.place = place
        # Jobs in allocations have no requests of their own.
        self.scheduler = scheduler_of(place) if not batch else None
        self.base = place.work_dir / ODD
        self.world = World(root, workers=" ", defaults="worker: quick")
        self.python, self.own = python, own
        self.batch = batch
        self.overdue = overdue and self.scheduler is not None
        self.samples: list[tuple[int, int]] = []
        self.requests: dict[str, Request] = {}
        self.pids: dict[str, list[int]] = {}
        self.stuck: str = ""
        self.health: str = ""
        self.first_id: str = ""
        self.growth: int = 0
        self._deeds: list[tuple[Callable[[], Any], Callable[[], None]]] = []
        self._done: set[str] = set()

    # what is wanted -----------------------------------------------------------------------------------

    def write(self) -> None:
        """Write the repository."""
        put = self.world.put
        self._workers()
        careful = {"export": {"ODD_VALUE": VALUE}, "expand": False, "pre_run": "export ORDER=$ORDER,exec"}
        put("ExecConfig", "careful", careful | {"post_run": "echo exec >> after"})
        self._quick_flows()
        self._harmed_flows()
        self._doubtful_flows()
        if self.scheduler is not None:
            self._scheduler_flows()

    def _workers(self) -> None:
        around = {"pre_run": "export ORDER=worker", "post_run": "echo worker >> after"}
        self._worker("quick", **around)
        self._worker("two", max_jobs=2)
        self._worker("one", max_jobs=1, cleanup="completed")
        self._worker("cut")
        self._worker("real", python=self.own)
        self._worker("full", python=self.own, max_jobs=1)
        if self.scheduler is not None:
            self._worker("default", resources=self.scheduler.default)

    def _worker(self, name: str, **more: Any) -> None:
        work_dir = {"work_dir": str(self.base / name)}
        if self.batch:
            slots = more.pop("max_jobs", 4)
            more |= {"max_jobs": 1, "batch": {"parallel_jobs": slots, "max_wait": 2}}
        self.world.put("Worker", name, {**self.place.spec, "python": self.python, **work_dir, **more})

    def flow(self, name: str, *jobs: Job, **spec: Any) -> None:
        """Write a flow of jobs of ``contract_jobs``."""
        for job in jobs:
            job["function"] = f"contract_jobs.{job['function']}"
        self.world.put("Flow", name, {"jobs": list(jobs)} | spec)

    def _quick_flows(self) -> None:
        self.flow(
            "chain",
            {"id": "a", "function": "adds", "args": [1, 2]},
            {"id": "b", "function": "adds", "args": [{"$output": "a"}, 10]},
            {"id": "c", "function": "adds", "args": [{"$output": "a"}, {"$output": "b"}]},
        )
        self.flow(
            "ends",
            {"id": "raises", "function": "fails", "args": ["ö went wrong"]},
            {"id": "leaves", "function": "leaves", "args": [9]},
            {"id": "after", "function": "adds", "args": [{"$output": "raises"}]},
        )
        told = {"id": "told", "function": "tells", "args": [VALUE], "name": VALUE.replace("\n", " ")}
        self.flow("told", told, exec_config="careful")
        self.flow("prints", {"id": "j", "function": "prints", "args": ["grüße 😀", "naja"]})
        self.flow(
            "limit",
            *({"id": f"j{n}", "function": "span", "args": [1.0], "metadata": {"n": n}} for n in range(6)),
            worker="two",
        )
        urgency = {"low": -3, "first": 5, "second": 5, "none": 0}
        self.flow(
            "order",
            *({"id": name, "function": "span", "args": [0.0 + n / 100], "priority": priority}
              for n, (name, priority) in enumerate(urgency.items())),
            worker="one",
        )  # fmt: skip

    def _harmed_flows(self) -> None:
        for name in ("python-killed", "group-killed", "vanished", "unmarked"):
            self.flow(name, {"id": "j", "function": "waits"}, worker="real")
        self.flow("cancel-running", {"id": "j", "function": "clings", "priority": 9}, worker="full")
        self.flow("cancel-ready", {"id": "j", "function": "adds", "args": [1]}, worker="full")

    def _doubtful_flows(self) -> None:
        for number, name in enumerate(("uploaded", "submitted", "cancel-uploaded")):
            self.flow(name, {"id": "j", "function": "adds", "args": [number]}, worker="cut")

    def _scheduler_flows(self) -> None:
        say = self.scheduler
        assert say is not None
        self.flow("cancel-held", {"id": "j", "function": "adds"}, resources=say.held)
        self.flow("cancel-never", {"id": "j", "function": "adds"}, resources=say.never)
        self.flow("generic", {"id": "j", "function": "adds"}, qresources=say.generic)
        self.flow("refused", {"id": "j", "function": "adds"}, resources=say.refused)
        self.flow(
            "default",
            {"id": "plain", "function": "adds"},
            {"id": "empty", "function": "adds", "resources": {}},
            worker="default",
        )
        if self.overdue:
            self.flow("overdue", {"id": "j", "function": "waits"}, worker="real", resources=say.overdue)

    # how it is played ---------------------------------------------------------------------------------

    def play(self) -> None:
        """Run everything to its end."""
        self.write()
        self.world.reconcile()
        self._cut()
        self._plan_deeds()
        wanted = ["cancel-running", "cancel-ready"]
        if self.scheduler is not None:
            wanted += ["cancel-held", "cancel-never"]
        self._go(lambda: self._waits_for_cancelling(wanted))
        for name in wanted:
            self.world.repository.remove(f"flows/{name}.yaml")
        self._reconcile()
        self._go(self.world.is_idle)
        if self.scheduler is not None:
            for path in ("default/plain", "default/empty", "generic/j"):
                self.requests[path] = self.scheduler.request(self.queue_id(path))

    def bring_big(self, megabytes: int) -> None:
        """Run a job with a big output, and measure by how much the memory of this process grows meanwhile."""
        self.flow("big", {"id": "j", "function": "big", "args": [megabytes]})
        self._reconcile()
        before = _forget_peak()
        self._go(self.world.is_idle)
        self.growth = _memory("VmHWM") - before
        self._tidy_up()

    def _reconcile(self) -> None:
        self._tidy_up()
        self.world.reconcile()

    def _tidy_up(self) -> None:
        """Do what every run of the program does at its end."""
        assert self.world.executor is not None
        self.world.executor.tidy_up()

    def _go(self, done: Callable[[], bool], timeout: float = 300.0) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, self._how_it_stands()
            assert not self._went_wrong(), self._how_it_stands()
            moved = self.world.advance()
            self._sample()
            self._act()
            if not moved:
                time.sleep(0.02)

    def _went_wrong(self) -> bool:
        """Whether a job that nobody harms could not be run: what is waited for would never come."""
        with self.world.store.read() as view:
            broken = list(view.in_state(JobState.REMOTE_ERROR))
        return any(job.flow != "refused" for job in broken)

    def _how_it_stands(self) -> str:
        told = [f"{path}: {job.state} {job.error or ''}" for path, job in self.world.jobs().items()]
        return "\n".join([*told, str(self.world.executor and self.world.executor.outages())])

    def _sample(self) -> None:
        with self.world.store.read() as view:
            active = sum(view.count_in_state(state, "two") for state in ACTIVE)
            self.samples.append((active, view.count_in_state(JobState.READY, "two")))

    def _act(self) -> None:
        for deed in list(self._deeds):
            when, act = deed
            if when():
                self._deeds.remove(deed)
                act()

    def _plan_deeds(self) -> None:
        self._once_it_runs("python-killed", lambda pid: os.kill(pid, signal.SIGKILL))
        self._once_it_runs("group-killed", lambda pid: os.killpg(os.getpgid(pid), signal.SIGKILL))
        self._once_it_runs("vanished", self._vanish)
        self._once_it_runs("unmarked", self._remove_marker)
        if self.overdue:
            assert self.scheduler is not None
            hurry = self.scheduler.hurry
            self._once_it_runs("overdue", lambda _: hurry(self.queue_id("overdue/j")))

    def _once_it_runs(self, flow: str, act: Callable[[int], None]) -> None:
        """Do something, once, to the process of the only job of a flow."""
        path = f"{flow}/j"
        self._deeds.append((lambda: self._runs(path), lambda: act(self.pids[path][0])))

    def _runs(self, path: str) -> bool:
        """Whether a job runs, and has told its processes."""
        if self.world.state(path) == "RUNNING" and path not in self.pids:
            with contextlib.suppress(OSError):
                self.pids[path] = [int(pid) for pid in (self.run_dir(path) / "pids").read_text().split()]
        return path in self.pids

    def _vanish(self, pid: int) -> None:
        """Let somebody else end the job; on a shell, all its processes."""
        if self.scheduler is not None:
            self.scheduler.end(self.queue_id("vanished/j"))
        else:
            os.killpg(os.getpgid(pid), signal.SIGKILL)

    def _remove_marker(self, pid: int) -> None:
        """Let the job end well while nobody looks, and the queue forget it, and take its marker away."""
        job = self.world.job("unmarked/j")
        marker = self.base / "real" / OUTBOX / marker_name(job)
        (self.run_dir("unmarked/j") / "go").touch()
        _wait(marker.exists)
        marker.unlink()

    def _waits_for_cancelling(self, flows: list[str]) -> bool:
        """Whether all that is to be cancelled is where it should be cancelled."""
        if not self._runs("cancel-running/j"):
            return False
        if self.scheduler is None:
            return True
        self.stuck = self.world.job("cancel-never/j").attempt.stuck or ""
        held = self.world.job("cancel-held/j")
        # Slurm gives another reason at first, until it has looked at the job for the first time.
        if self.scheduler.why not in self.stuck or held.state is not JobState.SUBMITTED:
            return False
        self.requests["cancel-held/j"] = self.scheduler.request(held.attempt.queue_id or "")
        self.health = self._health("cancel-never")
        return True

    def _health(self, name: str) -> str:
        from reconciler.model.health import flow_status

        with self.world.store.read() as view:
            flow = view.flow(name)
            assert flow is not None
            status = flow_status(flow, view.summary(name))
        return f"{status.health}: {status.reason}"

    def _cut(self) -> None:
        """Begin a pass that is interrupted after an upload, and after a submission of which nobody knows."""
        now = time.time()
        runner = self._runner("cut")
        runner.access.prepare(may_create=True)
        ready = runner._starter.upload(runner._starter.check_out(now), now)
        submitted = runner.access.submit([job for job in ready if job.flow == "submitted"])
        assert len(submitted.queue_ids) == 1, submitted
        (self.first_id,) = submitted.queue_ids.values()
        self.world.repository.remove("flows/cancel-uploaded.yaml")
        self.world.reconcile()

    def _runner(self, name: str) -> WorkerRunner:
        assert self.world.executor is not None
        return next(runner for runner in self.world.executor.runners if runner.name == name)

    # looking ------------------------------------------------------------------------------------------

    def run_dir(self, path: str) -> Path:
        """Return the run directory of a job."""
        return Path(self.world.job(path).attempt.run_dir or "/nonexistent")

    def queue_id(self, path: str) -> str:
        """Return the id of a job in its queue."""
        return self.world.job(path).attempt.queue_id or ""


def _forget_peak() -> int:
    """Let the peak of the memory of this process be what it has now; return that, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _wait(true: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
