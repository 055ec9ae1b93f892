"""Opened databases, and opened stores of job outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from maggma.stores import MemoryStore

from reconciler.actual import db
from reconciler.actual.db import Database, close_database, open_database
from reconciler.actual.jobstore import LMDBStore
from tests.actual.db_support import SMALL
from tests.actual.jobstore_support import DOCS


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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LMDBStore]:
    with LMDBStore(tmp_path / "state") as opened:
        yield opened


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LMDBStore, MemoryStore]]:
    oracle = MemoryStore(key="n")
    with LMDBStore(tmp_path_factory.mktemp("state")) as store, oracle:
        for each in (store, oracle):
            each.update(DOCS, key="n")
        yield store, oracle
