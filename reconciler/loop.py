"""The loop: read the source, build, plan, apply, advance the jobs. Reads top to bottom.

:func:`reconcile_once` is one pass; :func:`wait_until_idle` repeats its last step until no job can run.
Together with the command line this is the only place that reads the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from typing import Protocol

import msgspec

from reconciler.actual.compaction import compact
from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store, is_settled, not_idle_if_due, reconcile_key, unchanged_outcome
from reconciler.actual.writer import Writer
from reconciler.build.builder import FlowBuilder, known_builds
from reconciler.build.missing import KeptBuilds, build_missing
from reconciler.build.process import SpareProcess
from reconciler.comparison import Comparison, StoreCache
from reconciler.desired.source.git import Source
from reconciler.desired.source.history import Authors, Causes, History
from reconciler.desired.state import Loaded, parsed_blob
from reconciler.diagnostics import Diagnostic
from reconciler.errors import InputError, RefusedError
from reconciler.execution.executor import Executor, WorkerRunner
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.worker.access import Accesses
from reconciler.execution.worker.remote_cache import RemoteCaches
from reconciler.execution.worker.upload import Repository
from reconciler.jobs.apply import PlanApplication, apply_plan, without_unbuilt
from reconciler.jobs.bookkeeping import (
    applied_config,
    attributed,
    has_cause,
    note_baseline,
    note_failures,
    note_notify_rules,
    note_revision,
    remember_good,
    summarise,
)
from reconciler.jobs.outputs import EmbeddedOutputs, Outputs
from reconciler.model.actions import Plan
from reconciler.model.applied import AppliedConfig, Outcome
from reconciler.model.desired import DesiredState, Revision
from reconciler.model.flows import BuiltFlow
from reconciler.model.states import ACTIVE, FINISHED, JobState
from reconciler.plan.planner import make_plan


class Reporter(Protocol):
    """Shows what happens; the command line and the daemon each have one."""

    def say(self, line: str) -> None:
        """Show a line of narration."""
        ...

    def planned(self, plan: Plan) -> None:
        """Show the plan that is about to be applied."""
        ...

    def progress(self, done: int, total: int, running: int) -> None:
        """Show how many jobs are done and how many are running."""
        ...


class Applied(msgspec.Struct, frozen=True):
    """A plan that was applied.

    ``overtaken``: jobs changed between planning and applying, so that another plan may find more to do, such
    as the children of a replaced job. ``change_counter`` is that of the store right after applying.
    ``outcome`` is already recorded if nothing but the revision has changed.
    """

    plan: Plan
    overtaken: bool
    change_counter: int
    outcome: Outcome | None = None


class Session(Comparison):
    """One revision of one source, and the store that is brought to it.

    ``hosts`` are the connections to the workers, opened when first used; they may outlive the session.
    ``spare`` is a build process that was started in advance. The other arguments are those of a comparison.
    """

    def __init__(
        self,
        source: Source,
        store: Store,
        revision: Revision | None = None,
        hosts: Hosts | None = None,
        spare: SpareProcess | None = None,
        *,
        follow: bool = False,
        adopt: bool = False,
    ) -> None:
        super().__init__(source, store, revision, follow=follow, adopt=adopt)
        self.hosts = hosts or Hosts()
        self._builder: FlowBuilder | None = None
        self._spare = spare

    # reconciling --------------------------------------------------------------------------------------

    def reconcile(self, reporter: Reporter, *, allow_prune: bool = False) -> Applied:
        """Build new flows, plan, show the plan, and apply it. The caller holds the lease.

        Raises
        ------
        RefusedError
            A guard refuses the plan, or the state follows another branch; nothing was changed.
        """
        followed = self.followed()
        outcome = self.unchanged()
        if outcome is not None:
            return self._move_on(outcome, reporter)
        loaded = self.load_scoped() or self.load()
        self.check_lineage(loaded.state, reporter)
        loaded, built, failures = self._build_missing(loaded, reporter, {})
        actual = self.actual(loaded.state, built, loaded.scope)
        plan = make_plan(loaded.state, actual, allow_prune=allow_prune, scope=loaded.scope)
        if failures or not self.is_whole(loaded, actual, plan):
            loaded, built, failures = self._build_missing(self.load(), reporter, failures)
            actual = self.actual(loaded.state, built)
            plan = make_plan(loaded.state, actual, allow_prune=allow_prune)
        plan = without_unbuilt(plan, failures)
        reporter.planned(plan)
        if plan.refusals:
            raise RefusedError(
                "refused: " + "; ".join(plan.refusals),
                hint="review `reconcile plan`; to apply it all the same, add --allow-prune",
            )
        plan = self._attributed(plan, loaded.state)
        now = time.time()
        commit = History(self.source).info(self.revision.commit)
        committed = self.source.commit_time(self.revision.commit) if loaded.state.signer else 0.0

        def apply(writer: Writer, plan: Plan) -> bool:
            overtaken = writer.change_counter() != actual.change_counter
            note_notify_rules(writer, loaded.state.project.notify, since=writer.last_event())
            PlanApplication(writer, plan, loaded.state.project_name, actual.built, now).carry_out()
            writer.put_config(applied_config(writer, loaded.state, plan, committed))
            writer.put_followed(followed.branch or "")
            remember_good(writer, loaded)
            note_failures(writer, failures, str(self.revision), now)
            note_revision(writer, self.revision, commit, plan, now)
            note_baseline(writer, loaded, plan, actual.change_counter)
            return overtaken

        wanted = plan
        plan, overtaken = apply_plan(self.store, plan, loaded.state, apply)
        if plan is not wanted:
            for problem in plan.diagnostics[len(wanted.diagnostics) :]:
                reporter.say(f"error: {problem.message}")
        if followed.note:
            reporter.say(followed.note)
        with self.store.read() as view:
            return Applied(plan, overtaken, view.change_counter())

    def _move_on(self, outcome: Outcome, reporter: Reporter) -> Applied:
        """Make a revision without changes the applied one."""
        plan, now = self.empty_plan(), time.time()
        signer = self.source.signer(self.revision.commit)
        committed = self.source.commit_time(self.revision.commit) if signer else 0.0
        reporter.planned(plan)
        moved = msgspec.structs.replace(
            outcome, key=reconcile_key(self.revision), revision=str(self.revision)
        )
        commit = History(self.source).info(self.revision.commit)

        def record(writer: Writer) -> None:
            config, baseline = writer.config(), writer.baseline()
            assert config is not None and baseline is not None
            moved_on = msgspec.structs.replace(
                config, revision=str(self.revision), commit=self.revision.commit, signer=signer,
                committed=committed,
            )  # fmt: skip
            writer.put_config(moved_on)
            note_revision(writer, self.revision, commit, plan, now)
            place = {"commit": self.revision.commit, "tree": self.revision.tree}
            writer.put_baseline(msgspec.structs.replace(baseline, **place))
            writer.put_outcome(moved)

        self.store.write(record)
        return Applied(plan, overtaken=False, change_counter=outcome.change_counter, outcome=moved)

    def authors(self) -> Authors:
        """Return the look-up of the commit that set a value."""
        cache = StoreCache(self.store)
        return Authors(self.source, lambda blob: parsed_blob(self.source, cache, blob))

    def _attributed(self, plan: Plan, desired: DesiredState) -> Plan:
        """Add the author to each change of an existing job."""
        if not any(map(has_cause, plan.actions)):
            return plan
        with self.store.read() as view:
            config = view.config()
            files = {key: good.file for key, good in view.good_manifests().items()}
        base = config.commit if config is not None else ""
        return attributed(plan, Causes(self.authors(), desired, base, files))

    def _build_missing(
        self, loaded: Loaded, reporter: Reporter, failed: Mapping[str, Diagnostic]
    ) -> tuple[Loaded, dict[str, BuiltFlow], dict[str, Diagnostic]]:
        """Build flows in the order of their references. A failure blocks the flow and those that need it.

        ``failed`` flows are not tried again. If a build imports code that does not count for its flow yet,
        this is noted in the store and the revision is read again. Return what was read last, the built flows
        and, by name, why others are not built.
        """
        failures, noted = dict(failed), set[str]()
        while True:
            desired = loaded.state
            with self.store.read() as view:
                built = known_builds(view.build, desired)
                flows = (
                    view.flows() if loaded.scope is None else filter(None, map(view.flow, loaded.scope.flows))
                )
                applied = {flow.build_key for flow in flows}
            self._builder = builder = FlowBuilder(self.source, desired, self.store.path, self._spare)
            kept = KeptBuilds(self.store)
            try:
                found = build_missing(
                    builder, built, failures, say=reporter.say, keep=kept.add, applied=applied, noted=noted
                )
            finally:
                builder.close()
                kept.flush()
            if not found:
                return loaded, built, failures
            self._note_imports(found)
            noted |= found.keys()
            loaded = self.load()

    def _note_imports(self, found: Mapping[str, list[str]]) -> None:
        def write(writer: Writer) -> None:
            for name, directories in found.items():
                writer.put_imports(name, directories)

        self.store.write(write)

    def interrupt(self) -> None:
        """Kill the build processes, if any. For another thread, when the program is about to end."""
        if self._builder is not None:
            self._builder.kill()

    # executing ----------------------------------------------------------------------------------------

    def executor(self) -> Executor:
        """Return an executor for the last applied configuration."""
        with self.store.read() as view:
            config = view.config()
        if config is None:
            raise InputError("no revision has been applied yet", hint="run `reconcile --once`")
        outputs = open_outputs(self.store, config)
        accesses = Accesses(config.workers, repository_of(self.source), self.hosts, RemoteCaches())
        return Executor(
            self.store,
            [worker_runner(name, self.store, outputs, accesses) for name in sorted(config.workers)],
        )

    # the outcome --------------------------------------------------------------------------------------

    def record_outcome(self, applied: Applied | None) -> Outcome:
        """Record the outcome, so that the next reconcile can tell that nothing has changed.

        A warning can become obsolete when jobs change state, so then the next reconcile plans again.
        """
        with self.store.read() as view:
            change_counter = -1
            if applied is not None:
                warnings, change_counter = applied.plan.diagnostics, applied.change_counter
                clean = not (applied.plan.has_errors or applied.plan.refusals)
            else:
                old = view.outcome()
                warnings, clean = (tuple(old.warnings), True) if old is not None else ((), True)
            clean = clean and (not warnings or view.change_counter() == change_counter)
            outcome = summarise(view, reconcile_key(self.revision), str(self.revision), warnings, clean=clean)
        self.store.write(lambda writer: writer.put_outcome(outcome))
        return outcome


class Pass(msgspec.Struct, frozen=True):
    """What one reconcile did. ``plan`` is None if nothing had changed since the last one."""

    outcome: Outcome
    plan: Plan | None
    timed_out: bool = False


def reconcile_once(
    session: Session,
    reporter: Reporter,
    *,
    allow_prune: bool = False,
    wait: float | None = None,
    check: Callable[[], None] | None = None,
) -> Pass:
    """Make one pass: plan, apply, and advance every job that can advance now.

    With ``wait`` (seconds; ``inf`` for no limit), continue until no job runs or can run. ``check`` is called
    under the lease, before anything is written; an error that it raises ends the pass.

    Raises
    ------
    RefusedError
        A guard refuses the plan, or another process holds the lease.
    """
    moves = session.follow  # a branch with the same content must be recorded, too
    outcome = None if moves else unchanged_outcome(session.store, session.revision, time.time())
    if check is None and outcome is not None and is_settled(outcome, wait=wait is not None):
        return Pass(outcome, None)
    with Lease(session.store.path) as lease, closing(session.hosts):
        lease.acquire(time.time())
        if check is not None:
            check()
        applied = session.reconcile(reporter, allow_prune=allow_prune) if outcome is None else None
        if applied is not None and applied.outcome is not None:
            outcome = not_idle_if_due(applied.outcome, time.time())
            if is_settled(outcome, wait=wait is not None):
                return Pass(outcome, applied.plan)
        executor = session.executor()
        while executor.advance(time.time()):
            pass
        if wait is None:
            _tell_news(executor, reporter)
        settled = wait is None or wait_until_idle(session.store, executor, time.monotonic() + wait, reporter)
        executor.tidy_up()
        _send_notifications(session.store, reporter)
        compact(session.store, time.time())
        plan = applied.plan if applied is not None else None
        return Pass(session.record_outcome(applied), plan, timed_out=not settled)


_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 0.05
_PROGRESS_INTERVAL = 0.2


def wait_until_idle(store: Store, executor: Executor, deadline: float, reporter: Reporter) -> bool:
    """Advance until no job runs, can run or waits for a retry; return False if the deadline comes first.

    ``deadline`` is a time of the monotonic clock. The pause between two passes grows while nothing changes.
    """
    pause, shown, told = _SHORTEST_PAUSE, 0.0, set[str]()
    while True:
        now = time.monotonic()
        with store.read() as view:
            idle = view.is_idle() and view.next_retry() is None
        if idle or now - shown >= _PROGRESS_INTERVAL:
            shown = now
            reporter.progress(*_count(store))
            told |= _tell_news(executor, reporter, told)
            told |= _tell_retries(store, reporter, told, time.time())
        if idle:
            return True
        if now > deadline:
            return False
        if executor.advance(time.time()):
            pause = _SHORTEST_PAUSE
        else:
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)


def _send_notifications(store: Store, reporter: Reporter) -> None:
    """Send what the notify rules have to tell; a target that fails is named, and tried again next time."""
    with store.read() as view:
        config = view.config()
    if config is None or not config.notify:
        return
    from reconciler.notify.notifier import send_due

    for failure in send_due(store, time.time(), flush=True):
        hint = f"; {failure.hint}" if failure.hint else ""
        reporter.say(f"warning: notify rule '{failure.rule}': {failure.problem}{hint}")


def _tell_news(executor: Executor, reporter: Reporter, told: Collection[str] = ()) -> set[str]:
    """Show warnings, and each outage once; return the outages."""
    for warning in executor.warnings():
        reporter.say(warning)
    outages = {f"worker {name}: {reason}" for name, reason in executor.outages().items()}
    for line in sorted(outages.difference(told)):
        reporter.say(f"{line}; its jobs keep their state until it answers again")
    return outages


def _tell_retries(store: Store, reporter: Reporter, told: Collection[str], now: float) -> set[str]:
    """Show once for each failed attempt when its retry is due; return the attempts."""
    with store.read() as view:
        waiting = {f"{job.id}.{job.attempt.number}": job for job in view.waiting_for_retry()}
    for attempt, job in waiting.items():
        if attempt not in told and job.retry.at is not None:
            seconds = max(0.0, job.retry.at - now)
            reporter.say(f"{job.path} failed ({job.cause}); it is retried in {seconds:.0f} s")
    return set(waiting)


def _count(store: Store) -> tuple[int, int, int]:
    with store.read() as view:
        by_state = {state: view.count_in_state(state) for state in JobState}
        retries = view.count_retries()
    running = sum(by_state[state] for state in ACTIVE)
    done = sum(by_state[state] for state in FINISHED) - retries
    return done, sum(by_state.values()), running


def repository_of(source: Source) -> Repository:
    """Return the code and files that workers need."""
    return Repository(source.code, source.blobs)


def worker_runner(name: str, store: Store, outputs: Outputs, accesses: Accesses) -> WorkerRunner:
    """Return the runner of one worker; it connects to its host on first use."""
    return WorkerRunner(store, outputs, name, lambda: accesses(name))


def open_outputs(store: Store, config: AppliedConfig) -> Outputs:
    """Return the place of job outputs: the store itself, or the JobStore in ``spec.jobstore``."""
    if config.jobstore is None:
        return EmbeddedOutputs(store)
    from reconciler.jobs.jobstore import ForeignOutputs

    return ForeignOutputs(config.jobstore)
