"""A worker under examination, and what its host answers to three commands."""

from __future__ import annotations

import io
import time

import msgspec

from reconciler.errors import ReconcilerError, TransientError
from reconciler.execution.hosts.base import CommandResult, Host, new_sentinel, read_sections, sections_script
from reconciler.execution.queues.base import Queue
from reconciler.execution.run_files import WorkerPaths
from reconciler.model.connections import Connection
from reconciler.model.manifests import WorkerSpec
from reconciler.model.schedulers import Scheduler
from reconciler.model.settings import Resources


class WorkerUnderTest(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. ``transfer`` is the host for files if that is another; ``token`` names the probe file."""

    name: str
    spec: WorkerSpec
    host: Host
    transfer: Host | None
    queue: Queue
    place: WorkerPaths
    token: str

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler that starts its jobs."""
        return self.queue.scheduler

    @property
    def logs_in(self) -> bool:
        """Whether its commands run in a login shell."""
        return self.spec.type == "remote" and self.spec.login_shell

    @property
    def default_resources(self) -> Resources | None:
        """The resources of jobs that ask for nothing; None if the worker sets none."""
        if isinstance(self.spec.qresources, dict):
            return Resources(self.spec.qresources, generic=True)
        return Resources(self.spec.resources) if isinstance(self.spec.resources, dict) else None

    @property
    def connections(self) -> list[Connection]:
        """Every connection on the way to it whose host key we check: jump hosts and ``transfer`` too.

        An OpenSSH master connection checks the key itself.
        """
        found: dict[bytes, Connection] = {}
        pending = [self.spec.connection, self.spec.transfer]
        while pending:
            link = pending.pop(0)
            if link is not None and not link.control_path and link.key not in found:
                found[link.key] = link
                pending.append(link.gateway)
        return list(found.values())


class Evidence(msgspec.Struct, kw_only=True):
    """What the host of a worker answered.

    ``problem`` is why there is no connection. ``connecting`` and ``round_trip`` are in seconds; ``skew`` is
    by how many seconds its clock is ahead. ``asked`` are the sections of the script in their order,
    ``answers`` how each ended, and ``silence`` is why some are missing.
    """

    problem: ReconcilerError | None = None
    connecting: float = 0.0
    round_trip: float = 0.0
    skew: float | None = None
    asked: list[str] = []
    answers: dict[str, CommandResult] = {}
    silence: str = ""

    @property
    def unanswered(self) -> str | None:
        """The first section without an end: the one that hangs."""
        return next((name for name in self.asked if name not in self.answers), None)


def gather(worker: WorkerUnderTest, sections: dict[str, str]) -> Evidence:
    """Connect, measure a trivial command, then run all sections as one script."""
    host, timeout = worker.host, float(worker.spec.timeout_execute)
    evidence = Evidence(asked=list(sections))
    began = time.monotonic()
    try:
        host.run(":", timeout)
        evidence.connecting = time.monotonic() - began
        before = time.time()
        answer = host.run("date +%s", timeout).stdout.strip()
        after = time.time()
    except ReconcilerError as error:
        evidence.problem = error
        return evidence
    evidence.round_trip = after - before
    if answer.isdigit():  # whole seconds: any time within the command and one second is right
        there = int(answer)
        evidence.skew = there - after if there > after else min(0.0, there + 1 - before)
    # Read the output as it comes, so that a section which hangs does not cost the answers before it.
    sentinel, sink = new_sentinel(), io.BytesIO()
    try:
        host.run(sections_script(sections, sentinel), timeout, sink=sink)
    except TransientError as error:
        evidence.silence = error.message
    else:
        evidence.silence = "the script ended early"
    evidence.answers = read_sections(sink.getvalue().decode(errors="replace"), sentinel)
    return evidence
