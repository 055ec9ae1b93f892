"""The thread of the source: it notices revisions, plans and applies them, and answers requests.

It plans when the commit is another one, when it is asked to, and when what it did last left more to do; not
when jobs move, which is the business of the workers' threads.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from reconciler.actual.compaction import compact
from reconciler.actual.daemon_requests import Answer, Request, Requests
from reconciler.actual.state_dir import is_on_network
from reconciler.actual.store import Store
from reconciler.build.builder import SpareProcess
from reconciler.desired.source.git import Source
from reconciler.errors import ExitCode, ForeignStateError, ReconcilerError, RefusedError
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.worker.upload import Repository
from reconciler.loop import Reporter, Session
from reconciler.model.actions import Plan
from reconciler.model.desired import Revision
from reconciler.model.manifests import Prune
from reconciler.model.records import Attempt, AttemptResult, FlowRecord
from reconciler.model.states import ACTIVE
from reconciler.watch.file_notices import FileNotices, branch_directories
from reconciler.watch.log import log_bug, log_context, log_event
from reconciler.watch.signals import WakeUp

Clock = Callable[[], float]

_REMOTE, _WATCHED, _UNWATCHED = 60.0, 10.0, 1.0
"""Seconds between two looks: at a remote, and at a local repository with or without notices of changes."""

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 5.0, 300.0
_SETTLING = 10.0
"""Seconds between two looks whether a removed flow can be deleted, or after a plan that was overtaken."""

REQUESTED = "asked"
"""The reason of a call after which a plan is made even if nothing seems to have changed."""


class DaemonReporter(Reporter, Protocol):
    """Is told what happens, and says plans in words; the command line has one."""

    def describe(self, plan: Plan) -> list[str]:
        """Return a plan as people read it."""
        ...


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the source is, and how often it is looked at.

    ``open_source`` takes whether to fetch what is new at a remote. ``interval`` is the seconds between two
    looks; None: as fits the kind of source.
    """

    open_source: Callable[[bool], Source]
    is_remote: bool
    interval: float | None = None


