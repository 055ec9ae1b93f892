"""The fault campaign: jobs on three kinds of workers, and a daemon that is killed again and again.

Every choice comes from one seed. A *life* is one process of the daemon (now and then of ``--once``): it
kills itself at a boundary, or is killed at a random instant. Between and during lives commits are made, and
``reconcile now`` is called. So that there is always something to kill, new flows are committed as long as
kills are wanted.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from reconciler.actual.daemon_requests import Requests
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState
from tests.execution.support import eventually
from tests.faults.site import Daemon, Site
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd

WORKERS = ("here", "far", "hpc")
HURRY = 0.25
"""The part of random instants that lie in the first second of a life, when it takes up what was left."""

_UNFINISHED = (
    *(JobState.READY, JobState.WAITING, JobState.CHECKED_OUT, JobState.UPLOADED, JobState.SUBMITTED),
    *(JobState.RUNNING, JobState.RUN_FINISHED, JobState.DOWNLOADED),
)


class Goals(msgspec.Struct, frozen=True):
    """How many kills at random instants and at which boundaries, and how many jobs at least."""

    random: int
    boundaries: tuple[str, ...]
    jobs: int


class Campaign:
    """One campaign on a site with the workers ``here``, ``far`` (ssh) and ``hpc`` (Slurm).

    ``kills`` counts by boundary, and ``random``; ``missed`` counts lives that did not come to their boundary
    (they were killed in the end, which counts as random).
    """

    def __init__(self, site: Site, far: Sshd, hpc: Slurm, seed: int, goals: Goals) -> None:
        self.site, self.far, self.hpc = site, far, hpc
        self.goals = goals
        self.dice = Random(seed)
        self.kills: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.lives = self.commits = self.calls = 0
        self._flows: dict[str, Callable[[int], None]] = {}
        self._gated: list[str] = []
        self._numbers = iter(range(1, 1_000_000))
        self._left = Counter({"random": goals.random, **Counter(goals.boundaries)})

    # the whole ----------------------------------------------------------------------------------------

    def play(self) -> None:
        """Kill until all goals are met, then let everything come to its end."""
        self._begin()
        while +self._left or self._count() < self.goals.jobs:
            wanted = [what for what, count in sorted(self._left.items()) if count > 0]
            self._life(self.dice.choice(wanted) if wanted else "random")
        self._finish()

    def _begin(self) -> None:
        for file in ("reconciler.yaml", "workers"):
            assert (self.site.repository.path / file).exists()
        self._edit_rule()
        self._feed()
        self._commit()

    def _finish(self) -> None:
        """Let one daemon, which nobody disturbs, do what is left."""
        for gate in self._gated:
            (self.site.shared / gate).touch()
        self._broken.unlink(missing_ok=True)
        self.far_is_up()
        self._commit()
        daemon = self.site.watch()
        self.site.wait(lambda: self._is_applied() and not self.unfinished(), 600)
        daemon.end(60)

    def _is_applied(self) -> bool:
        with self.site.store.read() as view:
            config = view.config()
        return config is not None and config.commit == self.site.repository.head

    # a life -------------------------------------------------------------------------------------------

    def _life(self, what: str) -> None:
        self.lives += 1
        if len(self.unfinished()) < 8:
            self._feed()
            self._commit()
        if what == "random":
            self._random_life()
            return
        kind = what.partition(":")[0].rpartition(".")[2].rpartition("@")[2]
        prepare = getattr(self, f"_prepare_{kind.strip('_')}", None)
        once = prepare is not None and prepare()
        daemon = self._start("--once" if once else "watch", f"{what}:1")
        died = daemon.died_within(30 if once else 8)
        self.far_is_up()
        if died and daemon.process.returncode == -signal.SIGKILL:
            self._killed(what)
            return
        assert not died or (once and self._ended_well(daemon)), daemon.errors.read_text()[-4000:]
        self.missed[what] += 1
        assert self.missed[what] < 12, f"{what} is never reached\n{self.site.told()}"
        if not died:
            self._kill(daemon)

    def _ended_well(self, once: Daemon) -> bool:
        """Whether it did what it could: a document may be broken just then, see :meth:`_break`."""
        return once.process.returncode == (2 if self._broken.exists() else 0)

    def _random_life(self) -> None:
        moment = self.dice.uniform(0, 1) if self.dice.random() < HURRY else self.dice.uniform(0.5, 4)
        daemon = self._start("watch")
        deadline = time.monotonic() + moment
        if self.dice.random() < 0.4:
            self._edit()
        call = self._call_now() if self.dice.random() < 0.3 else None
        daemon.died_within(max(0.0, deadline - time.monotonic()))
        self._kill(daemon)
        if call is not None:
            self._check_call(call)

    def _start(self, how: str, kill_at: str = "") -> Daemon:
        return Daemon(self.site, [how], kill_at=kill_at)

    def _kill(self, daemon: Daemon) -> None:
        assert daemon.process.poll() is None, f"the daemon ended by itself\n{daemon.errors.read_text()}"
        daemon.kill()
        self._killed("random")

    def _killed(self, what: str) -> None:
        self.kills[what] += 1
        self._left[what] -= 1

    # what a boundary needs before it can be reached ---------------------------------------------------

    def _prepare_build(self) -> bool:
        self._feed()
        self._commit()
        return False

    _prepare_flush = _prepare_reconcile = _prepare_apply = _prepare_build

    def _prepare_put(self) -> bool:
        """For blobs to be parsed, and for what is written about an attempt, and about a worker."""
        self._prepare_build()
        if self.site.status("far").reachable:
            self.far.stop()
            self.far.kill_sessions()
        return False

    def _prepare_record_outcome(self) -> bool:
        self._edit_rule()
        self._commit()
        return False

    def _prepare_compact(self) -> bool:
        """Let it be due now: it would be once an hour."""
        self.site.store.write(lambda writer: writer.txn.delete("meta", b"compaction"))
        return self._prepare_record_outcome()

    def _prepare_answer(self) -> bool:
        Requests(self.site.store.path).ask("the campaign", time.time())
        return self._prepare_record_outcome()

    def _prepare_find(self) -> bool:
        self._die_at("submit:before:1")
        return False

    def _prepare_drop(self) -> bool:
        """Cancel jobs that a life has left CHECKED_OUT. ``--once`` plans before it moves jobs."""
        self._die_at("upload:before:1")
        return self._remove_flows_of(JobState.CHECKED_OUT)

    def _prepare_withdraw(self) -> bool:
        self._die_at("submit:before:1")
        return self._remove_flows_of(JobState.UPLOADED)

    def _prepare_cancel(self) -> bool:
        """Remove a flow whose job runs."""
        name = f"gated-{next(self._numbers)}"
        worker = self.dice.choice(WORKERS)
        self.site.jobs_flow(
            name, {"id": "j", "function": "gated", "args": [str(self.site.shared / name)]}, worker=worker
        )
        self._gated.append(name)
        self._commit()
        daemon = self._start("watch")
        self.site.wait(
            lambda: self.site.jobs().get(f"{name}/j") and self.site.state(f"{name}/j") == "RUNNING"
        )
        self._kill(daemon)
        self.site.repository.remove(f"flows/{name}.yaml")
        self._commit()
        return False

    def _prepare_note(self) -> bool:
        name = f"span-{next(self._numbers)}"
        jobs = [
            {"id": worker, "function": "span", "args": [1.5, name], "worker": worker} for worker in WORKERS
        ]
        self.site.jobs_flow(name, *jobs, priority=50)
        self._commit()
        return False

    def _die_at(self, boundary: str) -> None:
        self._feed()
        self._commit()
        daemon = self._start("watch", boundary)
        if daemon.died_within(8):
            self._killed("random")
        else:
            self._kill(daemon)

    def _remove_flows_of(self, state: JobState) -> bool:
        names = {job.flow for job in self.site.all_jobs() if job.state is state}
        for name in sorted(names):
            self._remove(name)
        self._commit()
        return True

    def far_is_up(self) -> None:
        """End the outage, if there is one."""
        if not self.far.is_up():
            self.far.start()

    # commits ------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Write two new flows: a chain across the workers, and one that generates jobs."""
        self._new_flow("chain", self._chain)
        kind = self.dice.choice(["replaces", "detours", "adds"])
        self._new_flow(kind, lambda name, salt: self._generator(kind, name, salt))

    def _new_flow(self, kind: str, write: Callable[[str, int], None]) -> None:
        name = f"{kind}-{next(self._numbers)}"
        self._flows[name] = lambda salt: write(name, salt)
        self._flows[name](0)

    def _chain(self, name: str, salt: int) -> None:
        jobs: list[dict[str, Any]] = []
        for number in range(5):
            args = [{"$output": jobs[-1]["id"]}] if jobs else [name]
            args += [salt] if number == 2 and salt else []
            worker = WORKERS[(len(name) + number + salt) % 3]
            jobs.append({"id": f"j{number}", "function": "line", "args": args, "worker": worker})
        self.site.jobs_flow(name, *jobs)

    def _generator(self, kind: str, name: str, salt: int) -> None:
        worker = WORKERS[len(name) % 3]
        first = {"id": "first", "function": kind, "args": [2, name, salt], "worker": worker}
        child = {"id": "child", "function": "line", "args": [{"$output": "first"}]}
        self.site.jobs_flow(name, first, child)

    def _edit(self) -> None:
        """Make a random commit."""
        deeds = [self._feed, self._edit_rule, self._edit_rule, self._edit_flow, self._remove_one, self._break]
        self.dice.choice(deeds)()
        self._commit()

    def _edit_rule(self) -> None:
        """Give some jobs another worker and priority, the generated ones, too."""
        effect = {"worker": self.dice.choice(WORKERS), "priority": self.dice.randrange(100)}
        globs = [f"{self.dice.choice(['chain', 'adds', 'replaces', 'detours'])}-*{self.dice.randrange(10)}"]
        self.site.put("OverrideRule", "moves", {"flows": globs, "set": effect})

    def _edit_flow(self) -> None:
        """Change what a flow computes."""
        if self._flows:
            name = self.dice.choice(sorted(self._flows))
            self._flows[name](self.dice.randrange(1, 1000))

    def _remove_one(self) -> None:
        if len(self._flows) > 3:
            self._remove(self.dice.choice(sorted(self._flows)))

    def _remove(self, name: str) -> None:
        self._flows.pop(name, None)
        (self.site.repository.path / f"flows/{name}.yaml").unlink(missing_ok=True)

    def _break(self) -> None:
        """Write a document that is none, or take it away."""
        self._broken.unlink() if self._broken.exists() else self._broken.write_text("kind: [\n")

    @property
    def _broken(self) -> Path:
        return self.site.repository.path / "flows/broken.yaml"

    def _commit(self) -> None:
        self.commits += 1
        self.site.repository.commit(f"change {self.commits}")

    # programs beside ----------------------------------------------------------------------------------

    def _call_now(self) -> subprocess.Popen[str]:
        self.calls += 1
        return subprocess.Popen(
            [sys.executable, "-m", "reconciler", *self.site.arguments, "now", "--wait", "--timeout", "60"],
            cwd=self.site.root, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _check_call(self, call: subprocess.Popen[str]) -> None:
        """It was answered (perhaps that a document is invalid), or told that the daemon is gone."""
        _, errors = call.communicate(timeout=120)
        assert call.returncode in (0, 2, 3), errors
        assert call.returncode != 3 or "daemon" in errors, errors

    # looking ------------------------------------------------------------------------------------------

    def unfinished(self) -> list[JobRecord]:
        """Return the jobs that run or will run, without those that wait for a gate."""
        with self.site.store.read() as view:
            return [job for state in _UNFINISHED for job in view.in_state(state)]

    def _count(self) -> int:
        with self.site.store.read() as view:
            return sum(view.count_in_state(state) for state in JobState)

    def assert_all_ended_well(self) -> None:
        """All jobs that are wanted have completed; the others have, too, or were stopped."""
        with self.site.store.read() as view:
            removed = {flow.name for flow in view.flows() if flow.removed}
        wrong = {}
        for job in self.site.all_jobs():
            wanted = job.current and job.flow not in removed
            if job.state not in (("COMPLETED",) if wanted else ("COMPLETED", "USER_STOPPED")):
                wrong[job.path] = f"{job.state} {job.error or ''}"
        assert not wrong, wrong

    def assert_queue_is_empty(self) -> None:
        """Nothing waits or runs in the queue of the cluster."""
        empty = lambda: not {"RUNNING", "PENDING"} & set(self.hpc.squeue("%T"))  # noqa: E731
        assert eventually(empty, 60), self.hpc.squeue()

    def figures(self) -> dict[str, Any]:
        """Return what is worth writing down."""
        named = {kind: count for kind, count in self.kills.items() if kind != "random"}
        states = Counter(str(job.state) for job in self.site.all_jobs())
        return {
            "lives": self.lives,
            "kills": self.kills.total(),
            "at random": self.kills["random"],
            "at boundaries": sum(named.values()),
            "boundaries": len(named),
            "missed": self.missed.total(),
            "commits": self.commits,
            "calls of now": self.calls,
            "jobs": dict(states),
        }
