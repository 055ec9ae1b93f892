"""The world is made once; whoever changes anything makes a repository of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.world import World
from tests.support import isolate


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[World]:
    """A state with finished, failed, generated, waiting, running and held jobs. Read only."""
    path = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, path / "home")
        made = World(path)
        with pytest.MonkeyPatch.context() as warm:
            warm.setattr(sys, "executable", str(warm_python))
            made.build()
        yield made
        made.tear_down()
