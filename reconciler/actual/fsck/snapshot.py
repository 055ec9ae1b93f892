"""What the checks examine: the store, read once, and the problems found while reading it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from reconciler.actual import codec
from reconciler.actual import layout as records
from reconciler.actual.compaction import decode_progress
from reconciler.actual.compressed import restored
from reconciler.actual.layout import index_entries, number_of
from reconciler.actual.transaction import Transaction
from reconciler.actual.view import View
from reconciler.model.applied import AppliedConfig
from reconciler.model.records import FlowRecord
from reconciler.model.states import JobState
from reconciler.model.summaries import Tally


class Edit(msgspec.Struct, frozen=True):
    """An entry of a table to set, or to delete if ``value`` is None."""

    table: str
    key: bytes
    value: bytes | None = None


class Problem(msgspec.Struct, frozen=True):
    """One problem.

    ``subject`` is ``job/<flow>/<job>``, ``flow/<name>`` or ``<table>/<key>``. ``fix`` is what the user can
    do; empty if ``edits`` repair it.
    """

    subject: str
    message: str
    fix: str = ""
    edits: tuple[Edit, ...] = ()

    @property
    def repairable(self) -> bool:
        """Whether ``--repair`` repairs it, without losing anything that cannot be recreated."""
        return bool(self.edits)


class StoreCheck(msgspec.Struct, frozen=True):
    """One check: its name, the number of entries that were checked, and the problems."""

    name: str
    looked_at: int
    problems: list[Problem]


class Report(msgspec.Struct, frozen=True):
    """All checks, in their order."""

    checks: list[StoreCheck]

    @property
    def problems(self) -> list[Problem]:
        """All problems."""
        return [problem for check in self.checks for problem in check.problems]

    def edits(self) -> Iterator[Edit]:
        """Yield the edits that repair everything that can be repaired."""
        for problem in self.problems:
            yield from problem.edits


RESTORE = "restore a backup: `reconcile restore FILE`"


def shown(key: bytes) -> str:
    """Return a key as text on one line: names separated by slashes, other keys in hexadecimal."""
    text = key.replace(b"\0", b"/").decode(errors="replace")
    return text if text.isprintable() and "\ufffd" not in text else key.hex()


Decode = Callable[[bytes], Any]

JOB_INDEXES = ("by_state", "by_flow", "by_path", "children", "retries", "left")


class Job(msgspec.Struct, gc=False):
    """The parts of a job record that the checks need; all jobs are in memory at once."""

    id: str
    path: str
    flow: str
    uuid: str
    index: int
    state: JobState
    current: bool
    generator: str | None
    sequence: int
    attempt: int
    run_worker: str | None
    run_dir: str | None

    @property
    def subject(self) -> str:
        """The subject of problems of this job."""
        return f"job/{self.path}"


class Snapshot:
    """One snapshot of the store."""

    def __init__(self, view: View) -> None:
        self.txn: Transaction = view.txn
        self.looked_at = 0
        self.unreadable: list[Problem] = []
        self.misplaced: list[Problem] = []
        self.entries: dict[str, dict[bytes, str]] = {table: {} for table in JOB_INDEXES}
        self.flows: dict[str, FlowRecord] = {}
        self.jobs: dict[str, Job] = {}
        self.tallies: dict[str, Tally] = {}
        self.config: AppliedConfig | None = None
        self._read_meta()
        self._read_flows()
        self._read_jobs()
        for table, decode in _OTHERS.items():
            for _ in self.decoded(table, decode):
                pass

    @property
    def jobs_complete(self) -> bool:
        """Whether every job record is readable; otherwise the indexes cannot be checked."""
        return len(self.jobs) == self.txn.count("jobs")

    def decoded(self, table: str, decode: Decode) -> Iterator[tuple[bytes, Any]]:
        """Yield the keys and readable records of a table."""
        for key, raw in self.txn.scan(table):
            self.looked_at += 1
            record = self._try(table, key, raw, decode)
            if record is not None:
                yield key, record

    def _try(self, table: str, key: bytes, raw: bytes, decode: Decode) -> Any:
        try:
            return decode(raw)
        except Exception as error:  # damaged bytes can make any decoder fail in any way
            drop = table in _REMADE or (table == "meta" and key.startswith(_REMADE_META))
            edits: tuple[Edit, ...] = (Edit(table, key),) if drop else ()
            if table == "jobs":
                edits = (*edits, Edit("payloads", key))
            message = f"cannot be read: {error}"
            self.unreadable.append(Problem(f"{table}/{shown(key)}", message, "" if drop else RESTORE, edits))
            return None

    def _read_meta(self) -> None:
        for key, raw in self.txn.scan("meta"):
            self.looked_at += 1
            decode = _meta_decoder(key)
            record = self._try("meta", key, raw, decode) if decode is not None else None
            if isinstance(record, AppliedConfig):
                self.config = record

    def _read_flows(self) -> None:
        for key, flow in self.decoded("flows", records.decode_flow):
            self._require_key("flows", key, flow.name)
            self.flows[key.decode(errors="replace")] = flow

    def _read_jobs(self) -> None:
        for key, job in self.decoded("jobs", records.decode_job):
            self._require_key("jobs", key, job.id)
            for table, entry in index_entries(job):
                self.entries[table][entry] = job.path
            self.tallies.setdefault(job.flow, Tally()).change(None, job)
            self.jobs[key.decode(errors="replace")] = Job(
                job.id, job.path, job.flow, job.uuid, job.index, job.state, job.current, job.generator,
                job.sequence, job.attempt.number, job.attempt.worker, job.attempt.run_dir,
            )  # fmt: skip

    def _require_key(self, table: str, key: bytes, name: str) -> None:
        if key != name.encode():
            message = f"has the record of {name}"
            self.misplaced.append(Problem(f"{table}/{shown(key)}", message, RESTORE))


def _meta_decoder(key: bytes) -> Decode | None:
    if key.startswith(b"worker/"):
        return records.decode_status
    if key.startswith(b"imports/"):
        return records.decode_imports
    if key.startswith(b"next/"):
        return number_of
    return _META.get(key)


_META: dict[bytes, Decode] = {
    b"config": records.decode_config,
    b"outcome": records.decode_outcome,
    b"attempt": records.decode_attempt,
    b"lineage": records.decode_lineage,
    b"followed": bytes.decode,
    b"changes": number_of,
    b"schema": number_of,
    b"restored": number_of,
    b"compaction": decode_progress,
    b"baseline": records.decode_baseline,
}

_OTHERS: dict[str, Decode] = {
    "payloads": lambda raw: msgspec.json.decode(restored(raw), type=msgspec.Raw),
    "parsed": records.decode_parsed,
    "good": records.decode_good,
    "builds": records.decode_build,
    "outputs": lambda raw: codec.decode(raw) if raw else {},  # a mark has no content
    "revisions": records.decode_revision,
    "unused": number_of,
    "desired": records.decode_entry,
    "unsettled": number_of,
    "summaries": records.decode_summary,
}
"""Tables whose records are only decoded; events and cleanups have their own checks."""

_REMADE = frozenset(
    [
        *("jobs", "flows", "summaries", "parsed", "good", "builds", "revisions", "unused", "events"),
        *("desired", "unsettled"),
    ]
)
"""Tables whose unreadable records can be deleted: they are recreated, or are only history.

The next reconcile submits the job of a deleted record again, and finds the attempts that its worker has.
"""

_REMADE_META = (
    b"outcome",
    b"attempt",
    b"worker/",
    b"compaction",
    b"config",
    b"lineage",
    b"changes",
    b"baseline",
    b"imports/",
)
