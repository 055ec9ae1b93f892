"""Every invariant of the store, broken by hand: it is found, and what can be made again is."""

from __future__ import annotations

import random
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.actual.fsck.examine import CHECKS, examine, repair
from reconciler.actual.layout import encode, state_key
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.errors import WorldError
from reconciler.model.records import FlowRecord, GeneratedBy, JobAttempt, JobRecord
from reconciler.model.states import JobState
from reconciler.model.summaries import FirstJob, FlowSummary, JobGroup
from tests.actual.db_support import run, start
from tests.actual.fsck_support import open_furnished, problems, put_base, random_change, report
from tests.actual.test_store import job

Break = Callable[[Writer], object]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_furnished(tmp_path / "state")
    yield store
    store.close()


def put(table: str, key: bytes, value: bytes = b"") -> Break:
    return lambda writer: writer.txn.put(table, key, value)


def delete(table: str, key: bytes) -> Break:
    return lambda writer: writer.txn.delete(table, key)


def first(table: str, change: Callable[[Writer, bytes], object]) -> Break:
    return lambda writer: change(writer, next(iter(list(writer.txn.keys(table)))))


def edit(job_id: str, **fields: object) -> Break:
    def change(writer: Writer) -> None:
        known = writer.job(job_id)
        assert known is not None
        writer.put_job(msgspec.structs.replace(known, **fields))

    return change


def change_summary(flow: str, **fields: object) -> Break:
    def change(writer: Writer) -> None:
        summary = msgspec.structs.replace(writer.summary(flow), **fields)
        writer.txn.put("summaries", flow.encode(), encode(summary))

    return change


def raw(record: JobRecord | FlowRecord) -> bytes:
    return msgspec.msgpack.encode(record)


JUNK = b"\xc1"
NOW = 1_800_000_000.0

