"""Runs the jobs of a batch worker inside one allocation: ``python agent.py agent.json`` in its directory.

This file travels to workers, like the launcher, and imports nothing but the standard library (Python 3.9).
Jobs are handed over as tickets in ``.batch/<worker>/waiting``. The agent takes the first one for which it
has a slot and time, by claiming the attempt in its run directory: of all agents and commands that want a job,
the claim decides. Before that it notes the job in its own ``running/``, so that a job is always seen in one
of the two places. No locks: only exclusive creation and renames, which also hold on network file systems.

Most jobs are forked from a warm interpreter (see ``warm.py``), one for each exec_config and code tree. Jobs
with commands of their own around them run their script, as on other workers.

An agent that is killed is started again by the script of the allocation; it ends what its predecessor has
left running, and records that. A job that was claimed and is gone never runs again under the same attempt.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

WORK, BATCH, OUTBOX = Path("../../.."), Path(".."), Path("../../../.outbox")
"""Seen from the directory of the allocation, ``work_dir/.batch/<worker>/<name>``."""
CLAIM, RUNNING, STATUS = "claim", "running", "status"
TICK, BRISK, CANCEL_CHECK, LISTING, BEAT = 0.5, 0.01, 0.25, 0.25, 15.0
"""Seconds: the longest wait and the shortest; between two looks for cancellations, and for more urgent
tickets; between signs of life."""
GRACE, LAST_GRACE = 5.0, 1.0
"""Seconds from SIGTERM to SIGKILL for a job, and for all jobs when the allocation ends."""
STARTING = 180.0
"""Seconds that a warm interpreter has to start a job, imports included, before the job starts without it."""


class Ticket:
    """A job that waits: ``<urgency>.<age>.<marker>``, sorted by name the most urgent comes first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.marker = name.split(".", 2)[2]
        content = json.loads((BATCH / "waiting" / name).read_text(encoding="utf-8"))
        self.run_dir: Path = (WORK / content["dir"]).absolute()
        self.seconds: float | None = content["seconds"]
        self.module: str = content["module"]
        self.warm = ""

    def read_key(self) -> None:
        """Read which warm interpreter the job needs: the one with the same script; none without one."""
        with contextlib.suppress(OSError):
            self.warm = hashlib.sha256((self.run_dir / "warm.sh").read_bytes()).hexdigest()[:16]


