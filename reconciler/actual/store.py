"""The store: typed records on the tables of the LMDB environment.

Reads take a snapshot; a write is one function run in one durable transaction (see
:meth:`Store.write`). Every write that touches a flow or a job raises the change counter, by which a
reconcile with nothing to do is recognised.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from reconciler.actual.db import Database, Txn, close_database, open_database
from reconciler.actual.keys import (
    about_key,
    big_endian,
    cleanup_key,
    id_in_state_key,
    index_entries,
    milliseconds,
    number_of,
    pair,
)
from reconciler.actual.migrations import check_version
from reconciler.actual.records import (
    decode_attempt,
    decode_build,
    decode_config,
    decode_event,
    decode_flow,
    decode_glance,
    decode_good,
    decode_job,
    decode_lineage,
    decode_outcome,
    decode_parsed,
    decode_revision,
    decode_status,
    encode,
)
from reconciler.actual.state_dir import lmdb_dir, require_local
from reconciler.errors import RefusedError
from reconciler.model.flows import BuiltFlow
from reconciler.model.manifests import GoodManifest, ParsedFile
from reconciler.model.records import (
    AppliedConfig,
    AppliedRevision,
    Attempt,
    Event,
    FlowRecord,
    JobGlance,
    JobRecord,
    Outcome,
    WorkerStatus,
)
from reconciler.model.states import JobState

T = TypeVar("T")


class View:
    """A consistent look at the store."""

    def __init__(self, txn: Txn) -> None:
        self.txn = txn

    # flows and jobs -----------------------------------------------------------------------------------

    def flow(self, name: str) -> FlowRecord | None:
        """Return a flow by name."""
        raw = self.txn.get("flows", name.encode())
        return decode_flow(raw) if raw is not None else None

    def flows(self) -> Iterator[FlowRecord]:
        """Yield all flows by name, removed ones included."""
        for _, raw in self.txn.scan("flows"):
            yield decode_flow(raw)

    def job(self, job_id: str) -> JobRecord | None:
        """Return a job by ``<uuid>_<index>``."""
        raw = self.txn.get("jobs", job_id.encode())
        return decode_job(raw) if raw is not None else None

    def jobs(self) -> Iterator[JobRecord]:
        """Yield all jobs."""
        for _, raw in self.txn.scan("jobs"):
            yield decode_job(raw)

    def jobs_of(self, flow: str) -> list[JobRecord]:
        """Return the jobs of a flow, history included, oldest first."""
        return sorted(map(decode_job, self._raw_jobs_of(flow)), key=lambda job: job.sequence)

    def glances_of(self, flow: str) -> list[JobGlance]:
        """Return what the status of a flow depends on of each of its jobs, oldest first."""
        return sorted(map(decode_glance, self._raw_jobs_of(flow)), key=lambda job: job.sequence)

    def _raw_jobs_of(self, flow: str) -> Iterator[bytes]:
        prefix = flow.encode() + b"\0"
        for key in self.txn.keys("by_flow", prefix):
            raw = self.txn.get("jobs", key[len(prefix) :])
            if raw is not None:
                yield raw

    def has_path(self, path: str) -> bool:
        """Whether a job that is no history goes by this ``flow/job``."""
        return any(True for _ in self.txn.keys("by_path", about_key(path)))

    def generations(self, uuid: str) -> list[JobRecord]:
        """Return the records of one uuid, lowest index first."""
        found = [decode_job(raw) for _, raw in self.txn.scan("jobs", uuid.encode() + b"_")]
        return sorted(found, key=lambda job: job.index)

    def in_state(self, state: JobState, worker: str | None = None) -> Iterator[JobRecord]:
        """Yield the jobs of a state: by worker, then highest priority, then oldest first."""
        for key in self._state_keys(state, worker):
            raw = self.txn.get("jobs", id_in_state_key(key))
            if raw is not None:
                yield decode_job(raw)

    def count_in_state(self, state: JobState, worker: str | None = None) -> int:
        """Return the number of jobs of a state without reading them."""
        return sum(1 for _ in self._state_keys(state, worker))

    def any_in_state(self, states: Iterable[JobState], worker: str | None = None) -> bool:
        """Whether there is any job in one of these states; reads at most one key a state."""
        return any(True for state in states for _ in self._state_keys(state, worker))

    def _state_keys(self, state: JobState, worker: str | None) -> Iterator[bytes]:
        prefix = state.encode() + b"\0" + (worker.encode() + b"\0" if worker is not None else b"")
        return self.txn.keys("by_state", prefix)

    def dependants(self, uuid: str) -> list[JobRecord]:
        """Return the jobs whose arguments refer to ``uuid``."""
        prefix = uuid.encode() + b"\0"
        ids = [key[len(prefix) :] for key in self.txn.keys("children", prefix)]
        return [decode_job(raw) for job_id in ids if (raw := self.txn.get("jobs", job_id)) is not None]

    def payload(self, job_id: str) -> bytes | None:
        """Return the jobflow Job of a record, as JSON."""
        return self.txn.get("payloads", job_id.encode())

    # documents and builds -----------------------------------------------------------------------------

    def due_cleanups(self, worker: str, now: float, limit: int) -> dict[bytes, str]:
        """Return run directories of a worker that are to be removed by now, by the key of their entry."""
        due = itertools.takewhile(
            lambda row: row[0] < cleanup_key(worker, now), self.txn.scan("cleanups", pair(worker, ""))
        )
        return {key: raw.decode() for key, raw in itertools.islice(due, limit)}

    def next_cleanup(self, worker: str) -> float | None:
        """Return when the next run directory of a worker is to be removed; None if none is."""
        prefix = pair(worker, "")
        first = next(iter(self.txn.keys("cleanups", prefix)), None)
        return float(number_of(first[len(prefix) : len(prefix) + 8])) if first is not None else None

    def due_retries(self, now: float, limit: int) -> list[JobRecord]:
        """Return failed jobs that are to be tried again by now, the longest due first."""
        keys = self.txn.keys("retries")
        due = itertools.takewhile(lambda key: number_of(key[:8]) <= milliseconds(now), keys)
        ids = [key[8:] for key in itertools.islice(due, limit)]
        return [decode_job(raw) for job_id in ids if (raw := self.txn.get("jobs", job_id)) is not None]

    def next_retry(self) -> float | None:
        """Return when the next failed job is to be tried again; None if none is."""
        first = next(iter(self.txn.keys("retries")), None)
        return number_of(first[:8]) / 1000 if first is not None else None

    def count_retries(self) -> int:
        """Return how many failed jobs are to be tried again."""
        return self.txn.count("retries")

    def waiting_for_retry(self) -> Iterator[JobRecord]:
        """Yield all failed jobs that are to be tried again, the next one first."""
        for key in self.txn.keys("retries"):
            raw = self.txn.get("jobs", key[8:])
            if raw is not None:
                yield decode_job(raw)

    def parsed(self, blob: str) -> ParsedFile | None:
        """Return what the blob was parsed to, if this version has read it before."""
        raw = self.txn.get("parsed", blob.encode())
        return decode_parsed(raw) if raw is not None else None

    def good_manifests(self) -> dict[str, GoodManifest]:
        """Return where the last good version of every manifest stands, by ``Kind/name``."""
        return {key.decode(): decode_good(raw) for key, raw in self.txn.scan("good")}

    def build(self, build_key: str) -> BuiltFlow | None:
        """Return a built flow by its build key."""
        raw = self.txn.get("builds", build_key.encode())
        return decode_build(raw) if raw is not None else None

    # history and configuration ------------------------------------------------------------------------

    def events(self, about: str | None = None, limit: int = 0) -> list[Event]:
        """Return the newest events, oldest first; ``about`` is ``job/<flow>/<job>`` or ``flow/<name>``."""
        keys = self._event_keys(about)
        newest = itertools.islice(keys, limit) if limit else keys
        found = [decode_event(raw) for key in newest if (raw := self.txn.get("events", key)) is not None]
        return found[::-1]

    def last_event(self) -> int:
        """Return the number of the newest event; 0 if there was none."""
        return number_of(self.txn.get("meta", b"next/event"))

    def events_after(self, number: int, limit: int) -> list[tuple[int, Event]]:
        """Return the oldest events that are newer than a number, each with its own."""
        last = self.last_event()
        numbers = range(number + 1, min(last, number + limit) + 1)
        raws = ((n, self.txn.get("events", big_endian(n))) for n in numbers)
        return [(n, decode_event(raw)) for n, raw in raws if raw is not None]

    def _event_keys(self, about: str | None) -> Iterator[bytes]:
        if about is None:
            yield from self.txn.keys("events", reverse=True)
            return
        prefix = about_key(about)
        for key in self.txn.keys("events_about", prefix, reverse=True):
            yield key[len(prefix) :]

    def revisions(self) -> list[AppliedRevision]:
        """Return the applied revisions, oldest first."""
        return [decode_revision(raw) for _, raw in self.txn.scan("revisions")]

    def last_revision(self) -> AppliedRevision | None:
        """Return the revision that was applied last."""
        for key in self.txn.keys("revisions", reverse=True):
            raw = self.txn.get("revisions", key)
            return decode_revision(raw) if raw is not None else None
        return None

    def config(self) -> AppliedConfig | None:
        """Return what the executor needs of the last applied revision."""
        raw = self.txn.get("meta", b"config")
        return decode_config(raw) if raw is not None else None

    def worker_status(self, worker: str) -> WorkerStatus | None:
        """Return how a worker was when last used."""
        raw = self.txn.get("meta", f"worker/{worker}".encode())
        return decode_status(raw) if raw is not None else None

    def attempt(self) -> Attempt | None:
        """Return the last attempt of a daemon to apply a revision."""
        raw = self.txn.get("meta", b"attempt")
        return decode_attempt(raw) if raw is not None else None

    def outcome(self) -> Outcome | None:
        """Return how the last reconcile ended."""
        raw = self.txn.get("meta", b"outcome")
        return decode_outcome(raw) if raw is not None else None

    def lineage(self) -> dict[str, str] | None:
        """Return the project and root commit that this state belongs to."""
        raw = self.txn.get("meta", b"lineage")
        return decode_lineage(raw) if raw is not None else None

    def restored(self) -> float | None:
        """Return when this state was restored from a backup; None if it never was."""
        raw = self.txn.get("meta", b"restored")
        return float(number_of(raw)) if raw is not None else None

    def change_counter(self) -> int:
        """Return how many transactions have touched flows or jobs."""
        return number_of(self.txn.get("meta", b"changes"))

    def version(self) -> int:
        """Return a number that rises with every write, whatever it is about."""
        return self.txn.number


class Writer(View):
    """A view that can write; lives for one transaction, and must be told its end by :meth:`finish`."""

    def __init__(self, txn: Txn) -> None:
        super().__init__(txn)
        self._touched = False
        self._numbers: dict[str, int] = {}

    def finish(self) -> None:
        """Write the counters, once for all that the transaction did."""
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
        """Remove a flow; its jobs must have gone before."""
        self.txn.delete("flows", name.encode())
        self._touched = True

    def put_job(self, record: JobRecord) -> None:
        """Write a job and keep the indexes right."""
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
        """Remove a job with its payload and index entries; its output stays."""
        self.txn.delete("jobs", record.id.encode())
        self.txn.delete("payloads", record.id.encode())
        for table, key in index_entries(record):
            self.txn.delete(table, key)
        self._touched = True

    def put_payload(self, job_id: str, payload: bytes) -> None:
        """Write the jobflow Job of a record."""
        self.txn.put("payloads", job_id.encode(), payload)

    def add_cleanup(self, worker: str, due: float, job: JobRecord) -> None:
        """Note that the run directory of a job's attempt is to be removed at a time."""
        assert job.run_dir is not None
        key = cleanup_key(worker, due) + f"{job.id}.{job.attempt}".encode()
        self.txn.put("cleanups", key, job.run_dir.encode())

    def delete_cleanups(self, keys: Iterable[bytes]) -> None:
        """Forget run directories that were removed."""
        for key in keys:
            self.txn.delete("cleanups", key)

    def put_parsed(self, blob: str, parsed: ParsedFile) -> None:
        """Remember what a blob was parsed to."""
        self.txn.put("parsed", blob.encode(), encode(parsed))

    def put_good(self, key: str, manifest: GoodManifest) -> None:
        """Remember the last good version of a manifest."""
        self.txn.put("good", key.encode(), encode(manifest))

    def delete_good(self, key: str) -> None:
        """Forget the last good version of a manifest that is gone."""
        self.txn.delete("good", key.encode())

    def put_build(self, built: BuiltFlow) -> None:
        """Keep a built flow."""
        self.txn.put("builds", built.build_key.encode(), encode(built))

    def put_config(self, config: AppliedConfig) -> None:
        """Write what the executor needs."""
        self.txn.put("meta", b"config", encode(config))

    def put_worker_status(self, worker: str, status: WorkerStatus) -> None:
        """Write how a worker is."""
        self.txn.put("meta", f"worker/{worker}".encode(), encode(status))

    def put_attempt(self, attempt: Attempt) -> None:
        """Write what came of an attempt to apply a revision."""
        self.txn.put("meta", b"attempt", encode(attempt))

    def put_outcome(self, outcome: Outcome) -> None:
        """Write how this reconcile ended."""
        self.txn.put("meta", b"outcome", encode(outcome))

    def put_lineage(self, lineage: dict[str, str]) -> None:
        """Bind this state to a project and a repository."""
        self.txn.put("meta", b"lineage", encode(lineage))

    def put_restored(self, time: float) -> None:
        """Write that this state was restored: workers may have seen more than it knows."""
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
        """Return the next number of a counter, from 1."""
        known = self._numbers.get(counter)
        if known is None:
            known = number_of(self.txn.get("meta", f"next/{counter}".encode()))
        self._numbers[counter] = known + 1
        return known + 1


