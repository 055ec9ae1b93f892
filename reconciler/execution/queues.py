"""Queues: how a worker's scheduler is asked.

qtoolkit writes the commands and reads their answers. Running them, and judging exit code and stderr, is ours.
This version has the plain shell.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts import LocalHost
from reconciler.execution.qtk import is_over, scheduler_io

_GRACE = 2
"""Seconds between asking a process group to end and killing it."""


class Submission(msgspec.Struct, frozen=True):
    """One script to start. ``run_dir`` is absolute."""

    job_id: str
    run_dir: str


class ShellQueue:
    """Jobs as processes of a plain shell, each the leader of a session and process group of its own.

    The queue id is the pid of the job's script, which is its process group too.
    """

    def __init__(self, host: LocalHost, timeout: float) -> None:
        self.host = host
        self.timeout = timeout

    @property
    def _io(self) -> Any:
        return scheduler_io("shell")

    def submit(self, submissions: Sequence[Submission]) -> dict[str, str]:
        """Start all scripts with one command; return the queue id of each job that was started.

        Raises
        ------
        TransientError
            The command did not run; some scripts may have started: their claims tell.
        """
        if not submissions:
            return {}
        start = self._io.get_submit_cmd("submit.sh")
        lines = [
            # The braces make `cd` the business of one job only; no shell waits for the script.
            f"(cd {shlex.quote(job.run_dir)} && {{ setsid {start}; }} </dev/null) 2>/dev/null || echo -"
            for job in submissions
        ]
        result = self.host.run("\n".join(lines), self.timeout)
        ids = result.stdout.split()
        if result.exit_code != 0 or len(ids) != len(submissions):
            raise TransientError(f"starting {len(submissions)} jobs failed: {result.stderr.strip()[:300]}")
        pairs = zip(submissions, ids, strict=True)
        return {job.job_id: queue_id for job, queue_id in pairs if self._io.is_valid_job_id(queue_id)}

    def alive(self, queue_ids: Mapping[str, float]) -> set[str]:
        """Return which of these jobs still run. ``queue_ids`` maps each to when it was submitted.

        A process that began after the submission is a stranger that got the same pid.

        Raises
        ------
        TransientError
            ``ps`` did not work: nothing is known.
        """
        if not queue_ids:
            return set()
        command = self._io.get_jobs_list_cmd(list(queue_ids), None)
        result = self.host.run(f"{command}; date +%s", self.timeout)
        *listing, now = result.stdout.splitlines() or [""]
        if not listing or "PID" not in listing[0] or not now.isdigit():
            raise TransientError(f"cannot list processes: {result.stderr.strip()[:300]}")
        jobs = self._io.parse_jobs_list_output(0, "\n".join(listing), "")
        return {job.job_id for job in jobs if _is_ours(job, int(now), queue_ids)}

    def cancel(self, queue_ids: Sequence[str]) -> None:
        """End whole process groups: politely at once, by force some seconds later; does not wait for it.

        Raises
        ------
        TransientError
            The command did not run.
        """
        groups = " ".join(f"-{queue_id}" for queue_id in queue_ids if self._io.is_valid_job_id(queue_id))
        if groups:
            by_force = shlex.quote(f"sleep {_GRACE}; kill -KILL -- {groups}")
            self.host.run(
                f"kill -TERM -- {groups} 2>/dev/null; "
                f"setsid nohup bash -c {by_force} </dev/null >/dev/null 2>&1 &",
                self.timeout,
            )


def _is_ours(job: Any, now: int, submitted: Mapping[str, float]) -> bool:
    if job.job_id not in submitted or is_over(job):
        return False
    began = now - (job.runtime or 0)
    return bool(began <= submitted[job.job_id] + 60.0)
