"""Worlds whose jobs run as processes; and a bench: a store whose attempts the tests start and end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.execution.conftest import make_world, world
from tests.jobs.bench import Bench

__all__ = ["bench", "make_world", "world"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A store without flows, which must be consistent at the end."""
    made = Bench(tmp_path / "state")
    yield made
    made.check()
    made.store.close()
