"""How the daemon ends, and that jobs do not end with it."""

from __future__ import annotations

import signal
import time

import pytest

from tests.services.processes import is_alive
from tests.watch.support import Watch, WatchWorld, eventually


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_job_runs_on_and_the_next_start_takes_it_in(watched: WatchWorld, number: int, code: int) -> None:
    gate = watched.waiting_flow("long")
    watched.commit()
    watch = watched.start()
    job = watched.until_state("long/wait", "RUNNING")
    begun = time.monotonic()
    assert watch.end(number) == code
    assert time.monotonic() - begun < 10, "though the job takes for ever"
    assert watched.jobs()["long/wait"].state == "RUNNING"
    assert is_alive(int(job.attempt.queue_id or 0))
    gate.touch()
    watched.start()
    done = watched.until_state("long/wait", "COMPLETED")
    assert (done.attempt.number, done.attempt.run_dir) == (1, job.attempt.run_dir)


def test_a_second_interrupt_does_not_wait_for_a_step_that_hangs(watched: WatchWorld) -> None:
    watch = _hanging(watched)
    watch.send(signal.SIGINT)
    watch.until("ending")
    begun = time.monotonic()
    assert watch.end(signal.SIGINT) == 130
    assert time.monotonic() - begun < 5, "it need not wait for the 8 s that a step has"


def test_a_step_that_hangs_does_not_keep_it_beyond_ten_seconds(watched: WatchWorld) -> None:
    watch = _hanging(watched)
    begun = time.monotonic()
    assert watch.end() == 0
    assert time.monotonic() - begun < 15, "a step has 8 s; the rest is for a busy machine"
    assert watch.told("hung", level="warning")


def _hanging(watched: WatchWorld) -> Watch:
    """Start a daemon whose build waits for a file that never comes."""
    watched.repository.write("lib/slow_import.py", _SLOW.format(file=str(watched.root / "building")))
    watched.put("Flow", "slow", {"factory": {"function": "slow_import.make"}})
    watched.commit()
    watch = watched.start()
    eventually((watched.root / "building").exists, "the build to hang", watch)
    return watch


_SLOW = """
import pathlib, time

pathlib.Path({file!r}).touch()
time.sleep(600)


def make():
    raise AssertionError
"""
