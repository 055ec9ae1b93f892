"""A backup is one moment of the store, complete or not there; a restore is done or not begun."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reconciler.actual.backup import save_copy
from reconciler.actual.fsck.snapshot import Report
from reconciler.actual.restore import present_contents, stage, swap
from reconciler.actual.store import Store
from reconciler.errors import InputError, RefusedError, WorldError
from reconciler.model.records import FlowRecord
from tests.actual.db_support import ROOT, run, start

NOW = 1_800_000_000.0


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


def put_flows(state_dir: Path, *names: str) -> None:
    store = Store(state_dir)
    for name in names:
        flow = FlowRecord(name=name, identity="i", build_key="")
        store.write(lambda writer, flow=flow: writer.put_flow(flow))  # type: ignore[misc]
    store.close()


def flows(state_dir: Path) -> list[str]:
    store = Store(state_dir)
    with store.read() as view:
        found = [flow.name for flow in view.flows()]
    store.close()
    return found


def backup(state_dir: Path, file: Path) -> Path:
    store = Store(state_dir)
    save_copy(store, file, overwrite=True)
    store.close()
    return file


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


class TestBackup:
    """One file, one moment."""

    def test_it_is_one_moment_while_another_process_writes(self, tmp_path: Path, state_dir: Path) -> None:
        """Each write gives all entries its number; meanwhile the store grows, and gets free pages."""
        code = """
            from reconciler.actual.store import Store
            store = Store(path)
            for number in range(10_000):
                text = b"%d" % number * (1 + number % 50)
                store.write(lambda writer: [writer.txn.put("parsed", b"%d" % n, text) for n in range(300)])
                if number == 5:
                    print("begun", flush=True)
        """
        store = Store(state_dir)
        seen = []
        with start(code, state_dir) as writer:
            assert writer.stdout and writer.stdout.readline() == "begun\n"
            for number in range(12):
                save_copy(store, tmp_path / f"{number}.mdb")
                seen.append(self.content(tmp_path, number))
            writer.kill()
        store.close()
        assert all(len(values) == 1 for values in seen), "all entries of a copy are of the same write"
        assert len({*map(str, seen)}) > 3, "the writer went on meanwhile"

    def content(self, tmp_path: Path, number: int) -> set[bytes]:
        place = tmp_path / f"opened{number}"
        (place / "lmdb").mkdir(parents=True)
        (tmp_path / f"{number}.mdb").rename(place / "lmdb" / "data.mdb")
        store = Store(place)
        with store.read() as view:
            found = {raw for _, raw in view.txn.scan("parsed")}
        store.close()
        return found

    def test_it_is_private_small_and_alone(self, tmp_path: Path, state_dir: Path) -> None:
        store = Store(state_dir)
        store.write(lambda writer: writer.txn.put("parsed", b"big", b"x" * 2**22))
        store.write(lambda writer: writer.txn.delete("parsed", b"big"))
        (tmp_path / "there").mkdir()
        size = save_copy(store, tmp_path / "there" / "b.mdb")
        store.close()
        file = tmp_path / "there" / "b.mdb"
        assert size == file.stat().st_size < 2**18, "free pages are left out"
        assert file.stat().st_mode & 0o777 == 0o600
        assert files(tmp_path / "there") == ["b.mdb"]

    def test_a_file_that_exists_is_not_overwritten_unless_wanted(
        self, tmp_path: Path, state_dir: Path
    ) -> None:
        store, file = Store(state_dir), tmp_path / "b.mdb"
        file.write_text("mine")
        with pytest.raises(RefusedError, match="exists already"):
            save_copy(store, file)
        assert file.read_text() == "mine"
        save_copy(store, file, overwrite=True)
        assert file.stat().st_size > 4096
        store.close()

    def test_a_directory_that_is_not_there(self, tmp_path: Path, state_dir: Path) -> None:
        store = Store(state_dir)
        with pytest.raises(WorldError, match=r"cannot write .*: No such file or directory"):
            save_copy(store, tmp_path / "nowhere" / "b.mdb")
        store.close()

    def test_where_it_does_not_fit_nothing_is_left_of_it(self, tmp_path: Path, state_dir: Path) -> None:
        code = """
            import resource
            from reconciler.actual.backup import save_copy
            from reconciler.actual.store import Store
            store = Store(path)
            store.write(lambda writer: writer.txn.put("parsed", b"big", b"x" * 2**22))
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
            try:
                save_copy(store, Path(sys.argv[2]))
            except db.WorldError as error:
                print(error)
        """
        (tmp_path / "there").mkdir()
        said = run(code, state_dir, tmp_path / "there" / "b.mdb")
        assert said.startswith(f"cannot write {tmp_path}/there/b.mdb: cannot copy the store in ")
        assert files(tmp_path / "there") == []


def restore(file: Path, state_dir: Path) -> Path | None:
    return swap(stage(file, state_dir, NOW), state_dir, NOW)


class TestRestore:
    """A backup takes the place of the state, which is kept."""

    def test_the_state_is_that_of_the_backup_and_the_old_one_is_kept(
        self, tmp_path: Path, state_dir: Path
    ) -> None:
        put_flows(state_dir, "a")
        file = backup(state_dir, tmp_path / "b.mdb")
        put_flows(state_dir, "b")
        kept = restore(file, state_dir)
        assert flows(state_dir) == ["a"]
        assert kept is not None
        assert kept.name.startswith("lmdb.before-restore-2027")
        assert files(state_dir) == ["lmdb", kept.name]

    def test_the_kept_one_is_a_store(self, tmp_path: Path, state_dir: Path) -> None:
        put_flows(state_dir, "a")
        file = backup(state_dir, tmp_path / "b.mdb")
        put_flows(state_dir, "b")
        first, second = restore(file, state_dir), restore(file, state_dir)
        assert first is not None
        assert second is not None
        assert second.name == f"{first.name}-2", "the same second"
        first.rename(tmp_path / "lmdb")
        assert flows(tmp_path) == ["a", "b"]

    def test_without_a_state(self, tmp_path: Path, state_dir: Path) -> None:
        put_flows(tmp_path / "other", "a")
        file = backup(tmp_path / "other", tmp_path / "b.mdb")
        state_dir.mkdir()
        assert restore(file, state_dir) is None
        assert flows(state_dir) == ["a"]
        assert present_contents(state_dir) is not None

    def test_it_is_known_as_restored(self, tmp_path: Path, state_dir: Path) -> None:
        put_flows(state_dir, "a")
        restore(backup(state_dir, tmp_path / "b.mdb"), state_dir)
        store = Store(state_dir)
        with store.read() as view:
            assert view.restored() == NOW
        store.close()

    @pytest.mark.parametrize("content", [b"", b"text" * 5000, b"\0" * 50_000])
    def test_what_is_no_backup(self, tmp_path: Path, state_dir: Path, content: bytes) -> None:
        put_flows(state_dir, "a")
        (tmp_path / "b.mdb").write_bytes(content)
        with pytest.raises(InputError):
            stage(tmp_path / "b.mdb", state_dir, NOW)
        assert files(state_dir) == ["lmdb"]
        assert flows(state_dir) == ["a"]

    def test_a_damaged_state_can_be_replaced(self, tmp_path: Path, state_dir: Path) -> None:
        put_flows(state_dir, "a")
        file = backup(state_dir, tmp_path / "b.mdb")
        (state_dir / "lmdb" / "data.mdb").write_bytes(b"\xff" * 20_000)
        assert present_contents(state_dir) is None
        assert restore(file, state_dir) is not None
        assert flows(state_dir) == ["a"]

    def test_a_newer_backup_is_refused(self, tmp_path: Path, state_dir: Path) -> None:
        store = Store(tmp_path / "other")
        store.write(lambda writer: writer.txn.put("meta", b"schema", struct.pack(">Q", 99)))
        save_copy(store, tmp_path / "b.mdb")
        store.close()
        state_dir.mkdir()
        with pytest.raises(InputError, match="written by a newer reconciler"):
            stage(tmp_path / "b.mdb", state_dir, NOW)
        assert files(state_dir) == []

    def test_where_it_does_not_fit_nothing_is_left_of_it(self, tmp_path: Path, state_dir: Path) -> None:
        """What it left would fill the disk on which the present state has to go on."""
        store = Store(tmp_path / "other")
        store.write(lambda writer: writer.txn.put("parsed", b"big", b"x" * 2**22))
        save_copy(store, tmp_path / "b.mdb")
        store.close()
        put_flows(state_dir, "a")
        before = files(state_dir)
        code = """
            import resource
            from reconciler.actual.restore import stage
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
            try:
                stage(Path(sys.argv[2]), path, 1.0)
            except db.WorldError as error:
                print(error)
        """
        said = run(code, state_dir, tmp_path / "b.mdb")
        assert said == f"cannot copy {tmp_path}/b.mdb to {state_dir}/lmdb.restoring: File too large\n"
        assert files(state_dir) == before
        assert flows(state_dir) == ["a"]

    def test_a_backup_that_is_not_there(self, tmp_path: Path, state_dir: Path) -> None:
        put_flows(state_dir, "a")
        with pytest.raises(WorldError, match="No such file"):
            stage(tmp_path / "nowhere.mdb", state_dir, NOW)
        assert files(state_dir) == ["lmdb"]

    def test_what_is_wrong_with_it_is_told(self, tmp_path: Path, state_dir: Path) -> None:
        store = Store(state_dir)
        store.write(lambda writer: writer.txn.put("by_flow", b"f\0nobody_1"))
        save_copy(store, tmp_path / "b.mdb")
        store.close()
        report: Report = stage(tmp_path / "b.mdb", state_dir, NOW).report
        assert [problem.message for problem in report.problems] == ["the entry leads nowhere"]


KILLED = """
import os, signal, sys
from pathlib import Path
from reconciler.actual.restore import stage, swap

