"""Worlds for these tests, and their jobs where the tests can import them, as a user's python_path does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.execution.support import World, end_processes_below

sys.path.append(str(Path(__file__).parent / "code"))


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make a world; its processes are ended and its store closed at the end."""
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(tmp_path / f"world{len(made)}", **options))
        return made[-1]

    yield make
    for world in made:
        world.close()
        end_processes_below(world.work)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
