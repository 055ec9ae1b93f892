"""Writing typed records in one transaction of the store, with the indexes that belong to them."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.actual.db import Transaction
from reconciler.actual.layout import (
    about_key,
    big_endian,
    cleanup_key,
    decode_job,
    encode,
    index_entries,
    number_of,
)
from reconciler.actual.view import View
from reconciler.model.flows import BuiltFlow
from reconciler.model.lineage import Lineage
from reconciler.model.manifests import GoodManifest, ParsedFile
from reconciler.model.records import (
    AppliedConfig,
    AppliedRevision,
    Attempt,
    Event,
    FlowRecord,
    JobRecord,
    Outcome,
    WorkerStatus,
)


class Writer(View):
    """A view that can write, for one transaction; call :meth:`finish` at its end."""

    def __init__(self, txn: Transaction) -> None:
        super().__init__(txn)
        self._touched = False
        self._numbers: dict[str, int] = {}

    def finish(self) -> None:
        """Write the counters, once for the whole transaction."""
        for counter, number in self._numbers.items():
            self.txn.put("meta", f"next/{counter}".encode(), big_endian(number))
        if self._touched:
            self.txn.put("meta", b"changes", big_endian(self.change_counter() + 1))

    def touch(self) -> None:
        """Count this transaction as one that changes flows or jobs."""
        self._touched = True

    def put_flow(self, record: FlowRecord) -> None:
        """Write a flow."""
        self.txn.put("flows", record.name.encode(), encode(record))
        self._touched = True

    def delete_flow(self, name: str) -> None:
        """Delete a flow whose jobs are already deleted."""
        self.txn.delete("flows", name.encode())
        self._touched = True

    def put_job(self, record: JobRecord) -> None:
        """Write a job and update the indexes."""
        raw = self.txn.get("jobs", record.id.encode())
        new = index_entries(record)
        old = index_entries(decode_job(raw)) if raw is not None else set()
        for table, key in old - new:
            self.txn.delete(table, key)
        for table, key in new - old:
            self.txn.put(table, key)
        self.txn.put("jobs", record.id.encode(), encode(record))
        self._touched = True

    def delete_job(self, record: JobRecord) -> None:
        """Delete a job with its payload and index entries; its output stays."""
        self.txn.delete("jobs", record.id.encode())
        self.txn.delete("payloads", record.id.encode())
        for table, key in index_entries(record):
            self.txn.delete(table, key)
        self._touched = True

    def put_payload(self, job_id: str, payload: bytes) -> None:
        """Write the jobflow Job of a record."""
        self.txn.put("payloads", job_id.encode(), payload)

    def add_cleanup(self, worker: str, due: float, job: JobRecord) -> None:
        """Schedule the removal of the run directory of a job's attempt."""
        assert job.attempt.run_dir is not None
        key = cleanup_key(worker, due) + f"{job.id}.{job.attempt.number}".encode()
        self.txn.put("cleanups", key, job.attempt.run_dir.encode())

    def delete_cleanups(self, keys: Iterable[bytes]) -> None:
        """Delete the entries of run directories that were removed."""
        for key in keys:
            self.txn.delete("cleanups", key)

    def put_parsed(self, blob: str, parsed: ParsedFile) -> None:
        """Write a parsed blob."""
        self.txn.put("parsed", blob.encode(), encode(parsed))

    def put_good(self, key: str, manifest: GoodManifest) -> None:
        """Write the place of the last good version of a manifest."""
        self.txn.put("good", key.encode(), encode(manifest))

    def delete_good(self, key: str) -> None:
        """Delete the last good version of a manifest that was removed."""
        self.txn.delete("good", key.encode())

    def put_build(self, built: BuiltFlow) -> None:
        """Write a built flow."""
        self.txn.put("builds", built.build_key.encode(), encode(built))

    def put_config(self, config: AppliedConfig) -> None:
        """Write the parts of a revision that the executor needs."""
        self.txn.put("meta", b"config", encode(config))

    def put_worker_status(self, worker: str, status: WorkerStatus) -> None:
        """Write the status of a worker."""
        self.txn.put("meta", f"worker/{worker}".encode(), encode(status))

    def put_attempt(self, attempt: Attempt) -> None:
        """Write the result of an attempt to apply a revision."""
        self.txn.put("meta", b"attempt", encode(attempt))

    def put_outcome(self, outcome: Outcome) -> None:
        """Write the outcome of this reconcile."""
        self.txn.put("meta", b"outcome", encode(outcome))

    def put_lineage(self, lineage: Lineage) -> None:
        """Bind this state to a project and a repository."""
        self.txn.put("meta", b"lineage", encode(lineage))

    def put_followed(self, branch: str) -> None:
        """Set the branch that this state follows; empty for none."""
        self.txn.put("meta", b"followed", branch.encode(errors="surrogateescape"))

    def put_restored(self, time: float) -> None:
        """Record that this state was restored, so that workers may have attempts that it does not know."""
        self.txn.put("meta", b"restored", big_endian(int(time)))

    def add_event(self, event: Event) -> None:
        """Append an event."""
        number = big_endian(self.next_number("event"))
        self.txn.put("events", number, encode(event))
        self.txn.put("events_about", about_key(event.about) + number)

    def add_revision(self, revision: AppliedRevision) -> None:
        """Append an applied revision."""
        self.txn.put("revisions", big_endian(self.next_number("revision")), encode(revision))

    def next_number(self, counter: str) -> int:
        """Return the next number of a counter, which starts at 1."""
        known = self._numbers.get(counter)
        if known is None:
            known = number_of(self.txn.get("meta", f"next/{counter}".encode()))
        self._numbers[counter] = known + 1
        return known + 1