file, state_dir, deadly = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
calls, rename = 0, Path.rename

def renaming(self, target):
    global calls
    calls += 1
    if calls == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

Path.rename = renaming
swap(stage(file, state_dir, 1_800_000_000.0), state_dir, 1_800_000_000.0)
"""


@pytest.mark.parametrize(("deadly", "expected"), [(1, ["a", "b"]), (2, ["a", "b"]), (3, ["a"]), (4, ["a"])])
def test_killed_before_any_step_of_a_restore(
    tmp_path: Path, state_dir: Path, deadly: int, expected: list[str]
) -> None:
    put_flows(state_dir, "a")
    file = backup(state_dir, tmp_path / "b.mdb")
    put_flows(state_dir, "b")
    done = subprocess.run([sys.executable, "-c", KILLED, file, state_dir, str(deadly)], cwd=ROOT, timeout=60)
    assert done.returncode == (-signal.SIGKILL if deadly < 4 else 0)
    assert Store.exists(state_dir)
    assert flows(state_dir) == expected
    restore(file, state_dir)
    assert flows(state_dir) == ["a"]
    assert {name.partition(".before")[0] for name in files(state_dir)} == {"lmdb"}


def test_who_reads_meanwhile_reads_on(tmp_path: Path, state_dir: Path) -> None:
    """A notebook that has the state open sees the old one until it opens it anew; it does no harm."""
    put_flows(state_dir, "a")
    file = backup(state_dir, tmp_path / "b.mdb")
    put_flows(state_dir, "b")
    code = """
        from reconciler.actual.store import Store
        store = Store(path)
        for line in sys.stdin:
            with store.read() as view:
                print([flow.name for flow in view.flows()], flush=True)
    """
    with start(code, state_dir) as reader:
        assert reader.stdin and reader.stdout
        for _ in range(2):
            reader.stdin.write("\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == "['a', 'b']\n"
            restore(file, state_dir)
            put_flows(state_dir, f"new{time.time_ns()}")
        reader.stdin.close()
        assert reader.wait(30) == 0
    assert len(flows(state_dir)) == 2
