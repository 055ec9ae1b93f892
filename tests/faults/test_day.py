"""Show 3: a day of the daemon in ten thousand passes, by a clock that is moved; nothing grows."""

from __future__ import annotations

import gc
import re
import time
from pathlib import Path

import pytest

from reconciler.cli.context import Context, Options
from reconciler.cli.views.log_text import LogTeller
from reconciler.execution.worker.accesses import Accesses
from reconciler.execution.worker.shelf import Shelves
from reconciler.loop import lane_of, open_outputs
from reconciler.model.records import AppliedConfig
from reconciler.watch.notices import Notices
from reconciler.watch.source_thread import Settings, SourceThread
from reconciler.watch.worker_thread import WorkerThread
from tests.faults.conftest import MakeSite
from tests.faults.site import Site, assert_ran_once, assert_store_is_sound

PASSES, DAY = 10_000, 86_400.0
LOOKS, COMMITS = 2_000, 20
"""How many of the passes look at the source, which costs some processes of git, and find a commit."""

GROWTH, OBJECTS = 4 << 20, 2_000
"""By how many bytes and objects memory may grow after the first fifth: far less than one of each a pass."""


class Day:
    """The threads of a daemon, none of them started: the test makes their steps, one after the other."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.now = time.time()
        self.moves = 0
        self.notices = Notices()
        settings = Settings(open_source=lambda fetch: site.source, is_remote=False)
        teller = LogTeller(Context(Options()))
        self.source = SourceThread(
            settings, site.store, site.hosts, teller, lambda: self.now, self.notices, lambda: None
        )
        self.worker: WorkerThread | None = None

    def look(self) -> None:
        """Let the thread of the source look."""
        self.source.look(frozenset())
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
        accesses = Accesses(config.workers, self.source.repository, hosts, Shelves())
        lane = lane_of("here", store, open_outputs(store, config), accesses)
        return WorkerThread(lane, lambda: self.now, self.notices, lambda: None)

    def close(self) -> None:
        """End what a daemon ends at its end."""
        assert self.worker is not None
        self.worker.lane.tidy_up()
        self.notices.close()


def measured() -> tuple[int, int, int]:
    """Return of this process the resident memory in bytes, the number of objects, and that of open files."""
    gc.collect()
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024, len(gc.get_objects()), len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.timeout(600)
def test_a_day_in_ten_thousand_passes(make_site: MakeSite) -> None:
    site = make_site()
    site.local("here", cleanup="completed")
    day = Day(site)
    sizes: list[int] = []
    memory = objects = files = 0
    for number in range(PASSES):
        if is_commit := number % (PASSES // COMMITS) == 0:
            commit(site, number)
        if number == PASSES // 5:
            memory, objects, files = measured()
        day.now += DAY / PASSES
        if number % (PASSES // LOOKS) == 0:
            day.look()
        day.step()
        if is_commit:
            run_jobs(day)
            sizes.append((site.store.path / "lmdb" / "data.mdb").stat().st_size)
    memory_now, objects_now, files_now = measured()
    day.close()
    print(
        f"memory {memory >> 10} -> {memory_now >> 10} KiB, objects {objects} -> {objects_now}, store {sizes}"
    )
    assert memory_now - memory < GROWTH
    assert objects_now - objects < OBJECTS
    assert files_now <= files
    assert sizes[-1] - sizes[0] < COMMITS * (64 << 10), (
        "the store grows by what happens, not by what is looked at"
    )
    assert day.moves >= 3 * COMMITS
    assert_ran_once(site)
    assert_store_is_sound(site)


def commit(site: Site, number: int) -> None:
    """Let a flow go, another one come, and a third one change."""
    site.chain("changes", 1, priority=number % 7)
    site.jobs_flow("recomputes", {"id": "j", "function": "line", "args": [number]})
    site.chain(f"comes-{number}", 2)
    for file in (site.repository.path / "flows").glob("comes-*.yaml"):
        if file.stem != f"comes-{number}":
            file.unlink()
    site.repository.commit(f"pass {number}")


def run_jobs(day: Day) -> None:
    """Let the jobs of a commit run; for them the time is real."""
    deadline = time.monotonic() + 120
    while not day.site.is_idle():
        assert time.monotonic() < deadline, day.site.states_by_job()
        day.now += 0.05
        day.step()
        time.sleep(0.02)
