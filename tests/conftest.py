"""Light fixtures for every test: an isolated environment, a git repository, the program as a process.

How tests are dealt out to the processes of pytest-xdist: a module is never split (``--dist loadfile``), so
what it makes once for its tests is made once, and the modules that take longest begin. A fixture of session
scope is made in each process, so it must be cheap.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.services.login import Login
from tests.support import Reconcile, Repository, isolate
from tests.warm_python import warm_python as start_warm_python
from tests.watch.support import WatchWorld

# Real sshd, Slurm and Grid Engine, which all processes share.
pytest_plugins = ["tests.services.plugin"]

# An example may take as long as it does: a busy machine says nothing about the code.
settings.register_profile(
    "unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")

# What takes longest, about the longest first; all others follow in their own order. The campaign keeps the
# processors busy, and the kills take thrice as long where they are: not both at once.
LONGEST = (
    "tests/example_repo/test_campaign.py",
    "tests/faults/test_outages.py",
    "tests/clusters/",
    "tests/contract/",
    "tests/faults/",
    "tests/execution/test_executor.py",
    "tests/execution/test_interrupted.py",
    "tests/jobs/test_responses.py",
    "tests/services/",
    "tests/conformance/",
    "tests/execution/test_kills.py",
    "tests/cli/test_exit_codes.py",
    "tests/test_broken_repositories.py",
    "tests/loop/",
    "tests/test_blast_radius.py",
    "tests/cli/",
    "tests/jobs/",
    "tests/execution/",
)


def pytest_configure() -> None:
    """Started in the background, a shell lets all its children ignore Ctrl-C; the tests of it need it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest modules begin, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: _place(item.nodeid))


def _place(nodeid: str) -> int:
    return next((place for place, start in enumerate(LONGEST) if nodeid.startswith(start)), len(LONGEST))


@pytest.fixture(autouse=True)
def _isolated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test sees, or changes, settings of the user who runs it."""
    isolate(monkeypatch, tmp_path / "home")
    # One for all tests: a fresh one costs matplotlib a scan of all fonts.
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp() / "matplotlib"))


@pytest.fixture(scope="session")
def warm_python() -> Iterator[Path]:
    """A command like Python that has imported everything already; see :mod:`tests.warm_python`."""
    with start_warm_python() as command:
        yield command


@pytest.fixture(scope="session")
def job_python(login: Login, warm_python: Path) -> Iterator[Path]:
    """A warm Python (see :mod:`tests.warm_python`) for jobs of who logs in over SSH."""
    if not login.own:
        yield warm_python
        return
    with start_warm_python(user=login.uid) as command:
        yield command


@pytest.fixture
def warm(warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs and jobs of this test run by ``warm_python``: it is not about how they start or are killed."""
    monkeypatch.setattr(sys, "executable", str(warm_python))


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


@pytest.fixture
def watched(tmp_path: Path, warm_python: Path) -> Iterator[WatchWorld]:
    """A project whose daemons are started by the test; at its end, nothing runs any more."""
    world = WatchWorld(tmp_path, warm_python)
    yield world
    world.close()
