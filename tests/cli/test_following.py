"""Looking at a store again and again: what is seen, when it ends, and what it costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.cli.following import looks
from reconciler.model.applied import Attempt, AttemptResult


@pytest.fixture
def store(state_dir: Path) -> Iterator[Store]:
    opened = Store(state_dir)
    yield opened
    opened.close()


def note(store: Store, message: str) -> None:
    attempt = Attempt(time=1.0, result=AttemptResult.FAILED, message=message)
    store.write(lambda writer: writer.put_attempt(attempt))


def message(view: View) -> str:
    attempt = view.attempt()
    return attempt.message if attempt is not None else ""


def test_each_write_is_seen_and_nothing_twice(store: Store) -> None:
    found = looks(store, message)
    assert next(found) == ""
    for text in ("one", "two", "three"):
        threading.Timer(0.1, note, (store, text)).start()
        assert next(found) == text


def test_ends_at_the_time_limit(store: Store) -> None:
    begun = time.monotonic()
    assert list(looks(store, message, seconds=0.3)) == [""]
    assert time.monotonic() - begun >= 0.3
    assert list(looks(store, message, seconds=0)) == [""]


def test_a_write_in_the_last_moment_is_seen(store: Store) -> None:
    found = looks(store, message, seconds=0.2)
    next(found)
    time.sleep(0.15)
    note(store, "late")
    assert list(found) == ["late"]


def test_what_has_not_changed_is_not_looked_at_again(store: Store) -> None:
    asked = []
    found = looks(store, lambda view: asked.append(view), refresh=0.01)
    for _ in range(3):
        next(found)
    assert len(asked) == 1


def test_no_transaction_stays_open_meanwhile(store: Store) -> None:
    """Else what is written would pile up, and this thread could not write."""
    for _ in looks(store, message, seconds=0):
        note(store, "written")
    assert list(looks(store, message, seconds=0)) == ["written"]


def test_a_long_look_is_followed_by_a_longer_rest(store: Store) -> None:
    begun = []

    def slow(view: View) -> None:
        begun.append(time.monotonic())
        time.sleep(0.2)

    found = looks(store, slow)
    next(found)
    note(store, "new")
    next(found)
    assert begun[1] - begun[0] >= 0.2 + 2 * 0.2
