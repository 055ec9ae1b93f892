"""The LMDB environment when the world fails: killed processes, damage, no right to write."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from reconciler.actual.db import Database, Txn, close_database, open_database
from reconciler.errors import WorldError
from tests.actual.db_support import run, start


class TestKilled:
    """A process that is killed leaves the store as it was, and usable."""

    def test_in_the_middle_of_a_write(self, database: Database) -> None:
        database.write(lambda txn: txn.put("jobs", b"k", b"before"))
        code = """
            def change(txn):
                txn.put("jobs", b"k", b"after")
                txn.put("jobs", b"big", b"x" * 2**24)
                print("in the middle", flush=True)
                sys.stdin.read()
            db.open_database(path).write(change)
        """
        with start(code, database.path) as writer:
            assert writer.stdout and writer.stdout.readline() == "in the middle\n"
            writer.kill()
            assert writer.wait(30) == -signal.SIGKILL
        with database.read() as txn:
            assert list(txn.scan("jobs")) == [(b"k", b"before")]
        database.write(lambda txn: txn.put("jobs", b"k", b"again"))
        with database.read() as txn:
            assert txn.get("jobs", b"k") == b"again"

    def test_with_reads_open(self, tmp_path: Path) -> None:
        code = """
            database = db.open_database(path)
            reads = [database.read() for _ in range(500)]
            print([read.__enter__().count("jobs") for read in reads][-1], flush=True)
            sys.stdin.read()
        """
        path = tmp_path / "lmdb"
        with ExitStack() as stack, start(code, path) as reader:
            assert reader.stdout and reader.stdout.readline() == "0\n"
            mine = open_database(path)
            stack.callback(close_database, mine)
            reader.kill()
            reader.wait(30)
            for _ in range(100):
                assert stack.enter_context(mine.read()).count("jobs") == 0


class TestFailures:
    """What the world does to the store is said in words of the user."""

    def test_too_many_reads(self, database: Database) -> None:
        with ExitStack() as stack:
            with pytest.raises(WorldError, match=r"cannot read the store in .*: too many reads are open"):
                for _ in range(600):
                    stack.enter_context(database.read())
            assert len(database._gate._open) == 512
        with database.read() as txn:
            assert txn.count("jobs") == 0

    def test_a_file_in_the_place_of_the_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("I was here first")
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(WorldError, match=r"cannot open the store in .*: a file is where"):
                open_database(path)

    def test_a_directory_that_may_only_be_read(self) -> None:
        code = """
            if os.geteuid() == 0:
                os.setuid(65534)  # to root nothing is forbidden
            for place in (path / "closed", path / "store"):
                try:
                    db.open_database(place)
                except db.WorldError as error:
                    print(error, "|", error.hint)
        """
        with tempfile.TemporaryDirectory() as name:  # that of pytest is closed to other users
            path = Path(name).resolve()
            path.chmod(0o755)
            close_database(open_database(path / "store"))
            for directory, mode in ((path / "store", 0o555), (path, 0o555)):
                directory.chmod(mode)
            for file in (path / "store").iterdir():
                file.chmod(0o444)
            lines = run(code, path).splitlines()
            path.chmod(0o755)
            (path / "store").chmod(0o755)
        assert len(lines) == 2
        for line, place in zip(lines, ("closed", "store"), strict=True):
            assert line.startswith(
                f"cannot open the store in {path / place}: permission denied | check who owns"
            )

    @pytest.mark.parametrize(
        ("how", "kept"),
        [("noise", 0.0), *((how, kept) for how in ("zeros", "cut off") for kept in (0.0, 0.3, 0.6))],
    )
    def test_a_damaged_file(self, tmp_path: Path, how: str, kept: float) -> None:
        database = open_database(tmp_path)
        database.write(lambda txn: [txn.put("jobs", b"%06d" % n, b"v" * 500) for n in range(2000)])
        close_database(database)
        file = tmp_path / "data.mdb"
        spoil(file, how, max(10_000, int(kept * file.stat().st_size)) if kept else 5_000)
        code = """
            try:
                with db.open_database(path).read() as txn:
                    print(len(list(txn.scan("jobs"))))
            except db.WorldError as error:
                print(error)
        """
        assert "data.mdb is damaged" in run(code, tmp_path)

    def test_what_is_free_at_the_end_may_be_missing(self, database: Database) -> None:
        def change(txn: Txn) -> None:
            txn.put("jobs", b"k", b"v")
            txn.put("jobs", b"big", b"x" * 2**22)
            txn.delete("jobs", b"big")

        database.write(change)
        assert run(
            "with db.open_database(path).read() as txn: print(list(txn.scan('jobs')))", database.path
        ) == ("[(b'k', b'v')]\n")

    def test_a_closed_database(self, tmp_path: Path) -> None:
        database = open_database(tmp_path)
        close_database(database)
        close_database(database)
        with pytest.raises(WorldError, match="cannot read the store"), database.read():
            pass
        with pytest.raises(WorldError, match="cannot write to the store"):
            database.write(lambda txn: txn.count("jobs"))


def spoil(file: Path, how: str, start: int) -> None:
    """Damage all of a file from ``start`` on."""
    size = file.stat().st_size
    os.truncate(file, start)
    if how == "zeros":
        os.truncate(file, size)
    elif how == "noise":
        with file.open("ab") as stream:
            stream.write(bytes(range(1, 256)) * ((size - start) // 255 + 1))
