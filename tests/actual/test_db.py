"""The LMDB environment: ordered scans, whole writes, one environment a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.actual.db import Database, Transaction, close_database, open_database
from reconciler.errors import WorldError
from tests.actual.db_support import in_child, run, start


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
        def replace(txn: Transaction) -> None:
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


class TestWrites:
    """All of a write is kept, or nothing."""

    def test_a_write_that_fails_leaves_nothing(self, database: Database) -> None:
        def change(txn: Transaction) -> None:
            txn.put("jobs", b"k", b"v")
            raise KeyError("on purpose")

        with pytest.raises(KeyError, match="on purpose"):
            database.write(change)
        with database.read() as txn:
            assert txn.count("jobs") == 0

    def test_a_write_may_read_and_a_read_may_write(self, database: Database) -> None:
        def change(txn: Transaction) -> bytes | None:
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

        def fail(txn: Transaction) -> None:
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
        def add(txn: Transaction) -> None:
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
        cause = lines[0].removeprefix(f"cannot write to the store in {tmp_path / 'lmdb'}: ")
        assert cause.startswith(
            ("its file may not grow any more", "the disk did not take all")
        )  # by the page
        assert lines[1:] == ["[(b'small', b'kept')]", "[b'big', b'small']"]


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


READS = "database = db.open_database(path, read_only=True)\nwith database.read() as txn: "


class TestOnlyToRead:
    """An environment that was opened only to read."""

    def test_it_does_not_wait_for_a_writer(self, database: Database) -> None:
        database.write(lambda txn: txn.put("jobs", b"k", b"old"))
        told: list[str] = []

        def change(txn: Transaction) -> None:
            txn.put("jobs", b"k", b"new")
            told.append(run(READS + "print(txn.get('jobs', b'k'))", database.path))

        database.write(change)
        assert told == ["b'old'\n"]
        assert run(READS + "print(txn.get('jobs', b'k'))", database.path) == "b'new'\n"

    def test_it_sees_what_comes_after_it_was_opened(self, database: Database) -> None:
        """Also when the map has grown meanwhile."""
        code = """
        database = db.open_database(path, read_only=True)
        for _ in sys.stdin:
            with database.read() as txn:
                print(txn.count("jobs"), flush=True)
        """
        with start(code, database.path) as reader:
            assert reader.stdin is not None and reader.stdout is not None
            for count in range(1, 4):
                database.write(lambda txn, count=count: txn.put("jobs", b"%d" % count, bytes(2**28)))
                reader.stdin.write("look\n")
                reader.stdin.flush()
                assert reader.stdout.readline() == f"{count}\n"
            reader.stdin.close()

    def test_it_cannot_write(self, database: Database) -> None:
        code = READS + "pass\ntry: database.write(lambda txn: None)\nexcept RuntimeError as e: print(e)"
        assert run(code, database.path) == "this store was opened only to read\n"

    def test_one_that_is_not_there_is_made(self, tmp_path: Path) -> None:
        assert run(READS + "print(txn.count('jobs'))", tmp_path / "new") == "0\n"

    def test_one_that_lacks_a_table_gets_it(self, tmp_path: Path) -> None:
        run("db.TABLES = db.TABLES[:-1]; db.close_database(db.open_database(path))", tmp_path / "db")
        assert run(READS + "print(txn.count(db.TABLES[-1]))", tmp_path / "db") == "0\n"

    def test_one_that_was_cut_off_is_found_to_be_damaged(self, tmp_path: Path) -> None:
        """Reading past the end of the file would kill the process."""
        path = tmp_path / "db"
        written = open_database(path)
        written.write(lambda txn: [txn.put("jobs", b"%d" % n, bytes(5000)) for n in range(100)])
        close_database(written)
        os.truncate(path / "data.mdb", 3 * 4096)
        code = """
        try:
            database = db.open_database(path, read_only=True)
            with database.read() as txn:
                print(list(txn.keys("jobs")))
        except db.WorldError as error:
            print(error.message)
        """
        assert "is damaged" in run(code, path)

    def test_who_opens_it_again_shares_it(self, database: Database) -> None:
        shared = open_database(database.path, read_only=True)
        assert shared is database
        assert not shared.read_only
        close_database(shared)
