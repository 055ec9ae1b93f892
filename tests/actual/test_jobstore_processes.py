"""Several processes on one directory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.actual import db
from reconciler.actual.jobstore import LMDBStore
from tests.actual.jobstore_support import REPOSITORY

WRITER = """
    import sys
    from reconciler.actual import db
    from reconciler.actual.jobstore import LMDBStore

    db._FIRST_MAP_SIZE = 4 * 2**20
    with LMDBStore(sys.argv[1]) as store:
        for n in range(int(sys.argv[2])):
            mark = bytes([n % 256])
            docs = [{"uuid": f"u{n}", "index": i, "n": n, "mark": mark, "data": mark * 2**20} for i in (1, 2)]
            store.update(docs, key=["uuid", "index"])
"""


@pytest.fixture
def small_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LMDBStore]:
    """A store with room for little; WRITER begins with as little."""
    monkeypatch.setattr(db, "_FIRST_MAP_SIZE", 4 * 2**20)
    with LMDBStore(tmp_path / "state") as opened:
        yield opened


def test_a_reader_sees_whole_updates_while_another_process_grows_the_store(small_store: LMDBStore) -> None:
    store, count = small_store, 40  # 80 MiB: the map must grow five times
    program = [sys.executable, "-c", textwrap.dedent(WRITER), store.path, str(count)]
    with subprocess.Popen(program, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as writer:
        looks = 0
        while writer.poll() is None:
            looks += 1
            newest = list(store.query(sort={"n": -1}, limit=2))
            assert len({doc["n"] for doc in newest}) <= 1, "both documents of an update, or none"
            assert all(doc["data"] == doc["mark"] * 2**20 for doc in newest)
        assert writer.returncode == 0, writer.stderr and writer.stderr.read()
    assert looks > 5
    assert store.count() == 2 * count
    assert (store.directory / "data.mdb").stat().st_size > 64 * 2**20
    store.update({"uuid": "u0", "index": 1, "n": 0, "mine": True}, key=["uuid", "index"])
    assert store.count({"uuid": "u0", "mine": True}) == 1


def test_two_processes_that_write_lose_nothing(store: LMDBStore) -> None:
    code = """
        import sys
        from reconciler.actual.jobstore import LMDBStore
        with LMDBStore(sys.argv[1]) as store:
            for n in range(60):
                store.update({"uuid": f"{sys.argv[2]}{n}", "index": 1})
    """
    programs = [[sys.executable, "-c", textwrap.dedent(code), store.path, name] for name in ("a", "b")]
    writers = [subprocess.Popen(program, cwd=REPOSITORY) for program in programs]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert store.count() == 120
