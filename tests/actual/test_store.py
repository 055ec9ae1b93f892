"""The store of typed records: its version, whose it is, its indexes, and who may write to it."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from reconciler.actual.fsck.examine import repair
from reconciler.actual.migrations import SCHEMA_VERSION
from reconciler.actual.state_dir import Lease, default_state_dir
from reconciler.actual.store import Store
from reconciler.errors import ExitCode, InputError, RefusedError
from reconciler.model.applied import AppliedRevision
from reconciler.model.lineage import Lineage
from reconciler.model.records import (
    NO_ATTEMPT,
    NO_RETRY,
    Cancellation,
    DeferredPatch,
    Event,
    FlowRecord,
    GeneratedBy,
    JobAttempt,
    JobRecord,
    RetryStatus,
)
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import JobState
from reconciler.model.summaries import summary_of

HERE = Origin(Level.JOB, "Flow", "f", "/spec")


def config(worker: str, priority: int) -> RunConfig:
    return RunConfig(worker=Setting(worker, HERE), priority=Setting(priority, HERE))


def job(uuid: str, index: int = 1, **fields: Any) -> JobRecord:
    given = {
        "flow": "f", "key": uuid, "name": uuid, "function": "m.f", "state": JobState.WAITING,
        "config": config("w", 0), "content": "c",
    }  # fmt: skip
    return JobRecord(uuid=uuid, index=index, **(given | fields))  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "state")
    yield made
    made.close()


class TestVersion:
    """A store says which schema it has."""

    def set_version(self, store: Store, version: int) -> None:
        store.write(lambda writer: writer.txn.put("meta", b"schema", struct.pack(">Q", version)))

    def test_a_new_store_has_the_version_of_the_program(self, store: Store) -> None:
        with store.read() as view:
            assert view.txn.get("meta", b"schema") == struct.pack(">Q", SCHEMA_VERSION)

    def test_it_opens_again(self, store: Store, tmp_path: Path) -> None:
        store.write(lambda writer: writer.put_job(job("a")))
        store.close()
        again = Store(tmp_path / "state")
        with again.read() as view:
            assert view.job("a_1") == job("a")
        again.close()

    def test_one_of_a_newer_program_is_refused(self, store: Store, tmp_path: Path) -> None:
        self.set_version(store, SCHEMA_VERSION + 1)
        with pytest.raises(InputError, match="written by a newer reconciler") as caught:
            Store(tmp_path / "state")
        assert caught.value.exit_code == ExitCode.USAGE
        assert "upgrade" in (caught.value.hint or "")

    def test_the_directory_is_private(self, store: Store) -> None:
        assert (store.path / "lmdb").stat().st_mode & 0o077 == 0

    def test_exists(self, store: Store, tmp_path: Path) -> None:
        assert Store.exists(tmp_path / "state")
        assert not Store.exists(tmp_path / "other")


class TestLineage:
    """A state belongs to one project of one repository."""

    def test_the_first_use_binds_it_and_the_same_is_welcome(self, store: Store) -> None:
        assert store.check_lineage("p", ["a" * 40], "") == ""
        assert store.check_lineage("p", ["a" * 40], "") == ""
        with store.read() as view:
            assert view.lineage() == Lineage("p", ["a" * 40])

    @pytest.mark.parametrize(("project", "root"), [("q", "a" * 40), ("p", "b" * 40)])
    def test_another_one_is_refused_and_both_are_named(self, store: Store, project: str, root: str) -> None:
        applied = AppliedRevision(time=1.0, branch="main", commit="c" * 40, path="elsewhere", summary={})
        store.check_lineage("p", ["a" * 40], "elsewhere")
        store.write(lambda writer: writer.add_revision(applied))
        with pytest.raises(RefusedError) as caught:
            store.check_lineage(project, [root], "here")
        assert caught.value.exit_code == ExitCode.REFUSED
        for named in ("'p'", "aaaaaaa", f"'{project}'", root[:7]):
            assert named in caught.value.message
        assert "adopted" in store.check_lineage("p", ["b" * 40], "here", adopt=True)


class TestCounter:
    """A reconcile with nothing to do is recognised by the change counter."""

    def test_flows_and_jobs_count(self, store: Store) -> None:
        counts = []
        for change in (
            lambda w: w.put_job(job("a")),
            lambda w: w.put_flow(FlowRecord(name="f", identity="i", build_key="b")),
            lambda w: w.delete_job(job("a")),
            lambda w: w.delete_flow("f"),
        ):
            store.write(change)
            with store.read() as view:
                counts.append(view.change_counter())
        assert counts == [1, 2, 3, 4]

    def test_events_do_not(self, store: Store) -> None:
        store.write(lambda w: w.add_event(Event(time=1.0, type="T", about="job/f/a", message="m")))
        with store.read() as view:
            assert view.change_counter() == 0

    def test_a_failed_write_leaves_nothing(self, store: Store) -> None:
        def change(writer: Any) -> None:
            writer.put_job(job("a"))
            raise ValueError("on purpose")

        with pytest.raises(ValueError, match="on purpose"):
            store.write(change)
        with store.read() as view:
            assert view.job("a_1") is None
            assert view.change_counter() == 0
            assert view.count_in_state(JobState.WAITING) == 0


def test_events_come_oldest_first_and_can_be_limited(store: Store) -> None:
    def write(writer: Any) -> None:
        for number in range(300):
            about = "job/f/a" if number % 2 else "flow/f"
            writer.add_event(Event(time=float(number), type="T", about=about, message=str(number)))

    store.write(write)
    with store.read() as view:
        assert [event.message for event in view.events("job/f/a", limit=3)] == ["295", "297", "299"]
        assert [event.message for event in view.events(limit=2)] == ["298", "299"]
        assert len(view.events()) == 300


UUIDS = ["aa", "ab", "b", "c"]
FLOWS = ["f", "ff", "g"]
WORKERS = ["w", "w2", "ww"]
records = st.builds(
    job,
    st.sampled_from(UUIDS),
    st.integers(1, 12),
    flow=st.sampled_from(FLOWS),
    state=st.sampled_from(JobState),
    config=st.builds(config, st.sampled_from(WORKERS), st.integers(-(2**40), 2**40)),
    parents=st.lists(st.sampled_from(UUIDS), unique=True),
    sequence=st.integers(0, 3),
    current=st.booleans(),
    error=st.sampled_from([None, "no", "two\nlines"]),
    retry=st.sampled_from([NO_RETRY, NO_RETRY, RetryStatus(at=5.0)]),
    attempt=st.sampled_from([NO_ATTEMPT, JobAttempt(stuck="never"), JobAttempt(waiting="Priority")]),
    deferred=st.sampled_from([None, DeferredPatch(config=config("w2", 1))]),
)


class StoreMachine(RuleBasedStateMachine):
    """The store against a dict: whatever is asked by an index must be what a scan of the dict gives."""

    root: Path
    number = 0

    @initialize()
    def open(self) -> None:
        type(self).number += 1
        self.store = Store(self.root / str(self.number))
        self.model: dict[str, JobRecord] = {}

    @rule(changes=st.lists(st.one_of(records, st.tuples(st.sampled_from(UUIDS), st.integers(1, 12)))))
    def write(self, changes: list[JobRecord | tuple[str, int]]) -> None:
        """Put and delete some jobs in one transaction."""
        wanted = dict(self.model)

        def change(writer: Any) -> None:
            for item in changes:
                if isinstance(item, JobRecord):
                    writer.put_job(item)
                    writer.put_payload(item.id, item.id.encode())
                    wanted[item.id] = item
                elif (known := wanted.pop(f"{item[0]}_{item[1]}", None)) is not None:
                    writer.delete_job(known)

        self.store.write(change)
        self.model = wanted

    @rule()
    def reopen(self) -> None:
        path = self.store.path
        self.store.close()
        self.store = Store(path)

    @invariant()
    def records_are_right(self) -> None:
        with self.store.read() as view:
            assert {record.id: record for record in view.jobs()} == self.model
            assert all(view.payload(job_id) == job_id.encode() for job_id in self.model)
            assert view.payload("zz_1") is None

    @invariant()
    def summaries_are_right(self) -> None:
        with self.store.read() as view:
            for flow in FLOWS:
                jobs = view.jobs_of(flow)
                assert view.summary(flow).agrees_with(summary_of(jobs))
                assert (view.txn.get("summaries", flow.encode()) is not None) == bool(jobs)

    @invariant()
    def by_state_is_right(self) -> None:
        with self.store.read() as view:
            for state in JobState:
                for worker in WORKERS:
                    found = list(view.in_state(state, worker))
                    assert found == sorted(self._in_state(state, worker), key=_urgency)
                    assert view.count_in_state(state, worker) == len(found)
                assert view.count_in_state(state) == sum(1 for j in self.model.values() if j.state is state)

    def _in_state(self, state: JobState, worker: str) -> list[JobRecord]:
        return [j for j in self.model.values() if j.state is state and j.config.worker_name == worker]

    @invariant()
    def by_flow_is_right(self) -> None:
        with self.store.read() as view:
            for flow in FLOWS:
                found = view.jobs_of(flow)
                assert [j.sequence for j in found] == sorted(j.sequence for j in found)
                assert {j.id for j in found} == {j.id for j in self.model.values() if j.flow == flow}

    @invariant()
    def paths_are_right(self) -> None:
        with self.store.read() as view:
            present = {j.path for j in self.model.values() if j.current}
            asked = {f"{flow}/{uuid}" for flow in FLOWS for uuid in UUIDS}
            assert {path for path in asked if view.has_path(path)} == present

    @invariant()
    def children_and_generations_are_right(self) -> None:
        with self.store.read() as view:
            for uuid in UUIDS:
                children = {j.id for j in self.model.values() if uuid in j.parents}
                assert {j.id for j in view.dependants(uuid)} == children
                indexes = sorted(j.index for j in self.model.values() if j.uuid == uuid)
                assert [j.index for j in view.generations(uuid)] == indexes

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def _urgency(record: JobRecord) -> tuple[int, int, str]:
    return -record.config.priority_value, record.sequence, record.id


def test_indexes_agree_with_a_plain_dict(tmp_path: Path) -> None:
    machine = type("Machine", (StoreMachine,), {"root": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_record_survives_the_store_as_it_is(store: Store) -> None:
    full = job(
        "a", deferred=DeferredPatch(config=config("w2", 3)), parents=["b"],
        attempt=JobAttempt(number=2, run_dir="/x"), error="e", stored_data={"k": [1]},
        files=[("blob", "name")], code=["tree"], cancellation=Cancellation(reason="why"), current=False,
        generated_by=GeneratedBy(uuid="g"),
    )  # fmt: skip
    store.write(lambda writer: writer.put_job(full))
    with store.read() as view:
        found = view.job("a_1")
    assert found is not None
    assert msgspec.structs.asdict(found) == msgspec.structs.asdict(full)


# the lease --------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from reconciler.actual.state_dir import Lease
lease = Lease(Path(sys.argv[1]))
lease.acquire(time.time())
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease of ``tmp_path``."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestLease:
    """One writer at a time, whatever becomes of it."""

    def test_a_second_process_is_refused_and_told_who_holds_it(
        self, tmp_path: Path, holder: subprocess.Popen[str]
    ) -> None:
        with pytest.raises(RefusedError, match="another reconcile is at work") as caught:
            Lease(tmp_path).acquire(time.time())
        assert f"pid {holder.pid} on {os.uname().nodename}, since 20" in caught.value.message
        assert caught.value.exit_code == ExitCode.REFUSED

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_a_dead_holder_has_lost_it(
        self, tmp_path: Path, holder: subprocess.Popen[str], how: signal.Signals
    ) -> None:
        holder.send_signal(how)
        holder.wait()
        with Lease(tmp_path) as lease:
            lease.acquire(time.time())
            assert json.loads((tmp_path / "lease").read_text())["pid"] == os.getpid()

    def test_it_can_be_taken_again_after_it_was_given_back(self, tmp_path: Path) -> None:
        for _ in range(2):
            with Lease(tmp_path) as lease:
                lease.acquire(time.time())
                with pytest.raises(RefusedError):
                    Lease(tmp_path).acquire(time.time())

    def test_a_stopped_holder_still_holds_it(self, tmp_path: Path, holder: subprocess.Popen[str]) -> None:
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(RefusedError):
            Lease(tmp_path).acquire(time.time())
        holder.send_signal(signal.SIGCONT)

    def test_children_of_the_holder_do_not_inherit_it(self, tmp_path: Path) -> None:
        with Lease(tmp_path) as lease:
            lease.acquire(time.time())
            child = subprocess.Popen(["sleep", "60"], close_fds=False)
        try:
            with Lease(tmp_path) as again:
                again.acquire(time.time())
        finally:
            child.kill()
            child.wait()

    def test_a_holder_without_a_note_is_still_refused(self, tmp_path: Path) -> None:
        with Lease(tmp_path) as lease:
            lease.acquire(time.time())
            (tmp_path / "lease").write_text("damaged")
            with pytest.raises(RefusedError, match="left no note"):
                Lease(tmp_path).acquire(time.time())


class TestStateDir:
    """Where the state lies when nobody says it."""

    def test_by_project_below_the_state_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        assert default_state_dir("p") == tmp_path / "reconciler" / "p"

    def test_the_variable_wins(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path / "mine"))
        assert default_state_dir("p") == tmp_path / "mine"


class TestRetries:
    """Failed jobs that are to be tried again are found by when, and by nothing else."""

    def ids(self, store: Store, now: float, limit: int = 9) -> list[str]:
        with store.read() as view:
            return [found.uuid for found in view.due_retries(now, limit)]

    def test_those_that_are_due_and_the_next_one(self, store: Store) -> None:
        for uuid, due in (("a", 30.25), ("b", 10.0), ("c", 20.5)):
            failed = job(uuid, state=JobState.FAILED, retry=RetryStatus(at=due, causes=["oom"]))
            store.write(lambda writer, failed=failed: writer.put_job(failed))  # type: ignore[misc]
        assert self.ids(store, 9.9) == []
        assert self.ids(store, 20.5) == ["b", "c"]
        assert self.ids(store, 100, limit=2) == ["b", "c"]
        with store.read() as view:
            assert (view.next_retry(), view.count_retries()) == (10.0, 3)
            assert [found.uuid for found in view.waiting_for_retry()] == ["b", "c", "a"]

    def test_the_time_goes_with_the_record(self, store: Store) -> None:
        failed = job("a", state=JobState.FAILED, retry=RetryStatus(at=10.0, causes=["oom"]))
        store.write(lambda writer: writer.put_job(failed))
        store.write(
            lambda writer: writer.put_job(
                msgspec.structs.replace(failed, retry=RetryStatus(at=20.0, causes=["oom"]))
            )
        )
        assert (self.ids(store, 15), self.ids(store, 25)) == ([], ["a"])
        store.write(
            lambda writer: writer.put_job(msgspec.structs.replace(failed, retry=RetryStatus(causes=["oom"])))
        )
        assert self.ids(store, 25) == []
        store.write(lambda writer: writer.put_job(failed))
        store.write(lambda writer: writer.delete_job(failed))
        with store.read() as view:
            assert (view.next_retry(), view.count_retries()) == (None, 0)

    def test_one_that_the_index_has_lost_is_found_again(self, store: Store) -> None:
        failed = job("a", state=JobState.FAILED, retry=RetryStatus(at=10.0, causes=["oom"]))
        store.write(lambda writer: writer.put_job(failed))
        store.write(lambda writer: writer.txn.delete("retries", struct.pack(">Q", 10_000) + b"a_1"))
        assert self.ids(store, 25) == []
        repair(store, 1.0)
        assert self.ids(store, 25) == ["a"]


class TestCleanups:
    """Run directories to remove: when the next one is due, it is among the due ones, and never before."""

    @pytest.mark.parametrize("due", [0.0, 100.0, 100.001, 100.5, 100.999999, 1_789_000_000.25])
    def test_when_it_is_due_and_that_it_is(self, store: Store, due: float) -> None:
        store.write(lambda writer: writer.add_cleanup("w", due, job("a", attempt=JobAttempt(run_dir="/a"))))
        with store.read() as view:
            told = view.next_cleanup("w")
            assert told is not None
            assert due <= told < due + 1
            for now in (due - 1e-6, due, math.nextafter(told, 0), told, told + 1e-6, told + 0.999, told + 9):
                found = list(view.due_cleanups("w", now, 9).values())
                assert found == (["/a"] if told <= now else []), now
                assert now >= due or not found, "nothing goes early"

    def test_those_of_other_workers_and_later_ones_are_not_among_them(self, store: Store) -> None:
        for worker, uuid, due in (("w", "b", 11.0), ("w", "a", 10.0), ("w", "c", 11.1), ("w2", "d", 5.0)):
            record = job(uuid, attempt=JobAttempt(run_dir=f"/{uuid}"))
            store.write(lambda writer, w=worker, d=due, r=record: writer.add_cleanup(w, d, r))  # type: ignore[misc]
        with store.read() as view:
            assert list(view.due_cleanups("w", 11.0, 9).values()) == ["/a", "/b"]
            assert list(view.due_cleanups("w", 99.0, 2).values()) == ["/a", "/b"]
            assert (view.next_cleanup("w"), view.next_cleanup("w2"), view.next_cleanup("x")) == (10, 5, None)