REPAIRED: dict[str, tuple[Break, list[str]]] = {
    "by_state lacks a job": (
        lambda w: w.txn.delete("by_state", state_key(w.job("uuid0_1"))),  # type: ignore[arg-type]
        ["index by_state: job/f/uuid0: is missing in by_state"],
    ),
    "by_state has a job twice": (
        lambda w: w.txn.put("by_state", state_key(job("uuid0", state=JobState.READY))),
        ["index by_state: by_state/", "the entry leads nowhere"],
    ),
    "by_flow lacks a job": (
        delete("by_flow", b"f\0uuid1_1"),
        ["index by_flow: job/f/uuid1: is missing in by_flow"],
    ),
    "by_flow has a job of another flow": (
        put("by_flow", b"g\0uuid1_1"),
        ["index by_flow: by_flow/g/uuid1_1: the entry leads nowhere"],
    ),
    "by_path lacks a job": (
        delete("by_path", b"f/uuid1\0uuid1_1"),
        ["index by_path: job/f/uuid1: is missing in by_path"],
    ),
    "by_path has a job of another name": (
        put("by_path", b"f/other\0uuid1_1"),
        ["index by_path: by_path/f/other/uuid1_1: the entry leads nowhere"],
    ),
    "children lacks a job": (
        delete("children", b"uuid0\0uuid1_1"),
        ["index children: job/f/uuid1: is missing in children"],
    ),
    "children has a stranger": (
        put("children", b"uuid0\0nobody_1"),
        ["index children: children/uuid0/nobody_1: the entry leads nowhere"],
    ),
    "retries has a stranger": (
        put("retries", struct.pack(">Q", 1) + b"nobody_1"),
        ["index retries: retries/", "the entry leads nowhere"],
    ),
    "left has a stranger": (
        put("left", b"far\0nobody_1"),
        ["index left: left/far/nobody_1: the entry leads nowhere"],
    ),
    "a summary has a job too many": (
        change_summary("f", states={"COMPLETED": 1, "RUNNING": 2, "WAITING": 1}),
        ["summaries: flow/f: its summary is not that of its jobs"],
    ),
    "a summary has another first job": (
        change_summary("f", broken=JobGroup(1, FirstJob(1, "uuid1", "FAILED"))),
        ["summaries: flow/f: its summary is not that of its jobs"],
    ),
    "a summary of no jobs": (
        put("summaries", b"ff", encode(FlowSummary(states={"READY": 1}))),
        ["summaries: flow/ff: its summary is not that of its jobs"],
    ),
    "events_about lacks an event": (
        first("events_about", lambda w, key: w.txn.delete("events_about", key)),
        ["index events_about: events/1: is missing in events_about"],
    ),
    "events_about has a stranger": (
        put("events_about", b"job/f/x\0" + struct.pack(">Q", 1)),
        ["index events_about: events_about/", "the entry leads nowhere"],
    ),
    "an event is gone": (
        first("events", lambda w, key: w.txn.delete("events", key)),
        ["index events_about: events_about/", "the entry leads nowhere"],
    ),
    "an event cannot be read": (
        first("events", lambda w, key: w.txn.put("events", key, JUNK)),
        ["records: events/", "cannot be read", "index events_about: events_about/", "leads nowhere"],
    ),
    "counter of jobs": (
        put("meta", b"next/sequence", struct.pack(">Q", 1)),
        ["counters: meta/next/sequence: is at 1, but 3 is in use"],
    ),
    "counter of events": (
        delete("meta", b"next/event"),
        ["counters: meta/next/event: is at 0, but 3 is in use"],
    ),
    "counter of revisions": (
        delete("meta", b"next/revision"),
        ["counters: meta/next/revision: is at 0, but 1 is in use"],
    ),
    "payload of a built job": (
        delete("payloads", b"uuid1_1"),
        ["payloads: job/f/uuid1: its payload is missing"],
    ),
    "payload without a job": (
        put("payloads", b"nobody_1", b"{}"),
        ["payloads: payloads/nobody_1: the payload of no job"],
    ),
    "cleanup without an attempt": (
        put("cleanups", b"w\0" + b"\0" * 8 + b"uuid0", b"/x"),
        ["cleanups: cleanups/", "does not name an attempt of a job"],
    ),
    "cleanup of a directory in use": (
        put("cleanups", b"w\0" + b"\0" * 8 + b"uuid1_1.1", b"/scratch/w/uu/id/1/uuid1_1"),
        ["cleanups: job/f/uuid1: attempt 1 is RUNNING, but its directory is to be removed"],
    ),
    "a parsed blob": (put("parsed", b"x", JUNK), ["records: parsed/x: cannot be read"]),
    "a build": (put("builds", b"x", JUNK), ["records: builds/x: cannot be read"]),
    "a last good version": (put("good", b"Flow/x", JUNK), ["records: good/Flow/x: cannot be read"]),
    "a revision": (
        put("revisions", struct.pack(">Q", 1), JUNK),
        ["records: revisions/", "cannot be read"],
    ),
    "the outcome": (put("meta", b"outcome", JUNK), ["records: meta/outcome: cannot be read"]),
    "how a worker is": (put("meta", b"worker/w", JUNK), ["records: meta/worker/w: cannot be read"]),
    "where compaction stands": (put("meta", b"compaction", JUNK), ["records: meta/compaction: cannot be"]),
    "unused, but not there": (
        put("unused", b"builds\0x", struct.pack(">Q", 1)),
        ["unused: unused/builds/x: the entry leads nowhere"],
    ),
}

RECREATED: dict[str, tuple[Break, list[str]]] = {
    "a job cannot be read": (
        put("jobs", b"uuid1_1", JUNK),
        ["records: jobs/uuid1_1: cannot be read"],
    ),
    "a summary cannot be read": (
        put("summaries", b"f", JUNK),
        ["records: summaries/f: cannot be read"],
    ),
    "a flow cannot be read": (
        put("flows", b"f", JUNK),
        ["records: flows/f: cannot be read", "flows of jobs: job/f/uuid0: its flow 'f' is missing"],
    ),
    "the configuration cannot be read": (
        put("meta", b"config", JUNK),
        ["records: meta/config: cannot be read", "workers of jobs: job/f/uuid1: it is RUNNING on worker 'w'"],
    ),
    "the lineage cannot be read": (
        put("meta", b"lineage", JUNK),
        ["records: meta/lineage: cannot be read"],
    ),
    "the last attempt cannot be read": (
        put("meta", b"attempt", JUNK),
        ["records: meta/attempt: cannot be read"],
    ),
}
"""Records that a repair deletes; the next reconcile recreates them."""

