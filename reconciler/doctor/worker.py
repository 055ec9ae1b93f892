"""Examine one worker: three commands on its host, and three more if files take another way.

A problem of the worker raises nothing: it becomes the finding of a check.
"""

from __future__ import annotations

import secrets

from reconciler.doctor.check import Check, Finding, failed, named, skipped
from reconciler.doctor.evidence import WorkerUnderTest, gather
from reconciler.doctor.worker_checks import WORKER_CHECKS, WorkerCheck
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.hosts.local import expand
from reconciler.execution.queues.registry import queue_of
from reconciler.execution.run_files import worker_paths
from reconciler.model.manifests import WorkerSpec


def examine(name: str, spec: WorkerSpec, hosts: Hosts) -> list[Check]:
    """Run all checks of a worker on its real hosts."""
    worker = WorkerUnderTest(
        name=name,
        spec=spec,
        host=hosts.of(spec.connection),
        transfer=hosts.of(spec.transfer_connection) if spec.transfer is not None else None,
        queue=queue_of(spec.scheduler_type, spec.scheduler_username),
        place=worker_paths(spec, expand),
        token=secrets.token_hex(8),
    )
    return check_worker(worker)


def check_worker(worker: WorkerUnderTest) -> list[Check]:
    """Run all checks of a worker that apply to it."""
    checks = [check for check in WORKER_CHECKS if check.applies(worker)]
    evidence = gather(worker, {check.section: check.script(worker) for check in checks if check.script})

    def finding(check: WorkerCheck) -> Finding:
        if evidence.problem is not None and not check.offline:
            return skipped("there is no connection")
        if not check.section or check.section in evidence.answers:
            return check.find(worker, evidence)
        if evidence.unanswered == check.section:
            return failed(
                f"this check did not end: {evidence.silence}", "run it on the host by hand: something hangs"
            )
        return skipped(f"the check of {evidence.unanswered} did not end")

    return [named(check.name, f"worker/{worker.name}", finding(check)) for check in checks]