class Store:
    """An open state directory."""

    def __init__(self, state_dir: Path, *, read_only: bool = False) -> None:
        """Open it, or make an empty one. With ``read_only`` it never waits for a writer, and cannot write.

        Raises
        ------
        OutdatedError
            It must be migrated first.
        InputError
            It was written by a newer version.
        RefusedError, WorldError
            It lies on a network file system, or cannot be opened.
        """
        require_local(state_dir)
        self.path = state_dir
        self._database: Database = open_database(lmdb_dir(state_dir), read_only=read_only)
        try:
            check_version(self._database, state_dir)
        except BaseException:
            close_database(self._database)
            raise

    @property
    def read_only(self) -> bool:
        """Whether it was opened only to read."""
        return self._database.read_only

    @staticmethod
    def exists(state_dir: Path) -> bool:
        """Whether something was ever stored there."""
        return (lmdb_dir(state_dir) / "data.mdb").exists()

    @contextmanager
    def read(self) -> Iterator[View]:
        """Give a consistent look at the store."""
        with self._database.read() as txn:
            yield View(txn)

    def write(self, change: Callable[[Writer], T]) -> T:
        """Run ``change`` in one durable transaction; it may be run again, so it must have no other effect."""

        def run(txn: Txn) -> T:
            writer = Writer(txn)
            result = change(writer)
            writer.finish()
            return result

        return self._database.write(run)

    def copy_to(self, descriptor: int) -> None:
        """Write a snapshot of the whole store to an open file; see :meth:`Database.copy_to`."""
        self._database.copy_to(descriptor)

    def close(self) -> None:
        """Give the environment back."""
        close_database(self._database)

    def check_lineage(self, project: str, root_commit: str) -> None:
        """Refuse to use this state for another project or repository.

        Raises
        ------
        RefusedError
            The state belongs to something else; both are named.
        """
        with self.read() as view:
            known = view.lineage()
        if known is None:
            self.write(lambda writer: writer.put_lineage({"project": project, "root": root_commit}))
        elif (known["project"], known["root"]) != (project, root_commit):
            raise RefusedError(
                f"the state in {self.path} belongs to project '{known['project']}' (repository with root "
                f"{known['root'][:7]}), not to '{project}' (root {root_commit[:7]})",
                hint="choose another --state-dir for this repository",
            )
