"""``backup``, ``restore``, ``fsck``: as a user meets them."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.actual.state_dir import Lease
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from tests.cli.conftest import Ended
from tests.support import Reconcile, Repository, isolate, minimal_project

Program = Callable[..., Ended]

pytestmark = pytest.mark.usefixtures("warm")


class Base:
    """What is made once: a campaign after its first flow, a backup of that, and after its second flow."""

    def __init__(self, path: Path) -> None:
        self.repository = Repository(path / "repository")
        self.first, self.second, self.backup = path / "first", path / "second", path / "b.mdb"
        minimal_project(self.repository, path / "work")
        run = Reconcile(self.repository.path)
        for name, state in (("first", self.first), ("second", self.second)):
            add_flow(self.repository, name)
            done = run("--state-dir", str(state), "--once", "--wait", "--timeout", "200")
            assert done.returncode == 0, done.stderr
            if name == "first":
                assert run("--state-dir", str(state), "backup", str(self.backup)).returncode == 0
                shutil.copytree(self.first, self.second)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Base:
    path = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, path / "home")
        monkeypatch.setattr(sys, "executable", str(warm_python))
        return Base(path)


@pytest.fixture
def campaign(
    base: Base, repository: Repository, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Repository:
    """The repository with both flows, and no state."""
    repository.run("pull", "--quiet", str(base.repository.path), "main")
    monkeypatch.chdir(repository.path)
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(state_dir))
    return repository


@pytest.fixture
def applied(base: Base, campaign: Repository, state_dir: Path) -> Repository:
    """The first flow was applied, and has run."""
    shutil.copytree(base.first, state_dir)
    campaign.run("reset", "--quiet", "--hard", "HEAD~1")
    return campaign


def add_flow(repository: Repository, name: str) -> None:
    repository.write_yaml(
        f"flows/{name}.yaml",
        f"""
        apiVersion: reconciler/v1
        kind: Flow
        metadata: {{name: {name}}}
        spec: {{jobs: [{{id: job, function: reconciler.examples.value, args: [1]}}]}}
        """,
    )
    repository.commit(f"add {name}")


def change(state_dir: Path, edit: Callable[[Writer], object]) -> None:
    store = Store(state_dir)
    store.write(edit)
    store.close()


def states(program: Program) -> dict[str, str]:
    return {job["key"]: job["state"] for job in json.loads(program("get", "jobs", "-o", "json").stdout)}


class TestBackup:
    """One file, while others work."""

    def test_what_is_in_it_is_told(
        self, applied: Repository, program: Program, state_dir: Path, tmp_path: Path
    ) -> None:
        with Lease(state_dir) as lease:
            lease.acquire(time.time())
            done = program("backup", str(tmp_path / "b.mdb"))
        assert (done.code, done.stderr) == (0, "")
        expected = rf"{tmp_path}/b\.mdb: 1 flow, 1 job, main@{applied.head[:7]}, \d+(\.\d)? KiB\n"
        assert re.fullmatch(expected, done.stdout)

    def test_it_is_not_overwritten(self, applied: Repository, program: Program, tmp_path: Path) -> None:
        (tmp_path / "b.mdb").write_text("mine")
        done = program("backup", str(tmp_path / "b.mdb"))
        assert (done.code, done.stdout) == (4, "")
        assert done.stderr == (
            f"error: {tmp_path}/b.mdb exists already\n  help: choose another name, or add --force\n"
        )
        assert program("backup", str(tmp_path / "b.mdb"), "--force").code == 0
        assert program("restore", str(tmp_path / "b.mdb"), "--force").code == 0

    def test_without_a_state(self, campaign: Repository, program: Program, tmp_path: Path) -> None:
        done = program("backup", str(tmp_path / "b.mdb"))
        assert done.code == 2
        assert "there is no state in" in done.stderr
        assert not (tmp_path / "b.mdb").exists()


class TestRestore:
    """The state as it was, and the present one kept."""

    @pytest.fixture
    def file(self, base: Base, campaign: Repository, state_dir: Path) -> str:
        """A backup of one flow; there is a second one now, that has run, too."""
        shutil.copytree(base.second, state_dir)
        return str(base.backup)

    def test_over_jobs_only_by_force(
        self, campaign: Repository, program: Program, file: str, state_dir: Path
    ) -> None:
        done = program("restore", file)
        assert (done.code, done.stdout) == (4, "")
        assert f"the state in {state_dir} has jobs: 2 flows, 2 jobs, main@{campaign.head[:7]}" in done.stderr
        assert "help: with --force" in done.stderr
        assert sorted(path.name for path in state_dir.glob("lmdb*")) == ["lmdb"]
        assert len(states(program)) == 2

    def test_by_force(self, campaign: Repository, program: Program, file: str, state_dir: Path) -> None:
        old = {job["key"]: job["uuid"] for job in json.loads(program("get", "jobs", "-o", "json").stdout)}
        done = program("restore", file, "--force")
        assert done.code == 0, done.stderr
        (kept,) = state_dir.glob("lmdb.before-restore-*")
        first, second = done.stdout.splitlines()
        assert re.fullmatch(r"restored 1 flow, 1 job, main@[0-9a-f]{7}", first)
        assert second == f"the previous state is kept in {kept}"
        assert "do not run twice" in done.stderr
        assert states(program) == {"first/job": "COMPLETED"}
        assert program("--once", "--wait", "--timeout", "200").code == 0
        jobs = json.loads(program("get", "jobs", "-o", "json").stdout)
        assert {job["key"]: (job["uuid"], job["state"], job["attempt"]) for job in jobs} == {
            key: (uuid, "COMPLETED", 1) for key, uuid in old.items()
        }
        assert program("fsck").code == 0

    def test_it_needs_the_lease(self, program: Program, file: str, state_dir: Path) -> None:
        with Lease(state_dir) as lease:
            lease.acquire(time.time())
            done = program("restore", file, "--force")
        assert done.code == 4
        assert "another reconcile is at work on this state: pid" in done.stderr

    def test_without_a_state(self, program: Program, file: str, tmp_path: Path) -> None:
        done = program("restore", file, "--state-dir", str(tmp_path / "new"))
        assert done.code == 0
        assert "kept in" not in done.stdout
        assert program("get", "jobs", "-o", "name", "--state-dir", str(tmp_path / "new")).stdout.split()

    def test_backup_of_another_repository(self, program: Program, file: str, tmp_path: Path) -> None:
        other = Repository(tmp_path / "other")
        minimal_project(other, tmp_path / "work")
        other.commit("of somebody else")
        for state in (tmp_path / "new", tmp_path / "state"):
            done = program("restore", file, "--force", "--repo", str(other.path), "--state-dir", str(state))
            assert (done.code == 4) is (state.name == "new"), "an existing state says itself whose it is"
        assert program("restore", file, "--repo", str(tmp_path), "--state-dir", str(tmp_path / "n")).code == 0

    def test_not_a_file_or_not_a_backup(self, program: Program, file: str, tmp_path: Path) -> None:
        done = program("restore", str(tmp_path / "nowhere.mdb"))
        assert (done.code, done.stderr.splitlines()[0]) == (
            2,
            f"error: there is no file {tmp_path}/nowhere.mdb",
        )
        (tmp_path / "text").write_text("not a store" * 5000)
        done = program("restore", str(tmp_path / "text"), "--force")
        assert (done.code, done.stderr.splitlines()[0]) == (
            2,
            f"error: {tmp_path}/text is not a backup, or it is damaged",
        )

    def test_one_with_problems_only_by_force(
        self, program: Program, file: str, state_dir: Path, tmp_path: Path
    ) -> None:
        change(state_dir, lambda writer: writer.txn.put("by_flow", b"first\0nobody_1"))
        assert program("backup", str(tmp_path / "bad.mdb")).code == 0
        done = program("restore", str(tmp_path / "bad.mdb"), "--state-dir", str(tmp_path / "new"))
        assert done.code == 4
        assert "the backup has 1 problem: by_flow/first/nobody_1: the entry leads nowhere" in done.stderr
        given = ("--state-dir", str(tmp_path / "new"))
        assert program("restore", str(tmp_path / "bad.mdb"), "--force", *given).code == 0
        assert program("fsck", *given).code == 1
        assert program("fsck", "--repair", *given).code == 0


class TestFsck:
    """Clean, not clean, repaired."""

    def test_clean(self, applied: Repository, program: Program, state_dir: Path) -> None:
        with Lease(state_dir) as lease:
            lease.acquire(time.time())
            done = program("fsck")
        assert (done.code, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[-1] == f"{len(lines) - 1} checks, 0 problems"
        assert "✔ flows of jobs: 1 checked" in lines

    def test_found_and_repaired(self, applied: Repository, program: Program, state_dir: Path) -> None:
        change(state_dir, lambda writer: [writer.txn.put("by_flow", b"f\0%d_1" % n) for n in range(12)])
        done = program("fsck")
        assert done.code == 1
        assert "✗ index by_flow: 12 problems in 13 checked" in done.stdout
        assert "    by_flow/f/0_1: the entry leads nowhere\n" in done.stdout
        assert "    and 2 more; -v shows all\n" in done.stdout
        assert done.stdout.endswith("checks, 12 problems; `reconcile fsck --repair` can repair 12\n")
        assert program("fsck", "-v").stdout.count("leads nowhere") == 12
        done = program("fsck", "--repair")
        assert done.code == 0
        assert "    by_flow/f/0_1: the entry leads nowhere (repaired)\n" in done.stdout
        assert done.stdout.endswith("checks, 12 problems; 0 left after the repair\n")
        assert program("fsck").code == 0

    def test_what_cannot_be_repaired(self, applied: Repository, program: Program, state_dir: Path) -> None:
        change(state_dir, lambda writer: writer.txn.delete("meta", b"config"))
        done = program("fsck", "--repair", "-o", "json")
        assert done.code == 1
        data = json.loads(done.stdout)
        assert data["clean"] is False
        (problem,) = next(check for check in data["checks"] if check["name"] == "configuration")["problems"]
        assert problem == {
            "subject": "meta/config",
            "message": "there are jobs, but no applied configuration",
            "fix": "the next `reconcile --once` records it, or restore a backup: `reconcile restore FILE`",
            "repairable": False,
            "repaired": False,
        }

    def test_a_repair_needs_the_lease(self, applied: Repository, program: Program, state_dir: Path) -> None:
        with Lease(state_dir) as lease:
            lease.acquire(time.time())
            assert program("fsck", "--repair").code == 4

    def test_unreadable(self, applied: Repository, state_dir: Path) -> None:
        file = state_dir / "lmdb" / "data.mdb"
        file.write_bytes(b"\xff" * file.stat().st_size)
        done = Reconcile(applied.path)("fsck")
        assert (done.returncode, done.stdout) == (3, "")
        assert "its file data.mdb is damaged" in done.stderr


def test_an_older_state_is_migrated_by_the_next_reconcile_only(
    base: Base, applied: Repository, program: Program, state_dir: Path
) -> None:
    change(state_dir, lambda writer: writer.txn.delete("meta", b"schema"))
    for verb in (["get", "jobs"], ["fsck"], ["retry", "first"], ["backup", str(state_dir / "b.mdb")]):
        done = program(*verb)
        assert (done.code, done.stdout) == (2, "")
        assert "was written by an older reconciler" in done.stderr
        assert "help: run `reconcile --once`" in done.stderr
    done = program("--once")
    assert done.code == 2
    assert "too old to be migrated" in done.stderr, "there is no way from version 0"
    assert program("restore", str(base.backup)).code == 4, "what it holds is not known"
    assert program("restore", str(base.backup), "--force").code == 0
    assert states(program) == {"first/job": "COMPLETED"}


READING = (
    *(
        "get flows",
        "get jobs",
        "get workers",
        "get flows --tree",
        "describe flow first",
        "describe job first/job",
    ),
    *(
        "explain job first/job",
        "events",
        "history",
        "graph first",
        "output first/job",
        "render job first/job",
    ),
    *("fsck", "logs first/job", "wait first/* --for completed", "doctor"),
)


def test_readers_do_not_wait_for_writers(applied: Repository, state_dir: Path) -> None:
    """Else every look would hang for as long as the daemon submits ten thousand jobs."""
    run = Reconcile(applied.path)
    known = {verb: run(*verb.split()) for verb in READING}
    assert {verb: done.stderr for verb, done in known.items() if done.returncode} == {}
    answers: dict[str, str] = {}

    def look(writer: Writer) -> None:
        answers.update({verb: run(*verb.split(), timeout=60).stdout for verb in READING})

    change(state_dir, look)
    for verb in known.keys() - {"doctor"}:  # how long its checks took
        assert answers[verb] == known[verb].stdout, verb


class TestRepairedRecords:
    """A record that cannot be read is named, deleted by a repair, and recreated; nothing runs twice."""

    @pytest.fixture
    def ran(
        self,
        repository: Repository,
        program: Program,
        state_dir: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Path:
        """A flow of two jobs that have run; they append to the file that this returns."""
        monkeypatch.chdir(repository.path)
        monkeypatch.setenv("RECONCILER_STATE_DIR", str(state_dir))
        minimal_project(repository, tmp_path / "work")
        log = tmp_path / "log"
        repository.write(
            "lib/logging_jobs.py",
            "from jobflow import job\n\n\n@job\ndef append(text, after=None):\n"
            f"    with open({str(log)!r}, 'a') as file:\n        file.write(text)\n    return text\n",
        )
        text = (repository.path / "reconciler.yaml").read_text()
        repository.write("reconciler.yaml", text.replace("spec:", "spec:\n  python_path: [lib]", 1))
        repository.write_yaml(
            "flows/f.yaml",
            """
            apiVersion: reconciler/v1
            kind: Flow
            metadata: {name: f}
            spec:
              jobs:
                - {id: a, function: logging_jobs.append, args: [a]}
                - {id: b, function: logging_jobs.append, args: [b, {$output: a}]}
            """,
        )
        repository.commit()
        assert program("--once", "--wait").code == 0
        return log

    @pytest.mark.parametrize(
        ("table", "key", "readers_fail"),
        [
            ("jobs", None, True),
            ("flows", b"f", True),
            ("meta", b"config", True),
            ("meta", b"lineage", False),
            ("meta", b"outcome", False),
            ("builds", None, False),
        ],
    )
    def test_it(
        self, ran: Path, program: Program, state_dir: Path, table: str, key: bytes | None, readers_fail: bool
    ) -> None:
        before = json.loads(program("get", "jobs", "-o", "json").stdout)
        change(state_dir, lambda w: w.txn.put(table, key or next(iter(w.txn.keys(table))), b"\xc1"))
        done = program("get", "jobs")
        assert done.code == (3 if readers_fail else 0), done.stderr
        assert ("run `reconcile fsck`" in done.stderr) is readers_fail
        program("fsck", "--repair")
        done = program("--once", "--wait")
        assert done.code == 0, done.stderr
        after = json.loads(program("get", "jobs", "-o", "json").stdout)
        kept = ("key", "uuid", "index", "state", "attempt", "run_dir")
        assert [[row[field] for field in kept] for row in after] == [
            [row[field] for field in kept] for row in before
        ]
        assert ran.read_text() == "ab"
        assert program("fsck").code == 0
