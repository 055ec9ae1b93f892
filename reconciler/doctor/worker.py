"""Checks of one worker: three commands on its host, and three more if files take another way.

Nothing here raises for what is wrong with a worker. What a check asks for is in :mod:`questions`, what
the answer means in :mod:`verdicts`.
"""

from __future__ import annotations

import importlib.metadata
import secrets
from collections.abc import Callable

import msgspec

from reconciler.doctor import questions, verdicts
from reconciler.doctor.check import Check, Finding, failed, named, ok, skipped, warning
from reconciler.doctor.evidence import Evidence, gather
from reconciler.doctor.questions import Applies, always, has_accounting
from reconciler.doctor.worker_under_test import WorkerUnderTest
from reconciler.errors import ReconcilerError
from reconciler.execution.headers import submission_header
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.hosts.local import expand
from reconciler.execution.queues.registry import queue_of
from reconciler.execution.run_files import worker_paths
from reconciler.model.connections import HostKeyPolicy
from reconciler.model.manifests import WorkerSpec

_LARGEST_SKEW = 60.0
"""Seconds that the clocks may differ: times of jobs and files are compared with ours."""


class Row(msgspec.Struct, frozen=True):
    """One check. ``section``: the part of the script that it needs; ``offline``: it needs no host."""

    name: str
    look: Callable[[WorkerUnderTest, Evidence], Finding]
    applies: Callable[[WorkerUnderTest], bool]
    section: str | None = None
    offline: bool = False


def examine(name: str, spec: WorkerSpec, hosts: Hosts) -> list[Check]:
    """Run all checks of a worker on its real hosts."""
    patient = WorkerUnderTest(
        name=name,
        spec=spec,
        host=hosts.of(spec.connection),
        transfer=hosts.of(spec.transfer_connection) if spec.transfer is not None else None,
        queue=queue_of(spec.scheduler_type, spec.scheduler_username),
        place=worker_paths(spec, expand),
        token=secrets.token_hex(8),
    )
    return check_worker(patient)


def check_worker(patient: WorkerUnderTest) -> list[Check]:
    """Run all checks of a worker that apply to it."""
    evidence = gather(patient)
    rows = [row for row in WORKER if row.applies(patient)]
    return [named(row.name, patient.subject, _finding(row, patient, evidence)) for row in rows]


def _finding(row: Row, patient: WorkerUnderTest, evidence: Evidence) -> Finding:
    if evidence.problem is not None and not row.offline:
        return skipped("there is no connection")
    if row.section is None or row.section in evidence.answers:
        return row.look(patient, evidence)
    if evidence.unanswered == row.section:
        return failed(f"no end: {evidence.silence}", "try it there by hand: something hangs")
    return skipped(f"the check of {evidence.unanswered} has no end")


# checks that are more than one answer -----------------------------------------------------------------------


def _connection(patient: WorkerUnderTest, evidence: Evidence) -> Finding:
    error, host = evidence.problem, patient.host
    if error is not None:
        fix = error.hint or f"try `ssh {host.name}` by hand"
        return failed(error.message, fix.removesuffix("; `reconcile doctor` tells more"))
    trip = f"a command takes {1000 * evidence.trip:.0f} ms"
    if host.is_local:
        return ok(f"this machine; {trip}")
    way = "over an OpenSSH master connection" if patient.spec.control_path else "over SSH"
    return ok(f"{host.name} {way}, connected in {1000 * evidence.connecting:.0f} ms; {trip}")


def _host_key(patient: WorkerUnderTest, evidence: Evidence) -> Finding:
    trusting = [link.host for link in patient.links if link.host_key_policy is HostKeyPolicy.ACCEPT_NEW]
    if trusting:
        return warning(
            f"`accept-new` for {', '.join(trusting)}: the first key that a host shows is believed, "
            "also that of somebody in between",
            "compare the key once with that of the administrators, then set `host_key_policy: strict`",
        )
    return ok("strict: only keys of known hosts")


