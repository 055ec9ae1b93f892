"""Which run directories can be removed: those that no unfinished job may still read.

A job may read the directory of another one, such as ``prev_dir``, in two ways: it refers to its output, or to
the output of a job that does; or its arguments contain the path, as those of generated jobs often do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from reconciler.actual.view import View
from reconciler.model.records import JobRecord
from reconciler.model.states import BROKEN, FINISHED

_RUN_DIRECTORY = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}_\d+")
"""The name of a run directory: ``<uuid>_<index>``, without the number of the attempt."""


def unread(view: View, cleanups: Mapping[bytes, str]) -> dict[bytes, str]:
    """Return those of the due cleanups (key -> run directory) that no unfinished job may still read."""
    readers = _Readers(view)
    free = {}
    # The latest first: the descendants of a job that completed early are known when its turn comes.
    for key, directory in reversed(list(cleanups.items())):
        job_id = directory.rpartition("/")[2].partition(".")[0]
        job = view.job(job_id)
        if job is None or not readers.may_read(job):
            free[key] = directory
    return free


def _is_unfinished(job: JobRecord) -> bool:
    """Return whether a job may run: a failed one can be retried, and then needs what it needed before."""
    return job.current and (job.state not in FINISHED or job.state in BROKEN)


class _Readers:
    """What unfinished jobs may read; every job and payload is read once."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._has_reader: dict[str, bool] = {}
        self._named: dict[str, set[bytes]] = {}

    def may_read(self, job: JobRecord) -> bool:
        """Return whether an unfinished job may read the directory of this one."""
        return self._has_unfinished_descendant(job.uuid) or job.id.encode() in self._named_in(job.flow)

    def _has_unfinished_descendant(self, uuid: str) -> bool:
        pending, reached = [uuid], {uuid}
        while pending:
            for job in self._view.dependants(pending.pop()):
                if self._has_reader.get(job.uuid) or _is_unfinished(job):
                    self._has_reader[uuid] = True
                    return True
                if job.uuid not in reached and job.uuid not in self._has_reader:
                    reached.add(job.uuid)
                    pending.append(job.uuid)
        self._has_reader |= dict.fromkeys(reached, False)
        return False

    def _named_in(self, flow: str) -> set[bytes]:
        """Return the run directories that the arguments of unfinished jobs of a flow contain."""
        if flow not in self._named:
            payloads = (
                self._view.payload(j.id) or b"" for j in self._view.jobs_of(flow) if _is_unfinished(j)
            )
            self._named[flow] = {name for payload in payloads for name in _RUN_DIRECTORY.findall(payload)}
        return self._named[flow]
