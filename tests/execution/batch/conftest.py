"""Worlds with a batch worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.execution.batch.support import BatchWorld
from tests.execution.support import end_processes_below


@pytest.fixture
def make_batch(tmp_path: Path) -> Iterator[Callable[..., BatchWorld]]:
    """Make a world whose worker ``b`` is a batch worker; options are those of ``batch``."""
    made: list[BatchWorld] = []

    def make(**batch: Any) -> BatchWorld:
        made.append(BatchWorld(tmp_path / f"world{len(made)}", **batch))
        return made[-1]

    yield make
    for world in made:
        world.close()
        end_processes_below(world.work)