REPORTED: dict[str, tuple[Break, list[str]]] = {
    "a payload cannot be read": (
        put("payloads", b"uuid1_1", b"{"),
        ["records: payloads/uuid1_1: cannot be read"],
    ),
    "an output cannot be read": (
        put("outputs", b"outputs\0x\x000000000001", JUNK),
        ["records: outputs/", "cannot be read"],
    ),
    "a job in the place of another": (
        put("jobs", b"uuid2_1", raw(job("uuid2", 2))),
        ["keys: jobs/uuid2_1: has the record of uuid2_2"],
    ),
    "a flow in the place of another": (
        put("flows", b"h", raw(FlowRecord(name="i", identity="i", build_key="build-f"))),
        ["keys: flows/h: has the record of i"],
    ),
    "no configuration": (
        delete("meta", b"config"),
        ["configuration: meta/config: there are jobs, but no applied configuration"],
    ),
    "payload of a generated job": (
        delete("payloads", b"uuid2_1"),
        ["payloads: job/f/uuid2: its payload is missing"],
    ),
    "a flow is missing": (
        delete("flows", b"f"),
        [f"flows of jobs: job/f/uuid{n}: its flow 'f' is missing" for n in range(3)],
    ),
    "a build is missing": (
        delete("builds", b"build-f"),
        ["builds of flows: flow/f: its build is missing"],
    ),
    "a generator is missing": (
        edit("uuid2_1", generated_by=GeneratedBy(uuid="gone")),
        ["generators: job/f/uuid2: the job that generated it, gone_1, is missing"],
    ),
    "an unknown worker": (
        edit("uuid1_1", attempt=JobAttempt(number=1, worker="w9", run_dir="/scratch/w/uuid1")),
        ["workers of jobs: job/f/uuid1: it is RUNNING on worker 'w9', unknown here"],
    ),
    "a job that is nowhere": (
        edit("uuid1_1", attempt=JobAttempt(number=1, worker="w")),
        ["workers of jobs: job/f/uuid1: it is RUNNING, but its record does not say where"],
    ),
    "an output is missing": (
        lambda w: w.txn.delete("outputs", next(iter(list(w.txn.keys("outputs", b"outputs\0uuid0"))))),
        ["outputs: job/f/uuid0: it is COMPLETED, but its output is missing"],
    ),
}


def check_found(store: Store, expected: list[str]) -> None:
    found = problems(store)
    assert found
    text = "\n".join(found)
    for part in expected:
        assert part in text, text


def test_what_is_right_is_clean(store: Store) -> None:
    assert problems(store) == []
    assert [check.name for check in report(store).checks] == [
        "records", "keys", *(name for name, _, _ in CHECKS),
    ]  # fmt: skip


@pytest.mark.parametrize("name", REPAIRED)
def test_it_is_found_and_repaired(store: Store, name: str) -> None:
    change, expected = REPAIRED[name]
    before = content(store)
    store.write(change)
    check_found(store, expected)
    assert all(problem.repairable and not problem.fix for problem in report(store).problems)
    repair(store, NOW)
    assert problems(store) == []
    after = content(store)
    assert {table for table in MADE_AGAIN if after[table] != before[table]} <= (
        {"payloads"} if name == "payload of a built job" else set()
    )


@pytest.mark.parametrize("name", RECREATED)
def test_what_cannot_be_read_makes_way_for_the_next_reconcile(store: Store, name: str) -> None:
    change, expected = RECREATED[name]
    store.write(change)
    check_found(store, expected)
    repair(store, NOW)
    assert not any("cannot be read" in problem.message for problem in report(store).problems)
    left = report(store).problems
    assert all("`reconcile --once`" in problem.fix or "commit" in problem.fix for problem in left), left
    with store.read() as view:
        list(view.jobs()), list(view.flows()), view.config(), view.lineage(), view.attempt()
        assert (view.restored() is not None) is (name == "a job cannot be read")


@pytest.mark.parametrize("name", REPORTED)
def test_it_is_found_and_a_person_is_told_what_to_do(store: Store, name: str) -> None:
    change, expected = REPORTED[name]
    store.write(change)
    check_found(store, expected)
    left = [problem for problem in report(store).problems if not problem.repairable]
    assert left
    assert all(problem.fix for problem in left)
    before = content(store)["jobs"]
    repair(store, NOW)
    assert problems(store), "this is not what a repair can do"
    assert content(store)["jobs"] == before