def _clock(patient: WorkerUnderTest, evidence: Evidence) -> Finding:
    if evidence.skew is None:
        return warning("`date +%s` gives no time", "have a `date` there that knows +%s")
    seconds = abs(evidence.skew)
    if seconds > _LARGEST_SKEW:
        side = "ahead of" if evidence.skew > 0 else "behind"
        return warning(f"{seconds:.0f} s {side} this machine", "set both clocks by NTP")
    return ok("like here" if seconds < 1 else f"{seconds:.0f} s off")


def _space(patient: WorkerUnderTest, evidence: Evidence) -> Finding:
    if evidence.answers["work_dir"].exit_code != 0:
        return skipped("work_dir cannot be used")
    return verdicts.space(patient, evidence.answers["space"])


def _transfer(patient: WorkerUnderTest, evidence: Evidence) -> Finding:
    """Write a file where jobs run, and look for it by the way that files take."""
    assert patient.transfer is not None
    timeout, name = float(patient.spec.timeout_execute), patient.transfer.name
    if evidence.answers["work_dir"].exit_code != 0:
        return skipped("work_dir cannot be used")
    try:
        patient.host.run(questions.leave_probe(patient), timeout)
        try:
            seen = patient.transfer.run(questions.see_probe(patient), timeout)
        finally:
            patient.host.run(questions.remove_probe(patient), timeout)
    except ReconcilerError as error:
        return failed(error.message, error.hint or f"try `ssh {name}` by hand")
    if seen.exit_code != 0:
        return failed(
            f"a file in work_dir is not seen by {name}",
            "put `work_dir` on a file system that both hosts have under the same path, or drop `transfer`",
        )
    return ok(f"{name} sees the same work_dir")


def _jobflow(patient: WorkerUnderTest, evidence: Evidence) -> Finding:
    return verdicts.jobflow(patient, evidence.answers["python"], importlib.metadata.version("jobflow"))


def _resources(patient: WorkerUnderTest, evidence: Evidence) -> Finding:
    """Whether a script can be written for the resources that the worker gives by default."""
    found = patient.default_resources
    try:
        header = submission_header(patient.spec.scheduler_type, found, "doctor")
    except ReconcilerError as error:
        return failed(error.message, error.hint or "change `resources` of the worker", by_user=True)
    if found is None or not found.values:
        return ok("no default; jobs ask for what they need")
    ours = submission_header(patient.spec.scheduler_type, None, "doctor").splitlines()
    lines = [line.partition(" ")[2] for line in header.splitlines() if line not in ours]
    return ok("; ".join(lines))


# the table --------------------------------------------------------------------------------------------------


def _row(
    name: str,
    section: str,
    verdict: Callable[[WorkerUnderTest, CommandResult], Finding],
    applies: Applies = always,
) -> Row:
    def look(patient: WorkerUnderTest, evidence: Evidence) -> Finding:
        return verdict(patient, evidence.answers[section])

    return Row(name, look, applies, section)


WORKER: tuple[Row, ...] = (
    Row("connection", _connection, always, offline=True),
    Row("host key", _host_key, lambda patient: bool(patient.links), offline=True),
    Row("clock", _clock, always),
    _row("login shell", "login", verdicts.login, lambda patient: patient.logs_in),
    _row("bash", "bash", verdicts.bash),
    _row("tools", "tools", verdicts.tools),
    _row("work_dir", "work_dir", verdicts.work_dir),
    Row("free space", _space, always, "space"),
    Row("transfer", _transfer, lambda patient: patient.transfer is not None, "work_dir"),
    _row("python", "python", verdicts.python),
    Row("jobflow", _jobflow, always, "python"),
    _row("scheduler commands", "scheduler", verdicts.scheduler),
    _row("scheduler version", "version", verdicts.version, lambda patient: patient.has_scheduler),
    _row("scheduler", "queue", verdicts.listing),
    _row("accounting", "accounting", verdicts.accounting, has_accounting),
    Row("default resources", _resources, always, offline=True),
)
"""Every check of a worker, in order."""
