"""Which jobs the words on a command line mean: names, globs, uuids and filters."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence

import msgspec

from reconciler.actual.view import View
from reconciler.diagnostics import did_you_mean, nearest
from reconciler.errors import InputError
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import JobState

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(_\d+)?", re.IGNORECASE)
_FILTER = re.compile(r"([A-Za-z_]+):(.*)", re.DOTALL)
FILTERS = ("state", "worker", "flow")


def is_uuid(word: str) -> bool:
    """Whether a word is the uuid of a job, or ``<uuid>_<index>``."""
    return _UUID.fullmatch(word) is not None


class Words(msgspec.Struct, frozen=True):
    """The words sorted by their kind. A job must match one of each kind that is given."""

    names: list[str]
    states: set[JobState]
    workers: set[str]
    labels: list[tuple[str, str]]


class Selected(msgspec.Struct, frozen=True):
    """The jobs that are meant. ``exact`` are the ids of those that were named themselves, not by a glob."""

    jobs: list[JobRecord]
    exact: set[str]
    named: int


def read_words(words: Sequence[str]) -> Words:
    """Sort the words of a command line.

    Raises
    ------
    InputError
        A filter is of no known kind, or its value is wrong.
    """
    found = Words([], set(), set(), [])
    for word in words:
        match = _FILTER.fullmatch(word)
        if match is None:
            found.names.append(word)
            continue
        kind, value = match.groups()
        if kind not in FILTERS:
            hint = did_you_mean(kind, FILTERS) or "see `reconcile retry --help`"
            raise InputError(f"there is no selector '{kind}:'", hint=hint)
        if kind == "state":
            found.states.update(_state(part) for part in value.split(","))
        elif kind == "worker":
            found.workers.update(value.split(","))
        else:
            found.labels.append(_label(value))
    return found


def _state(name: str) -> JobState:
    known = [str(state) for state in JobState]
    if name.upper() not in known:
        raise InputError(f"there is no state '{name}'", hint=did_you_mean(name.upper(), known))
    return JobState(name.upper())


def _label(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        hint = f"write `{text}` for the flow of that name, `flow:KEY=VALUE` for flows with a label"
        raise InputError(f"'flow:{text}' names no label", hint=hint)
    return key, value


class JobFinder:
    """Finds the jobs that are meant.

    Globs reach what is current in flows that are wanted. With ``past`` they reach the rest instead: history,
    and the jobs of flows that were removed. A name without a glob reaches either.
    """

    def __init__(self, view: View, *, past: bool = False) -> None:
        self.view = view
        self.past = past
        self.flows = {flow.name: flow for flow in view.flows()}
        self._jobs: dict[str, list[JobRecord]] = {}

    def find(self, words: Words) -> Selected:
        """Return the jobs, by flow and age.

        Raises
        ------
        InputError
            A name, worker or label matches nothing at all; the hint names the nearest one.
        """
        self._check(words)
        named: dict[str, JobRecord] = {}
        exact: set[str] = set()
        for name in words.names:
            found, is_exact = self._named(name)
            named |= {job.id: job for job in found}
            exact |= {job.id for job in found} if is_exact else set()
        if not words.names:
            named = {job.id: job for flow in self.flows.values() for job in self._pool(flow)}
        jobs = [job for job in named.values() if self._passes(job, words)]
        return Selected(sorted(jobs, key=lambda job: (job.flow, job.sequence)), exact, len(named))

    # names --------------------------------------------------------------------------------------------

    def _named(self, name: str) -> tuple[list[JobRecord], bool]:
        if is_uuid(name):
            return self._by_uuid(name.lower()), True
        flow, slash, job = name.partition("/")
        if not flow or (slash and not job):
            raise InputError(f"'{name}' names no job", hint="write FLOW, FLOW/JOB, or globs of them")
        if flow in self.flows and job:
            found = self._same_key(flow, job)
            if found:
                return found, True
        flows = self._flows_named(flow)
        found = [one for each in flows for one in self._pool(each) if not job or _matches(one.key, job)]
        if not found:
            raise self._nothing(name, flow, job)
        return found, False

    def _by_uuid(self, text: str) -> list[JobRecord]:
        uuid, _, index = text.partition("_")
        found = [job for job in self.view.generations(uuid) if not index or job.index == int(index)]
        if not found:
            raise InputError(f"there is no job '{text}'", hint="list them with `reconcile get jobs -o wide`")
        return found if index else [job for job in found if job.current is not self.past] or found

    def _same_key(self, flow: str, key: str) -> list[JobRecord]:
        found = [job for job in self._jobs_of(flow) if job.key == key]
        pool = [job for job in found if self._in_pool(job)]
        return pool or found[-1:]

    def _flows_named(self, name: str) -> list[FlowRecord]:
        if name in self.flows:
            return [self.flows[name]]
        found = [flow for flow in self.flows.values() if _matches(flow.name, name)]
        return [flow for flow in found if self.past or not flow.removed]

    def _pool(self, flow: FlowRecord) -> Iterator[JobRecord]:
        return (job for job in self._jobs_of(flow.name) if self._in_pool(job))

    def _in_pool(self, job: JobRecord) -> bool:
        over = self.flows[job.flow].removed or not job.current
        return over if self.past else job.current

    def _jobs_of(self, flow: str) -> list[JobRecord]:
        if flow not in self._jobs:
            self._jobs[flow] = self.view.jobs_of(flow)
        return self._jobs[flow]

    def _nothing(self, name: str, flow: str, job: str) -> InputError:
        what = "job that is history, or of a removed flow," if self.past else "job"
        flows = [found.name for found in self._flows_named(flow)]
        if not flows:
            guess = nearest(flow, self.flows)
            hint = f"did you mean '{guess}{'/' + job if job else ''}'?" if guess else None
            return InputError(
                f"no flow matches '{flow}'", hint=hint or "list them with `reconcile get flows`"
            )
        keys = {one.key for each in flows for one in self._pool(self.flows[each])}
        guess = nearest(job, keys) if job else None
        hint = f"did you mean '{flow}/{guess}'?" if guess else "list them with `reconcile get jobs`"
        return InputError(f"no {what} matches '{name}'", hint=hint)

    # filters ------------------------------------------------------------------------------------------

    def _passes(self, job: JobRecord, words: Words) -> bool:
        labels = self.flows[job.flow].labels
        return (
            (not words.states or job.state in words.states)
            and (not words.workers or job.config.worker_name in words.workers)
            and (not words.labels or any(labels.get(key) == value for key, value in words.labels))
        )

    def _check(self, words: Words) -> None:
        """A filter that can match nothing is a slip of the pen."""
        config = self.view.config()
        workers = set(config.workers) if config is not None else set()
        for worker in sorted(words.workers - workers):
            raise InputError(f"there is no worker '{worker}'", hint=did_you_mean(worker, workers))
        known = {f"{key}={value}" for flow in self.flows.values() for key, value in flow.labels.items()}
        for key, value in words.labels:
            if f"{key}={value}" not in known:
                hint = did_you_mean(f"{key}={value}", known)
                raise InputError(f"no flow has the label {key}={value}", hint=hint)


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def find_jobs(view: View, key: str) -> list[JobRecord]:
    """Return the jobs that a user means by ``flow/job``, ``flow/job@2``, a uuid or ``uuid_index``.

    Raises
    ------
    InputError
        There is none; the hint names the nearest key.
    """
    flow, _, job = key.partition("/")
    if job:
        records = view.jobs_of(flow)
        found = [record for record in records if record.key == job]
        current = [record for record in found if record.current]
        if found:
            return current or found
        names = [f"{flow}/{record.key}" for record in records if record.current]
        flows_known = [f"{record.name}/{job}" for record in view.flows()]
        hint = did_you_mean(key, names or flows_known)
        raise InputError(f"there is no job '{key}'", hint=hint or "list them with `reconcile get jobs`")
    found = view.generations(key) or ([one] if (one := view.job(key)) is not None else [])
    if not found:
        raise InputError(
            f"there is no job '{key}'", hint="jobs are named flow/job: `reconcile get jobs -o name`"
        )
    return found


def require_worker(view: View, name: str) -> None:
    """Say so if the last applied revision has no worker of this name.

    Raises
    ------
    InputError
        It has none; the hint names the nearest.
    """
    config = view.config()
    if config is not None and name not in config.workers:
        raise InputError(f"there is no worker '{name}'", hint=did_you_mean(name, config.workers))
