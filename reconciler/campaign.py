"""Campaigns from Python, for notebooks and scripts: ``from reconciler import Campaign``.

A campaign is read and changed as on the command line, by the same code, while a daemon runs or not. Looking
never creates a state.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from reconciler.actual import packed
from reconciler.actual.store import Store
from reconciler.cli.context import Context, Options, opened, user_identity
from reconciler.cli.job_output import loader, output_part, split_output_key
from reconciler.cli.job_selectors import JobFinder, find_jobs, read_flow_words, read_words
from reconciler.cli.views.data import flows_data, job_data, job_keys, ordered_jobs, plan_data
from reconciler.cli.views.words import last_line
from reconciler.diagnostics import Diagnostic
from reconciler.errors import InputError
from reconciler.jobs.outputs import Outputs
from reconciler.jobs.waiting import WhyWaiting
from reconciler.model.operations import JobOperation
from reconciler.model.records import Event, JobRecord
from reconciler.model.types_ready import make_ready

if TYPE_CHECKING:
    import pandas

    from reconciler.actual.view import View

T = TypeVar("T", bound=msgspec.Struct)


class CampaignFlow(msgspec.Struct, frozen=True):
    """A flow. ``jobs`` is the number of its jobs by state; the other fields are those of ``get flows``."""

    name: str
    sync: str
    health: str
    reason: str
    fix: str
    revision: str
    jobs: dict[str, int]
    labels: dict[str, str]
    suspended: bool


class CampaignJob(msgspec.Struct, frozen=True):
    """A job. Times are seconds since the epoch, ``seconds`` is how long its latest attempt ran.

    ``cpu`` is the CPU time of that attempt in seconds, ``memory`` the most that one of its processes had in
    memory, in bytes.
    ``key`` is ``flow/job``, ``name`` is jobflow's name. ``labels`` are those of the flow.
    """

    key: str
    flow: str
    name: str
    uuid: str
    index: int
    state: str
    worker: str | None
    exec_config: str | None
    resources: dict[str, Any] | None
    priority: int
    attempt: int
    submitted: float | None
    started: float | None
    ended: float | None
    seconds: float | None
    cpu: float | None
    memory: int | None
    run_dir: str | None
    queue_id: str | None
    function: str
    error: str | None
    cause: str | None
    current: bool
    labels: dict[str, str]


make_ready(CampaignFlow, CampaignJob)


class Table(list[T]):
    """A list of flows or jobs that notebooks show as a table."""

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with a column for each field. It needs pandas."""
        import pandas

        return pandas.DataFrame([msgspec.structs.asdict(row) for row in self])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the first rows, of errors the last line, with texts escaped."""
        if not self:
            return "<p>nothing</p>"
        names = self[0].__struct_fields__
        head = "".join(f"<th>{name}</th>" for name in names)
        rows = (
            "".join(f"<td>{html.escape(last_line(str(getattr(row, name))))}</td>" for name in names)
            for row in self[:_ROWS_SHOWN]
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        more = f"<p>and {len(self) - _ROWS_SHOWN} more</p>" if len(self) > _ROWS_SHOWN else ""
        return f"<table><tr>{head}</tr>{body}</table>{more}"


_ROWS_SHOWN = 50


class ApplyResult(msgspec.Struct, frozen=True):
    """What :meth:`Campaign.apply` left behind.

    ``idle``: nothing is running and nothing can start. ``degraded`` are the flows that need your help.
    ``diagnostics`` are the problems of the revision; its valid documents were applied all the same.
    """

    revision: str
    flows: int
    jobs: int
    idle: bool
    degraded: Sequence[str]
    diagnostics: Sequence[Diagnostic] = ()


class Campaign:
    """A campaign: a git repository and its state.

    Parameters
    ----------
    where
        Any folder of the repository, its URL, or the state directory alone: then the campaign can be read and
        its jobs be operated on, but not planned or applied.
    branch, path
        As ``--branch`` and ``--path`` of the command line.
    state_dir
        The state directory, if it is not the default one of the project.

    Selectors are those of the command line: ``flow``, ``flow/job``, globs of them, a uuid,
    ``state:FAILED,REMOTE_ERROR``, ``worker:NAME``, ``flow:LABEL=VALUE``. All methods raise
    :class:`~reconciler.errors.ReconcilerError`, whose ``message`` says what is wrong and ``hint`` what to do.

    Examples
    --------
    >>> campaign = Campaign("~/eos-campaign")
    >>> campaign.jobs(label={"metal": "Al"}).to_pandas()
    >>> campaign.output("eos-al/fit.v0")
    """

    def __init__(
        self,
        where: str | Path = ".",
        *,
        branch: str | None = None,
        path: str = "",
        state_dir: str | Path | None = None,
    ) -> None:
        place = Path(where).expanduser()
        self._is_state = state_dir is None and Store.exists(place)
        options = Options(branch=branch, path=path, quiet=True)
        if self._is_state:
            options.state_dir = str(place)
        else:
            options.repo = str(where)
            options.state_dir = str(Path(state_dir).expanduser()) if state_dir is not None else None
        self._context = Context(options)

    def __repr__(self) -> str:
        options = self._context.options
        return f"Campaign({(options.state_dir if self._is_state else options.repo)!r})"

    @property
    def state_dir(self) -> Path:
        """The state directory, whether it exists or not."""
        return self._context.state_dir()

    # looking -----------------------------------------------------------------------------------------------

    def flows(self, *selectors: str, label: Mapping[str, str] | None = None) -> Table[CampaignFlow]:
        """Return the flows of the last applied revision, by name; all without selectors."""
        wanted = read_flow_words([*selectors, *_labels(label)], hint="use Campaign.jobs")
        with self._view() as view:
            rows = flows_data(view)
        chosen = (
            row for row in rows
            if wanted.selects_flow(row["name"], row["labels"], row["flowset"], row["item"])
        )  # fmt: skip
        return Table(msgspec.convert(row, CampaignFlow) for row in chosen)

    def jobs(
        self, *selectors: str, label: Mapping[str, str] | None = None, history: bool = False
    ) -> Table[CampaignJob]:
        """Return jobs in the order of their flows and definitions; all without selectors.

        With ``history``, superseded jobs of the selected flows are included; ``current`` tells them apart.
        """
        with self._view() as view:
            selected = JobFinder(view).find(read_words([*selectors, *_labels(label)]))
            why = WhyWaiting(view)
            wanted = {job.id for job in selected.jobs}
            keys = {job.path for job in selected.jobs}
            found = Table[CampaignJob]()
            for flow in dict.fromkeys(job.flow for job in selected.jobs):
                record = view.flow(flow)
                labels = record.labels if record is not None else {}
                jobs = ordered_jobs(view, flow)
                names = job_keys(jobs)
                found += (
                    msgspec.convert(job_data(job, names, why) | {"labels": labels}, CampaignJob)
                    for job in jobs
                    if job.id in wanted or (history and job.path in keys)
                )
            return found

    def output(self, key: str, *, decode: bool = False) -> Any:
        """Return the output of a job, or with ``flow/job.a.b[0]`` a part of it.

        ``decode`` makes objects of what jobflow serialized. It imports the modules that the output names, so
        use it only for jobs that you trust.
        """
        with self._store() as store:
            with store.read() as view:
                name, part = split_output_key(view, key)
                job = find_jobs(view, name)[-1]
            value = self._output(self._outputs(store), job, part)
        if value is msgspec.UNSET:
            hint = f"see `reconcile describe job {job.path}`"
            raise InputError(f"{job.path} has no output: it is {job.state}", hint=hint)
        return _decoded(value) if decode else value

    def outputs(
        self, *selectors: str, label: Mapping[str, str] | None = None, decode: bool = False
    ) -> dict[str, Any]:
        """Return the outputs of current jobs by key; jobs without an output are left out."""
        with self._store() as store:
            with store.read() as view:
                selected = JobFinder(view).find(read_words([*selectors, *_labels(label)])).jobs
            outputs = self._outputs(store)
            found = {job.path: self._output(outputs, job) for job in selected if job.current}
        values = {key: value for key, value in found.items() if value is not msgspec.UNSET}
        return {key: _decoded(value) if decode else value for key, value in values.items()}

    def events(self, about: str | None = None, *, limit: int | None = None) -> list[Event]:
        """Return what happened, oldest first: of all, or ``job/FLOW/JOB``, ``flow/FLOW``, ``worker/NAME``."""
        with self._view() as view:
            return view.events(about, limit or 0)

    def validate(self) -> list[Diagnostic]:
        """Return the problems of the manifests of the revision. It runs no code of the repository."""
        from reconciler.cli.planning import checked

        return list(checked(self._repository().source())[1].diagnostics)

    def plan(self, *, allow_prune: bool = False, build: bool = False) -> dict[str, Any]:
        """Return what :meth:`apply` would do, as ``reconcile plan -o json`` prints it.

        It creates no state, and runs no code of the repository, unless ``build`` is set: then the flows that
        are not built yet are built, in another process, to show their jobs.
        """
        from reconciler.cli.planning import plan_revision, plan_with_builds, state_or_scratch
        from reconciler.comparison import Comparison

        context = self._repository()
        source = context.source()
        revision = source.revision()
        with state_or_scratch(context, source, revision) as store:
            comparison = Comparison(source, store, revision)
            if build:
                planned = plan_with_builds(comparison, allow_prune=allow_prune, say=context.detail)
            else:
                planned = plan_revision(comparison, allow_prune=allow_prune)
        return plan_data(planned.plan, planned.cost, planned.built)

    # acting ------------------------------------------------------------------------------------------------

    def apply(
        self, *, wait: bool = False, timeout: float | None = None, allow_prune: bool = False
    ) -> ApplyResult:
        """Make one pass, as ``reconcile --once``: apply the revision and advance its jobs.

        Beside a daemon, the daemon makes the pass. With ``wait``, it returns when nothing is running,
        or after ``timeout`` seconds.

        Raises
        ------
        RefusedError
            A guard refuses the plan, the state follows another branch, or another process holds the lease.
        """
        from reconciler.actual.state_dir import Lease
        from reconciler.cli.handover import pass_by_daemon
        from reconciler.loop import Session, reconcile_once

        context = self._repository()
        limit = (math.inf if timeout is None else timeout) if wait else None
        source = context.source()
        revision = source.revision()
        with opened(context.own_state_dir(source, revision), context.say) as store:
            if Lease(store.path).is_watched():
                _, outcome, _ = pass_by_daemon(context, store, revision, limit, allow_prune=allow_prune)
                diagnostics: Sequence[Diagnostic] = outcome.warnings
            else:
                done = reconcile_once(
                    Session(source, store, revision), _Silent(), allow_prune=allow_prune, wait=limit
                )
                outcome = done.outcome
                diagnostics = done.plan.diagnostics if done.plan is not None else outcome.warnings
        return ApplyResult(
            str(revision), outcome.flows, outcome.jobs, outcome.idle, outcome.degraded, tuple(diagnostics)
        )

    def wait(self, *selectors: str, condition: str | None = None, timeout: float | None = None) -> bool:
        """Wait as ``reconcile wait`` does, for all flows without selectors.

        Returns True when every condition holds, and False if ``timeout`` seconds have passed or one cannot
        hold without your help. Something else has to advance the jobs: a daemon, or ``apply(wait=True)``.
        """
        from reconciler.cli.following import looks
        from reconciler.cli.wait_targets import RevisionGoal, Targets, read_goal
        from reconciler.model.goals import GoalKind, Prospect

        goal = read_goal(condition) if condition is not None else None
        revision = None
        if goal is not None and goal.kind is GoalKind.REVISION:
            revision = RevisionGoal(goal.revision, self._repository().source)
        names = selectors or (() if revision is not None else ("*",))
        with self._store() as store:
            for verdicts in looks(store, Targets(names, goal, revision).verdicts, seconds=timeout):
                prospects = {verdict.prospect for verdict in verdicts}
                if prospects == {Prospect.HOLDS}:
                    return True
                if Prospect.NEVER in prospects:
                    break
        return False

    def retry(self, *selectors: str) -> list[str]:
        """Run failed jobs again; return their keys. Jobs in other states are left alone."""
        return self._operate(JobOperation.RETRY, selectors)

    def rerun(self, *selectors: str, descendants: bool = False) -> list[str]:
        """Run jobs again, whatever their result; return their keys."""
        return self._operate(JobOperation.RERUN, selectors, descendants=descendants)

    def pause(self, *selectors: str) -> list[str]:
        """Keep jobs from starting; return their keys."""
        return self._operate(JobOperation.PAUSE, selectors)

    def resume(self, *selectors: str) -> list[str]:
        """Allow paused jobs to start; return their keys."""
        return self._operate(JobOperation.RESUME, selectors)

    def cancel(self, *selectors: str) -> list[str]:
        """End jobs, or keep them from starting; return their keys."""
        return self._operate(JobOperation.CANCEL, selectors)

    def abandon(self, *selectors: str) -> list[str]:
        """Stop waiting for attempts on workers that do not answer; return the keys of their jobs."""
        return self._operate(JobOperation.ABANDON, selectors)

    def _operate(
        self, operation: JobOperation, selectors: Sequence[str], *, descendants: bool = False
    ) -> list[str]:
        from reconciler.cli.job_operations import PlannedOperation

        if not selectors:
            raise InputError(f"name the jobs to {operation}", hint="'*' selects the jobs of all flows")
        call = ", ".join(map(repr, selectors))
        with self._context.store(must_exist=True) as store:
            planned = PlannedOperation(store, operation, selectors, descendants=descendants)
            if not planned.plan.steps:
                return []
            user = user_identity(self._context)
            done = planned.carry_out(user, f"Campaign.{operation}({call})", time.time())
        return [step.job.path for step in done.steps]

    # inside ------------------------------------------------------------------------------------------------

    def _repository(self) -> Context:
        if self._is_state:
            raise InputError(
                f"{self!r} is only a state, without its repository",
                hint="open the campaign by its repository: Campaign(REPOSITORY, state_dir=...)",
            )
        return self._context

    @contextmanager
    def _store(self) -> Iterator[Store]:
        with self._context.store(must_exist=True, read_only=True) as store:
            yield store

    @contextmanager
    def _view(self) -> Iterator[View]:
        with self._store() as store, store.read() as view:
            yield view

    def _outputs(self, store: Store) -> Outputs:
        from reconciler.loop import open_outputs

        with store.read() as view:
            config = view.applied_config()
        return open_outputs(store, config)

    def _output(self, outputs: Outputs, job: JobRecord, part: str = "") -> Any:
        """Return a part of the output of a job with what is in additional stores; UNSET if it has none."""
        document = outputs.packed(job.uuid)
        if document is None:
            return msgspec.UNSET
        load = loader(outputs, job)
        content = packed.members(document).get("output", memoryview(b"\xc0"))
        return packed.loaded(output_part(job.path, content, part, load), load)


class _Silent:
    """A reporter that shows nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def planned(self, plan: Any) -> None:
        """Show nothing."""

    def progress(self, done: int, total: int, running: int) -> None:
        """Show nothing."""


def _labels(label: Mapping[str, str] | None) -> list[str]:
    """Return labels, all of which a flow must have, as selectors."""
    return [f"flow:{key}={value}" for key, value in (label or {}).items()]


def _decoded(value: Any) -> Any:
    from monty.json import MontyDecoder

    return MontyDecoder().process_decoded(value)
