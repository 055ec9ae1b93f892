"""Carries out an operation on jobs, such as retry or cancel, in one transaction.

It needs no lease: the store has one transaction at a time, and the executor reads every record again before
it changes it. The executor continues from the changed records at its next pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from reconciler.actual.writer import Writer
from reconciler.jobs.dependencies import initial_state, release_tolerant, stop_waiting_for
from reconciler.jobs.outputs import forget_job
from reconciler.jobs.responses import fail
from reconciler.jobs.restarts import give_up, run_again
from reconciler.jobs.transitions import leave, move, note
from reconciler.model.flows import job_id
from reconciler.model.operations import Effect, JobOperation
from reconciler.model.records import Cancellation, JobRecord
from reconciler.model.retries import Cause
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.operations import OperationPlan, OperationStep


class OperationRunner:
    """Carries out the plan of one operation. ``by`` is the person, ``asked`` the command as it was typed."""

    def __init__(self, writer: Writer, plan: OperationPlan, by: str, asked: str, now: float) -> None:
        self.writer = writer
        self.plan = plan
        self.by = by
        self.asked = asked
        self.now = now

    def carry_out(self) -> None:
        """Do what the plan says. The plan must be made from the records of this transaction."""
        for step in self.plan.steps:
            kind, message = (
                str(self.plan.operation).capitalize(),
                f"by {self.by}: {step.reason} (`{self.asked}`)",
            )
            attempt = step.job.attempt.number or None
            note(self.writer, step.job, kind, message, self.now, by=self.by, attempt=attempt)
            self._carry_out(step)
        # After all steps, because a job that tolerates missing inputs may be among the stopped ones.
        stopped = (step.job.uuid for step in self.plan.steps if step.effect is Effect.STOP)
        release_tolerant(self.writer, stopped, self.now)
        self._run_again([step.job for step in self.plan.steps if step.effect is Effect.AGAIN])
        superseded = (step.job for step in self.plan.steps if step.effect is Effect.SUPERSEDE)
        stop_waiting_for(self.writer, superseded, self.now)
        forgotten = [step.job for step in self.plan.steps if step.effect is Effect.FORGET]
        generators = (job.generated_by for job in forgotten if job.generated_by is not None)
        self._invalidate_results({job_id(by.uuid, by.index): by.attempt for by in generators})
        for name in {job.flow for job in forgotten}:
            flow = self.writer.flow(name)
            if flow is not None and flow.removed and not self.writer.jobs_of(name):
                self.writer.delete_flow(name)

    def _carry_out(self, step: OperationStep) -> None:
        job, why = step.job, f"{self.plan.operation} by {self.by}"
        match step.effect:
            case Effect.SUPERSEDE:
                leave(self.writer, job, step.reason, self.now)
            case Effect.CANCEL_THEN_AGAIN:
                cancellation = Cancellation(reason=why, rerun=True)
                self.writer.put_job(msgspec.structs.replace(job, cancellation=cancellation))
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
            case Effect.ABANDON:
                self._abandon(job, why)
            case Effect.FORGET:
                forget_job(self.writer, job)

    def _abandon(self, job: JobRecord, why: str) -> None:
        if job.state in ACTIVE:
            where = f"attempt {job.attempt.number} on worker '{job.attempt.worker}' in {job.attempt.run_dir}"
            error = f"{where} was abandoned ({why}): it may still run"
            job = msgspec.structs.replace(job, left=[])
            fail(self.writer, job, error, self.now, cause=Cause.LOST)
        else:
            attempt = job.attempt_with(waiting=None)
            self.writer.put_job(msgspec.structs.replace(job, left=[], attempt=attempt))

    def _run_again(self, jobs: Collection[JobRecord]) -> None:
        why, as_retry = f"{self.plan.operation} by {self.by}", self.plan.operation is JobOperation.RETRY
        run_again(self.writer, jobs, why, self.now, as_retry=as_retry)
        stopped = {job.flow for job in jobs if job.state in (JobState.STOPPED, JobState.COMPLETED)}
        for name in stopped:  # the job that stopped the flow runs again, so stop_jobflow no longer holds
            flow = self.writer.flow(name)
            if flow is not None and flow.stopped:
                self.writer.put_flow(msgspec.structs.replace(flow, stopped=False))

    def _invalidate_results(self, attempts: Mapping[str, int]) -> None:
        """Make superseded generators run again when wanted again: a part of their result was forgotten.

        ``attempts`` maps the ids of generators to the attempt that generated the forgotten jobs.
        """
        for generator, attempt in attempts.items():
            job = self.writer.job(generator)
            if job is None or job.current or (job.state, job.attempt.number) != (JobState.COMPLETED, attempt):
                continue
            reason = "what it generated was forgotten: wanted again, it runs again"
            move(self.writer, job, JobState.USER_STOPPED, self.now, reason)
