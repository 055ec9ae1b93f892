"""The LMDB environment when the world fails: killed processes, damage, no right to write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent

import pytest

from reconciler.actual.db import Database, Transaction, close_database, open_database
from reconciler.errors import WorldError
from tests.actual.db_support import HEAD, ROOT, run, start
from tests.support import no_small_disk


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


class TestFullDisk:
    """A disk of one MiB, that only the program sees."""

    def run_there(self, path: Path, code: str) -> list[str]:
        path.mkdir()
        mount = 'mount -t tmpfs -o size=1m,mode=700 tmpfs "$2" && exec "$0" -c "$1" "$2"'
        program = ["bash", "-c", mount, sys.executable, HEAD + dedent(code), str(path)]
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", *program],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if "unshare:" in done.stderr or "mount:" in done.stderr:
            no_small_disk(done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def test_what_was_written_before_stays_and_room_is_all_it_takes(self, tmp_path: Path) -> None:
        code = """
            database = db.open_database(path / "lmdb")
            ballast = path / "ballast"
            ballast.write_bytes(b"x" * 400_000)
            number = 0
            try:
                while True:
                    database.write(lambda txn: txn.put("jobs", b"%06d" % number, b"v" * 3000))
                    number += 1
            except db.WorldError as error:
                print(error)
            def big(txn):
                txn.put("jobs", b"big", b"x" * 300_000)
            for _ in range(2):
                try:
                    database.write(big)
                    print("written")
                except db.WorldError as error:
                    print(error)
                with database.read() as txn:
                    print([key for key in txn.keys("jobs")] == [b"%06d" % n for n in range(number)])
                ballast.unlink(missing_ok=True)
            db.close_database(database)
            with db.open_database(path / "lmdb").read() as txn:
                print(txn.count("jobs") - number, number > 50)
        """
        full = f"cannot write to the store in {tmp_path / 'disk' / 'lmdb'}: no space is left on the disk"
        assert self.run_there(tmp_path / "disk", code) == [full, full, "True", "written", "False", "1 True"]

    def test_there_is_no_room_to_begin_in(self, tmp_path: Path) -> None:
        """LMDB itself would be killed by the system: it maps its lock file."""
        code = """
            (path / "ballast").write_bytes(b"x" * 1_000_000)
            for _ in range(2):
                try:
                    db.open_database(path / "lmdb")
                    print("opened")
                except db.WorldError as error:
                    print(error, "|", error.hint)
                (path / "ballast").unlink(missing_ok=True)
        """
        said, then = self.run_there(tmp_path / "disk", code)
        assert said == (
            f"cannot open the store in {tmp_path / 'disk' / 'lmdb'}: no space is left on the disk"
            " | free some space there, then try again"
        )
        assert then == "opened"


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
        def change(txn: Transaction) -> None:
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
