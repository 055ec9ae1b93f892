"""Finding records by what users type: selectors of jobs (names, globs, uuids, filters), keys, workers."""

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
    """Return whether a word is the uuid of a job, or ``<uuid>_<index>``."""
    return _UUID.fullmatch(word) is not None


class Selectors(msgspec.Struct, frozen=True):
    """The selectors of a command line. A job must match one of each kind that is given."""

    names: list[str]
    states: set[JobState]
    workers: set[str]
    labels: list[tuple[str, str]]


class Selected(msgspec.Struct, frozen=True):
    """The selected jobs.

    ``exact`` has the ids of those that were named themselves, not by a glob; ``named`` is how many jobs the
    names reach, before the filters.
    """

    jobs: list[JobRecord]
    exact: set[str]
    named: int


def read_words(words: Sequence[str]) -> Selectors:
    """Parse selectors: ``KIND:VALUE`` is a filter, anything else a name.

    Raises
    ------
    InputError
        The kind of a filter does not exist, or its value is wrong.
    """
    found = Selectors([], set(), set(), [])
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
            found.states.update(map(_state, value.split(",")))
        elif kind == "worker":
            found.workers.update(value.split(","))
        else:
            key, equals, label = value.partition("=")
            if not equals or not key:
                hint = f"write `{value}` for the flow of that name, `flow:KEY=VALUE` for flows with a label"
                raise InputError(f"'flow:{value}' does not name a label", hint=hint)
            found.labels.append((key, label))
    return found


def _state(name: str) -> JobState:
    known = [str(state) for state in JobState]
    if name.upper() not in known:
        raise InputError(f"there is no state '{name}'", hint=did_you_mean(name.upper(), known))
    return JobState(name.upper())


class JobFinder:
    """Finds the jobs that selectors name.

    Globs reach current jobs of flows that are in git. With ``past`` they reach the others instead: history,
    and jobs of removed flows. A name without a glob reaches either.
    """

    def __init__(self, view: View, *, past: bool = False) -> None:
        self.view = view
        self.past = past
        self.flows = {flow.name: flow for flow in view.flows()}
        self._jobs: dict[str, list[JobRecord]] = {}

    def find(self, selectors: Selectors) -> Selected:
        """Return the selected jobs, by flow and age.

        Raises
        ------
        InputError
            A name, worker or label matches nothing at all; the hint names the nearest one.
        """
        self._check_filters(selectors)
        named: dict[str, JobRecord] = {}
        exact: set[str] = set()
        for name in selectors.names:
            found, is_exact = self._named(name)
            named |= {job.id: job for job in found}
            exact |= {job.id for job in found} if is_exact else set()
        if not selectors.names:
            named = {job.id: job for flow in self.flows.values() for job in self._pool(flow)}
        jobs = [job for job in named.values() if self._passes(job, selectors)]
        return Selected(sorted(jobs, key=lambda job: (job.flow, job.sequence)), exact, len(named))

    def _named(self, name: str) -> tuple[list[JobRecord], bool]:
        """Return the jobs of one name, and whether the name has no glob."""
        if is_uuid(name):
            return self._by_uuid(name.lower()), True
        flow, slash, job = name.partition("/")
        if not flow or (slash and not job):
            raise InputError(f"'{name}' does not name a job", hint="write FLOW, FLOW/JOB, or globs of them")
        if flow in self.flows and job:
            same_key = [one for one in self._jobs_of(flow) if one.key == job]
            found = [one for one in same_key if self._in_pool(one)] or same_key[-1:]
            if found:
                return found, True
        flows = self._flows_named(flow)
        found = [
            one for each in flows for one in self._pool(each)
            if not job or fnmatch.fnmatchcase(one.key, job)
        ]  # fmt: skip
        if not found:
            raise self._nothing(name, flow, job)
        return found, False

    def _by_uuid(self, text: str) -> list[JobRecord]:
        uuid, _, index = text.partition("_")
        found = [job for job in self.view.generations(uuid) if not index or job.index == int(index)]
        if not found:
            raise InputError(f"there is no job '{text}'", hint="list them with `reconcile get jobs -o wide`")
        return found if index else [job for job in found if job.current is not self.past] or found

    def _flows_named(self, name: str) -> list[FlowRecord]:
        if name in self.flows:
            return [self.flows[name]]
        found = [flow for flow in self.flows.values() if fnmatch.fnmatchcase(flow.name, name)]
        return [flow for flow in found if self.past or not flow.removed]

    def _pool(self, flow: FlowRecord) -> Iterator[JobRecord]:
        """Return the jobs of a flow that globs reach."""
        return (job for job in self._jobs_of(flow.name) if self._in_pool(job))

    def _in_pool(self, job: JobRecord) -> bool:
        over = self.flows[job.flow].removed or not job.current
        return over if self.past else job.current

    def _jobs_of(self, flow: str) -> list[JobRecord]:
        if flow not in self._jobs:
            self._jobs[flow] = self.view.jobs_of(flow)
        return self._jobs[flow]

    def _nothing(self, name: str, flow: str, job: str) -> InputError:
        what = "superseded job, or job of a removed flow," if self.past else "job"
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

    def _passes(self, job: JobRecord, selectors: Selectors) -> bool:
        labels = self.flows[job.flow].labels
        return (
            (not selectors.states or job.state in selectors.states)
            and (not selectors.workers or job.config.worker_name in selectors.workers)
            and (not selectors.labels or any(labels.get(key) == value for key, value in selectors.labels))
        )

    def _check_filters(self, selectors: Selectors) -> None:
        """Refuse a worker or label that does not exist: it is a typing error, not an empty answer."""
        config = self.view.config()
        workers = set(config.workers) if config is not None else set()
        for worker in sorted(selectors.workers - workers):
            raise InputError(f"there is no worker '{worker}'", hint=did_you_mean(worker, workers))
        known = {f"{key}={value}" for flow in self.flows.values() for key, value in flow.labels.items()}
        for key, value in selectors.labels:
            if f"{key}={value}" not in known:
                hint = did_you_mean(f"{key}={value}", known)
                raise InputError(f"no flow has the label {key}={value}", hint=hint)


def find_jobs(view: View, key: str) -> list[JobRecord]:
    """Return the generations of the job named ``flow/job``, ``flow/job@2``, a uuid or ``uuid_index``.

    Raises
    ------
    InputError
        There is no such job; the hint names the nearest key.
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
    """Check that the last applied revision has a worker.

    Raises
    ------
    InputError
        There is no such worker; the hint names the nearest one.
    """
    config = view.config()
    if config is not None and name not in config.workers:
        raise InputError(f"there is no worker '{name}'", hint=did_you_mean(name, config.workers))
