"""Automatic retries, decided and checked: is a dead attempt made again, and can what it asks for grow?"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from reconciler.diagnostics import Diagnostic, Related, Severity
from reconciler.model.desired import DesiredState
from reconciler.model.records import FlowRecord, JobRecord
from reconciler.model.retries import Retries, form_of, policy_of
from reconciler.model.run_config import RunConfig
from reconciler.model.schedulers import SCHEDULERS, Scheduler
from reconciler.model.schedulers.base import RESERVED
from reconciler.model.settings import Resources, Setting
from reconciler.plan.resources import at_origin, hint_for, inside, known_words

# deciding ---------------------------------------------------------------------------------------------


class Retry(msgspec.Struct, frozen=True):
    """Another attempt that is to be made: when (seconds since the epoch), and which retry of how many."""

    at: float
    number: int
    limit: int


def next_retry(job: JobRecord, flow: FlowRecord | None, cause: str | None, now: float) -> Retry | None:
    """Return the retry that a job gets whose attempt just died; None if it gets none.

    A deferred change of its policy counts already. A job that is cancelled, or has no place any more, is
    never tried again.
    """
    policy = (job.wanted or job.config).policy
    made = len(job.retry.causes)
    if policy is None or job.cancelling or not may_retry(job, flow) or not policy.wants(cause, made):
        return None
    return Retry(now + policy.wait(made), made + 1, policy.limit)


def may_retry(job: JobRecord, flow: FlowRecord | None) -> bool:
    """Return whether a job may run again automatically, whatever its retries say."""
    wanted = flow is not None and not flow.stopped and (flow.orphaned or not flow.removed)
    return wanted and job.current


def coming_retry(job: JobRecord, flow: FlowRecord | None) -> Retry | None:
    """Return the retry that a job waits for; None if by the run config that it has now there is none."""
    policy, made = job.config.policy, len(job.retry.causes) - 1
    if job.retry.at is None or policy is None or not may_retry(job, flow):
        return None
    return Retry(job.retry.at, made + 1, policy.limit) if policy.wants(job.retry.causes[-1], made) else None


# checking ---------------------------------------------------------------------------------------------


def check_policy(desired: DesiredState, setting: Setting) -> Iterator[Diagnostic]:
    """Check the form of retries, and keywords that no scheduler knows. The worker does not matter."""
    try:
        policy = policy_of(setting.value)
    except msgspec.ValidationError as error:
        hint = "such as {limit: 2, on: [walltime], backoff: 1m}"
        yield at_origin(desired, setting.origin, "retries/invalid", f"no retries: {error}", hint=hint)
        return
    for form, factors in policy.escalate.items() if policy is not None else ():
        known, what = known_words(form == "qresources")
        for key in sorted(factors.keys() - (known - RESERVED)):
            yield _unknown(desired, setting, form, key, known, what)


def check_retries(desired: DesiredState, scheduler_type: str, config: RunConfig) -> Iterator[Diagnostic]:
    """Check that what retries escalate exists for the scheduler of the worker, and can be multiplied.

    A plain shell gives no resources: there is nothing to escalate.
    """
    setting, policy = config.retries, config.policy
    if setting is None:
        return
    if policy is None:  # of Python code, which no schema has checked
        yield from check_policy(desired, setting)
        return
    scheduler = SCHEDULERS[scheduler_type]
    yield from _too_late_to_warn(desired, scheduler, setting, policy, config)
    if config.resources is None or not scheduler.is_batch:
        return
    yield from _unknown_to_scheduler(desired, scheduler, setting, config)
    yield from _not_multiplied(desired, setting, policy, config.resources)


def _too_late_to_warn(
    desired: DesiredState, scheduler: Scheduler, setting: Setting, policy: Retries, config: RunConfig
) -> Iterator[Diagnostic]:
    """Warn of a signal that is never sent: the time limit is not known, or shorter than its notice."""
    warning = policy.continuation.warning if policy.continuation is not None else None
    if warning is None:
        return
    limit = scheduler.request_of(config.resources_value).seconds
    if limit is not None and limit > warning[1]:
        return
    known = f"is {limit} s" if limit is not None else "is not in the resources"
    hint = (
        f"give a shorter notice than {limit} s"
        if limit is not None
        else "add the time limit to the resources"
    )
    yield at_origin(
        desired, inside(setting, "/continue/signal"), "retries/no-signal",
        f"no signal is sent before the end: the time limit of the job {known}",
        severity=Severity.WARNING, hint=hint,
    )  # fmt: skip


def _unknown_to_scheduler(
    desired: DesiredState, scheduler: Scheduler, setting: Setting, config: RunConfig
) -> Iterator[Diagnostic]:
    resources, policy = config.resources_value, config.policy
    if resources is None or policy is None:
        return
    if resources.generic:
        known, what = scheduler.generic_fields, f"field of qresources for {scheduler.title}"
    else:
        known, what = scheduler.keywords, f"{scheduler.title} keyword"
    chosen = desired.locate(config.worker.origin) if config.worker is not None else None
    label = f"worker '{config.worker_name}' is chosen here"
    related = (Related(chosen, label),) if chosen is not None else ()
    for key in sorted(policy.factors(resources).keys() - (known - RESERVED)):
        yield _unknown(desired, setting, form_of(resources), key, known, what, related)


def _unknown(
    desired: DesiredState,
    setting: Setting,
    form: str,
    key: str,
    known: frozenset[str],
    what: str,
    related: tuple[Related, ...] = (),
) -> Diagnostic:
    return at_origin(
        desired, inside(setting, f"/escalate/{form}/{key}"), "retries/unknown-keyword",
        f"'{key}' cannot be escalated: it is not a {what}", key=True, related=related,
        hint=hint_for(key, known - RESERVED),
    )  # fmt: skip


def _not_multiplied(
    desired: DesiredState, setting: Setting, policy: Retries, resources: Setting
) -> Iterator[Diagnostic]:
    assert isinstance(resources.value, Resources)
    form = form_of(resources.value)
    for key, problem in policy.problems(resources.value):
        place = desired.locate(inside(resources, f"/{key}"))
        related = (Related(place, f"'{key}' is set here"),) if place is not None else ()
        yield at_origin(
            desired, inside(setting, f"/escalate/{form}/{key}"), "retries/no-amount",
            f"'{key}' cannot be escalated: {problem}", key=True, related=related,
            hint=f"remove '{key}' here, or write its value as a number, a time or an amount of memory",
        )  # fmt: skip
