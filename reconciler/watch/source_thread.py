"""The thread of the source: it notices new revisions and decides when a pass is due.

A pass is due when the commit has changed, when another process requests one, and when the last one left more
to do; not when jobs change state, which is the business of the workers' threads.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence

import msgspec

from reconciler.actual.compaction import compact
from reconciler.actual.daemon_requests import Answer, Request, Requests
from reconciler.actual.state_dir import is_on_network
from reconciler.actual.store import Store
from reconciler.build.process import SpareProcess
from reconciler.comparison import SCOPE_BUG, Comparison
from reconciler.desired.source.command import printable
from reconciler.desired.source.git import Source
from reconciler.errors import ForeignStateError, ReconcilerError, RefusedError, UnverifiedError
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.worker.upload import Repository
from reconciler.jobs.bookkeeping import followed_branch
from reconciler.loop import Session
from reconciler.model.applied import Attempt, AttemptResult
from reconciler.model.desired import Revision
from reconciler.model.manifests import Prune
from reconciler.model.records import FlowRecord
from reconciler.model.retries import back_off
from reconciler.watch.file_notices import FileNotices, branch_directories
from reconciler.watch.log import bugs_logged, log_context, log_event
from reconciler.watch.signals import WakeUp
from reconciler.watch.source_pass import DaemonReporter, PassResult, make_pass, refusal

Clock = Callable[[], float]

_REMOTE, _WATCHED, _UNWATCHED = 60.0, 10.0, 1.0
"""Seconds between two checks: of a remote, and of a local repository with or without file notices."""

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 5.0, 300.0
_COMPARISON = 3600.0
"""Seconds between two comparisons of everything, while nothing else is to be done."""

_SETTLING = 10.0
"""Seconds between two checks whether the records of a removed flow can be deleted."""

REQUESTED = "requested"
"""The reason of a wake-up after which a pass is made even if nothing seems to have changed."""


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the source is, and how often to check it.

    ``open_source`` takes whether to fetch from a remote. ``branch`` is that of ``--branch``; without it the
    daemon follows the branch of the state, whatever is checked out. ``interval`` is in seconds; None means
    the default for the kind of source.
    """

    open_source: Callable[[bool], Source]
    is_remote: bool
    branch: str | None = None
    interval: float | None = None


