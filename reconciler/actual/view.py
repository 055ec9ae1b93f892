"""Reading typed records from one transaction of the store."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator

from reconciler.actual.compressed import restored
from reconciler.actual.db import Transaction
from reconciler.actual.layout import (
    about_key,
    big_endian,
    cleanup_due,
    damaged,
    decode_attempt,
    decode_baseline,
    decode_build,
    decode_config,
    decode_entry,
    decode_event,
    decode_flow,
    decode_good,
    decode_imports,
    decode_job,
    decode_lineage,
    decode_mark,
    decode_notify,
    decode_outcome,
    decode_parsed,
    decode_revision,
    decode_status,
    decode_summary,
    id_in_state_key,
    milliseconds,
    name_bytes,
    number_of,
    pair,
    readable,
)
from reconciler.errors import InputError
from reconciler.model.applied import AppliedConfig, AppliedRevision, Attempt, Outcome
from reconciler.model.baseline import Baseline, FlowEntry
from reconciler.model.flows import BuiltFlow
from reconciler.model.lineage import Lineage
from reconciler.model.manifests import GoodManifest, ParsedFile
from reconciler.model.notifications import NotifyState
from reconciler.model.records import Event, FlowRecord, JobMark, JobRecord, WorkerStatus
from reconciler.model.states import ACTIVE, JobState
from reconciler.model.summaries import FlowSummary, summary_of


class View:
    """A consistent view of the store."""

    def __init__(self, txn: Transaction) -> None:
        self.txn = txn

    # flows and jobs -----------------------------------------------------------------------------------

    def flow(self, name: str) -> FlowRecord | None:
        """Return a flow by name."""
        raw = self.txn.get("flows", name_bytes(name))
        return decode_flow(raw) if raw is not None else None

    def flows(self) -> Iterator[FlowRecord]:
        """Yield all flows by name, removed ones included."""
        for _, raw in self.txn.scan("flows"):
            yield decode_flow(raw)

    def mark(self, job_id: str) -> JobMark | None:
        """Return where the output of ``<uuid>_<index>`` belongs; None also if the record is damaged."""
        return readable(decode_mark, self.txn.get("jobs", name_bytes(job_id)))

    def job(self, job_id: str) -> JobRecord | None:
        """Return a job by ``<uuid>_<index>``."""
        raw = self.txn.get("jobs", name_bytes(job_id))
        return decode_job(raw) if raw is not None else None

    def jobs(self) -> Iterator[JobRecord]:
        """Yield all jobs."""
        for _, raw in self.txn.scan("jobs"):
            yield decode_job(raw)

    def jobs_of(self, flow: str) -> list[JobRecord]:
        """Return the jobs of a flow, including superseded ones, oldest first."""
        return sorted(map(decode_job, self._raw_jobs_of(flow)), key=lambda job: job.sequence)

    def summary(self, flow: str) -> FlowSummary:
        """Return the summary of a flow; it is counted if an earlier version wrote the flow."""
        known = readable(decode_summary, self.txn.get("summaries", name_bytes(flow)))
        return known if known is not None else summary_of(self.jobs_of(flow))

    def _raw_jobs_of(self, flow: str) -> Iterator[bytes]:
        prefix = name_bytes(flow) + b"\0"
        for key in self.txn.keys("by_flow", prefix):
            raw = self.txn.get("jobs", key[len(prefix) :])
            if raw is not None:
                yield raw

    def has_path(self, path: str) -> bool:
        """Return whether a current job has this ``flow/job``."""
        return any(True for _ in self.txn.keys("by_path", about_key(path)))

    def generations(self, uuid: str) -> list[JobRecord]:
        """Return the records of a uuid, lowest index first."""
        found = [decode_job(raw) for _, raw in self.txn.scan("jobs", name_bytes(uuid) + b"_")]
        return sorted(found, key=lambda job: job.index)

    def uuids(self, prefix: str, limit: int) -> list[str]:
        """Return at most ``limit`` uuids of jobs that begin with ``prefix``, in order."""
        found: dict[str, None] = {}
        for key in self.txn.keys("jobs", name_bytes(prefix)):
            found[key.rpartition(b"_")[0].decode()] = None
            if len(found) == limit:
                break
        return list(found)

    def in_state(self, state: JobState, worker: str | None = None) -> Iterator[JobRecord]:
        """Yield the jobs in a state by worker, then by descending priority, then by age."""
        for key in self._state_keys(state, worker):
            raw = self.txn.get("jobs", id_in_state_key(key))
            if raw is not None:
                yield decode_job(raw)

    def count_in_state(self, state: JobState, worker: str | None = None) -> int:
        """Return the number of jobs in a state without reading the jobs."""
        return sum(1 for _ in self._state_keys(state, worker))

    def any_in_state(self, states: Iterable[JobState], worker: str | None = None) -> bool:
        """Return whether a job is in one of these states; reads at most one key per state."""
        return any(True for state in states for _ in self._state_keys(state, worker))

    def is_idle(self, worker: str | None = None) -> bool:
        """Return whether no job is active or ready to start; retries may be due later.

        READY jobs on a closed worker do not count, since they do not start.
        """
        if self.any_in_state(ACTIVE, worker):
            return False
        config = self.config()
        closed = {name_bytes(name) for name in config.closed_workers} if config is not None else set()
        return all(key.split(b"\0")[1] in closed for key in self._state_keys(JobState.READY, worker))

    def _state_keys(self, state: JobState, worker: str | None) -> Iterator[bytes]:
        prefix = state.encode() + b"\0" + (name_bytes(worker) + b"\0" if worker is not None else b"")
        return self.txn.keys("by_state", prefix)

    def dependants(self, uuid: str) -> list[JobRecord]:
        """Return the jobs whose arguments refer to ``uuid``."""
        prefix = name_bytes(uuid) + b"\0"
        ids = [key[len(prefix) :] for key in self.txn.keys("children", prefix)]
        return [decode_job(raw) for job_id in ids if (raw := self.txn.get("jobs", job_id)) is not None]

    def payload(self, job_id: str) -> bytes | None:
        """Return the jobflow Job of a record, as JSON. Raises DamagedError if it cannot be read."""
        raw = self.txn.get("payloads", name_bytes(job_id))
        try:
            return restored(raw) if raw is not None else None
        except ValueError as error:
            raise damaged("the payload of a job", error) from error

    # documents and builds -----------------------------------------------------------------------------

    def due_cleanups(self, worker: str, now: float, limit: int) -> dict[bytes, str]:
        """Return the run directories of a worker whose removal is due, by the key of their entry."""
        rows = self.txn.scan("cleanups", pair(worker, ""))
        due = itertools.takewhile(lambda row: cleanup_due(row[0]) <= now, rows)
        return {key: raw.decode("utf-8", "surrogateescape") for key, raw in itertools.islice(due, limit)}

    def next_cleanup(self, worker: str) -> float | None:
        """Return when the next removal on a worker is due; None if there is none."""
        first = next(iter(self.txn.keys("cleanups", pair(worker, ""))), None)
        return cleanup_due(first) if first is not None else None

    def due_retries(self, now: float, limit: int) -> list[JobRecord]:
        """Return the failed jobs whose retry is due, the earliest first."""
        keys = self.txn.keys("retries")
        due = itertools.takewhile(lambda key: number_of(key[:8]) <= milliseconds(now), keys)
        ids = [key[8:] for key in itertools.islice(due, limit)]
        return [decode_job(raw) for job_id in ids if (raw := self.txn.get("jobs", job_id)) is not None]

    def next_retry(self) -> float | None:
        """Return when the next retry is due; None if there is none."""
        first = next(iter(self.txn.keys("retries")), None)
        return number_of(first[:8]) / 1000 if first is not None else None

    def count_retries(self) -> int:
        """Return how many failed jobs wait for a retry."""
        return self.txn.count("retries")

    def waiting_for_retry(self) -> Iterator[JobRecord]:
        """Yield all failed jobs that wait for a retry, the earliest first."""
        for key in self.txn.keys("retries"):
            raw = self.txn.get("jobs", key[8:])
            if raw is not None:
                yield decode_job(raw)

    def left_on(self, worker: str | None = None) -> Iterator[JobRecord]:
        """Yield the jobs that have left attempts on a worker, or on any: see :class:`LeftAttempt`."""
        prefix = pair(worker, "") if worker is not None else b""
        for key in self.txn.keys("left", prefix):
            raw = self.txn.get("jobs", key[key.index(b"\0") + 1 :])
            if raw is not None:
                yield decode_job(raw)

    def parsed(self, blob: str) -> ParsedFile | None:
        """Return the parsed blob; None if this version has not parsed it before."""
        return readable(decode_parsed, self.txn.get("parsed", name_bytes(blob)))

    def good_manifests(self) -> dict[str, GoodManifest]:
        """Return the place of the last good version of every manifest, by ``Kind/name``."""
        found = ((key, readable(decode_good, raw)) for key, raw in self.txn.scan("good"))
        return {key.decode(errors="replace"): good for key, good in found if good is not None}

    def good_manifest(self, key: str) -> GoodManifest | None:
        """Return the place of the last good version of a manifest (``Kind/name``)."""
        return readable(decode_good, self.txn.get("good", name_bytes(key)))

    def good_of_kind(self, kind: str) -> dict[str, GoodManifest]:
        """Return the place of the last good version of each manifest of a kind, by ``Kind/name``."""
        found = ((key, readable(decode_good, raw)) for key, raw in self.txn.scan("good", f"{kind}/".encode()))
        return {key.decode(errors="replace"): good for key, good in found if good is not None}

    def build(self, build_key: str) -> BuiltFlow | None:
        """Return a built flow by its build key."""
        return readable(decode_build, self.txn.get("builds", name_bytes(build_key)))

    # the revision to compare with ---------------------------------------------------------------------

    def baseline(self) -> Baseline | None:
        """Return the revision that the next pass compares with; None if it must read everything."""
        return readable(decode_baseline, self.txn.get("meta", b"baseline"))

    def entry(self, flow: str) -> FlowEntry | None:
        """Return what a flow of the baseline depends on."""
        return readable(decode_entry, self.txn.get("desired", name_bytes(flow)))

    def entries(self) -> Iterator[str]:
        """Yield the names of the flows of the baseline."""
        return (key.decode() for key in self.txn.keys("desired"))

    def count_entries(self) -> int:
        """Return the number of flows of the baseline."""
        return self.txn.count("desired")

    def labels(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the name and labels of each flow of the baseline."""
        for key, raw in self.txn.scan("desired"):
            yield key.decode(), decode_entry(raw).labels

    def referring_to(self, flow: str) -> list[str]:
        """Return the flows of the baseline that refer to jobs of a flow."""
        prefix = pair(flow, "")
        return [key[len(prefix) :].decode() for key in self.txn.keys("referrers", prefix)]

    def flows_naming(self, file: str) -> list[str]:
        """Return the flows of the baseline that name a file of the repository."""
        prefix = about_key(file)
        return [key[len(prefix) :].decode() for key in self.txn.keys("named_files", prefix)]

    def unsettled(self) -> list[str]:
        """Return the flows that the next plan must consider even if the revision is the same."""
        return [key.decode() for key in self.txn.keys("unsettled")]

    # history and configuration ------------------------------------------------------------------------

    def events(self, about: str | Collection[str] | None = None, limit: int = 0) -> list[Event]:
        """Return the newest events, oldest first.

        ``about`` is ``job/<flow>/<job>``, ``flow/<name>``, ``worker/<name>``, or several of these.
        """
        keys: Iterable[bytes]
        if about is None or isinstance(about, str):
            keys = self._event_keys(about)
        else:
            each = (itertools.islice(self._event_keys(one), limit or None) for one in about)
            keys = sorted(set(itertools.chain.from_iterable(each)), reverse=True)
        newest = itertools.islice(keys, limit) if limit else keys
        found = [readable(decode_event, self.txn.get("events", key)) for key in newest]
        return [event for event in reversed(found) if event is not None]

    def last_event(self) -> int:
        """Return the number of the newest event; 0 if there was none."""
        return number_of(self.txn.get("meta", b"next/event"))

    def events_after(self, number: int, limit: int) -> list[tuple[int, Event]]:
        """Return the oldest events after an event number, each with its number."""
        last = self.last_event()
        numbers = range(number + 1, min(last, number + limit) + 1)
        found = ((n, readable(decode_event, self.txn.get("events", big_endian(n)))) for n in numbers)
        return [(n, event) for n, event in found if event is not None]

    def _event_keys(self, about: str | None) -> Iterator[bytes]:
        if about is None:
            yield from self.txn.keys("events", reverse=True)
            return
        prefix = about_key(about)
        for key in self.txn.keys("events_about", prefix, reverse=True):
            yield key[len(prefix) :]

    def revisions(self) -> list[AppliedRevision]:
        """Return the applied revisions, oldest first."""
        found = (readable(decode_revision, raw) for _, raw in self.txn.scan("revisions"))
        return [revision for revision in found if revision is not None]

    def last_revision(self) -> AppliedRevision | None:
        """Return the last applied revision."""
        for key in self.txn.keys("revisions", reverse=True):
            revision = readable(decode_revision, self.txn.get("revisions", key))
            if revision is not None:
                return revision
        return None

    def config(self) -> AppliedConfig | None:
        """Return the parts of the last applied revision that the executor needs."""
        raw = self.txn.get("meta", b"config")
        return decode_config(raw) if raw is not None else None

    def applied_config(self) -> AppliedConfig:
        """Return the same for a command that needs it; raises InputError before a revision is applied."""
        config = self.config()
        if config is None:
            raise InputError(
                "no revision is applied to this state yet", hint="apply one with `reconcile --once`"
            )
        return config

    def worker_status(self, worker: str) -> WorkerStatus | None:
        """Return the status of a worker at its last use."""
        return readable(decode_status, self.txn.get("meta", b"worker/" + name_bytes(worker)))

    def notify_state(self, rule: str) -> NotifyState | None:
        """Return how far a notify rule is; None if it was never applied."""
        return readable(decode_notify, self.txn.get("meta", b"notify/" + name_bytes(rule)))

    def notify_rules(self) -> list[str]:
        """Return the names of the notify rules that have a state."""
        return [key.removeprefix(b"notify/").decode() for key in self.txn.keys("meta", b"notify/")]

    def imports(self) -> dict[str, list[str]]:
        """Return by flow the directories of code that its build imported although nothing names them."""
        found = ((key[8:], readable(decode_imports, raw)) for key, raw in self.txn.scan("meta", b"imports/"))
        return {key.decode(errors="replace"): names for key, names in found if names}

    def attempt(self) -> Attempt | None:
        """Return the daemon's last attempt to apply a revision."""
        return readable(decode_attempt, self.txn.get("meta", b"attempt"))

    def counted_attempt(self) -> Attempt | None:
        """Return the daemon's last attempt to apply a revision, unless `--once` has applied one since."""
        attempt, last = self.attempt(), self.last_revision()
        if attempt is None or (last is not None and last.time > attempt.time):
            return None
        return attempt

    def outcome(self) -> Outcome | None:
        """Return the outcome of the last reconcile."""
        return readable(decode_outcome, self.txn.get("meta", b"outcome"))

    def lineage(self) -> Lineage | None:
        """Return the project and repository that this state belongs to."""
        raw = self.txn.get("meta", b"lineage")
        return decode_lineage(raw) if raw is not None else None

    def followed(self) -> str | None:
        """Return the branch that this state follows: empty for none, None if that was never recorded."""
        raw = self.txn.get("meta", b"followed")
        return raw.decode(errors="surrogateescape") if raw is not None else None

    def restored(self) -> float | None:
        """Return when this state was restored from a backup; None if it never was."""
        raw = self.txn.get("meta", b"restored")
        return float(number_of(raw)) if raw is not None else None

    def change_counter(self) -> int:
        """Return the number of transactions that have changed flows or jobs."""
        return readable(number_of, self.txn.get("meta", b"changes")) or 0

    def version(self) -> int:
        """Return a number that every write increases."""
        return self.txn.number
