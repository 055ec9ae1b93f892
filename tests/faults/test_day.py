"""Show 3: a day of the daemon in ten thousand passes, by a clock that is moved; nothing grows."""

from __future__ import annotations

import gc
import re
import time
from pathlib import Path

import pytest

from reconciler.cli.context import Context, Options
from reconciler.cli.views.log_reporter import LogReporter
from reconciler.execution.worker.access import Accesses
from reconciler.execution.worker.remote_cache import RemoteCaches
from reconciler.loop import open_outputs, worker_runner
from reconciler.model.applied import AppliedConfig
from reconciler.watch.file_notices import FileNotices
from reconciler.watch.source_thread import SourceSettings, SourceThread
from reconciler.watch.worker_thread import WorkerThread
from tests.faults.conftest import MakeSite
from tests.faults.site import Site, assert_store_is_sound

PASSES, DAY = 10_000, 86_400.0
LOOKS, COMMITS = 800, 20
"""How many of the passes look at the source, which costs some processes of git, and find a commit."""

AFTERWARDS = 10
"""Commits a month later, when there should be room for them where the old ones were."""

GROWTH, OBJECTS = 4 << 20, 500
"""By how many bytes and objects memory may grow after the first fifth: less than one object for each look."""


class Day:
    """The threads of a daemon, none of them started: the test makes their steps, one after the other."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.now = time.time()
        self.moves = 0
        self.notices = FileNotices()
        settings = SourceSettings(open_source=lambda fetch: site.source, is_remote=False)
        reporter = LogReporter(Context(Options()))
        self.source = SourceThread(
            settings, site.store, site.hosts, reporter, lambda: self.now, self.notices, lambda: None
        )
        self.worker: WorkerThread | None = None

    def look(self) -> None:
        """Let the thread of the source look, and tidy up."""
        self.source.step(frozenset())
        assert self.source.pause() > 0

    def step(self) -> None:
        """Let the thread of the worker make its passes."""
        if self.worker is None:
            with self.site.store.read() as view:
                config = view.config()
            assert config is not None
            self.worker = self._hire(config)
        while self.worker.step():
            self.moves += 1
        assert self.worker.pause() >= 0

    def _hire(self, config: AppliedConfig) -> WorkerThread:
        store, hosts = self.site.store, self.site.hosts
        accesses = Accesses(config.workers, self.source.repository, hosts, RemoteCaches())
        lane = worker_runner("here", store, open_outputs(store, config), accesses)
        return WorkerThread(lane, lambda: self.now, self.notices, lambda: None)

    def close(self) -> None:
        """End what a daemon ends at its end."""
        assert self.worker is not None
        self.worker.runner.tidy_up()
        self.source._spare.close()
        self.notices.close()

    def commit(self, number: int) -> None:
        """Let a flow go, another one come, and two others change; the jobs of all this take real time."""
        site = self.site
        site.chain("changes", 1, priority=number % 7)
        site.jobs_flow("recomputes", {"id": "j", "function": "line", "args": [number]})
        for file in (site.repository.path / "flows").glob("comes-*.yaml"):
            file.unlink()
        site.chain(f"comes-{number}", 2)
        site.repository.commit(f"commit {number}")
        self.look()
        self.step()
        deadline = time.monotonic() + 120
        while not site.is_idle():
            assert time.monotonic() < deadline, site.states_by_job()
            self.now += 0.05
            self.step()
            time.sleep(0.02)

    def month(self) -> None:
        """Let a month go by in which nothing happens, and then the store be tidied up slice by slice."""
        self.now += 31 * DAY
        for _ in range(20):
            self.now += 61
            self.look()

    def size(self) -> int:
        """Return the bytes of the store."""
        return (self.site.store.path / "lmdb" / "data.mdb").stat().st_size

    def entries(self, *tables: str) -> list[int]:
        """Return how many entries tables have."""
        with self.site.store.read() as view:
            return [view.txn.count(table) for table in tables]


def measured() -> tuple[int, int, int]:
    """Return of this process the resident memory in bytes, the number of objects, and that of open files."""
    gc.collect()
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024, len(gc.get_objects()), len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.timeout(600)
def test_a_day_in_ten_thousand_passes(make_site: MakeSite) -> None:
    site = make_site()
    site.project(prune="delete")
    site.local("here", cleanup="completed")
    day = Day(site)
    memory = objects = files = 0
    for number in range(PASSES):
        if number == PASSES // 5:
            memory, objects, files = measured()
        day.now += DAY / PASSES
        if number % (PASSES // COMMITS) == 0:
            day.commit(number)
        elif number % (PASSES // LOOKS) == 0:
            day.look()
        day.step()
    memory_now, objects_now, files_now = measured()
    print(f"memory {memory >> 10} -> {memory_now >> 10} KiB, objects {objects} -> {objects_now}")
    assert memory_now - memory < GROWTH
    assert objects_now - objects < OBJECTS
    assert files_now <= files
    assert day.moves >= 3 * COMMITS
    _the_store_is_bounded(day)
    day.close()
    ran = site.ran()
    assert set(ran.values()) == {1}
    assert len(ran) == 1 + 3 * (COMMITS + AFTERWARDS)
    assert_store_is_sound(site)


def _the_store_is_bounded(day: Day) -> None:
    """What is old goes, and later commits write where it was."""
    size, (events, parsed, _) = day.size(), day.entries("events", "parsed", "builds")
    day.month()
    left = day.entries("events", "parsed", "builds")
    print(f"store {size >> 10} KiB, events {events} -> {left[0]}, parsed {parsed} -> {left[1]}")
    assert left[0] < events / 2
    for number in range(AFTERWARDS):
        day.commit(PASSES + number)
    # Without reuse it would be 40 % more; a store of 150 pages varies by some of them.
    assert day.size() <= size * 1.2
