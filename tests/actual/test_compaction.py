"""What goes and what stays, in slices; and a store that is written for ever stays as large as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from reconciler import __version__
from reconciler.actual import compaction
from reconciler.actual.compaction import DAY, EVENTS, MOST_REMOVED, Progress, Retention, compact, is_due
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.model.applied import AppliedRevision
from reconciler.model.manifests import GoodManifest, ParsedFile
from reconciler.model.records import Event, FlowRecord
from tests.actual.fsck_support import built, problems

HOUR = 3600.0
NOW = 1_800_000_000.0
EMPTY = ParsedFile([], [], True, [])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state")
    store.write(lambda writer: put_flow(writer, "f"))
    yield store
    store.close()


def put_flow(writer: Writer, name: str) -> None:
    writer.put_build(built(name))
    writer.put_flow(FlowRecord(name=name, identity="i", build_key=f"build-{name}"))


def add_events(store: Store, about: str, number: int, time: float) -> None:
    def write(writer: Writer) -> None:
        for n in range(number):
            writer.add_event(Event(time=time, type="T", about=about, message=str(n)))

    store.write(write)


def messages(store: Store, about: str) -> list[int]:
    with store.read() as view:
        return [int(event.message) for event in view.events(about)]


def a_round(store: Store, now: float) -> int:
    """Compact until a round is at its end; return how many slices that took."""
    for number in range(1, 1000):
        compact(store, now + number * compaction.SLICE_SECONDS)
        with store.read() as view:
            if not compaction.progress_of(view).more:
                return number
    raise AssertionError("there is no end")


class TestDecider:
    """Which entry goes, by its rank and age alone."""

    @pytest.mark.parametrize(
        ("rank", "age", "goes"),
        [
            (0, 1e9, False), (199, 1e9, False), (200, 30 * DAY, False), (200, 30 * DAY + 1, True),
            (9_999, 0.0, False), (10_000, 0.0, True), (5_000, -DAY, False),
        ],
    )  # fmt: skip
    def test_events(self, rank: int, age: float, goes: bool) -> None:
        assert EVENTS.goes(rank, age) is goes

    @pytest.mark.parametrize(
        ("progress", "after", "due"),
        [
            (Progress(), NOW, True), (Progress(at=NOW), 3599.0, False), (Progress(at=NOW), 3600.0, True),
            (Progress(at=NOW, more=True), 59.0, False), (Progress(at=NOW, more=True), 60.0, True),
            (Progress(at=NOW), -3600.0, True),
        ],
    )  # fmt: skip
    def test_when(self, progress: Progress, after: float, due: bool) -> None:
        assert is_due(progress, NOW + after) is due


class TestEvents:
    """For each subject the newest, and all that are young."""

    def test_old_ones_beyond_the_newest_go(self, store: Store) -> None:
        add_events(store, "job/f/a", 250, NOW - 31 * DAY)
        add_events(store, "job/f/b", 200, NOW - 31 * DAY)
        add_events(store, "worker/w", 300, NOW - 29 * DAY)
        add_events(store, "flow/f", 3, NOW - 400 * DAY)
        assert compact(store, NOW) == 50
        assert messages(store, "job/f/a") == list(range(50, 250))
        assert [len(messages(store, about)) for about in ("job/f/b", "worker/w", "flow/f")] == [200, 300, 3]
        with store.read() as view:
            assert len(view.events()) == view.txn.count("events_about") == 703
        assert problems(store) == []

    def test_young_ones_make_old_ones_go(self, store: Store) -> None:
        add_events(store, "worker/w", 200, NOW - 31 * DAY)
        assert compact(store, NOW) == 0
        add_events(store, "worker/w", 150, NOW)
        assert compact(store, NOW + HOUR) == 150
        assert messages(store, "worker/w") == [*range(150, 200), *range(150)]

    def test_there_is_a_limit_to_all(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compaction, "EVENTS", Retention(keep=5, seconds=DAY, most=20))
        add_events(store, "worker/w", 50, NOW)
        assert compact(store, NOW) == 30
        assert messages(store, "worker/w") == list(range(30, 50))

    def test_those_of_a_flow_that_is_no_more_go_when_they_are_old(self, store: Store) -> None:
        add_events(store, "flow/gone", 2, NOW - 31 * DAY)
        add_events(store, "job/gone/a", 2, NOW - 29 * DAY)
        assert compact(store, NOW) == 2
        assert compact(store, NOW + 2 * DAY) == 2
        with store.read() as view:
            assert view.events() == []

    def test_names_too_long_for_a_key(self, store: Store) -> None:
        about = "job/f/" + "x" * 600
        add_events(store, about, 201, NOW - 31 * DAY)
        assert compact(store, NOW) == 1
        assert messages(store, about) == list(range(1, 201))

    def test_one_that_cannot_be_read_is_old(self, store: Store) -> None:
        add_events(store, "worker/w", 201, NOW)
        store.write(lambda writer: writer.txn.put("events", next(iter(writer.txn.keys("events"))), b"\xc1"))
        assert compact(store, NOW) == 1
        assert messages(store, "worker/w") == list(range(1, 201))


class TestSlices:
    """Each transaction is bounded; all together do the whole."""

    def test_a_slice_removes_no_more_than_it_may(self, store: Store) -> None:
        for number in range(3):
            add_events(store, f"job/f/{number}", 1_000, NOW - 31 * DAY)
        assert compact(store, NOW) == MOST_REMOVED
        assert compact(store, NOW + 59) == 0, "not yet"
        assert compact(store, NOW + 60) == MOST_REMOVED
        assert compact(store, NOW + 120) == 400
        assert compact(store, NOW + 180) == 0
        assert [len(messages(store, f"job/f/{number}")) for number in range(3)] == [200] * 3
        assert problems(store) == []

    def test_a_slice_looks_at_no_more_than_it_may(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compaction, "MOST_VISITED", 10)
        for number in range(30):
            add_events(store, f"job/f/{number:02}", 5, NOW)
        add_events(store, "worker/w", 300, NOW - 31 * DAY)
        assert a_round(store, NOW) == 17
        assert len(messages(store, "worker/w")) == 200

    def test_another_process_goes_on(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compaction, "MOST_VISITED", 10)
        for name in "abc":
            add_events(store, f"job/f/{name}", 250, NOW - 31 * DAY)
        for slice_number, expected in enumerate(([200, 250, 250], [200, 200, 250], [200, 200, 200])):
            again = Store(store.path)
            assert compact(again, NOW + slice_number * 60) == 50
            again.close()
            assert [len(messages(store, f"job/f/{name}")) for name in "abc"] == expected

    def test_it_is_no_change_of_flows_or_jobs(self, store: Store) -> None:
        """A reconcile with nothing to do stays one."""
        add_events(store, "worker/w", 300, NOW - 31 * DAY)
        with store.read() as view:
            before = view.change_counter()
        assert compact(store, NOW) == 100
        with store.read() as view:
            assert view.change_counter() == before

    def test_a_failed_slice_leaves_nothing(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        add_events(store, "worker/w", 300, NOW - 31 * DAY)
        with monkeypatch.context() as patch:
            patch.setattr(compaction, "encode", lambda record: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                compact(store, NOW)
        assert len(messages(store, "worker/w")) == 300
        assert compact(store, NOW) == 100


def test_revisions_beyond_the_newest_thousand(store: Store) -> None:
    def write(writer: Writer) -> None:
        for number in range(1_020):
            time = NOW - (40 if number < 15 else 20) * DAY
            writer.add_revision(
                AppliedRevision(time=time, branch="main", commit=f"{number:040}", path="", summary={})
            )

    store.write(write)
    assert compact(store, NOW) == 15
    with store.read() as view:
        assert [int(revision.commit) for revision in view.revisions()] == list(range(15, 1_020))
        last = view.last_revision()
        assert last is not None
        assert int(last.commit) == 1_019


class TestCaches:
    """What can be made again goes when nothing has referred to it for long."""

    def put(self, store: Store) -> None:
        def write(writer: Writer) -> None:
            writer.put_build(built("old"))
            writer.put_good("Flow/f", GoodManifest("flows/f.yaml", "good", 0))
            for key in (f"good:{__version__}:1", "good:0.0.1:1", f"old:{__version__}:1"):
                writer.put_parsed(key, EMPTY)

        store.write(write)

    def keys(self, store: Store) -> list[str]:
        with store.read() as view:
            return [key.decode() for table in ("builds", "parsed") for key in view.txn.keys(table)]

    def test_after_thirty_days(self, store: Store) -> None:
        self.put(store)
        everything = self.keys(store)
        assert compact(store, NOW) == 0
        assert compact(store, NOW + 29 * DAY) == 0
        assert self.keys(store) == everything
        assert problems(store) == []
        assert compact(store, NOW + 30 * DAY + HOUR) == 3
        assert self.keys(store) == ["build-f", f"good:{__version__}:1"]
        with store.read() as view:
            assert view.txn.count("unused") == 0

    def test_what_is_used_again_begins_anew(self, store: Store) -> None:
        self.put(store)
        compact(store, NOW)
        store.write(lambda writer: put_flow(writer, "old"))
        compact(store, NOW + 20 * DAY)
        store.write(lambda writer: writer.delete_flow("old"))
        compact(store, NOW + 25 * DAY)
        compact(store, NOW + 40 * DAY)
        assert "build-old" in self.keys(store)
        compact(store, NOW + 56 * DAY)
        assert "build-old" not in self.keys(store)

    def test_many_in_slices(self, store: Store) -> None:
        def write(writer: Writer) -> None:
            for number in range(2_500):
                writer.put_parsed(f"{number}:{__version__}:1", EMPTY)

        store.write(write)
        assert a_round(store, NOW) == 3
        assert a_round(store, NOW + 31 * DAY) == 3
        assert self.keys(store) == ["build-f"]
        assert problems(store) == []


@pytest.mark.slow
def test_the_file_stays_as_large_as_it_is(tmp_path: Path) -> None:
    """20,000 writes in two years, fifty a transaction: events, revisions, flows that change, parsed blobs."""
    store, dice = Store(tmp_path / "state"), Random(20240229)
    pages = []
    for number in range(0, 20_000, 50):
        now = NOW + number * HOUR
        store.write(lambda writer, now=now: [a_change(writer, dice, now) for _ in range(50)])  # type: ignore[misc]
        compact(store, now)
        if number % 1_000 == 950:
            pages.append(store._database._env.info()["last_pgno"])
    assert max(pages) <= 1.05 * max(pages[:10]), pages  # by then all that is kept is there
    with store.read() as view:
        sizes = {table: view.txn.count(table) for table in ("events", "builds", "parsed", "revisions")}
    assert sizes["events"] < 4_000
    assert sizes["builds"] < 400
    assert sizes["parsed"] < 800
    assert sizes["revisions"] <= 1_100
    assert problems(store) == []
    store.close()


def a_change(writer: Writer, dice: Random, now: float) -> None:
    """What a day of a campaign leaves in the store."""
    name = f"f{dice.randrange(8)}"
    writer.add_event(Event(time=now, type="T", about=f"job/{name}/a", message="m" * dice.randrange(300)))
    match dice.randrange(8):
        case 0:
            build = msgspec.structs.replace(built(name), build_key=f"{dice.random()}", code=["x" * 3_000])
            writer.put_build(build)
            writer.put_flow(FlowRecord(name=name, identity="i", build_key=build.build_key))
        case 1:
            writer.delete_flow(name)
        case 2 | 3:
            blob = f"{dice.random()}"
            writer.put_parsed(f"{blob}:{__version__}:1", ParsedFile([], [], True, ["x" * 1_000]))
            writer.put_good(f"Flow/{name}", GoodManifest("flows/f.yaml", blob, 0))
        case 4:
            revision = AppliedRevision(time=now, branch="main", commit="1" * 40, path="", summary={})
            writer.add_revision(revision)
