"""Daemons end with their tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.watch.support import WatchWorld


@pytest.fixture
def watched(tmp_path: Path, warm_python: Path) -> Iterator[WatchWorld]:
    """A project whose daemons are started by the test; at its end, nothing runs any more."""
    world = WatchWorld(tmp_path, warm_python)
    yield world
    world.close()
