"""The LMDB environment: ordered scans, growth under readers, failures, forks and killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.actual import db
from reconciler.actual.db import Database, Txn, close_database, open_database
from reconciler.errors import TransientError, WorldError

ROOT = Path(__file__).parents[2]
SMALL = 2**20  # bytes: a map that is soon full
HEAD = """
import os, sys
from pathlib import Path
from reconciler.actual import db
path = Path(sys.argv[1])
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "lmdb")
    yield opened
    close_database(opened)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(db, "_FIRST_MAP_SIZE", SMALL)
    opened = open_database(tmp_path / "small")
    yield opened
    close_database(opened)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run Python with ``db``, ``os``, ``sys`` and ``path`` (the first argument) at hand."""
    program = [sys.executable, "-c", HEAD + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(
        program, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(code: str, *arguments: object) -> str:
    """Run Python to its end and return what it prints."""
    with start(code, *arguments) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def fill(mark: int, size: int = SMALL // 4) -> Callable[[Txn], None]:
    """A write that gives two entries the same content."""

    def change(txn: Txn) -> None:
        for key in (b"a", b"b"):
            txn.put("jobs", key, bytes([mark]) * size)
            txn.put("jobs", b"%s%d" % (key, mark), bytes([mark]) * size)

    return change


def size_of(database: Database) -> int:
    return int(database._env.info()["map_size"])


class TestScans:
    """Entries come in the order of their keys, those of a prefix and no others."""

    KEYS = st.lists(st.sampled_from([0, 1, 0x61, 0xFE, 0xFF]), max_size=12).map(bytes)

    @given(st.dictionaries(KEYS.filter(bool), st.binary(max_size=3), max_size=25), st.lists(KEYS, max_size=6))
    @settings(
        max_examples=100,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_they_agree_with_a_dict(
        self, database: Database, entries: dict[bytes, bytes], prefixes: list[bytes]
    ) -> None:
        def replace(txn: Txn) -> None:
            for key in list(txn.keys("jobs")):
                assert txn.delete("jobs", key)
            for key, value in entries.items():
                txn.put("jobs", key, value)

        database.write(replace)
        with database.read() as txn:
            assert txn.count("jobs") == len(entries)
            for prefix in (b"", b"\xff", b"a" + b"\xff" * 3, *prefixes):
                expected = sorted(item for item in entries.items() if item[0].startswith(prefix))
                for reverse in (False, True):
                    ordered = expected[::-1] if reverse else expected
                    assert list(txn.scan("jobs", prefix, reverse=reverse)) == ordered
                    assert list(txn.keys("jobs", prefix, reverse=reverse)) == [key for key, _ in ordered]

    def test_a_long_tail_of_the_highest_byte_is_no_end(self, database: Database) -> None:
        keys = [b"p" + b"\xff" * n for n in range(1, 500, 7)]
        database.write(lambda txn: [txn.put("jobs", key) for key in [*keys, b"o\xff", b"q"]])
        with database.read() as txn:
            assert list(txn.keys("jobs", b"p", reverse=True)) == keys[::-1]

    def test_other_tables_are_apart(self, database: Database) -> None:
        database.write(lambda txn: txn.put("flows", b"k", b"v"))
        with database.read() as txn:
            assert list(txn.scan("flows")) == [(b"k", b"v")]
            assert list(txn.scan("jobs")) == []

    @pytest.mark.parametrize("key", [b"", b"k" * 512])
    def test_a_key_that_cannot_be_is_not_there(self, database: Database, key: bytes) -> None:
        with database.read() as txn:
            assert txn.get("jobs", key) is None
        assert database.write(lambda txn: txn.delete("jobs", key)) is False
        with pytest.raises(ValueError, match=f"has {len(key)} bytes"):
            database.write(lambda txn: txn.put("jobs", key))


class TestGrowth:
    """The map grows by itself and disturbs nobody."""

    def test_readers_see_whole_writes_while_a_writer_grows_the_map(self, small: Database) -> None:
        small.write(fill(0))
        done = threading.Event()

        def look() -> int:
            looks = 0
            while not done.is_set() or not looks:
                with small.read() as txn:
                    first = txn.get("jobs", b"a")
                    with small.read() as inner:
                        inside = inner.get("jobs", b"a")
                    entries = dict(txn.scan("jobs"))
                assert inside and first == entries[b"a"] == entries[b"b"]
                assert all(value == value[:1] * len(value) for value in entries.values())
                looks += 1
            return looks

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(look) for _ in range(2)]
            try:
                for mark in range(1, 30):
                    small.write(fill(mark))
            finally:
                done.set()
            assert all(reader.result() > 0 for reader in readers)
        assert size_of(small) >= 16 * SMALL
        with small.read() as txn:
            assert txn.count("jobs") == 2 + 2 * 30

    def test_one_write_may_be_much_larger_than_the_map(self, small: Database) -> None:
        small.write(lambda txn: txn.put("jobs", b"big", b"x" * 9 * SMALL))
        with small.read() as txn:
            assert txn.get("jobs", b"big") == b"x" * 9 * SMALL

    def test_room_is_made_before_it_is_needed(self, small: Database) -> None:
        runs: list[int] = []

        def change(txn: Txn) -> None:
            runs.append(1)
            txn.put("jobs", b"%d" % len(runs), b"x" * (SMALL // 8))

        for _ in range(40):
            small.write(change)
        assert len(runs) == 40, "no write was run twice"
        assert size_of(small) > 4 * SMALL

    def test_a_read_of_the_same_thread_is_in_the_way(self, small: Database) -> None:
        small.write(fill(1, 10))
        with small.read() as txn:
            small.write(fill(2, 10))
            with pytest.raises(TransientError, match="this thread still reads"):
                small.write(fill(3, SMALL))
            assert txn.get("jobs", b"a") == b"\1" * 10
        with small.read() as txn:
            assert txn.get("jobs", b"a") == b"\2" * 10
        small.write(fill(3, SMALL))
        assert size_of(small) > SMALL

    def test_a_write_does_not_wait_for_ever_for_a_long_read(
        self, small: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(db, "_PATIENCE", 0.2)
        opened, release = threading.Event(), threading.Event()

        def hold() -> None:
            with small.read():
                opened.set()
                release.wait(30)

        with ThreadPoolExecutor(1) as pool:
            holder = pool.submit(hold)
            assert opened.wait(30)
            with pytest.raises(TransientError, match="another thread still reads"):
                small.write(fill(1, 2 * SMALL))
            release.set()
            holder.result()
        small.write(fill(1, 2 * SMALL))

    def test_an_abandoned_read_is_not_in_the_way(self, small: Database) -> None:
        def some() -> Iterator[bytes]:
            with small.read() as txn:
                yield from txn.keys("jobs")

        small.write(fill(1, 10))
        keys = some()
        assert next(keys) == b"a"
        del keys
        small.write(fill(2, 2 * SMALL))
        assert size_of(small) > SMALL

    def test_processes_take_the_size_from_one_another(self, small: Database) -> None:
        code = """
            db._FIRST_MAP_SIZE = 2**20
            database = db.open_database(path)
            for line in sys.stdin:
                key = line.strip().encode()
                database.write(lambda txn: txn.put("jobs", key, b"x" * 2**20))
                with database.read() as txn:
                    print(txn.count("jobs"), flush=True)
        """
        with start(code, small.path) as other:
            assert other.stdin and other.stdout
            for turn in range(1, 7):
                small.write(lambda txn, n=turn: txn.put("jobs", b"mine %d" % n, b"y" * SMALL))  # type: ignore[misc]
                print("theirs", turn, file=other.stdin, flush=True)
                assert other.stdout.readline() == f"{2 * turn}\n"
                with small.read() as txn:
                    assert len(dict(txn.scan("jobs"))) == 2 * turn
            other.stdin.close()
            assert other.wait(30) == 0


class TestWrites:
    """All of a write is kept, or nothing."""

    def test_a_write_that_fails_leaves_nothing(self, database: Database) -> None:
        def change(txn: Txn) -> None:
            txn.put("jobs", b"k", b"v")
            raise KeyError("on purpose")

        with pytest.raises(KeyError, match="on purpose"):
            database.write(change)
        with database.read() as txn:
            assert txn.count("jobs") == 0

    def test_a_write_may_read_and_a_read_may_write(self, database: Database) -> None:
        def change(txn: Txn) -> bytes | None:
            txn.put("jobs", b"k", b"new")
            with database.read() as before:
                return before.get("jobs", b"k")

        assert database.write(change) is None
        with database.read() as before:
            assert database.write(change) == b"new"
            database.write(lambda txn: txn.delete("jobs", b"k"))
            assert before.get("jobs", b"k") == b"new"

    def test_a_write_inside_a_write_is_a_mistake(self, database: Database) -> None:
        with pytest.raises(RuntimeError, match="wait for itself"):
            database.write(lambda _: database.write(lambda txn: txn.count("jobs")))
        assert database.write(lambda txn: txn.count("jobs")) == 0

    def test_a_write_that_fails_ends_although_others_read_and_write(self, database: Database) -> None:
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                with database.read() as txn:
                    list(txn.scan("jobs"))

        def write() -> None:
            while not done.is_set():
                database.write(lambda txn: txn.put("jobs", b"other"))

        def fail(txn: Txn) -> None:
            txn.put("jobs", b"k", b"v")
            raise KeyError("on purpose")

        with ThreadPoolExecutor(3) as pool:
            others = [pool.submit(work) for work in (read, read, write)]
            try:
                for _ in range(20):
                    with pytest.raises(KeyError):
                        database.write(fail)
            finally:
                done.set()
            for other in others:
                other.result()
        with database.read() as txn:
            assert list(txn.keys("jobs")) == [b"other"]

    def test_threads_that_write_lose_nothing(self, database: Database) -> None:
        def add(txn: Txn) -> None:
            txn.put("meta", b"n", b"%d" % (int(txn.get("meta", b"n") or 0) + 1))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: database.write(add), range(40)))
        with database.read() as txn:
            assert txn.get("meta", b"n") == b"40"

    def test_a_file_that_may_not_grow_fails_the_write_and_keeps_nothing_of_it(self, tmp_path: Path) -> None:
        code = """
            import resource
            database = db.open_database(path)
            database.write(lambda txn: txn.put("jobs", b"small", b"kept"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
            try:
                database.write(lambda txn: txn.put("jobs", b"big", b"x" * 2**21))
            except db.WorldError as error:
                print(error)
            with database.read() as txn:
                print(list(txn.scan("jobs")))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            database.write(lambda txn: txn.put("jobs", b"big", b"x" * 2**21))
            with database.read() as txn:
                print(list(txn.keys("jobs")))
        """
        lines = run(code, tmp_path / "lmdb").splitlines()
        assert lines[0].startswith(f"cannot write to the store in {tmp_path / 'lmdb'}: ")
        assert lines[1:] == ["[(b'small', b'kept')]", "[b'big', b'small']"]


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

    @pytest.mark.parametrize("kept", [0.0, 0.3, 0.6])
    @pytest.mark.parametrize("how", ["noise", "zeros", "cut off"])
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


class TestSharing:
    """One environment a process and path."""

    def test_the_last_user_closes(self, tmp_path: Path) -> None:
        first, second = open_database(tmp_path / "a"), open_database(tmp_path / "b" / ".." / "a")
        assert first is second
        close_database(first)
        second.write(lambda txn: txn.put("jobs", b"k"))
        close_database(second)
        third = open_database(tmp_path / "a")
        close_database(first)  # once too often, and of an older one
        with third.read() as txn:
            assert list(txn.keys("jobs")) == [b"k"]
        close_database(third)

    def test_a_forked_child_must_not_use_what_its_parent_opened(self, database: Database) -> None:
        database.write(lambda txn: txn.put("jobs", b"k", b"v"))
        with database.read() as txn:
            told = in_child(lambda: attempts(database))
            assert told.count("was open when this process was forked") == 3
            assert txn.get("jobs", b"k") == b"v"
            assert str(os.getpid()) in database._env.readers(), "the child gave no slot of the parent back"
        database.write(lambda txn: txn.put("jobs", b"k", b"w"))
        assert run(
            "with db.open_database(path).read() as txn: print(txn.get('jobs', b'k'))", database.path
        ) == ("b'w'\n")

    def test_a_forked_child_may_open_what_its_parent_closed(self, tmp_path: Path) -> None:
        close_database(open_database(tmp_path / "lmdb"))

        def child() -> str:
            mine = open_database(tmp_path / "lmdb")
            mine.write(lambda txn: txn.put("jobs", b"k", b"child"))
            close_database(mine)
            return "done"

        assert in_child(child) == "done"
        mine = open_database(tmp_path / "lmdb")
        with mine.read() as txn:
            assert txn.get("jobs", b"k") == b"child"
        close_database(mine)


def attempts(database: Database) -> str:
    """Try all that a child must not do, and tell what came of it."""

    def read() -> None:
        with database.read() as txn:
            txn.count("jobs")

    told = []
    tries: list[Callable[[], Any]] = [
        read,
        lambda: database.write(lambda txn: txn.put("jobs", b"k", b"child")),
        lambda: open_database(database.path),
        lambda: close_database(database),
    ]
    for attempt in tries:
        try:
            attempt()
        except WorldError as error:
            told.append(str(error))
    return "\n".join(told)


def in_child(work: Callable[[], str]) -> str:
    """Fork, work there, and return what came of it."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = work()
        except BaseException as error:
            told = f"failed: {error!r}"
        os.write(send, told.encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as stream:
        told = stream.read()
    os.waitpid(child, 0)
    return told
