"""Finding records by what users type: selectors of jobs (names, globs, uuids, filters), keys, workers."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from reconciler.actual.view import View
from reconciler.diagnostics import did_you_mean, nearest
from reconciler.errors import InputError
from reconciler.model.failures import failure_id
from reconciler.model.flowsets import ItemCondition, read_condition
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import JobState

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f-]{0,27})?(_\d+)?", re.IGNORECASE)
_FILTER = re.compile(r"([A-Za-z_]+):(.*)", re.DOTALL)
_ITEM = re.compile(r"item\.(.+)", re.DOTALL)
GLOB = re.compile(r"[*?[]")
FILTERS = ("state", "worker", "label", "flow", "failure", "flowset")


def is_uuid(word: str) -> bool:
    """Return whether a word has the form of a job's uuid, ``<uuid>_<index>``, or the beginning of one.

    At least the first 8 characters are needed.
    """
    return _UUID.fullmatch(word) is not None


class Selectors(msgspec.Struct, frozen=True):
    """The selectors of a command line. A job must match one of each kind that is given.

    ``labels`` has for each key the values of which the flow must have one.
    """

    names: list[str]
    states: set[JobState]
    workers: set[str]
    labels: dict[str, set[str]]
    failures: set[str] = set()
    flowsets: set[str] = set()
    items: list[ItemCondition] = []

    def pass_job(self, job: JobRecord, flow: FlowRecord) -> bool:
        """Return whether a job of a flow passes the filters."""
        return (
            (not self.states or job.state in self.states)
            and (not self.workers or job.config.worker_name in self.workers)
            and (not self.failures or failure_id(job) in self.failures)
            and self.pass_flow(flow.labels, flow.flowset, flow.item)
        )

    def pass_flow(self, labels: Mapping[str, str], flowset: str | None, item: Mapping[str, Any]) -> bool:
        """Return whether a flow passes the filters on flows. Conditions on its item must all hold."""
        return (
            all(labels.get(key) in values for key, values in self.labels.items())
            and (not self.flowsets or flowset in self.flowsets)
            and all(condition.holds(item) for condition in self.items)
        )

    @property
    def filters_flows(self) -> bool:
        """Whether there is a filter on flows: a label, a FlowSet, or a condition on the item."""
        return bool(self.labels or self.flowsets or self.items)

    def selects_flow(
        self, name: str, labels: Mapping[str, str], flowset: str | None, item: Mapping[str, Any]
    ) -> bool:
        """Return whether a flow matches one of the names, if there are any, and passes the filters."""
        named = not self.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names)
        return named and self.pass_flow(labels, flowset, item)


class Selected(msgspec.Struct, frozen=True):
    """The selected jobs.

    ``exact`` has the ids of those that were named themselves, not by a glob; ``named`` is how many jobs the
    names reach, before the filters.
    """

    jobs: list[JobRecord]
    exact: set[str]
    named: int


def read_words(words: Sequence[str]) -> Selectors:
    """Parse selectors: ``KIND:VALUE`` and ``item.COLUMN>VALUE`` are filters, anything else a name.

    ``label:KEY=VALUE,VALUE`` and ``flow:KEY=VALUE`` select by labels; the second takes a value with a comma.

    Raises
    ------
    InputError
        The kind of a filter does not exist, or its value is wrong.
    """
    found = Selectors([], set(), set(), {}, set())
    for word in words:
        condition = _ITEM.fullmatch(word)
        if condition is not None and any(sign in word for sign in "<>="):
            try:
                found.items.append(read_condition(condition[1]))
            except ValueError as error:
                raise InputError(str(error), hint="for example 'item.natoms>60', in quotes") from error
            continue
        match = _FILTER.fullmatch(word)
        if match is None:
            found.names.append(word)
            continue
        kind, value = match.groups()
        if kind not in FILTERS:
            hint = did_you_mean(kind, FILTERS) or "see `reconcile retry --help`"
            raise InputError(f"there is no selector '{kind}:'", hint=hint)
        if kind == "state":
            found.states.update(read_states(value))
        elif kind == "worker":
            found.workers.update(value.split(","))
        elif kind == "failure":
            found.failures.update(value.lower().split(","))
        elif kind == "flowset":
            found.flowsets.update(value.split(","))
        else:
            key, equals, label = value.partition("=")
            if not equals or not key:
                hint = f"write `{value}` for the flow of that name, `label:KEY=VALUE` for flows with a label"
                raise InputError(f"'{kind}:{value}' does not name a label", hint=hint)
            found.labels.setdefault(key, set()).update(label.split(",") if kind == "label" else [label])
    return found


def read_flow_words(words: Sequence[str], hint: str) -> Selectors:
    """Parse selectors of flows.

    Raises
    ------
    InputError
        One of them is wrong, or selects jobs; then ``hint`` says what to do instead.
    """
    found = read_words(words)
    if found.states or found.workers or found.failures:
        raise InputError("state:, worker: and failure: select jobs, not flows", hint=hint)
    return found


def read_states(text: str) -> set[JobState]:
    """Parse ``FAILED,REMOTE_ERROR``. Raises InputError for a state that does not exist."""
    known = [str(state) for state in JobState]
    for name in text.split(","):
        if name.upper() not in known:
            raise InputError(f"there is no state '{name}'", hint=did_you_mean(name.upper(), known))
    return {JobState(name.upper()) for name in text.split(",")}


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
        check_filters(selectors, self.view, self.flows.values())
        named: dict[str, JobRecord] = {}
        exact: set[str] = set()
        for name in selectors.names:
            found, is_exact = self._named(name)
            named |= {job.id: job for job in found}
            exact |= {job.id for job in found} if is_exact else set()
        if not selectors.names:
            named = {job.id: job for flow in self.flows.values() for job in self._pool(flow)}
        jobs = [job for job in named.values() if selectors.pass_job(job, self.flows[job.flow])]
        return Selected(sorted(jobs, key=lambda job: (job.flow, job.sequence)), exact, len(named))

    def _named(self, name: str) -> tuple[list[JobRecord], bool]:
        """Return the jobs of one name, and whether the name has no glob."""
        if is_uuid(name) and name not in self.flows:
            found = find_jobs(self.view, name)
            if "_" not in name:
                found = [job for job in found if job.current is not self.past] or found
            return found, True
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
        flows = self._flows_named(flow)
        if not flows:
            hint = (
                near_job(self.view, flow, job) if job else glob_hint(name) or did_you_mean(flow, self.flows)
            )
            return InputError(
                f"no flow matches '{flow}'", hint=hint or "list them with `reconcile get flows`"
            )
        keys = {one.key for each in flows for one in self._pool(each)} - {job}
        guess = nearest(job, keys) if job else None
        hint = f"did you mean '{flow}/{guess}'?" if guess else "list them with `reconcile get jobs`"
        return InputError(f"no {what} matches '{name}'", hint=hint)


def glob_hint(name: str) -> str | None:
    """Return what to write for a glob that matches no flow, but may be meant for jobs."""
    return f"for jobs of all flows, write '*/{name}'" if GLOB.search(name) and "/" not in name else None


def check_filters(selectors: Selectors, view: View, flows: Iterable[FlowRecord]) -> None:
    """Refuse a worker or label that does not exist: it is a typing error, not an empty answer.

    Raises
    ------
    InputError
        The hint names the nearest one.
    """
    config = view.config()
    workers = set(config.workers) if config is not None else set()
    for worker in sorted(selectors.workers - workers):
        raise InputError(f"there is no worker '{worker}'", hint=did_you_mean(worker, workers))
    flows = list(flows)
    sets = {flow.flowset for flow in flows if flow.flowset is not None}
    sets |= config.flowsets.keys() if config is not None else set()
    for name in sorted(selectors.flowsets - sets):
        raise InputError(f"there is no FlowSet '{name}'", hint=did_you_mean(name, sets))
    columns = {column for flow in flows for column in flow.item}
    for condition in selectors.items:
        if condition.column not in columns:
            hint = did_you_mean(condition.column, columns)
            raise InputError(f"no item has a column '{condition.column}'", hint=hint)
    known = {f"{key}={value}" for flow in flows for key, value in flow.labels.items()}
    for label in sorted(f"{key}={value}" for key, values in selectors.labels.items() for value in values):
        if label not in known:
            raise InputError(f"no flow has the label {label}", hint=did_you_mean(label, known))


def find_jobs(view: View, key: str) -> list[JobRecord]:
    """Return the generations of the job named ``flow/job``, a uuid, ``uuid_index`` or the start of a uuid.

    Raises
    ------
    InputError
        There is no such job, or several; the hint names the nearest key, or how to tell them apart.
    """
    flow, _, job = key.partition("/")
    if job:
        found = [record for record in view.jobs_of(flow) if record.key == job]
        if found:
            return [record for record in found if record.current] or found
        hint = near_job(view, flow, job) or "list them with `reconcile get jobs`"
        raise InputError(f"there is no job '{key}'", hint=hint)
    if is_uuid(key):
        start, _, index = key.lower().partition("_")
        uuids = view.uuids(start, _EXAMPLES + 1)
        if len(uuids) > 1:
            more = ", ..." if len(uuids) > _EXAMPLES else ""
            hint = f"give more of it: {', '.join(uuids[:_EXAMPLES])}{more}"
            raise InputError(f"several jobs have a uuid that starts with '{start}'", hint=hint)
        found = [job for uuid in uuids for job in view.generations(uuid) if index in ("", str(job.index))]
        if found:
            return found
        raise InputError(f"there is no job '{key}'", hint="list them with `reconcile get jobs -o wide`")
    if view.flow(key) is not None:
        names = [record.path for record in view.jobs_of(key) if record.current]
        more = ", ..." if len(names) > _EXAMPLES else ""
        raise InputError(
            f"'{key}' is a flow, not a job",
            hint=f"name one of its jobs: {', '.join(names[:_EXAMPLES])}{more}",
        )
    hint = near_job(view, "", key) or "jobs are named flow/job: `reconcile get jobs -o name`"
    raise InputError(f"there is no job '{key}'", hint=hint)


_EXAMPLES = 3


def near_job(view: View, flow: str, key: str) -> str | None:
    """Return a hint that names the existing job nearest to ``flow/key``; None if none is near.

    The job of the nearest flow comes first, then a job with this key that only one flow has.
    """
    flows = [record.name for record in view.flows()]
    near = flow if flow in flows else nearest(flow, flows)
    if near is not None:
        keys = {job.key for job in view.jobs_of(near) if job.current}
        guess = key if key in keys and near != flow else nearest(key, keys - {key})
        if guess is not None:
            return f"did you mean '{near}/{guess}'?"
    same = [name for name in flows if any(job.key == key and job.current for job in view.jobs_of(name))]
    return f"did you mean '{same[0]}/{key}'?" if len(same) == 1 and same[0] != flow else None


def require_worker(view: View, name: str) -> None:
    """Check that the last applied revision has a worker.

    Raises
    ------
    InputError
        There is no such worker; the hint names the nearest one.
    """
    config = view.config()
    workers = config.workers if config is not None else {}
    if name not in workers:
        raise InputError(f"there is no worker '{name}'", hint=did_you_mean(name, workers))