def test_every_check_is_broken_here_at_least_once(tmp_path: Path) -> None:
    broken = set()
    for number, (change, _) in enumerate([*REPAIRED.values(), *RECREATED.values(), *REPORTED.values()]):
        store = open_furnished(tmp_path / str(number))
        store.write(change)
        broken |= {check.name for check in report(store).checks if check.problems}
        store.close()
    assert broken == {"records", "keys", *(name for name, _, _ in CHECKS)}


MADE_AGAIN = (
    *("by_state", "by_flow", "by_path", "children", "left"),
    *("jobs", "flows", "payloads", "cleanups", "unused", "summaries"),
)
"""Tables that a repair makes again as they were."""


def content(store: Store) -> dict[str, list[tuple[bytes, bytes]]]:
    with store.read() as view:
        return {table: list(view.txn.scan(table)) for table in MADE_AGAIN}


def test_indexes_that_are_all_gone_are_made_again(store: Store) -> None:
    before = content(store)

    def wipe(writer: Writer) -> None:
        for table in ("by_state", "by_flow", "by_path", "children", "events_about"):
            for key in list(writer.txn.keys(table)):
                writer.txn.delete(table, key)

    store.write(wipe)
    assert len(problems(store)) == 3 + 3 + 3 + 2 + 3
    assert len(repair(store, NOW).problems) == 14, "what was found"
    assert content(store) == before
    assert problems(store) == []


def test_a_repair_lets_the_next_reconcile_plan_again(store: Store) -> None:
    with store.read() as view:
        before = view.change_counter()
    repair(store, NOW)
    with store.read() as view:
        assert view.change_counter() > before


def test_a_damaged_file_cannot_be_read(tmp_path: Path) -> None:
    store = open_furnished(tmp_path)
    store.write(lambda writer: [writer.txn.put("parsed", b"%06d" % n, b"v" * 500) for n in range(2000)])
    store.close()
    file = tmp_path / "lmdb" / "data.mdb"
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)
    code = """
        from reconciler.actual.fsck.examine import examine
        from reconciler.actual.store import Store
        try:
            with Store(path).read() as view:
                print(len(examine(view).problems))
        except db.WorldError as error:
            print(error)
    """
    assert "data.mdb is damaged" in run(code, tmp_path)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=60))
def test_after_random_changes_all_is_right(
    tmp_path_factory: pytest.TempPathFactory, seeds: list[int]
) -> None:
    store = Store(tmp_path_factory.mktemp("state"))
    try:
        store.write(put_base)
        for seed in seeds:
            store.write(lambda writer, seed=seed: random_change(writer, random.Random(seed)))  # type: ignore[misc]
        assert problems(store) == []
    finally:
        store.close()


def test_after_a_kill_all_is_right_and_meanwhile_too(tmp_path: Path) -> None:
    """Another process makes random changes, is looked at, and is killed at any moment."""
    code = """
        import random
        from reconciler.actual.store import Store
        from tests.actual.fsck_support import put_base, random_change
        store, dice = Store(path), random.Random(int(sys.argv[2]))
        store.write(put_base)
        for number in range(100_000):
            store.write(lambda writer: [random_change(writer, dice) for _ in range(5)])
            if number == 10:
                print("begun", flush=True)
    """
    dice = random.Random(20240229)
    for seed in range(3):
        with start(code, tmp_path, seed) as writer:
            assert writer.stdout and writer.stdout.readline() == "begun\n"
            store = Store(tmp_path)
            for _ in range(dice.randrange(5, 15)):
                assert problems(store) == []
            writer.kill()
            assert writer.wait(30) == -signal.SIGKILL
        assert problems(store) == []
        with store.read() as view:
            assert sum(check.looked_at for check in examine(view).checks) > 20
        store.close()


def test_it_raises_nothing_but_our_errors_on_a_closed_store(tmp_path: Path) -> None:
    store = open_furnished(tmp_path)
    store.close()
    with pytest.raises(WorldError):
        repair(store, NOW)