class SourceThread(threading.Thread):
    """Checks the source at intervals and when woken. Calls ``news`` when other threads may have work."""

    def __init__(
        self,
        settings: SourceSettings,
        store: Store,
        hosts: Hosts,
        reporter: DaemonReporter,
        clock: Clock,
        notices: FileNotices,
        news: Callable[[], None],
    ) -> None:
        super().__init__(name="source", daemon=True)
        self.wake = WakeUp()
        self.foreign: ForeignStateError | None = None
        """Set when the state turns out to belong to another repository; the thread then ends."""
        self._settings = settings
        self._store = store
        self._hosts = hosts
        self._reporter = reporter
        self._clock = clock
        self._notices = notices
        self._news = news
        self._requests = Requests(store.path)
        self._spare = SpareProcess()
        self._source: Source | None = None
        self._session: Session | None = None
        self._planned: Revision | None = None
        self._has_notices = False
        self._deleting = False
        self._next_comparison = clock() + _COMPARISON
        self._attempt: Attempt | None = None
        self._elsewhere = ""
        self._ending = False

    @property
    def repository(self) -> Repository:
        """The code and files that workers need, read from the source when they need them."""
        return Repository(lambda tree: self._opened().code(tree), lambda ids: self._opened().blobs(ids))

    def _opened(self) -> Source:
        if self._source is None:  # workers carry on with the last revision before the first check
            self._source = self._settings.open_source(False)
        return self._source

    # for other threads --------------------------------------------------------------------------------

    def kill(self) -> None:
        """Kill the build processes, because the program ends although this thread hangs."""
        if self._session is not None:
            self._session.interrupt()
        self._spare.kill()

    def end(self) -> None:
        """End the thread after its current step."""
        self._ending = True
        self.wake.call()

    # the loop -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Check the source until told to end."""
        reasons = frozenset[str]()
        while not self._ending:
            self.step(reasons)
            if not self._ending:
                reasons = self.wake.wait(self.pause())
        self._spare.close()

    def step(self, reasons: frozenset[str]) -> None:
        """Check the source once and prepare for the next time. No error ends this thread."""
        try:
            with bugs_logged("source-bug"):
                self._notices.watch(self._requests.directory, self._on_request)
                self._check(reasons)
                if not self._ending:
                    self._prepare()
        except ReconcilerError as error:
            self._record_error("", error)

    def pause(self) -> float:
        """Return the seconds until the next check, unless something wakes this thread earlier."""
        if self._attempt is not None and self._attempt.failures:
            return max(0.1, _time_left(self._attempt, self._clock()))
        default = _REMOTE if self._settings.is_remote else _WATCHED if self._has_notices else _UNWATCHED
        jittered = (self._settings.interval or default) * random.uniform(0.9, 1.1)
        return min(jittered, _SETTLING) if self._deleting else jittered

    def _on_request(self) -> None:
        """Another program has requested something, or has changed jobs."""
        self.wake.call()
        self._news()

    def _check(self, reasons: frozenset[str]) -> None:
        """Read the source, and make a pass if one is due. Every request gets an answer."""
        requests: Sequence[Request] = self._requests.pending()
        try:
            with bugs_logged("source-bug"):
                self._source = source = self._settings.open_source(True)
                requests, follow = self._moves(source, requests)
                self._choose_branch(source, follow)
                self._watch(source)  # before reading, so that a commit in between wakes this thread
                revision = source.revision()
        except ReconcilerError as error:
            self._record_error("", error)
            self._answer(requests, refusal(error))
            return
        if requests or REQUESTED in reasons or self._is_due(revision):
            with log_context():
                self._pass(source, revision, requests, follow=bool(follow))

    def _moves(self, source: Source, requests: Sequence[Request]) -> tuple[Sequence[Request], str]:
        """Return the requests that can be carried out, and the branch that they want to be followed, if any.

        A request to follow a branch that this daemon cannot read is answered here; it changes nothing else.
        """
        refused, given = [], self._settings.branch
        for request in requests:
            if request.follow and given is not None and source.followable() != request.follow:
                error = RefusedError(
                    f"refused: the daemon was started with --branch {given}",
                    hint=f"stop it, and start it again with --branch {request.follow} --follow",
                )
            elif request.follow and source.tip(request.follow) is None:
                error = RefusedError(f"refused: the daemon's repository has no branch {request.follow}")
            else:
                continue
            self._answer([request], refusal(error))
            refused.append(request)
        left = [request for request in requests if request not in refused]
        return left, next((request.follow for request in reversed(left) if request.follow), "")

    def _choose_branch(self, source: Source, follow: str) -> None:
        """Make the source read the branch that the state follows, whatever is checked out; or ``follow``."""
        with self._store.read() as view:
            followed = follow or followed_branch(view, source)
        if self._settings.branch is not None or not followed or source.tip(followed) is None:
            return  # a branch that is gone may have been renamed: the pass decides
        head = printable(followed) if self._settings.is_remote else source.branch_name()
        source.branch = followed
        shown = printable(followed)
        elsewhere = "" if head == shown else f"{head} -> {shown}"
        if elsewhere not in ("", self._elsewhere):
            what = "HEAD is detached" if head == "HEAD" else f"HEAD is now {head}"
            log_event("head-elsewhere", f"{what}; still following {shown}")
        self._elsewhere = elsewhere

    def _watch(self, source: Source) -> None:
        """Ask for notices of commits; a network file system gives none of changes by other machines."""
        if not self._settings.is_remote:
            watched = [self._notices.watch(place, self.wake.call) for place in branch_directories(source)]
            self._has_notices = all(watched) and not is_on_network(source.git_dir)

    def _prepare(self) -> None:
        """Do what can wait: warm up a build process, compact the store."""
        try:
            self._spare.warm()
            compact(self._store, self._clock())
            self._compare_everything()
        except (ReconcilerError, OSError) as error:
            log_event("tidying-failed", str(error), level=logging.WARNING)

    def _compare_everything(self) -> None:
        """Once in a while, compare the whole revision: a pass must not have missed anything.

        If one has, it is a bug, and the next pass compares everything as well.
        """
        if self._source is None or self._planned is None or self._clock() < self._next_comparison:
            return
        self._next_comparison = self._clock() + _COMPARISON
        comparison = Comparison(self._source, self._store, self._planned, full=True)
        _, _, plan = comparison.compared()
        for problem in plan.diagnostics:
            if problem.code == SCOPE_BUG:
                log_event("plan-bug", problem.message, level=logging.ERROR, hint=problem.hint)
                self._planned = None

    # passes -------------------------------------------------------------------------------------------

    def _is_due(self, revision: Revision) -> bool:
        if self._planned is None or not _same_place(self._planned, revision):
            return True
        if self._attempt is not None and self._attempt.failures:
            return not _time_left(self._attempt, self._clock())
        return self._deleting and self._can_delete()

    def _can_delete(self) -> bool:
        """Return whether all jobs of a flow have ended whose records the next plan deletes."""
        with self._store.read() as view:
            names = [flow.name for flow in view.flows() if _is_to_delete(flow)]
            return any(not view.summary(name).active for name in names)

    def _pass(self, source: Source, revision: Revision, requests: Sequence[Request], *, follow: bool) -> None:
        """Make a pass over a revision, and record, log and answer what came of it."""
        self._session = Session(source, self._store, revision, self._hosts, self._spare, follow=follow)
        allow_prune = any(request.allow_prune for request in requests)
        done = make_pass(self._session, self._reporter, allow_prune=allow_prune)
        self._session = None
        if isinstance(done.error, ForeignStateError):
            self.foreign, self._ending = done.error, True
            self._news()
        elif done.error is not None:
            if done.result is AttemptResult.REFUSED:
                self._planned = revision  # the same plan would be refused again
            self._record_error(str(revision), done.error, done.result)
        else:
            self._record_success(revision, done)
        self._answer(requests, done.answer)

    def _record_success(self, revision: Revision, done: PassResult) -> None:
        self._planned = None if done.overtaken else revision
        with self._store.read() as view:
            self._deleting = any(map(_is_to_delete, view.flows()))
        self._put(
            Attempt(time=self._clock(), result=done.result, revision=str(revision), message=done.problem)
        )
        log_event("reconciled", done.answer.lines[-1], result=str(done.result))
        self._news()
        if done.overtaken:
            self.wake.call()

    def _record_error(
        self, revision: str, error: ReconcilerError, result: AttemptResult = AttemptResult.FAILED
    ) -> None:
        """Log an error once, and record when the next try is."""
        before = self._attempt.failures if self._attempt is not None else 0
        failures = before + 1 if result is AttemptResult.FAILED else 0
        wait = back_off(failures, _FIRST_BACK_OFF, _LONGEST_BACK_OFF)
        now = self._clock()
        attempt = Attempt(
            time=now, result=result, revision=revision, message=error.message, fix=error.hint or "",
            failures=failures, next_try=now + wait if failures else 0.0,
            unverified=isinstance(error, UnverifiedError),
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


def _time_left(attempt: Attempt, now: float) -> float:
    """Return the seconds until the next try; a clock that was set back adds none."""
    left = attempt.next_try - now
    return left if 0 < left <= attempt.next_try - attempt.time else 0.0


def _is_to_delete(flow: FlowRecord) -> bool:
    return flow.removed and not flow.orphaned and flow.prune is Prune.DELETE


def _same_place(one: Revision, other: Revision) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("branch", "commit", "path", "policy"))
