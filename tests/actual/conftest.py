"""Opened stores for the tests of job outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from maggma.stores import MemoryStore

from reconciler.actual.jobstore import LMDBStore
from tests.actual.jobstore_support import DOCS


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
