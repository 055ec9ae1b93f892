"""When a worker is polled and tried again, also when the clock is set back."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.actual.store import Store
from reconciler.errors import TransientError
from reconciler.execution.pacing import PollSchedule, WorkerHealth
from reconciler.model.manifests import PollInterval

T0 = 1_800_000_000.0


def schedule(*, local: bool, shortest: float = 0.5, longest: float = 10.0) -> PollSchedule:
    found = PollSchedule(PollInterval(shortest=shortest, longest=longest), local=local)
    found.moved(T0)
    found.polled(T0, asked=True)
    return found


@pytest.mark.parametrize(
    ("quiet", "interval"), [(0.0, 0.5), (1.0, 0.5), (10.0, 2.0), (40.0, 8.0), (1000.0, 10.0)]
)
def test_another_host_is_polled_less_and_less(quiet: float, interval: float) -> None:
    remote = schedule(local=False)
    last = T0 + quiet
    remote.polled(last, asked=True)
    assert remote.next_poll(last, urgent=False) == pytest.approx(last + interval)
    assert not remote.due(last + interval * 0.8)
    assert remote.due(last + interval * 1.3 + 0.1)


def test_the_worker_sets_the_bounds() -> None:
    slow = schedule(local=False, shortest=5.0, longest=60.0)
    assert slow.next_poll(T0, urgent=False) == T0 + 5
    slow.polled(T0 + 9000, asked=True)
    assert slow.next_poll(T0 + 9000, urgent=False) == T0 + 9060


def test_the_queue_of_this_machine_is_asked_often_while_a_job_starts() -> None:
    local = schedule(local=True)
    assert local.next_poll(T0, urgent=False) == T0 + 2
    assert local.next_poll(T0, urgent=True) == T0 + 0.5
    assert local.due(T0), "its outbox costs nothing"


def test_a_clock_that_was_set_back_stops_no_poll() -> None:
    remote = schedule(local=False)
    assert remote.due(T0 - 3600)
    assert remote.queue_due(T0 - 3600, urgent=False)
    assert remote.next_poll(T0 - 3600, urgent=False) == T0 - 3600
    assert schedule(local=True).next_poll(T0 - 3600, urgent=False) == T0 - 3600


def test_a_clock_that_was_set_back_prolongs_no_outage(state_dir: Path) -> None:
    store = Store(state_dir)
    health = WorkerHealth(store, "w1")
    health.failed(TransientError("no answer"), T0)
    assert health.backs_off(T0 + 1)
    assert not health.backs_off(T0 + 2)
    assert not health.backs_off(T0 - 3600)
    store.close()
