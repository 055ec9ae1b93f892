"""The loop: source, desired state, builds, plan, apply, advance. Reads top to bottom.

``reconcile_once`` is one pass; ``wait_until_idle`` repeats its last step until nothing moves any more.
Together with the command line the only place that reads the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import Protocol

import msgspec

from reconciler import __version__
from reconciler.actual.compaction import compact
from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from reconciler.actual.unchanged import is_settled, reconcile_key, unchanged_outcome
from reconciler.actual.writer import Writer
from reconciler.build.builder import (
    BuildFailedError,
    FlowBuilder,
    SpareProcess,
    external_jobs,
    known_builds,
    previous_previews,
)
from reconciler.desired.source.git import Source
from reconciler.desired.source.history import Authors, Causes, CommitInfo, History
from reconciler.desired.state import Loaded, flows_in_build_order, load_desired, parsed_blob
from reconciler.diagnostics import Diagnostic
from reconciler.errors import InputError, RefusedError
from reconciler.execution.executor import Executor, WorkerRunner
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.worker.access import Accesses
from reconciler.execution.worker.remote_cache import RemoteCaches
from reconciler.execution.worker.upload import Repository
from reconciler.jobs.applied import (
    applied_config,
    attributed,
    has_cause,
    note_revision,
    remember_good,
    summarise,
)
from reconciler.jobs.apply import PlanApplication
from reconciler.jobs.outputs import EmbeddedOutputs, Outputs
from reconciler.model.actions import Action, ActionType, Plan, Subject
from reconciler.model.desired import DesiredState, Revision
from reconciler.model.flows import BuiltFlow
from reconciler.model.manifests import ParsedFile
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import ActualState, AppliedConfig, Outcome
from reconciler.model.states import ACTIVE, FINISHED, JobState
from reconciler.plan.planner import make_plan


class Reporter(Protocol):
    """Is told what happens; the command line shows it."""

    def say(self, line: str) -> None:
        """Take a line of narration."""
        ...

    def planned(self, plan: Plan) -> None:
        """Take the plan that is about to be applied."""
        ...

    def progress(self, done: int, total: int, running: int) -> None:
        """Take how far the jobs are."""
        ...


class Session:
    """One revision of one source, and the store that it is compared with.

    ``hosts`` are the connections of the workers, opened when first used; they may outlive the session.
    ``spare`` is a build process in reserve. ``overtaken`` tells, after a reconcile, that jobs have moved
    between its plan and its write: then another plan may find more, like children of a replaced job.
    """

    def __init__(
        self,
        source: Source,
        store: Store,
        revision: Revision | None = None,
        hosts: Hosts | None = None,
        spare: SpareProcess | None = None,
    ) -> None:
        self.source = source
        self.store = store
        self.hosts = hosts or Hosts()
        self.revision = revision or source.revision()
        self.parsed_files = 0
        self.overtaken = False
        self._planned_at = self._applied_at = -1
        self._builder: FlowBuilder | None = None
        self._spare = spare

    # desired state and plan ---------------------------------------------------------------------------

    def load(self) -> Loaded:
        """Read the desired state; every blob is parsed once, ever."""
        with self.store.read() as view:
            good = view.good_manifests()
        loaded = load_desired(self.source, self.revision, StoreCache(self.store), good)
        self.parsed_files += loaded.parsed_files
        return loaded

    def plan(self, loaded: Loaded, *, allow_prune: bool = False) -> Plan:
        """Compare with the store; imports no user code, so flows that are new are planned as a whole."""
        return make_plan(loaded.state, self.actual(loaded.state), allow_prune=allow_prune)

    def actual(self, desired: DesiredState, built: dict[str, BuiltFlow] | None = None) -> ActualState:
        """Return the store as the planner sees it; ``built`` are the known builds, if read before."""
        with self.store.read() as view:
            built = known_builds(view, desired) if built is None else built
            flows = {flow.name: flow for flow in view.flows()}
            jobs = {name: view.jobs_of(name) for name in flows}
            previous = previous_previews(view, flows, built)
            config = view.config()
            self._planned_at = view.change_counter()
        last, now = config.commit if config is not None else "", self.revision.commit
        return ActualState(
            base=config.revision if config is not None else None,
            flows=flows,
            jobs=jobs,
            built=built,
            previous=previous,
            rewritten=bool(last) and last != now and not self.source.follows(now, last),
        )

    # reconciling --------------------------------------------------------------------------------------

    def reconcile(self, watcher: Reporter, *, allow_prune: bool = False) -> Plan:
        """Build what is new, plan, show the plan, and apply it. The caller holds the lease.

        Raises
        ------
        RefusedError
            A guard forbids the plan; nothing was changed.
        """
        loaded = self.load()
        if loaded.state.project_known:
            self.store.check_lineage(loaded.state.project_name, self.source.root_commit())
        built, failures = self._build_missing(loaded.state, watcher)
        actual = self.actual(loaded.state, built)
        plan = _without_unbuilt(make_plan(loaded.state, actual, allow_prune=allow_prune), failures)
        watcher.planned(plan)
        if plan.refusals:
            raise RefusedError(
                "refused: " + "; ".join(plan.refusals),
                hint="look at `reconcile plan`; if this is meant, add --allow-prune",
            )
        plan = self._attributed(plan, loaded.state)
        now = time.time()
        commit = History(self.source).info(self.revision.commit)
        self.store.write(lambda writer: self._apply(writer, loaded, actual.built, plan, commit, now))
        with self.store.read() as view:
            self._applied_at = view.change_counter()
        return plan

    def authors(self) -> Authors:
        """Return who answers which commit set a value."""
        cache = StoreCache(self.store)
        return Authors(self.source, lambda blob: parsed_blob(self.source, cache, blob))

    def _attributed(self, plan: Plan, desired: DesiredState) -> Plan:
        """Write down who made each change to jobs that exist."""
        if not any(map(has_cause, plan.actions)):
            return plan
        with self.store.read() as view:
            config = view.config()
            files = {key: good.file for key, good in view.good_manifests().items()}
        base = config.commit if config is not None else ""
        return attributed(plan, Causes(self.authors(), desired, base, files))

    def _build_missing(
        self, desired: DesiredState, watcher: Reporter
    ) -> tuple[dict[str, BuiltFlow], list[Diagnostic]]:
        """Build flows in the order of their references; one that fails blocks itself and what needs it."""
        failures: list[Diagnostic] = []
        with self.store.read() as view:
            built = known_builds(view, desired)
        self._builder = builder = FlowBuilder(self.source, desired, self.store.path, self._spare)
        try:
            for flow in flows_in_build_order(desired.flows):
                externals = external_jobs(flow, built)
                if flow.name in built or externals is None:
                    continue
                watcher.say(f"building {flow.name}")
                try:
                    built[flow.name] = fresh = builder.build(flow, externals)
                except BuildFailedError as error:
                    failures.append(error.diagnostic)
                else:
                    self.store.write(lambda writer, fresh=fresh: writer.put_build(fresh))  # type: ignore[misc]
        finally:
            builder.close()
        return built, failures

    def interrupt(self) -> None:
        """Kill the build process, if there is one; for another thread, of a program that ends now."""
        if self._builder is not None:
            self._builder.kill()

    def _apply(
        self,
        writer: Writer,
        loaded: Loaded,
        built: Mapping[str, BuiltFlow],
        plan: Plan,
        commit: CommitInfo | None,
        now: float,
    ) -> None:
        desired = loaded.state
        self.overtaken = writer.change_counter() != self._planned_at
        PlanApplication(writer, plan, desired.project_name, built, now).carry_out()
        writer.put_config(applied_config(writer, desired, plan))
        remember_good(writer, loaded.good)
        note_revision(writer, self.revision, commit, plan, now)

    # executing ----------------------------------------------------------------------------------------

    def executor(self) -> Executor:
        """Return an executor for the last applied configuration."""
        with self.store.read() as view:
            config = view.config()
        if config is None:
            raise InputError("nothing was applied yet", hint="run `reconcile --once`")
        outputs = open_outputs(self.store, config)
        accesses = Accesses(config.workers, repository_of(self.source), self.hosts, RemoteCaches())
        return Executor(
            self.store,
            [worker_runner(name, self.store, outputs, accesses) for name in sorted(config.workers)],
        )

    # the outcome --------------------------------------------------------------------------------------

    def record_outcome(self, plan: Plan | None) -> Outcome:
        """Write down how things stand, so that the next reconcile may find that nothing has changed.

        A warning may stop to be true when jobs move on: then the next one plans again.
        """
        with self.store.read() as view:
            if plan is not None:
                warnings, clean = plan.diagnostics, not (plan.has_errors or plan.refusals)
            else:
                old = view.outcome()
                warnings, clean = (tuple(old.warnings), True) if old is not None else ((), True)
            clean = clean and (not warnings or view.change_counter() == self._applied_at)
            outcome = summarise(view, reconcile_key(self.revision), str(self.revision), warnings, clean=clean)
        self.store.write(lambda writer: writer.put_outcome(outcome))
        return outcome


class StoreCache:
    """Parsed blobs, kept in the store. The key holds what else the result depends on."""

    def __init__(self, store: Store) -> None:
        from reconciler.desired.schemas import reader_version

        self.store = store
        self.suffix = f":{__version__}:{reader_version()}"

    def get(self, blob: str) -> ParsedFile | None:
        """Return what the blob was parsed to, if known."""
        with self.store.read() as view:
            return view.parsed(blob + self.suffix)

    def put(self, parsed: Mapping[str, ParsedFile]) -> None:
        """Remember parsed blobs, all in one transaction; a store that is only read remembers nothing."""

        def write(writer: Writer) -> None:
            for blob, content in parsed.items():
                writer.put_parsed(blob + self.suffix, content)

        if not self.store.read_only:
            self.store.write(write)


class Pass(msgspec.Struct, frozen=True):
    """What one reconcile did. ``plan`` is None when the revision had not changed since the last one."""

    outcome: Outcome
    plan: Plan | None
    timed_out: bool = False


def reconcile_once(
    session: Session,
    watcher: Reporter,
    *,
    allow_prune: bool = False,
    wait: float | None = None,
    check: Callable[[], None] | None = None,
) -> Pass:
    """Make one pass: plan, apply, and advance everything that can advance now.

    With ``wait`` (seconds; ``inf`` for ever) go on until nothing is running. ``check`` is called while the
    lease is held and nothing was written yet; what it raises ends the pass.

    Raises
    ------
    RefusedError
        A guard forbids the plan, or another process is at work on this state.
    """
    outcome = unchanged_outcome(session.store, session.revision, time.time())
    if check is None and outcome is not None and is_settled(outcome, wait=wait is not None):
        return Pass(outcome, None)
    with Lease(session.store.path) as lease, closing(session.hosts):
        lease.acquire(time.time())
        if check is not None:
            check()
        plan = session.reconcile(watcher, allow_prune=allow_prune) if outcome is None else None
        executor = session.executor()
        while executor.advance(time.time()):
            pass
        if wait is None:
            _tell_news(executor, watcher)
        settled = wait is None or wait_until_idle(session.store, executor, time.monotonic() + wait, watcher)
        executor.tidy_up()
        compact(session.store, time.time())
        return Pass(session.record_outcome(plan), plan, timed_out=not settled)


_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 0.05
_PROGRESS_INTERVAL = 0.2


def wait_until_idle(store: Store, executor: Executor, deadline: float, watcher: Reporter) -> bool:
    """Advance until no job runs, could run or waits for a retry; False if the deadline came first.

    ``deadline`` is of the monotonic clock.
    The pause between two looks grows while nothing happens and is short again after something did.
    """
    pause, shown, told = _SHORTEST_PAUSE, 0.0, set[str]()
    while True:
        now = time.monotonic()
        idle = _is_idle(store)
        if idle or now - shown >= _PROGRESS_INTERVAL:
            shown = now
            watcher.progress(*_count(store))
            told |= _tell_news(executor, watcher, told)
            told |= _tell_retries(store, watcher, told, time.time())
        if idle:
            return True
        if now > deadline:
            return False
        if executor.advance(time.time()):
            pause = _SHORTEST_PAUSE
        else:
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)


def _tell_news(executor: Executor, watcher: Reporter, told: Collection[str] = ()) -> set[str]:
    """Say once why a worker cannot be used, its jobs wait until it can; and what else is odd about one."""
    for warning in executor.warnings():
        watcher.say(warning)
    outages = {f"worker {name}: {reason}" for name, reason in executor.outages().items()}
    for line in sorted(outages.difference(told)):
        watcher.say(f"{line}; it is tried again, its jobs stay as they are")
    return outages


def _tell_retries(store: Store, watcher: Reporter, told: Collection[str], now: float) -> set[str]:
    """Say once of every attempt that died when the next one is made."""
    with store.read() as view:
        waiting = {f"{job.id}.{job.attempt}": job for job in view.waiting_for_retry()}
    for attempt, job in waiting.items():
        if attempt not in told and job.retry_at is not None:
            seconds = max(0.0, job.retry_at - now)
            watcher.say(f"{job.path} failed ({job.cause}); it is tried again in {seconds:.0f} s")
    return set(waiting)


def _is_idle(store: Store) -> bool:
    with store.read() as view:
        return not view.any_in_state((*ACTIVE, JobState.READY)) and view.next_retry() is None


def _count(store: Store) -> tuple[int, int, int]:
    with store.read() as view:
        by_state = {state: view.count_in_state(state) for state in JobState}
        retries = view.count_retries()
    running = sum(by_state[state] for state in ACTIVE)
    done = sum(by_state[state] for state in FINISHED) - retries
    return done, sum(by_state.values()), running


def repository_of(source: Source) -> Repository:
    """Return what workers need of a source."""
    return Repository(source.code, source.blobs)


def worker_runner(name: str, store: Store, outputs: Outputs, accesses: Accesses) -> WorkerRunner:
    """Return the lane of one worker; its host is opened when it is first used."""
    return WorkerRunner(store, outputs, name, lambda: accesses(name))


def open_outputs(store: Store, config: AppliedConfig) -> Outputs:
    """Return where job outputs are kept: in the store itself, or where ``spec.jobstore`` says."""
    if config.jobstore is None:
        return EmbeddedOutputs(store)
    from reconciler.jobs.jobstore import ForeignOutputs

    return ForeignOutputs(config.jobstore)


def _without_unbuilt(plan: Plan, failures: Sequence[Diagnostic]) -> Plan:
    """Turn flows that could not be built into flows that wait, so that the others proceed."""
    actions = tuple(
        Action(
            type=ActionType.KEEP,
            subject=Subject.FLOW,
            key=action.key,
            reason=Reason(ReasonCode.WAITS, {"why": "it cannot be built"}),
        )
        if action.build
        else action
        for action in plan.actions
        if action.subject is Subject.FLOW or action.wanted is not None or action.record is not None
    )
    return msgspec.structs.replace(plan, actions=actions, diagnostics=(*plan.diagnostics, *failures))
