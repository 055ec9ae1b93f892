"""One pass of the daemon: the work itself, apart from the thread that decides when to do it."""

from __future__ import annotations

import logging
from typing import Protocol

import msgspec

from reconciler.actual.daemon_requests import Answer
from reconciler.errors import ExitCode, ReconcilerError, RefusedError
from reconciler.loop import Reporter, Session
from reconciler.model.actions import Plan
from reconciler.model.applied import AttemptResult
from reconciler.watch.log import bugs_logged, log_event


class DaemonReporter(Reporter, Protocol):
    """A reporter that can also describe a plan in lines of text, for answers to other programs."""

    def describe(self, plan: Plan) -> list[str]:
        """Return a plan as text; the last line is its summary."""
        ...


class PassResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a pass.

    ``answer`` is for those who requested it. ``problem`` is the first error of the revision, if a part of it
    could not be applied; ``error`` is why nothing was applied; ``overtaken`` is explained at
    :class:`~reconciler.loop.Applied`.
    """

    result: AttemptResult
    answer: Answer
    problem: str = ""
    error: ReconcilerError | None = None
    overtaken: bool = False


def make_pass(session: Session, reporter: DaemonReporter, *, allow_prune: bool) -> PassResult:
    """Plan and apply the revision of a session. Raises nothing: every error becomes a result."""
    revision = str(session.revision)
    log_event("reconcile-begun", f"reconciling {revision}", level=logging.DEBUG)
    try:
        with bugs_logged("reconcile-bug"):
            applied = session.reconcile(reporter, allow_prune=allow_prune)
            if applied.outcome is None:
                session.record_outcome(applied)
            lines = reporter.describe(applied.plan)
    except ReconcilerError as error:
        result = AttemptResult.REFUSED if isinstance(error, RefusedError) else AttemptResult.FAILED
        return PassResult(result=result, answer=refusal(error, revision), error=error)
    errors = [diagnostic for diagnostic in applied.plan.diagnostics if diagnostic.is_error]
    return PassResult(
        result=AttemptResult.INVALID if errors else AttemptResult.APPLIED,
        answer=Answer(code=ExitCode.USAGE if errors else ExitCode.OK, revision=revision, lines=lines),
        problem=f"{errors[0].message} ({errors[0].location})" if errors else "",
        overtaken=applied.overtaken,
    )


def refusal(error: ReconcilerError, revision: str = "") -> Answer:
    """Return the answer to requests when nothing was applied."""
    return Answer(code=error.exit_code, revision=revision, error=error.message, hint=error.hint or "")
