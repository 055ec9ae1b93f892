"""Thousands of jobs from one generator: the work is that of the new jobs, and one transaction."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.store import Store
from reconciler.actual.transaction import Transaction
from tests.execution.support import World, eventually, processes_below
from tests.jobs.bench import Bench, new_job
from tests.support import Reconcile

OPERATIONS = ("get", "put", "delete", "scan", "keys")


class Counted:
    """How often the tables of the store were touched, and how many transactions wrote."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.operations = 0
        self.writes = 0
        for name in OPERATIONS:
            patch.setattr(Transaction, name, self._counting(getattr(Transaction, name)))
        write = Store.write

        def counted(store: Store, change: Any) -> Any:
            self.writes += 1
            return write(store, change)

        patch.setattr(Store, "write", counted)

    def _counting(self, operation: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.operations += 1
            return operation(*args, **kwargs)

        return counted

    def take(self) -> tuple[int, int]:
        """Return (operations, transactions) since the last time."""
        found = self.operations, self.writes
        self.operations = self.writes = 0
        return found


def born(name: str, count: int) -> list[Any]:
    return [new_job(f"{name}-{number}") for number in range(count)]


def costs(bench: Bench, counted: Counted, key: str, count: int) -> int:
    """Take in a generator with its jobs, in one transaction; return the operations on tables."""
    bench.start(f"f/{key}")
    counted.take()
    bench.end(f"f/{key}", detour=born(key, count))
    operations, writes = counted.take()
    assert writes == 1
    return operations


def test_it_costs_what_the_new_jobs_cost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.flow("f", {"a": [], "b": [], "c": [], "d": [], "child": ["a"]})
    counted = Counted(monkeypatch)
    few, many = costs(bench, counted, "a", 100), costs(bench, counted, "b", 1100)
    each = (many - few) / 1000
    assert each < 40
    later = costs(bench, counted, "c", 100)
    assert later < few + 60, "however many jobs the flow has already"
    keys = sorted(job.key for job in bench.jobs())
    assert len(set(keys)) == len(keys) == 1305
    assert {"new", "new#2", "new#1300"} <= set(keys)


def test_who_waits_for_many_costs_little_after_each(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.flow("f", {"a": [], "child": ["a"]})
    bench.start("f/a")
    bench.end("f/a", detour=born("a", 200))
    assert len(bench.job("f/child").parents) == 201
    counted = Counted(monkeypatch)
    for job in [job for job in bench.jobs() if job.generated_by]:
        bench.start_one(job)
        bench.end_one(msgspec.structs.replace(job, attempt=job.attempt_with(number=1)))
    assert counted.take()[0] / 200 < 100
    assert bench.states("f/child") == ["READY"]


def test_keys_of_jobs_that_left_are_given_again(bench: Bench) -> None:
    bench.flow("f", {"a": [], "b": []})
    bench.start("f/a", "f/b")
    bench.end("f/a", addition=born("a", 5))
    bench.end("f/b", addition=born("b", 3))
    bench.operate("rerun", "f/a")
    bench.start("f/a")
    bench.end("f/a", addition=[*born("c", 4), new_job("d", name="new#2")])
    keys = [job.key for job in bench.jobs() if job.current]
    assert len(set(keys)) == len(keys)
    assert {"new", "new#6", "new#7", "new#8"} <= set(keys)


def test_names_that_are_longer_than_a_key_of_the_store(bench: Bench) -> None:
    bench.flow("f", {"a": []})
    bench.start("f/a")
    name = "n" * 600
    bench.end("f/a", addition=[new_job(f"a-{number}", name=name) for number in range(3)])
    assert sorted(job.key for job in bench.jobs() if job.generated_by) == [name, f"{name}#2", f"{name}#3"]


@pytest.mark.usefixtures("warm")
@pytest.mark.timeout(300)
def test_two_thousand_jobs_of_a_real_generator(tmp_path: Path) -> None:
    """Seconds are what a busy machine may need; ``benchmarks/generated.py`` has what they cost."""
    world = World(tmp_path)
    jobs = [
        {"id": "generator", "function": "growing_jobs.many", "args": [2000]},
        {"id": "child", "function": "give", "args": [{"$output": "generator"}]},
    ]
    world.flow("f", *jobs)
    world.reconcile()
    world.until(lambda: world.state("f/generator") == "RUNNING" or len(world.jobs()) > 2)
    started = time.monotonic()
    world.until(lambda: len(world.jobs()) == 2002)
    assert time.monotonic() - started < 60
    assert len(world.job("f/child").parents) == 2001
    started = time.monotonic()
    program = Reconcile(world.repository.path)
    done = program("--state-dir", str(tmp_path / "state"), "get", "flows")
    assert time.monotonic() - started < 30
    assert "of 2002 jobs completed" in done.stdout
    assert eventually(lambda: not processes_below(tmp_path / "work"), 60), "those that were started already"
    world.close()
