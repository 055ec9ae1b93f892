"""The world is made once; whoever changes anything makes a repository of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.cli.main import main
from tests.cli.world import World
from tests.execution.support import World as ExecutorWorld
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


class Ended(NamedTuple):
    """How the program ended."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Ended]:
    """Run the program in this process: quicker, for what is not about how it starts."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["reconcile", *arguments])
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfdbinary.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, out.decode(errors="replace"), err.decode(errors="replace"))

    return run


@pytest.fixture
def program_on(
    program: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> Callable[[ExecutorWorld], Callable[..., str]]:
    """Run the program on a world whose jobs the test writes itself; it succeeds, and gives its stdout."""

    def on(world: ExecutorWorld) -> Callable[..., str]:
        monkeypatch.chdir(world.repository.path)

        def run(*arguments: str) -> str:
            done = program(*arguments, "--state-dir", str(world.root / "state"))
            assert done.code == 0, done.stderr
            return done.stdout

        return run

    return on
