"""No record that the store accepts makes a later read fail, and what is damaged says what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.fsck.examine import examine
from reconciler.actual.layout import DamagedError, cleanup_key, id_in_state_key, milliseconds, state_key
from reconciler.actual.store import Store
from reconciler.actual.view import View
from reconciler.errors import ExitCode
from reconciler.model.applied import AppliedConfig
from reconciler.model.manifests import Kind
from reconciler.model.records import Event, FlowRecord, JobAttempt, JobRecord, RetryStatus
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import JobState
from tests.actual.test_store import job

ORIGIN = Origin(Level.FLOW, Kind.FLOW, "f", "/spec")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def read_everything(store: Store) -> list[JobRecord]:
    """Read by every way that leads to jobs."""
    with store.read() as view:
        jobs = list(view.jobs())
        for one in jobs:
            view.jobs_of(one.flow), view.summary(one.flow), view.generations(one.uuid)
            view.has_path(one.path), view.dependants(one.uuid), view.job(one.id)
        for state in JobState:
            list(view.in_state(state))
        list(view.waiting_for_retry()), view.due_retries(1e12, 9), view.next_retry()
        problems = [problem.message for problem in examine(view).problems if "payload" not in problem.message]
        assert problems in ([], ["there are jobs, but no applied configuration"]), problems
        return jobs


def with_config(**values: Any) -> RunConfig:
    return RunConfig(**{field: Setting(value, ORIGIN) for field, value in values.items()})


ACCEPTED: dict[str, dict[str, Any]] = {
    "a huge priority": {"config": with_config(worker="w", priority=2**62)},
    "a priority of an old record": {"config": with_config(worker="w", priority=-(2**63))},
    "a worker with a NUL": {"config": with_config(worker="w\0x")},
    "a name that is not Unicode": {"name": "caf\udce9", "key": "caf\udce9"},
    "a name with a NUL": {"key": "a\0b"},
    "a very long name": {"key": "k" * 2000},
    "a retry at no time": {"state": JobState.FAILED, "retry": RetryStatus(at=math.nan)},
    "a retry at the end of time": {"state": JobState.FAILED, "retry": RetryStatus(at=math.inf)},
    "a retry before all time": {"state": JobState.FAILED, "retry": RetryStatus(at=-5.0)},
    "an error that is not Unicode": {"state": JobState.FAILED, "error": "no such file: \ud800"},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_is_stored_and_every_read_goes_on(store: Store, name: str) -> None:
    good = job("good", sequence=1)

    def write(writer: Any) -> None:
        writer.put_flow(FlowRecord(name="f", identity="i", build_key=""))
        assert writer.next_number("sequence") == 1
        for one in (good, job("odd", **ACCEPTED[name])):
            writer.put_job(one)
            writer.put_payload(one.id, b"{}")

    store.write(write)
    assert good in read_everything(store)
    store.write(lambda writer: writer.delete_job(writer.job("odd_1")))
    assert read_everything(store) == [good]


REFUSED: dict[str, dict[str, Any]] = {
    "a number as a name": {"name": 5},
    "a number as a state": {"state": 3},
    "an index that is text": {"index": "one"},
    "an attempt that is a number": {"attempt": 3},
    "a number that is too large": {"sequence": 2**70},
    "a priority that is too large": {"config": with_config(priority=2**70)},
    "a value of an unknown type": {"stored_data": {"k": object()}},
    "parents that are numbers": {"parents": [1, 2]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_is_written(store: Store, name: str) -> None:
    good = job("good")
    store.write(lambda writer: writer.put_job(good))
    odd = msgspec.structs.replace(job("odd"), **REFUSED[name])
    with pytest.raises(ValueError, match=r"the record of f/.* cannot be stored: "):
        store.write(lambda writer: writer.put_job(odd))
    with store.read() as view:
        assert list(view.jobs()) == [good]


def test_priorities_sort_within_their_bounds() -> None:
    values = [2**62, 7, 0, -7, -(2**62)]
    records = [job(f"j{n}", config=with_config(worker="w", priority=value)) for n, value in enumerate(values)]
    keys = [state_key(record) for record in records]
    assert keys == sorted(keys)
    assert [id_in_state_key(key) for key in keys] == [record.id.encode() for record in records]


@pytest.mark.parametrize("time", [math.inf, -math.inf, math.nan, 1e300, -1.0])
def test_times_fit_in_keys(time: float) -> None:
    assert len(cleanup_key("w", time)) == len(cleanup_key("w", 1.0))
    assert 0 <= milliseconds(time) < 2**63


@pytest.mark.parametrize(
    "look",
    [
        lambda view: view.flow("f" * 5000),
        lambda view: view.flow("\udcff"),
        lambda view: view.job("\udcff_1"),
        lambda view: view.job("u" * 600),
        lambda view: view.generations("u" * 600),
        lambda view: view.jobs_of("f" * 600),
        lambda view: view.has_path("\udcff/a"),
        lambda view: view.events("job/\ud800/x"),
    ],
)
def test_what_nobody_could_have_stored_is_not_found(store: Store, look: Callable[[View], Any]) -> None:
    store.write(lambda writer: writer.put_job(job("a")))
    with store.read() as view:
        assert not look(view)


def test_text_that_is_not_unicode_is_escaped(store: Store) -> None:
    event = Event(time=1.0, type="T", about="job/f/a", message="caf\udce9 \ud800")
    store.write(lambda writer: writer.add_event(event))
    with store.read() as view:
        assert [found.message for found in view.events("job/f/a")] == ["caf\\udce9 \\ud800"]


@pytest.mark.parametrize(
    ("table", "key", "look"),
    [
        ("jobs", b"a_1", lambda view: view.job("a_1")),
        ("flows", b"f", lambda view: list(view.flows())),
        ("meta", b"config", View.config),
        ("meta", b"lineage", View.lineage),
    ],
)
def test_a_damaged_record_names_the_command_that_repairs(
    store: Store, table: str, key: bytes, look: Callable[[View], Any]
) -> None:
    store.write(lambda writer: [writer.put_job(job("a")), writer.txn.put(table, key, b"\xc1")])
    with store.read() as view, pytest.raises(DamagedError, match="damaged") as caught:
        look(view)
    assert caught.value.exit_code == ExitCode.WORLD
    assert "`reconcile fsck" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("table", "key", "look", "left"),
    [
        ("events", b"\0" * 7 + b"\1", View.events, ["second"]),
        ("revisions", b"\0" * 7 + b"\1", View.revisions, []),
        ("revisions", b"\0" * 7 + b"\1", View.last_revision, None),
        ("builds", b"k", lambda view: view.build("k"), None),
        ("parsed", b"k", lambda view: view.parsed("k"), None),
        ("good", b"Flow/f", View.good_manifests, {}),
        ("meta", b"outcome", View.outcome, None),
        ("meta", b"attempt", View.attempt, None),
        ("meta", b"worker/w", lambda view: view.worker_status("w"), None),
    ],
)
def test_what_is_recreated_or_history_is_passed_over(
    store: Store, table: str, key: bytes, look: Callable[[View], Any], left: Any
) -> None:
    def write(writer: Any) -> None:
        for message in ("first", "second"):
            writer.add_event(Event(time=1.0, type="T", about="flow/f", message=message))
        writer.txn.put(table, key, b"\xc1")

    store.write(write)
    with store.read() as view:
        found = look(view)
    assert ([event.message for event in found] if table == "events" else found) == left


def test_a_damaged_record_can_be_written_again(store: Store) -> None:
    record = job("a", attempt=JobAttempt(number=2))
    store.write(lambda writer: [writer.put_job(record), writer.put_config(AppliedConfig(revision="r"))])
    store.write(lambda writer: writer.txn.put("jobs", b"a_1", b"\xc1"))
    store.write(lambda writer: writer.put_job(record))
    with store.read() as view:
        assert list(view.jobs()) == [record]