class Job:
    """A claimed job. ``pid`` leads its session and process group; 0 until it has started."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.pid = 0
        self.begun = time.monotonic()
        self.warm: Warm | None = None
        self.deadline = time.monotonic() + ticket.seconds if ticket.seconds else None
        self.kill_at: float | None = None
        self.beat = 0.0
        self.code: int | None = None

    def end(self, grace: float = GRACE) -> None:
        """Ask the job to end; after the grace it is killed."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + grace
            self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the job."""
        if self.pid > 1 and self.code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


class Warm:
    """A warm interpreter: a process that forks jobs, and the socket to it."""

    def __init__(self, key: str, script: Path) -> None:
        self.key = key
        self.ready = False
        self.buffer = b""
        self.channel, theirs = socket.socketpair()
        log = os.open(f"warm.{key}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with theirs:
            self.process = subprocess.Popen(
                ["bash", str(script), str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        os.close(log)
        self.channel.setblocking(False)

    def ask(self, message: dict[str, Any]) -> bool:
        """Send a request; return whether it was sent."""
        try:
            self.channel.setblocking(True)
            self.channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        finally:
            self.channel.setblocking(False)
        return True

    def answers(self) -> list[dict[str, Any]] | None:
        """Return the answers that have arrived; None once it has ended."""
        try:
            chunk = self.channel.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            chunk = b""
        if not chunk:
            return None
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End the interpreter, and with it the jobs that it has forked."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Agent:
    """Takes tickets and runs their jobs until the allocation is over or nothing is left to do."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.name: str = config["name"]
        self.slots: int = config["parallel_jobs"]
        self.most: int | None = config["max_jobs_per_batch"]
        self.max_wait: float = config["max_wait"]
        begun = time.monotonic() - max(0.0, time.time() - float(Path("begun").read_text().split()[0]))
        self.until: float | None = begun + config["seconds"] if config["seconds"] else None
        self.last_start: float | None = begun + config["max_time"] if config["max_time"] else None
        self.machine = f"{os.uname().nodename} {boot_id()}"
        self.jobs: dict[str, Job] = {}
        self.over: list[Job] = []
        self.warm: dict[str, Warm] = {}
        self.broken: set[str] = set()
        self.cold: set[tuple[str, str]] = set()
        self.taken = len(Path("taken").read_text().split()) if Path("taken").exists() else 0
        self.done = 0
        self.closed = self.stopping = False
        self.tickets: list[str] = []
        self.skipped: dict[str, float] = {}
        self.absent: dict[str, int] = {}
        self.listed = self.looked = self.told = 0.0
        self.idle_since = time.monotonic()
        self.selector = selectors.DefaultSelector()
        self.wake, wake = socket.socketpair()
        self.wake.setblocking(False)
        wake.setblocking(False)
        self._wake = wake
        self.selector.register(self.wake, selectors.EVENT_READ, None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGXCPU):
            signal.signal(number, self._stop)

    def _stop(self, *_: Any) -> None:
        self.stopping = self.closed = True

    def run(self) -> None:
        """Run until the end."""
        for entry in sorted(names_in(Path(RUNNING))):
            self.adopt(entry)
        while True:
            try:
                self.reap()
                self.look_after_jobs()
                self.free_slots()
                if not self.stopping:
                    self.start_jobs()
                self.record_ends()
                self.tell()
            except OSError:  # such as a file system that is away for a moment
                traceback.print_exc()
                time.sleep(1.0)
            if not self.jobs and not self.over and (self.stopping or self.is_idle()):
                break
            for key, _ in self.selector.select(self.pause()):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        self.wake.recv(4096)
                else:
                    self.hear(key.data)
        self.closed = True
        self.tell(now=True)
        for warm in self.warm.values():
            warm.close()

    def pause(self) -> float:
        """Return how long to wait for an event."""
        return self.glance() if len(self.jobs) < self.slots and not self.closed else TICK / 2

    def glance(self) -> float:
        """Return the pause between two looks for tickets while a slot is free.

        It is short after the end of a job: the next job of its chain comes soon.
        """
        return BRISK if time.monotonic() - self.idle_since < 1.0 else TICK / 10

    def is_idle(self) -> bool:
        """Return whether the allocation is not needed any more."""
        return self.closed or time.monotonic() - self.idle_since >= self.max_wait

    # taking jobs --------------------------------------------------------------------------------------

    def start_jobs(self) -> None:
        """Take the most urgent jobs for which there is a slot and time."""
        now = time.monotonic()
        if self.most is not None and self.taken >= self.most:
            self.closed = True
        if self.last_start is not None and now >= self.last_start:
            self.closed = True
        if self.until is not None and now >= self.until:
            self.closed = True
        if self.closed or len(self.jobs) >= self.slots:
            return
        if now - self.listed >= LISTING or not self.tickets:
            if now - self.listed < self.glance():
                return
            self.listed = now
            with contextlib.suppress(OSError):
                names = (n for n in names_in(BATCH / "waiting") if n.count(".") == 3 and n[0] != ".")
                self.tickets = sorted(names, reverse=True)  # the most urgent one is the last
            self.skipped = {name: at for name, at in self.skipped.items() if at > now}
        left = self.until - now if self.until is not None else None
        too_long = 0
        while self.tickets and len(self.jobs) < self.slots:
            if self.most is not None and self.taken >= self.most:
                break
            name = self.tickets.pop()
            if name in self.skipped:
                continue
            try:
                ticket = Ticket(name)
                if not ticket.run_dir.is_dir():  # removed, or not visible here yet
                    self.absent[name] = self.absent.get(name, 0) + 1
                    self.skipped[name] = now + 5.0
                    if self.absent[name] > 20:
                        (BATCH / "waiting" / name).unlink(missing_ok=True)
                    continue
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, IndexError, TypeError):
                self.skipped[name] = now + 5.0
                continue
            if left is not None and ticket.seconds is not None and ticket.seconds > left:
                too_long += 1
                continue
            try:
                taken = self.take(ticket)
            except OSError:  # such as a full disk: another try later
                taken = False
                self.skipped[name] = now + 2.0
            if taken:
                self.idle_since = now
        if too_long and not self.jobs and not self.tickets:
            self.closed = True  # what waits needs an allocation with more time

    def take(self, ticket: Ticket) -> bool:
        """Claim a job and start it; return False if it is not to be had.

        Raises
        ------
        OSError
            It could not be claimed now; nothing has changed.
        """
        note, claim = Path(RUNNING) / ticket.marker, ticket.run_dir / CLAIM
        note.touch()
        won = False
        try:
            won = claimed(claim, ticket.marker, self.name)
        finally:
            if not won:
                note.unlink()
        if not won:
            if owner_of(claim) in ("", "withdrawn"):
                # Who took it back removes the ticket, after that was recorded.
                self.skipped[ticket.name] = time.monotonic() + 5.0
            else:
                (BATCH / "waiting" / ticket.name).unlink(missing_ok=True)
            return False
        job = self.jobs[ticket.marker] = Job(ticket)
        self.taken += 1
        with contextlib.suppress(OSError):
            with Path("taken").open("a", encoding="ascii") as stream:
                stream.write(f"{ticket.marker}\n")
            (BATCH / "waiting" / ticket.name).unlink(missing_ok=True)
        self.start(job)
        return True

    def start(self, job: Job) -> None:
        """Start a claimed job: forked from its warm interpreter, or by its script."""
        ticket = job.ticket
        ticket.read_key()
        key = ticket.warm
        if key and key not in self.broken and (key, ticket.module) not in self.cold:
            warm = self.warm.get(key)
            if warm is None:
                try:
                    warm = self.warm[key] = Warm(key, ticket.run_dir / "warm.sh")
                except OSError:
                    self.start_cold(job)
                    return
                self.selector.register(warm.channel, selectors.EVENT_READ, warm)
            job.warm = warm
            request = {"marker": ticket.marker, "dir": str(ticket.run_dir), "module": ticket.module}
            if not warm.ask(request):
                self.lose(warm)  # which starts this job again, with all others that wait for it
            return
        self.start_cold(job)

    def start_cold(self, job: Job) -> None:
        """Start a job by its script."""
        job.warm = None
        here = job.ticket.run_dir
        try:
            with contextlib.ExitStack() as opened:
                out = opened.enter_context((here / "queue.out").open("ab"))
                err = opened.enter_context((here / "queue.err").open("ab"))
                process = subprocess.Popen(
                    ["bash", "submit.sh", f"reconciler:{here.name}"],
                    cwd=here, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
                )  # fmt: skip
            process.returncode = 0  # it is reaped below
            job.pid = process.pid
        except OSError as error:
            self.explain(job, f"never_started {error.strerror}")
            job.code = 127

    def hear(self, warm: Warm) -> None:
        """Process what a warm interpreter tells."""
        answers = warm.answers()
        if answers is None:
            self.lose(warm)
            return
        for answer in answers:
            job = self.jobs.get(answer.get("marker", ""))
            if answer.get("ready"):
                warm.ready = True
            elif job is not None and "pid" in answer:
                job.pid = answer["pid"]
                if job.kill_at is not None:
                    job.signal(signal.SIGTERM)
            elif job is not None and "code" in answer:
                job.code = answer["code"]

    def lose(self, warm: Warm) -> None:
        """Go on without a warm interpreter that has ended; its jobs have died with it."""
        if self.warm.get(warm.key) is not warm:
            return
        del self.warm[warm.key]
        self.selector.unregister(warm.channel)
        warm.close()
        waiting = [job for job in self.jobs.values() if job.warm is warm and not job.pid and job.code is None]
        for job in self.jobs.values():
            if job.warm is warm and job.pid:
                job.warm = None  # an orphan of ours now
                job.signal(signal.SIGKILL)
        for job in waiting[:1]:  # it may be the import of its module that ended the interpreter
            self.cold.add((warm.key, job.ticket.module))
        if not warm.ready:  # what is wrong, each job reports for itself
            self.broken.add(warm.key)
        for job in waiting:
            job.begun = time.monotonic()
            self.start(job)

    # looking after jobs -------------------------------------------------------------------------------

    def reap(self) -> None:
        """Take the exit codes of processes that have ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                for job in self.jobs.values():
                    if job.pid == pid and job.code is None:
                        job.code = os.waitstatus_to_exitcode(status)
                for warm in list(self.warm.values()):
                    if warm.process.pid == pid:
                        warm.process.returncode = 0
        for job in self.jobs.values():  # without a subreaper, orphans end unseen
            if job.pid and job.warm is None and job.code is None and not exists(job.pid):
                job.code = -signal.SIGKILL

    def look_after_jobs(self) -> None:
        """Enforce limits and cancellations, and show that the jobs live."""
        now = time.monotonic()
        if self.stopping or (self.until is not None and now >= self.until):
            for job in self.jobs.values():
                job.end(LAST_GRACE)
        if now - self.looked >= CANCEL_CHECK:
            self.looked = now
            for marker in names_in(BATCH / "cancel"):
                if marker in self.jobs:
                    self.jobs[marker].end()
        stuck = {
            job.warm.key
            for job in self.jobs.values()
            if job.warm is not None and not job.pid and job.code is None and now - job.begun > STARTING
        }
        for key in stuck & self.warm.keys():
            self.lose(self.warm[key])
        for job in self.jobs.values():
            if job.deadline is not None and now >= job.deadline and job.kill_at is None:
                self.explain(job, f"walltime {job.ticket.seconds:g}")
                job.end()
            if job.kill_at is not None and now >= job.kill_at:
                job.signal(signal.SIGKILL)
            if now - job.beat >= BEAT:
                job.beat = now
                if (job.ticket.run_dir / CLAIM / "withdrawn").exists():
                    job.end()
                with contextlib.suppress(OSError):
                    (job.ticket.run_dir / CLAIM / "heartbeat").write_text(f"{now:.0f}\n")

    def free_slots(self) -> None:
        """Take ended jobs out of their slots; to record their ends takes as long as to start others."""
        for marker, job in list(self.jobs.items()):
            if job.code is not None:  # processes that it has left behind would stay in its slot
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if job.pid > 1:
                        os.killpg(job.pid, signal.SIGKILL)
                self.over.append(job)
                del self.jobs[marker]
                self.idle_since = time.monotonic()

    def record_ends(self) -> None:
        """Record the ends of jobs, again and again on a full disk."""
        for job in list(self.over):
            with contextlib.suppress(OSError):
                # The end of the whole allocation is for the scheduler to explain: no marker then.
                self.record(job.ticket.marker, job.ticket.run_dir / CLAIM, job.code, self.stopping)
                self.over.remove(job)
                self.done += 1

    def record(self, marker: str, claim: Path, code: int | None, quiet: bool = False) -> None:
        """Record how a job ended: its exit code, then its marker in the outbox.

        Raises
        ------
        OSError
            The disk is full; nothing is lost, since it can be repeated.
        """
        code = -signal.SIGKILL if code is None else code
        with contextlib.suppress(FileNotFoundError):  # the job removed its own directory
            if not (claim / "exit_code").exists():
                number = 128 - code if code < 0 else code
                for name in ("ended.1", "exit_code"):
                    replace(claim / name, f"{number}\n")
        if quiet and not (claim / "result.json").exists():
            return
        replace(OUTBOX / marker, "")
        (Path(RUNNING) / marker).unlink(missing_ok=True)
        (BATCH / "cancel" / marker).unlink(missing_ok=True)

    def explain(self, job: Job, text: str) -> None:
        """Leave the reason why a job is ended, beside its exit code."""
        with contextlib.suppress(OSError):
            replace(job.ticket.run_dir / CLAIM / "end", f"{text}\n")

    # a predecessor that was killed --------------------------------------------------------------------

    def adopt(self, marker: str) -> None:
        """End and record what a predecessor of this agent has left of a job."""
        run_dir = WORK / run_dir_of(marker)
        claim = run_dir / CLAIM
        if owner_of(claim) != marker or word(claim / "batch") != self.name:
            (Path(RUNNING) / marker).unlink(missing_ok=True)
            return
        # Whoever creates this file first decides: a process of the job that has not begun yet never will.
        created = create(claim / "process", "- - -\n")
        if not created:
            machine, boot, pid = ([*word(claim / "process", whole=True).split(), "-", "-", "-"])[:3]
            if f"{machine} {boot}" == self.machine and pid.isdigit() and int(pid) > 1:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if leads(int(pid)):
                        os.killpg(int(pid), signal.SIGKILL)
                wait_until_gone(int(pid))
        while True:
            try:
                if created:
                    replace(claim / "end", "never_started its agent was killed\n")
                self.record(marker, claim, None)
                break
            except OSError:
                time.sleep(1.0)

    # telling ------------------------------------------------------------------------------------------

    def tell(self, now: bool = False) -> None:
        """Write the state of the allocation, one line that the poll reads."""
        moment = time.monotonic()
        if not now and moment - self.told < 1.0:
            return
        self.told = moment
        state = {
            "node": os.uname().nodename, "slots": self.slots, "busy": len(self.jobs), "done": self.done,
            "taken": self.taken, "closed": self.closed,
            "until": time.time() + self.until - moment if self.until is not None else None,
        }  # fmt: skip
        with contextlib.suppress(OSError):
            replace(Path(STATUS), json.dumps(state) + "\n")


# Files ------------------------------------------------------------------------------------------------------


def claimed(claim: Path, marker: str, batch: str) -> bool:
    """Claim an attempt; return whether that won.

    Raises
    ------
    OSError
        The disk is full: the claim was given back.
    """
    try:
        claim.mkdir()
    except FileExistsError:
        return False
    except FileNotFoundError:  # its run directory was removed
        return False
    try:
        (claim / "batch").write_text(f"{batch}\n", encoding="ascii")
        return create(claim / "queue_id", f"{marker}\n")
    except OSError:
        for name in ("queue_id", "batch"):
            if name == "batch" or not word(claim / name):
                (claim / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            claim.rmdir()
        raise


def create(path: Path, text: str) -> bool:
    """Create a file with a text unless it exists; return whether that won."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
    return True


