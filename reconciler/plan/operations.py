"""What an operation does to the jobs that a user chose, and to those that depend on them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from reconciler.model.graph import generated_by, walk
from reconciler.model.operations import Effect, JobOperation, OperationVerdict, decide
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.states import ACTIVE, JobState


class Jobs(Protocol):
    """A consistent view of all jobs; the store has one."""

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
    """What happens to one job, and why; ``job`` is the record as it was when planning."""

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
    """What an operation does. ``steps`` begins with the jobs that the user chose."""

    operation: JobOperation
    steps: list[OperationStep]
    refusals: list[Refusal]

    def count(self, effect: Effect) -> int:
        """Return how many jobs have an effect."""
        return sum(1 for step in self.steps if step.effect is effect)


Verdicts = Sequence[tuple[JobRecord, OperationVerdict]]


class OperationPlanner:
    """Decides what an operation does.

    ``workers`` are the names of the usable workers. ``suspended_at`` returns the place of ``spec.suspend``
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
        """Return what an operation does to ``targets``.

        With ``descendants`` all jobs that need them run again, too.
        """
        verdicts: Verdicts = [(job, self._decide(operation, job)) for job in targets]
        superseded: dict[str, JobRecord] = {}
        if operation in (JobOperation.RETRY, JobOperation.RERUN):
            add = self._with_descendants if descendants else self._without_results_in_use
            verdicts = add(verdicts)
            superseded = self._generated_by(_affected(verdicts))
        elif operation is JobOperation.FORGET:
            verdicts = self._with_later_generations(verdicts)
        plan = OperationPlan(operation, [], [])
        for job, verdict in verdicts:
            if job.id in superseded:
                continue
            if verdict.effect is not None:
                plan.steps.append(OperationStep(verdict.effect, job, verdict.reason))
            else:
                plan.refusals.append(Refusal(job, verdict.reason, verdict.hint, verdict.slight))
        for job in superseded.values():
            ends = " and it is cancelled" if job.state in ACTIVE else ""
            reason = f"{job.state}: superseded{ends}, since its generator runs again"
            plan.steps.append(OperationStep(Effect.SUPERSEDE, job, reason))
        return plan

    def _decide(self, operation: JobOperation, job: JobRecord) -> OperationVerdict:
        """Return what an operation does to one job, its worker and the jobs that need it included."""
        flow = self._flow(job.flow)
        place = self.suspended_at(job.flow) if flow is not None and flow.suspended else ""
        verdict = decide(operation, job, flow, place)
        if verdict.effect in (Effect.AGAIN, Effect.CANCEL_THEN_AGAIN):
            name = (job.wanted or job.config).worker_name
            if name not in self.workers:
                why = f"its worker '{name}' is no longer in the repository" if name else "it has no worker"
                return OperationVerdict(None, why, "give it another one: `reconcile set worker`")
        if verdict.effect is Effect.FORGET:  # a current job was made from this result, or waits for it
            for child in self.jobs.dependants(job.uuid):
                if self._is_live(child) and child.uuid != job.uuid:
                    return OperationVerdict(None, f"{child.path} needs its output")
        return verdict

    def _flow(self, name: str) -> FlowRecord | None:
        if name not in self._flows:
            self._flows[name] = self.jobs.flow(name)
        return self._flows[name]

    def _is_live(self, job: JobRecord) -> bool:
        flow = self._flow(job.flow)
        return job.current and flow is not None and not flow.removed

    def _generated_by(self, roots: Iterable[JobRecord]) -> dict[str, JobRecord]:
        """Return the current jobs that ``roots`` have generated, directly or not, by their ids."""
        roots = list(roots)
        generators = {job.id for job in roots}
        members = (self.jobs.jobs_of(flow) for flow in sorted({job.flow for job in roots}))
        return {job.id: job for jobs in members for job in generated_by(jobs, generators)}

    def _with_later_generations(self, verdicts: Verdicts) -> Verdicts:
        """Forget with a job the later generations that replaced it, or refuse them all together.

        Without the first generation the later ones have no meaning.
        """
        done = {job.id for job, _ in verdicts}
        found: list[tuple[JobRecord, OperationVerdict]] = []
        for job, verdict in verdicts:
            later = [one for one in self.jobs.generations(job.uuid) if one.index > job.index]
            decided = [(one, self._decide(JobOperation.FORGET, one)) for one in later]
            kept = next(((one, other) for one, other in decided if other.effect is None), None)
            if verdict.effect is None:
                found.append((job, verdict))
            elif kept is not None:
                why = f"it was replaced by {kept[0].path}: {kept[1].reason}"
                found.append((job, OperationVerdict(None, why, kept[1].hint)))
            else:
                found += [(job, verdict), *((one, other) for one, other in decided if one.id not in done)]
                done |= {one.id for one in later}
        return found

    # running again ------------------------------------------------------------------------------------

    def _with_descendants(self, verdicts: Verdicts) -> Verdicts:
        """Add all jobs that need those which run again, directly or not, and run them again, too.

        Generated jobs whose generator runs again are left out: they are superseded. For ``a -> b -> c``,
        where b generated d, a rerun of a gives verdicts on a, b and c.
        """
        chosen = {job.id: job for job in _affected(verdicts)}

        def live_dependants(job_id: str) -> Iterable[str]:
            for child in self.jobs.dependants(chosen[job_id].uuid):
                if self._is_live(child):
                    chosen.setdefault(child.id, child)
                    yield child.id

        roots = list(chosen)
        below = [chosen[one] for one in walk(roots, live_dependants) if one not in roots]
        more = [(job, self._decide(JobOperation.RERUN, job)) for job in below]
        more = [(job, verdict) for job, verdict in more if verdict.effect is not None or not verdict.slight]
        superseded = self._generated_by([*_affected(verdicts), *_affected(more)])
        return [*verdicts, *((job, verdict) for job, verdict in more if job.id not in superseded)]

    def _without_results_in_use(self, verdicts: Verdicts) -> Verdicts:
        """Refuse to run a job again whose output an active job works with.

        The active job may itself be one that runs again, until it is refused: so this goes on until nothing
        changes any more.
        """
        while True:
            chosen = _affected(verdicts)
            again = {job.id for job in chosen} | self._generated_by(chosen).keys()
            checked = []
            for job, verdict in verdicts:
                user = self._active_user(job, again) if verdict.effect is not None else None
                if user is not None:
                    why = f"{user.path} is {user.state} and works with its output"
                    hint = "wait for it, or cancel and run it again too: add --with-descendants"
                    verdict = OperationVerdict(None, why, hint)
                checked.append((job, verdict))
            if checked == verdicts:
                return verdicts
            verdicts = checked

    def _active_user(self, job: JobRecord, again: Collection[str]) -> JobRecord | None:
        """Return an active job that works with the output of a job, and is not one of ``again``."""
        if job.state is not JobState.COMPLETED:
            return None
        children = self.jobs.dependants(job.uuid)
        active = (one for one in children if one.current and one.state in ACTIVE and one.id not in again)
        return next(active, None)


def _affected(verdicts: Verdicts) -> list[JobRecord]:
    return [job for job, verdict in verdicts if verdict.effect is not None]
