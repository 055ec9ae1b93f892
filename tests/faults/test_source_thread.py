"""The thread of the source goes on whatever is refused to it; made in this process, to refuse on demand."""

from __future__ import annotations

import errno
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.actual.daemon_requests import Answer, Requests
from reconciler.actual.writer import Writer
from reconciler.build import process as build_process
from reconciler.cli.context import Context, Options
from reconciler.cli.views.log_reporter import LogReporter
from reconciler.desired.source.git import Source
from reconciler.errors import WorldError
from reconciler.model.actions import Plan
from reconciler.model.applied import Attempt, AttemptResult
from reconciler.model.desired import Revision
from reconciler.watch import log, source_thread
from reconciler.watch.file_notices import FileNotices
from reconciler.watch.source_thread import SourceSettings, SourceThread
from tests.execution.support import eventually
from tests.faults.conftest import MakeSite
from tests.faults.site import PATIENCE, Site


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    site = make_site()
    site.local("here")
    site.chain("first", 1)
    site.repository.commit()
    return site


@pytest.fixture
def start(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], SourceThread]]:
    """Start the thread, with short back-offs."""
    monkeypatch.setattr(source_thread, "_FIRST_BACK_OFF", 0.1)
    monkeypatch.setattr(source_thread, "_LONGEST_BACK_OFF", 0.2)
    notices, started = FileNotices(), []

    def make() -> SourceThread:
        settings = SourceSettings(open_source=lambda fetch: site.source, is_remote=False)
        reporter = LogReporter(Context(Options()))
        thread = SourceThread(settings, site.store, site.hosts, reporter, time.time, notices, lambda: None)
        thread.start()
        started.append(thread)
        return thread

    yield make
    for thread in started:
        thread.end()
        thread.join(PATIENCE)
    notices.close()


def attempt(site: Site) -> Attempt:
    with site.store.read() as view:
        return view.attempt() or Attempt(time=0.0, result=AttemptResult.APPLIED)


def test_what_a_pass_missed_is_found_and_reported(
    site: Site,
    start: Callable[[], SourceThread],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(source_thread, "_COMPARISON", 0.0)
    start()
    assert eventually(lambda: attempt(site).result is AttemptResult.APPLIED and bool(site.jobs()), PATIENCE)

    def tamper(writer: Writer) -> None:
        (job,) = writer.jobs()
        writer.put_job(replace(job, name="tampered"))
        writer.settle([job.flow], 2**60)  # as if nothing had noticed

    site.store.write(tamper)
    with caplog.at_level(logging.ERROR):
        Requests(site.store.path).ask("ada", time.time())
        assert eventually(lambda: site.jobs()["first/j0"].name != "tampered", PATIENCE)
    assert any("misses something: first" in record.message for record in caplog.records)


def test_no_process_can_be_started(
    site: Site, start: Callable[[], SourceThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = [True]

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            if refuses and "build.server" in str(arguments):
                raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
            super().__init__(*arguments, **options)

    monkeypatch.setattr(build_process.subprocess, "Popen", Popen)
    thread = start()
    assert eventually(lambda: attempt(site).failures >= 2, PATIENCE)
    assert attempt(site).result is AttemptResult.FAILED
    assert "cannot be started: Resource temporarily" in attempt(site).message
    assert "limits of this machine" in attempt(site).fix
    assert thread.is_alive()
    refuses.clear()
    assert eventually(lambda: "first/j0" in site.jobs(), PATIENCE)
    assert eventually(lambda: attempt(site).result is AttemptResult.APPLIED, PATIENCE)


def test_git_cannot_be_started(
    site: Site, start: Callable[[], SourceThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = [True]

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            if refuses and "--git-dir=" in str(arguments):
                raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
            super().__init__(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    start()
    assert eventually(lambda: attempt(site).failures >= 2, PATIENCE)
    assert attempt(site).message == "git cannot be started: Resource temporarily unavailable"
    assert "limits of this machine" in attempt(site).fix
    refuses.clear()
    assert eventually(lambda: attempt(site).result is AttemptResult.APPLIED and bool(site.jobs()), PATIENCE)


def test_who_asks_is_answered_whatever_is_wrong_with_the_source(
    site: Site, start: Callable[[], SourceThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may wait for ever for the answer of a daemon that lives."""
    wrong: list[Exception] = [WorldError("no git", hint="get one"), RuntimeError("oops")]

    def breaks(_: Source) -> Revision:
        raise wrong[-1]

    monkeypatch.setattr(Source, "revision", breaks)
    monkeypatch.setattr(log, "log_bug", lambda *_arguments, **_fields: None)
    requests, thread = Requests(site.store.path), start()
    expected = [
        Answer(code=3, error="a bug in reconciler: RuntimeError: oops", hint="see the log"),
        Answer(code=3, error="no git", hint="get one"),
    ]
    for answer in expected:
        token = requests.ask("me", time.time())
        thread.wake.call()
        assert eventually(lambda token=token: requests._file(token, "answer").exists(), PATIENCE)
        assert requests.take_answer(token) == answer
        wrong.pop()


def test_a_bug_of_ours(
    site: Site, start: Callable[[], SourceThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and does not end the thread, wherever in it it is."""
    errors, told = [RuntimeError("one"), RuntimeError("two")], []
    monkeypatch.setattr(log, "log_bug", lambda event, error, **fields: told.append(str(error)))
    describe = LogReporter.describe

    def breaks(self: LogReporter, plan: Plan) -> list[str]:
        if errors:
            raise errors.pop()
        return describe(self, plan)

    monkeypatch.setattr(LogReporter, "describe", breaks)
    thread = start()
    assert eventually(lambda: told == ["two", "one"], PATIENCE)
    site.chain("second", 1)
    site.repository.commit()
    assert eventually(lambda: "second/j0" in site.jobs(), PATIENCE)
    assert eventually(lambda: attempt(site).result is AttemptResult.APPLIED, PATIENCE)
    assert thread.is_alive()