def replace(path: Path, text: str) -> None:
    """Write a file that exists completely or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def word(path: Path, whole: bool = False) -> str:
    """Return the first line of a file; empty if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text if whole else text.partition("\n")[0].strip()


def owner_of(claim: Path) -> str:
    """Return the owner of the claim of an attempt: a marker, a queue id, or ``withdrawn``."""
    return "withdrawn" if (claim / "withdrawn").exists() else word(claim / "queue_id")


def run_dir_of(marker: str) -> str:
    """Return the run directory of an attempt, below the work_dir, by its marker: see model/flows.py."""
    name, _, attempt = marker.rpartition(".")
    return f"{name[0:2]}/{name[2:4]}/{name[4:6]}/{name}" + (f".{attempt}" if attempt != "1" else "")


def names_in(directory: Path) -> list[str]:
    """Return the names in a directory; none if it cannot be read."""
    try:
        return os.listdir(directory)  # noqa: PTH208 (names, not paths)
    except OSError:
        return []


# Processes --------------------------------------------------------------------------------------------------


def boot_id() -> str:
    """Return the id of the boot of this machine."""
    return word(Path("/proc/sys/kernel/random/boot_id")) or "-"


def exists(pid: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def leads(pid: int) -> bool:
    """Return whether a process leads its own session, as jobs do; also true once only its group is left."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return True


def wait_until_gone(pid: int) -> None:
    """Wait until a killed process has ended."""
    for _ in range(200):
        if not exists(pid):
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


def become_subreaper() -> None:
    """Become the parent of the processes whose own parents end."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)


if __name__ == "__main__":
    become_subreaper()
    Agent(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run()
