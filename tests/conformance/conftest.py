"""Worlds to edit, for tests of what a commit does to jobs that exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.edits_world import Builds, EditWorld, Files, MakeWorld


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builds]:
    """One build process for all worlds of a module."""
    made = Builds(tmp_path_factory.mktemp("builds"))
    yield made
    made.close()


@pytest.fixture
def make_world(tmp_path: Path, builds: Builds) -> Iterator[MakeWorld]:
    """Make worlds, each by its first manifests, which are submitted."""
    made: list[EditWorld] = []

    def make(files: Files) -> EditWorld:
        made.append(EditWorld(tmp_path / f"world{len(made)}", builds, files))
        made[-1].submit()
        return made[-1]

    yield make
    for world in made:
        world.close()
