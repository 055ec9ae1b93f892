"""Writing typed records in one transaction of the store, with the indexes that belong to them."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.actual.compressed import compressed
from reconciler.actual.db import Transaction
from reconciler.actual.layout import (
    DamagedError,
    about_key,
    big_endian,
    cleanup_key,
    decode_job,
    encode,
    index_entries,
    name_bytes,
    number_of,
    pair,
    readable,
)
from reconciler.actual.view import View
from reconciler.model.applied import AppliedConfig, AppliedRevision, Attempt, Outcome
from reconciler.model.baseline import Baseline, FlowEntry, may_change_plan
from reconciler.model.flows import BuiltFlow
from reconciler.model.lineage import Lineage
from reconciler.model.manifests import GoodManifest, ParsedFile
from reconciler.model.notifications import NotifyState
from reconciler.model.records import Event, FlowRecord, JobRecord, WorkerStatus
from reconciler.model.summaries import FlowSummary, Tally, summary_of


class Writer(View):
    """A view that can write, for one transaction; call :meth:`finish` at its end."""

    def __init__(self, txn: Transaction) -> None:
        super().__init__(txn)
        self._touched = False
        self._numbers: dict[str, int] = {}
        self._unsettled: set[str] = set()
        self._tallies: dict[str, Tally | None] = {}  # None: the jobs must be counted anew

    def finish(self) -> None:
        """Write the summaries and counters, once for the whole transaction."""
        for flow, tally in self._tallies.items():
            if tally is not None and any(True for _ in self.txn.keys("by_flow", pair(flow, ""))):
                self.txn.put("summaries", name_bytes(flow), encode(tally.summary()))
            else:
                self.txn.delete("summaries", name_bytes(flow))
        for counter, number in self._numbers.items():
            self.txn.put("meta", f"next/{counter}".encode(), big_endian(number))
        if self._touched:
            self.txn.put("meta", b"changes", big_endian(self.change_counter() + 1))

    def touch(self) -> None:
        """Count this transaction as one that changes flows or jobs."""
        self._touched = True

    def put_flow(self, record: FlowRecord) -> None:
        """Write a flow."""
        self.txn.put("flows", name_bytes(record.name), encode(record))
        self.unsettle(record.name)

    def delete_flow(self, name: str) -> None:
        """Delete a flow whose jobs are already deleted."""
        self.put_imports(name, [])
        self.txn.delete("flows", name_bytes(name))
        self.unsettle(name)

    def put_job(self, record: JobRecord) -> None:
        """Write a job and update the indexes.

        Raises
        ------
        ValueError
            The record has a value that cannot be stored, or not read back.
        """
        try:
            data = encode(record)
            stored = decode_job(data)  # so that no odd value makes every later read fail
            new = index_entries(record)
        except (DamagedError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"the record of {record.path} cannot be stored: {error}") from error
        known = self._count(record.id, stored)
        old = index_entries(known) if known is not None else set()
        for table, key in old - new:
            self.txn.delete(table, key)
        for table, key in new - old:
            self.txn.put(table, key)
        self.txn.put("jobs", name_bytes(record.id), data)
        self._touched = True
        if may_change_plan(known, record):
            self.unsettle(record.flow)

    def delete_job(self, record: JobRecord) -> None:
        """Delete a job with its payload and index entries; its output stays."""
        self._count(record.id, None, record.flow)
        self.txn.delete("jobs", name_bytes(record.id))
        self.txn.delete("payloads", name_bytes(record.id))
        for table, key in index_entries(record):
            self.txn.delete(table, key)
        self.unsettle(record.flow)

    def summary(self, flow: str) -> FlowSummary:
        """Return the summary of a flow, with the changes of this transaction."""
        if flow not in self._tallies:
            return super().summary(flow)
        tally = self._tallies[flow]
        return tally.summary() if tally is not None else summary_of(self.jobs_of(flow))

    def _count(self, job_id: str, new: JobRecord | None, flow: str = "") -> JobRecord | None:
        """Count the change of a job, before it is written, in the summary of its flow; it may have moved.

        Return its record so far. If that cannot be read, all jobs of the flow are counted anew.
        """
        raw = self.txn.get("jobs", name_bytes(job_id))
        old = readable(decode_job, raw)
        for name in {job.flow for job in (old, new) if job is not None} or {flow}:
            before, after = (job if job is not None and job.flow == name else None for job in (old, new))
            try:
                if name not in self._tallies:
                    self._tallies[name] = Tally(super().summary(name))
            except DamagedError:
                self._tallies[name] = None
            tally = self._tallies[name]
            if tally is not None and (old is not None or raw is None):
                tally.change(before, after)
            else:
                self._tallies[name] = None
        return old

    def put_payload(self, job_id: str, payload: bytes) -> None:
        """Write the jobflow Job of a record."""
        self.txn.put("payloads", name_bytes(job_id), compressed(payload))

    def add_cleanup(self, worker: str, due: float, job: JobRecord) -> None:
        """Schedule the removal of the run directory of a job's attempt."""
        assert job.attempt.run_dir is not None
        key = cleanup_key(worker, due) + name_bytes(f"{job.id}.{job.attempt.number}")
        self.txn.put("cleanups", key, job.attempt.run_dir.encode("utf-8", "surrogateescape"))

    def delete_cleanups(self, keys: Iterable[bytes]) -> None:
        """Delete the entries of run directories that were removed."""
        for key in keys:
            self.txn.delete("cleanups", key)

    def put_parsed(self, blob: str, parsed: ParsedFile) -> None:
        """Write a parsed blob."""
        self.txn.put("parsed", name_bytes(blob), compressed(encode(parsed)))

    def put_good(self, key: str, manifest: GoodManifest) -> None:
        """Write the place of the last good version of a manifest."""
        self.txn.put("good", name_bytes(key), encode(manifest))

    def delete_good(self, key: str) -> None:
        """Delete the last good version of a manifest that was removed."""
        self.txn.delete("good", name_bytes(key))

    def put_build(self, built: BuiltFlow) -> None:
        """Write a built flow."""
        self.txn.put("builds", name_bytes(built.build_key), compressed(encode(built)))

    def unsettle(self, flow: str) -> None:
        """Make the next plan consider a flow even if its revision is the same."""
        self._touched = True
        if flow not in self._unsettled:
            self._unsettled.add(flow)
            self.txn.put("unsettled", name_bytes(flow), big_endian(self.change_counter() + 1))

    def settle(self, flows: Iterable[str], change: int) -> None:
        """Note that a plan has considered flows as they were after the transaction with number ``change``."""
        for flow in flows:
            key = name_bytes(flow)
            since = self.txn.get("unsettled", key)
            if since is not None and number_of(since) <= change:
                self.txn.delete("unsettled", key)
                self._unsettled.discard(flow)

    def put_baseline(self, baseline: Baseline) -> None:
        """Write the revision that the next pass compares with."""
        self.txn.put("meta", b"baseline", encode(baseline))

    def forget_baseline(self) -> None:
        """Make the next pass compare everything."""
        self.txn.delete("meta", b"baseline")

    def put_entry(self, flow: str, entry: FlowEntry | None) -> None:
        """Write what a flow of the baseline depends on; None for a flow that is not wanted any more."""
        key, data = name_bytes(flow), encode(entry) if entry is not None else None
        known = self.txn.get("desired", key)
        if known == data:
            return
        old = self.entry(flow) or FlowEntry()
        new = entry or FlowEntry()
        for file in set(old.watched) - set(new.watched):
            self.txn.delete("named_files", about_key(file) + key)
        for file in set(new.watched) - set(old.watched):
            self.txn.put("named_files", about_key(file) + key)
        for other in set(old.refers) - set(new.refers):
            self.txn.delete("referrers", pair(other, flow))
        for other in set(new.refers) - set(old.refers):
            self.txn.put("referrers", pair(other, flow))
        if data is not None:
            self.txn.put("desired", key, data)
        else:
            self.txn.delete("desired", key)

    def put_config(self, config: AppliedConfig) -> None:
        """Write the parts of a revision that the executor needs."""
        self.txn.put("meta", b"config", encode(config))

    def put_worker_status(self, worker: str, status: WorkerStatus) -> None:
        """Write the status of a worker."""
        self.txn.put("meta", b"worker/" + name_bytes(worker), encode(status))

    def put_notify_state(self, rule: str, state: NotifyState | None) -> None:
        """Write how far a notify rule is; None for a rule that is not wanted any more."""
        key = b"notify/" + name_bytes(rule)
        if state is None:
            self.txn.delete("meta", key)
        else:
            self.txn.put("meta", key, encode(state))

    def put_imports(self, flow: str, directories: list[str]) -> None:
        """Write which directories of code the build of a flow imported although nothing names them."""
        key = b"imports/" + name_bytes(flow)
        if directories:
            self.txn.put("meta", key, encode(directories))
        else:
            self.txn.delete("meta", key)

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
