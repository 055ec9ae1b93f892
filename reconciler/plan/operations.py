"""What a verb does, to the jobs that it was given and to those that hang on them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from reconciler.model.operations import Effect, JobOperation, OperationVerdict, decide
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import ACTIVE, JobState


class Jobs(Protocol):
    """A consistent look at all jobs."""

    def flow(self, name: str) -> FlowRecord | None:
        """Return a flow by name."""
        ...

    def jobs_of(self, flow: str) -> list[JobRecord]:
        """Return the jobs of a flow, history included, oldest first."""
        ...

    def generations(self, uuid: str) -> list[JobRecord]:
        """Return the records of one uuid, lowest index first."""
        ...

    def dependants(self, uuid: str) -> list[JobRecord]:
        """Return the jobs that need ``uuid``."""
        ...


class OperationStep(msgspec.Struct, frozen=True):
    """What happens to one job, and why; ``job`` is as it was when planning."""

    effect: Effect
    job: JobRecord
    reason: str


class Refusal(msgspec.Struct, frozen=True):
    """A job to which nothing happens; see :class:`OperationVerdict`."""

    job: JobRecord
    reason: str
    hint: str
    slight: bool


class OperationPlan(msgspec.Struct, frozen=True):
    """What a verb does. ``steps`` has the jobs that were asked for first."""

    operation: JobOperation
    steps: list[OperationStep]
    refusals: list[Refusal]

    def count(self, effect: Effect) -> int:
        """Return how many jobs have an effect."""
        return sum(1 for step in self.steps if step.effect is effect)


class OperationPlanner:
    """Decides what a verb does.

    ``workers`` are the names of those that can be used, ``suspended_at`` gives the place of ``spec.suspend``
    of a flow.
    """

    def __init__(
        self, jobs: Jobs, workers: Collection[str], suspended_at: Callable[[str], str] = lambda flow: ""
    ) -> None:
        self.jobs = jobs
        self.workers = workers
        self.suspended_at = suspended_at
        self._flows: dict[str, FlowRecord | None] = {}

    def plan(
        self, operation: JobOperation, targets: Sequence[JobRecord], *, descendants: bool = False
    ) -> OperationPlan:
        """Return what a verb does to ``targets``; ``descendants``: all that needs them runs again, too."""
        verdicts = [(job, self._decide(operation, job)) for job in targets]
        if operation in (JobOperation.RETRY, JobOperation.RERUN):
            return self._again(operation, verdicts, descendants=descendants)
        if operation is JobOperation.FORGET:
            verdicts = list(self._with_later_generations(verdicts))
        return _as_plan(operation, verdicts)

    def _decide(self, operation: JobOperation, job: JobRecord) -> OperationVerdict:
        flow = self._flow(job.flow)
        place = self.suspended_at(job.flow) if flow is not None and flow.suspended else ""
        verdict = decide(operation, job, flow, place)
        if verdict.effect in (Effect.AGAIN, Effect.CANCEL_THEN_AGAIN):
            return self._worker_missing(job) or verdict
        if verdict.effect is Effect.FORGET:
            return self._still_needed(job) or verdict
        return verdict

    def _flow(self, name: str) -> FlowRecord | None:
        if name not in self._flows:
            self._flows[name] = self.jobs.flow(name)
        return self._flows[name]

    def _worker_missing(self, job: JobRecord) -> OperationVerdict | None:
        config = job.wanted or job.config
        if config.worker_name in self.workers:
            return None
        name = config.worker_name
        why = f"its worker '{name}' is no longer in the repository" if name else "it has no worker"
        return OperationVerdict(None, why, "give it another one: `reconcile set worker`")

    def _still_needed(self, job: JobRecord) -> OperationVerdict | None:
        """A result that a wanted job was made from, or waits for, must stay."""
        for child in self.jobs.dependants(job.uuid):
            if self._is_live(child) and child.uuid != job.uuid:
                return OperationVerdict(None, f"{child.path} needs its output")
        return None

    def _is_live(self, job: JobRecord) -> bool:
        flow = self._flow(job.flow)
        return job.current and flow is not None and not flow.removed

    def _with_later_generations(
        self, verdicts: Sequence[tuple[JobRecord, OperationVerdict]]
    ) -> Iterator[tuple[JobRecord, OperationVerdict]]:
        """Forget with a job what it was replaced by, which is of no meaning without it; all or nothing."""
        done = {job.id for job, _ in verdicts}
        for job, verdict in verdicts:
            if verdict.effect is None:
                yield job, verdict
                continue
            later = [one for one in self.jobs.generations(job.uuid) if one.index > job.index]
            decided = [(one, self._decide(JobOperation.FORGET, one)) for one in later]
            kept = next(((one, found) for one, found in decided if found.effect is None), None)
            if kept is not None:
                one, found = kept
                yield (
                    job,
                    OperationVerdict(None, f"it was replaced by {one.path}: {found.reason}", found.hint),
                )
                continue
            yield job, verdict
            yield from ((one, found) for one, found in decided if one.id not in done)
            done |= {one.id for one in later}

    # running again ------------------------------------------------------------------------------------

    def _again(
        self,
        operation: JobOperation,
        verdicts: Sequence[tuple[JobRecord, OperationVerdict]],
        *,
        descendants: bool,
    ) -> OperationPlan:
        if descendants:
            chosen = [job for job, verdict in verdicts if verdict.effect is not None]
            more = [(job, self._decide(JobOperation.RERUN, job)) for job in self._descendants(chosen)]
            more = [
                (job, verdict) for job, verdict in more if verdict.effect is not None or not verdict.slight
            ]
            left = dict.fromkeys(self._generated_by(chosen + [job for job, found in more if found.effect]))
            verdicts = [*verdicts, *((job, verdict) for job, verdict in more if job.id not in left)]
        else:
            verdicts = self._without_results_in_use(verdicts)
        superseded = self._generated_by([job for job, verdict in verdicts if verdict.effect is not None])
        plan = _as_plan(operation, [(job, verdict) for job, verdict in verdicts if job.id not in superseded])
        plan.steps.extend(
            OperationStep(Effect.SUPERSEDE, job, _why_superseded(job)) for job in superseded.values()
        )
        return plan

    def _descendants(self, roots: Iterable[JobRecord]) -> Iterator[JobRecord]:
        """Yield all wanted jobs that need one of ``roots``, directly or not."""
        open_jobs = list(roots)
        seen = {job.id for job in open_jobs}
        while open_jobs:
            for child in self.jobs.dependants(open_jobs.pop().uuid):
                if child.id not in seen and self._is_live(child):
                    seen.add(child.id)
                    open_jobs.append(child)
                    yield child

    def _generated_by(self, roots: Iterable[JobRecord]) -> dict[str, JobRecord]:
        """Return the current jobs that ``roots`` have generated, at any depth, by their ids."""
        generators = {job.id for job in roots}
        found: dict[str, JobRecord] = {}
        for flow in sorted({job.flow for job in roots}):
            for job in self.jobs.jobs_of(flow):  # a generator is older than what it generates
                if job.current and (job.generator in generators or job.generator in found):
                    found[job.id] = job
        return found

    def _without_results_in_use(
        self, verdicts: Sequence[tuple[JobRecord, OperationVerdict]]
    ) -> list[tuple[JobRecord, OperationVerdict]]:
        """Refuse to run again what jobs on their way work with; refusing one may leave another in use."""
        left = list(verdicts)
        while True:
            chosen = [job for job, verdict in left if verdict.effect is not None]
            moving = {job.id for job in chosen} | self._generated_by(chosen).keys()
            checked = [
                (job, self._in_use(job, moving) or verdict if verdict.effect is not None else verdict)
                for job, verdict in left
            ]
            if checked == left:
                return left
            left = checked

    def _in_use(self, job: JobRecord, moving: Collection[str]) -> OperationVerdict | None:
        if job.state is not JobState.COMPLETED:
            return None
        for child in self.jobs.dependants(job.uuid):
            if child.current and child.state in ACTIVE and child.id not in moving:
                return OperationVerdict(
                    None,
                    f"{child.path} is {child.state} and works with its output",
                    "wait for it, or add --with-descendants: that cancels it, and runs it again afterwards",
                )
        return None


def _why_superseded(job: JobRecord) -> str:
    ends = " and it is cancelled" if job.state in ACTIVE else ""
    return f"{job.state}: history{ends}, since what generated it runs again"


def _as_plan(
    operation: JobOperation, verdicts: Iterable[tuple[JobRecord, OperationVerdict]]
) -> OperationPlan:
    plan = OperationPlan(operation, [], [])
    for job, verdict in verdicts:
        if verdict.effect is not None:
            plan.steps.append(OperationStep(verdict.effect, job, verdict.reason))
        else:
            plan.refusals.append(Refusal(job, verdict.reason, verdict.hint, verdict.slight))
    return plan