class SourceThread(threading.Thread):
    """Looks at the source: when called, and in intervals. ``news`` is called when others may have work."""

    def __init__(
        self,
        settings: SourceSettings,
        store: Store,
        hosts: Hosts,
        teller: DaemonReporter,
        clock: Clock,
        notices: FileNotices,
        news: Callable[[], None],
    ) -> None:
        super().__init__(name="source", daemon=True)
        self.wake = WakeUp()
        self._session: Session | None = None
        self._settings = settings
        self._store = store
        self._hosts = hosts
        self._teller = teller
        self._clock = clock
        self._notices = notices
        self._news = news
        self._requests = Requests(store.path)
        self._spare = SpareProcess()
        self._source: Source | None = None
        self._planned: tuple[str, str, str] | None = None
        self._watched = False
        self._deleting = False
        self._attempt: Attempt | None = None
        self._ending = False
        self.foreign: ForeignStateError | None = None
        """Set once the state has turned out to be that of another repository: nothing is to be done here."""

    @property
    def repository(self) -> Repository:
        """What workers need of the source: as it is when they need it, however it was moved."""
        return Repository(lambda tree: self._opened().code(tree), lambda ids: self._opened().blobs(ids))

    def _opened(self) -> Source:
        if self._source is None:  # jobs of the last revision are carried on before this one was read
            self._source = self._settings.open_source(False)
        return self._source

    def kill(self) -> None:
        """Kill the build processes; for another thread, when the program ends although this one hangs."""
        if self._session is not None:
            self._session.interrupt()
        self._spare.kill()

    def end(self) -> None:
        """Let the thread end after its present step."""
        self._ending = True
        self.wake.call()

    def run(self) -> None:
        """Look until told to end."""
        reasons = frozenset[str]()
        while not self._ending:
            self._turn(reasons)
            if not self._ending:
                reasons = self.wake.wait(self.pause())
        self._spare.close()

    def _turn(self, reasons: frozenset[str]) -> None:
        """Look, and be ready for the next time. Whatever goes wrong, this thread goes on."""
        try:
            self._notices.watch(self._requests.directory, self._poked)
            self.look(reasons)
            if not self._ending:
                self._tidy_up()
        except ReconcilerError as error:
            self._note("", AttemptResult.FAILED, error)
        except Exception as error:
            log_bug("source-bug", error)
            self._note("", AttemptResult.FAILED, _as_ours(error))

    def _tidy_up(self) -> None:
        """Do what can wait while nobody waits for it."""
        try:
            self._spare.warm()
            compact(self._store, self._clock())
        except (ReconcilerError, OSError) as error:
            log_event("tidying-failed", str(error), level=logging.WARNING)

    def _poked(self) -> None:
        """Another program has asked for something, or has changed jobs."""
        self.wake.call()
        self._news()

    def look(self, reasons: frozenset[str]) -> None:
        """Read the source, and make a pass if there is a reason. What goes wrong is told, and tried again."""
        requests = self._requests.pending()
        try:
            self._source = source = self._settings.open_source(True)
            self._watch(source)  # before it is read: what comes in between is a call
            revision = source.revision()
        except ReconcilerError as error:
            self._note("", AttemptResult.FAILED, error)
            self._answer(requests, _refusal(error))
            return
        except Exception as error:
            log_bug("source-bug", error)
            self._note("", AttemptResult.FAILED, _as_ours(error))
            self._answer(requests, _refusal(_as_ours(error)))
            return
        if requests or REQUESTED in reasons or self._is_due(revision):
            self._pass(source, revision, requests)

    def pause(self) -> float:
        """Return for how many seconds there is nothing to do unless somebody calls."""
        if self._attempt is not None and self._attempt.failures:
            return max(0.1, _rest(self._attempt, self._clock()))
        jittered = (self._settings.interval or self._interval()) * random.uniform(0.9, 1.1)
        return min(jittered, _SETTLING) if self._deleting else jittered

    def _interval(self) -> float:
        if self._settings.is_remote:
            return _REMOTE
        return _WATCHED if self._watched else _UNWATCHED

    def _watch(self, source: Source) -> None:
        """Ask for notices of commits. A network file system has none of what another machine does."""
        if self._settings.is_remote:
            return
        found = [self._notices.watch(place, self.wake.call) for place in branch_directories(source)]
        self._watched = all(found) and not is_on_network(source.git_dir)

    # when to plan -------------------------------------------------------------------------------------

    def _is_due(self, revision: Revision) -> bool:
        if self._planned != _key(revision):
            return True
        if self._attempt is not None and self._attempt.failures:
            return not _rest(self._attempt, self._clock())
        return self._deleting and self._can_delete()

    def _can_delete(self) -> bool:
        """Whether the jobs of a flow have ended whose records are to go then: only a plan lets them go."""
        with self._store.read() as view:
            names = [flow.name for flow in view.flows() if _is_to_go(flow)]
            return any(all(job.state not in ACTIVE for job in view.glances_of(name)) for name in names)

    # a pass -------------------------------------------------------------------------------------------

    def _pass(self, source: Source, revision: Revision, requests: Sequence[Request]) -> None:
        with log_context():
            self._make_pass(source, revision, requests)

    def _make_pass(self, source: Source, revision: Revision, requests: Sequence[Request]) -> None:
        log_event("reconcile-begun", f"reconciling {revision}", level=logging.DEBUG)
        self._session = session = Session(source, self._store, revision, self._hosts, self._spare)
        try:
            plan = session.reconcile(self._teller, allow_prune=any(r.allow_prune for r in requests))
            session.record_outcome(plan)
        except ForeignStateError as error:
            self.foreign, self._ending = error, True
            self._answer(requests, _refusal(error, str(revision)))
            self._news()
        except RefusedError as error:
            self._planned = _key(revision)  # the same plan would be refused again
            self._note(str(revision), AttemptResult.REFUSED, error)
            self._answer(requests, _refusal(error, str(revision)))
        except ReconcilerError as error:
            self._note(str(revision), AttemptResult.FAILED, error)
            self._answer(requests, _refusal(error, str(revision)))
        except Exception as error:
            log_bug("reconcile-bug", error)
            self._note(str(revision), AttemptResult.FAILED, _as_ours(error))
            self._answer(requests, _refusal(_as_ours(error), str(revision)))
        else:
            self._done(session, plan, requests)
        finally:
            self._session = None

    def _done(self, session: Session, plan: Plan, requests: Sequence[Request]) -> None:
        revision = session.revision
        self._planned = None if session.overtaken else _key(revision)
        with self._store.read() as view:
            self._deleting = any(map(_is_to_go, view.flows()))
        errors = [diagnostic for diagnostic in plan.diagnostics if diagnostic.is_error]
        result = AttemptResult.INVALID if errors else AttemptResult.APPLIED
        message = f"{errors[0].message} ({errors[0].location})" if errors else ""
        self._put(Attempt(time=self._clock(), result=result, revision=str(revision), message=message))
        log_event("reconciled", self._teller.describe(plan)[-1], result=str(result))
        self._news()
        code = ExitCode.USAGE if errors else ExitCode.OK
        self._answer(requests, Answer(code=code, revision=str(revision), lines=self._teller.describe(plan)))
        if session.overtaken:
            self.wake.call()

    # what came of it ----------------------------------------------------------------------------------

    def _note(self, revision: str, result: AttemptResult, error: ReconcilerError) -> None:
        """Tell an error once, and write down when it is tried again."""
        before = self._attempt.failures if self._attempt is not None else 0
        failures = before + 1 if result is AttemptResult.FAILED else 0
        wait = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2.0 ** min(16, failures - 1)) if failures else 0.0
        now = self._clock()
        attempt = Attempt(
            time=now, result=result, revision=revision, message=error.message, fix=error.hint or "",
            failures=failures, next_try=now + wait if failures else 0.0,
        )  # fmt: skip
        if self._attempt is None or self._attempt.message != attempt.message:
            fields = {"revision": revision, "hint": error.hint}
            log_event(f"reconcile-{result.lower()}", error.message, level=logging.ERROR, **fields)
        self._put(attempt)

    def _put(self, attempt: Attempt) -> None:
        self._attempt = attempt
        try:
            self._store.write(lambda writer: writer.put_attempt(attempt))
        except ReconcilerError as error:
            log_event("store-failed", error.message, level=logging.ERROR, hint=error.hint)

    def _answer(self, requests: Sequence[Request], answer: Answer) -> None:
        try:
            self._requests.answer(requests, answer)
            self._requests.tidy_up(self._clock())
        except ReconcilerError as error:
            log_event("request-failed", error.message, level=logging.ERROR, hint=error.hint)


def _rest(attempt: Attempt, now: float) -> float:
    """Return for how many seconds it is too early for the next try; a clock that was set back adds none."""
    left = attempt.next_try - now
    return left if 0 < left <= attempt.next_try - attempt.time else 0.0


def _is_to_go(flow: FlowRecord) -> bool:
    return flow.removed and not flow.orphaned and flow.prune is Prune.DELETE


def _key(revision: Revision) -> tuple[str, str, str]:
    return revision.branch, revision.commit, revision.path


def _refusal(error: ReconcilerError, revision: str = "") -> Answer:
    return Answer(code=error.exit_code, revision=revision, error=error.message, hint=error.hint or "")


def _as_ours(error: Exception) -> ReconcilerError:
    return ReconcilerError(f"a bug in reconciler: {type(error).__name__}: {error}", hint="see the log")
