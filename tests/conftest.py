"""Light fixtures for every test: an isolated environment, a git repository, the program as a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Reconcile, Repository, isolate


@pytest.fixture(autouse=True)
def _isolated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test sees, or changes, settings of the user who runs it."""
    isolate(monkeypatch, tmp_path / "home")
    # One for all tests: a fresh one costs matplotlib a scan of all fonts.
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp() / "matplotlib"))


@pytest.fixture
def make_repository(tmp_path: Path) -> Callable[[str], Repository]:
    """Make more git repositories, each by its name."""
    return lambda name: Repository(tmp_path / name)


@pytest.fixture
def repository(make_repository: Callable[[str], Repository]) -> Repository:
    """An empty git repository without a commit."""
    return make_repository("repository")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Where a state directory may be made; nothing is there yet."""
    return tmp_path / "state"


@pytest.fixture
def reconcile(repository: Repository) -> Reconcile:
    """Run the program in ``repository`` as a process; see :class:`tests.support.Reconcile`."""
    return Reconcile(repository.path)
