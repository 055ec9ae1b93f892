"""What can be found out on the host of a worker, with three commands."""

from __future__ import annotations

import io
import time

import msgspec

from reconciler.doctor.questions import questions
from reconciler.doctor.worker_under_test import WorkerUnderTest
from reconciler.errors import ReconcilerError, TransientError
from reconciler.execution.hosts.base import CommandResult, Host, new_sentinel, read_sections, sections_script


class Evidence(msgspec.Struct, kw_only=True):
    """What could be found out on the host of a worker.

    ``problem`` is why there was no connection. ``connecting`` and ``trip`` are in seconds; ``skew`` is how
    much the clock there is ahead. ``asked`` are the parts of the script in their order, ``answers`` how
    each ended, ``silence`` is why some are missing.
    """

    problem: ReconcilerError | None = None
    connecting: float = 0.0
    trip: float = 0.0
    skew: float | None = None
    asked: list[str] = []
    answers: dict[str, CommandResult] = {}
    silence: str = ""

    @property
    def unanswered(self) -> str | None:
        """The first part that has no end: it is what hangs."""
        return next((name for name in self.asked if name not in self.answers), None)


def gather(patient: WorkerUnderTest) -> Evidence:
    """Connect, measure a trivial command, then ask all questions by one script."""
    host, timeout = patient.host, float(patient.spec.timeout_execute)
    evidence = Evidence()
    began = time.monotonic()
    try:
        host.run(":", timeout)
        evidence.connecting = time.monotonic() - began
        _measure(host, timeout, evidence)
    except ReconcilerError as error:
        evidence.problem = error
        return evidence
    _interrogate(patient, timeout, evidence)
    return evidence


def _measure(host: Host, timeout: float, evidence: Evidence) -> None:
    before = time.time()
    answer = host.run("date +%s", timeout).stdout.strip()
    after = time.time()
    evidence.trip = after - before
    if answer.isdigit():  # it counts whole seconds, so any time within the command and one second is right
        there = int(answer)
        evidence.skew = there - after if there > after else min(0.0, there + 1 - before)


def _interrogate(patient: WorkerUnderTest, timeout: float, evidence: Evidence) -> None:
    """Take the output as it comes, so that a question which hangs does not cost the answers before it."""
    sign, sink = new_sentinel(), io.BytesIO()
    asked = questions(patient)
    try:
        patient.host.run(sections_script(asked, sign), timeout, sink=sink)
    except TransientError as error:
        evidence.silence = error.message
    else:
        evidence.silence = "the script ended early"
    evidence.asked = list(asked)
    evidence.answers = read_sections(sink.getvalue().decode(errors="replace"), sign)
