"""Carrying out a verb on jobs, in one transaction. The executor goes on from there at its next look.

It needs no lease: the store has one transaction at a time, whoever writes, and the executor looks at every
record again before it changes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from reconciler.actual.writer import Writer
from reconciler.jobs.dependencies import initial_state, release_all_tolerant, unhook_from
from reconciler.jobs.outputs import forget_job
from reconciler.jobs.restarts import give_up, run_again
from reconciler.jobs.transitions import leave, move, note
from reconciler.model.flows import job_id
from reconciler.model.operations import Effect, JobOperation
from reconciler.model.records import Cancellation, JobRecord
from reconciler.model.states import JobState
from reconciler.plan.operations import OperationPlan, OperationStep


class OperationRunner:
    """Carries out one plan of a verb. ``by`` is the person, ``asked`` the command as it was typed."""

    def __init__(self, writer: Writer, plan: OperationPlan, by: str, asked: str, now: float) -> None:
        self.writer = writer
        self.plan = plan
        self.by = by
        self.asked = asked
        self.now = now

    def carry_out(self) -> None:
        """Do what the plan says. It must be made of the records of this very transaction."""
        for step in self.plan.steps:
            self._note(step)
            self._one(step)
        # After all of them, as who does not mind may be among those that are stopped.
        stopped = (step.job.uuid for step in self.plan.steps if step.effect is Effect.STOP)
        release_all_tolerant(self.writer, stopped, self.now)
        self._run_again([step.job for step in self.plan.steps if step.effect is Effect.AGAIN])
        superseded = (step.job for step in self.plan.steps if step.effect is Effect.SUPERSEDE)
        unhook_from(self.writer, superseded, self.now)
        forgotten = [step.job for step in self.plan.steps if step.effect is Effect.FORGET]
        self._incomplete(
            {
                job_id(by.uuid, by.index): by.attempt
                for job in forgotten
                if (by := job.generated_by) is not None
            }
        )
        self._forget_empty_flows({job.flow for job in forgotten})

    def _note(self, step: OperationStep) -> None:
        kind, message = str(self.plan.operation).capitalize(), f"by {self.by}: {step.reason} (`{self.asked}`)"
        attempt = step.job.attempt.number or None
        note(self.writer, step.job, kind, message, self.now, by=self.by, attempt=attempt)

    def _one(self, step: OperationStep) -> None:
        job, why = step.job, f"{self.plan.operation} by {self.by}"
        match step.effect:
            case Effect.SUPERSEDE:
                leave(self.writer, job, step.reason, self.now)
            case Effect.CANCEL_THEN_AGAIN:
                self.writer.put_job(
                    msgspec.structs.replace(job, cancellation=Cancellation(reason=why, rerun=True))
                )
            case Effect.CANCEL:
                self.writer.put_job(msgspec.structs.replace(job, cancellation=Cancellation(reason=why)))
            case Effect.STOP:
                move(self.writer, job, JobState.USER_STOPPED, self.now, why)
            case Effect.PAUSE:
                move(self.writer, job, JobState.PAUSED, self.now, why, held=self.by)
            case Effect.GIVE_UP:
                give_up(self.writer, job, why, self.now)
            case Effect.RESUME:
                move(self.writer, job, initial_state(self.writer, job), self.now, why)
            case Effect.FORGET:
                forget_job(self.writer, job)

    def _run_again(self, jobs: Collection[JobRecord]) -> None:
        why, as_retry = f"{self.plan.operation} by {self.by}", self.plan.operation is JobOperation.RETRY
        run_again(self.writer, jobs, why, self.now, as_retry=as_retry)
        stopped = {job.flow for job in jobs if job.state in (JobState.STOPPED, JobState.COMPLETED)}
        for name in stopped:  # the word of the job that stopped it no longer holds
            flow = self.writer.flow(name)
            if flow is not None and flow.stopped:
                self.writer.put_flow(msgspec.structs.replace(flow, stopped=False))

    def _incomplete(self, attempts: Mapping[str, int]) -> None:
        """A result of which a part was forgotten is none any more, should the job be wanted again.

        ``attempts`` has, by the ids of the generators, the attempt that generated what was forgotten.
        """
        for generator, attempt in attempts.items():
            job = self.writer.job(generator)
            if job is None or job.current or (job.state, job.attempt.number) != (JobState.COMPLETED, attempt):
                continue
            reason = "what it generated was forgotten: wanted again, it runs again"
            move(self.writer, job, JobState.USER_STOPPED, self.now, reason)

    def _forget_empty_flows(self, names: Collection[str]) -> None:
        for name in names:
            flow = self.writer.flow(name)
            if flow is not None and flow.removed and not self.writer.jobs_of(name):
                self.writer.delete_flow(name)
