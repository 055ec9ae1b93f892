"""A forged backup, or a forged record, neither removes nor runs anything outside of a work_dir."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.backup import save_copy
from reconciler.actual.restore import stage
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.errors import ReconcilerError
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.run_files import worker_paths
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.upload import Repository
from reconciler.model.flows import is_run_dir, run_dir
from reconciler.model.manifests import ExecConfigSpec, WorkerSpec
from reconciler.model.records import JobAttempt
from reconciler.model.states import JobState
from tests.actual.fsck_support import furnish, put_job, record

UUID = "0f0e3fb6-0000-4000-8000-000000000001"
NOW = 1_800_000_000.0


def forged_paths(work: str, outside: str) -> dict[str, str]:
    return {
        "another directory": outside,
        "the root": "/",
        "nothing": "",
        "the home": "~",
        "the work_dir": work,
        "the outbox": f"{work}/.outbox",
        "the shape of a run directory elsewhere": run_dir(outside, UUID, 1, 1),
        "a way up": f"{work}/../outside",
        "a way up to the right shape": run_dir(f"{work}/../outside", UUID, 1, 1),
        "a way up at the end": run_dir(work, UUID, 1, 1) + "/../../../../../outside",
        "a slash at the end": run_dir(work, UUID, 1, 1) + "/",
        "wrong folders": f"{work}/aa/bb/cc/{UUID}_1",
        "a command": f"{work}/0f/0e/3f/$(touch x)",
        "a line break": f"{work}/0f/0e/3f/{UUID}_1\nrm -rf /",
        "an option": "-rf",
        "another name": f"{work}/0f/0e/3f/{UUID}",
        "an attempt of zero": run_dir(work, UUID, 1, 1) + ".0",
        "an attempt of text": run_dir(work, UUID, 1, 1) + ".x",
        "a sibling with the same beginning": run_dir(f"{work}-other", UUID, 1, 1),
    }


NAMES = list(forged_paths("", ""))


@pytest.fixture
def access(tmp_path: Path) -> Iterator[WorkerAccess]:
    spec = WorkerSpec(type="local", scheduler_type="shell", work_dir=str(tmp_path / "work"))
    nothing = Repository(lambda _: [], lambda _: iter(()))
    made = WorkerAccess("w", spec, nothing, LocalHost())
    made.prepare(may_create=True)
    yield made
    made.host.close()


def test_what_is_removed(access: WorkerAccess, tmp_path: Path) -> None:
    """All at once; the one that is right shows that something is removed at all."""
    work, outside = str(tmp_path / "work"), tmp_path / "outside"
    for place in (
        outside,
        Path(run_dir(str(outside), UUID, 1, 1)),
        Path(run_dir(f"{work}-other", UUID, 1, 1)),
    ):
        place.mkdir(parents=True, exist_ok=True)
        (place / "data").touch()
    before = sorted(tmp_path.rglob("*"))
    forged = list(forged_paths(work, str(outside)).values())
    own, second = run_dir(work, UUID, 1, 1), run_dir(work, UUID, 1, 2)
    assert access.discard([*forged, own, second]) == forged
    assert access._discard == {own, second}
    access._discard.clear()
    assert access.discard(forged) == forged
    access.tidy_up()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", NAMES)
def test_which_run_directories_a_record_may_have(name: str) -> None:
    path = forged_paths("/work", "/outside")[name]
    assert not is_run_dir(path, f"{UUID}_1", 1, "/work")
    elsewhere = ("the shape of a run directory elsewhere", "a sibling with the same beginning")
    assert is_run_dir(path, f"{UUID}_1", 1) == (name in elsewhere)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


def backup(state_dir: Path, *forge: Any) -> Path:
    store = Store(state_dir.with_name("forged"))
    furnish(store)
    for change in forge:
        store.write(change)
    file = state_dir.with_name("backup.mdb")
    save_copy(store, file)
    store.close()
    state_dir.mkdir()
    return file


@pytest.mark.parametrize("kind", ["job", "cleanup"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "nothing"])
def test_a_path_in_a_backup_is_a_problem(state_dir: Path, name: str, kind: str) -> None:
    path = forged_paths("/work", "/outside")[name]
    if is_run_dir(path, f"{UUID}_1", 1):
        path = path.replace("3f", "3e")

    def forge(writer: Writer) -> None:
        attempt = JobAttempt(number=1, worker="w", run_dir=path, queue_id="1")
        job = record(writer, UUID, state=JobState.RUNNING, attempt=attempt)
        if kind == "job":
            put_job(writer, job)
        else:
            writer.add_cleanup("w", 5.0, job)

    staged = stage(backup(state_dir, forge), state_dir, NOW)
    assert any("run directory" in problem.message for problem in staged.report.problems)


CONFIGS: dict[str, dict[str, Any]] = {
    "a pre_run": {
        "workers": {"w": WorkerSpec(type="local", scheduler_type="shell", work_dir="/w", pre_run="id")}
    },
    "a host": {
        "workers": {
            "w": WorkerSpec(type="remote", scheduler_type="slurm", work_dir="/w", host="evil.example")
        }
    },
    "a work_dir": {"workers": {"w": WorkerSpec(type="local", scheduler_type="shell", work_dir="/etc")}},
    "commands": {"commands": {"d": ExecConfigSpec(pre_run="id")}},
    "exec_configs": {"exec_configs": {"e": ExecConfigSpec(post_run="id")}},
    "a job store": {"jobstore": {"@module": "os", "@class": "system"}},
    "closed workers": {"closed_workers": {"w": "no"}},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_configuration_of_a_backup_is_not_used(state_dir: Path, config: dict[str, Any]) -> None:
    def forge(writer: Writer) -> None:
        old = writer.config()
        assert old is not None
        writer.put_config(msgspec.structs.replace(old, **config))
        writer.txn.put("good", b"Worker/w", b"forged")
        writer.txn.put("parsed", b"blob", b"forged")
        writer.txn.put("meta", b"baseline", b"forged")

    staged = stage(backup(state_dir, forge), state_dir, NOW)
    assert staged.contents.jobs > 0
    staged.place.rename(state_dir / "lmdb")
    store = Store(state_dir)
    with store.read() as view:
        found = view.config()
        assert found is not None and found.revision == "main@1" and found.unconfirmed
        assert not (found.workers or found.commands or found.exec_configs or found.jobstore)
        assert not found.closed_workers and not found.rules
        assert view.txn.count("good") == view.txn.count("parsed") == 0
        assert view.txn.get("meta", b"outcome") is view.txn.get("meta", b"baseline") is None
    store.close()


FILES = {
    "empty": b"", "text": b"not a backup", "a page of zeros": bytes(4096), "ones": b"\xff" * 9000,
    "JSON": json.dumps({"a": 1}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_file_that_is_no_backup(state_dir: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    state_dir.mkdir()
    with pytest.raises(ReconcilerError):
        stage(tmp_path / "file", state_dir, NOW)
    assert list(state_dir.iterdir()) == []


def test_a_worker_keeps_its_paths() -> None:
    spec = WorkerSpec(type="local", scheduler_type="shell", work_dir="/work")
    assert worker_paths(spec, str).work_dir == "/work"
