"""FileNotices of real directories: that they come, and that they never stop coming."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from reconciler.watch.file_notices import FileNotices
from tests.execution.support import eventually


class Bell:
    """Counts its calls; a change may be several."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1

    def rings_at(self, change: Callable[[], object]) -> bool:
        """Whether a change is noticed; what was before it does not count."""
        self.quieten()
        before = self.calls
        change()
        return bool(eventually(lambda: self.calls > before, 30))

    def quieten(self) -> None:
        """Wait until half a second has gone by without a call."""
        calls, since = self.calls, time.monotonic()
        while time.monotonic() - since < 0.5:
            if self.calls != calls:
                calls, since = self.calls, time.monotonic()
            time.sleep(0.01)


@pytest.fixture
def notices() -> Iterator[FileNotices]:
    made = FileNotices()
    yield made
    made.close()


@pytest.fixture
def bell() -> Bell:
    return Bell()


def test_a_change_is_noticed_a_look_is_not(notices: FileNotices, bell: Bell, tmp_path: Path) -> None:
    assert notices.watch(tmp_path, bell)
    file = tmp_path / "file"
    assert bell.rings_at(file.touch)
    bell.quieten()
    calls = bell.calls
    file.read_bytes()
    list(tmp_path.iterdir())
    bell.quieten()
    assert bell.calls == calls


def test_a_missing_directory_gives_none(notices: FileNotices, bell: Bell, tmp_path: Path) -> None:
    assert not notices.watch(tmp_path / "missing", bell)


def test_a_directory_that_was_made_anew_is_watched_again(
    notices: FileNotices, bell: Bell, tmp_path: Path
) -> None:
    """Often it has the inode of the old one, too; that this is gone rings, and who hears it asks again."""
    place = tmp_path / "place"

    def is_watched() -> bool:
        bell.quieten()  # the end of the former directory may ring late: it is not the change that follows
        before = bell.calls
        assert notices.watch(place, bell)
        (place / str(before)).touch()
        return bool(eventually(lambda: bell.calls > before, 2))

    for _ in range(5):
        place.mkdir()
        assert eventually(is_watched, 30)
        assert bell.rings_at(lambda: shutil.rmtree(place))


def test_a_directory_that_was_replaced_is_watched_again(
    notices: FileNotices, bell: Bell, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    assert notices.watch(place, bell)
    place.rename(tmp_path / "old")
    place.mkdir()
    assert notices.watch(place, bell)
    assert bell.rings_at((place / "file").touch)


def test_nested_directories_that_come_go_and_move_end_nothing(
    notices: FileNotices, bell: Bell, tmp_path: Path
) -> None:
    """What kills the reading thread of watchdog when it watches them all."""
    assert notices.watch(tmp_path, bell)
    threads = set(threading.enumerate())
    _churn(tmp_path / "heads", 3.0)
    assert set(threading.enumerate()) >= threads
    assert bell.rings_at((tmp_path / "file").touch)


def test_many_come_and_go_without_a_trace(notices: FileNotices, bell: Bell, tmp_path: Path) -> None:
    notices.watch(tmp_path, bell)
    threads = threading.active_count()
    for number in range(20):
        place = tmp_path / f"branch-{number}"
        place.mkdir()
        assert notices.watch(place, bell)
        place.rmdir()

    def are_gone() -> bool:
        notices.watch(tmp_path, bell)
        return threading.active_count() == threads

    assert eventually(are_gone, 30)


def test_several_may_watch_one_directory(notices: FileNotices, tmp_path: Path) -> None:
    """As when a worker has changed, and another thread serves it now."""
    first, second = Bell(), Bell()
    assert notices.watch(tmp_path, first)
    assert notices.watch(tmp_path, second)
    assert first.rings_at((tmp_path / "a").touch)
    assert eventually(lambda: second.calls > 0, 30)
    notices.forget(first)
    first.quieten()
    calls = first.calls
    assert second.rings_at((tmp_path / "b").touch)
    assert first.calls == calls
    notices.forget(second)
    assert notices.watch(tmp_path, first)
    assert first.rings_at((tmp_path / "c").touch)


def test_all_who_watched_a_directory_watch_the_one_in_its_place(notices: FileNotices, tmp_path: Path) -> None:
    first, second, place = Bell(), Bell(), tmp_path / "place"
    place.mkdir()
    assert notices.watch(place, first) and notices.watch(place, second)
    place.rename(tmp_path / "old")
    place.mkdir()
    assert notices.watch(place, second)
    assert first.rings_at((place / "file").touch)


def test_who_has_given_up_promises_nothing(notices: FileNotices, bell: Bell, tmp_path: Path) -> None:
    assert notices.watch(tmp_path, bell)
    notices.give_up()
    assert not notices.watch(tmp_path, bell)


def _churn(root: Path, seconds: float) -> None:
    dice, end = Random(7), time.monotonic() + seconds
    while time.monotonic() < end:
        place = root / dice.choice("abc") / dice.choice("xy")
        try:
            match dice.randrange(4):
                case 0 | 1:
                    place.mkdir(parents=True)
                    (place / "file").touch()
                case 2:
                    shutil.rmtree(place.parent)
                case 3:
                    place.parent.rename(root / dice.choice("abc"))
        except OSError:
            continue
