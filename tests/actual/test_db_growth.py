"""The map of the LMDB environment grows under readers and writers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.actual import db
from reconciler.actual.db import Database, Transaction
from reconciler.errors import TransientError
from tests.actual.db_support import SMALL, fill, size_of, start


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

        def change(txn: Transaction) -> None:
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
