"""The fixtures; :mod:`tests.services` says what they are. Registered by ``tests/conftest.py``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from tests.services.gridengine import GridEngine
from tests.services.login import Login, default_login, new_login, present_login
from tests.services.places import Place, place_of
from tests.services.shared import SharedServices
from tests.services.slurm import Slurm
from tests.services.slurmdbd import SlurmDatabase
from tests.services.sshd import Sshd

_Thing = TypeVar("_Thing", Slurm, GridEngine, Place)
_SERVICES = pytest.StashKey[SharedServices]()


def pytest_configure(config: pytest.Config) -> None:
    """Choose the run's directory; a worker of pytest-xdist is told."""
    told = getattr(config, "workerinput", {}).get("services")
    config.stash[_SERVICES] = (
        SharedServices(Path(told[0]), told[1]) if told else SharedServices.of_this_process()
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell a worker of pytest-xdist where the services are."""
    services = node.config.stash[_SERVICES]  # type: ignore[attr-defined]
    node.workerinput["services"] = (str(services.directory), services.owner)  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the services, in the process that owns the run; its workers are gone by now."""
    services = config.stash.get(_SERVICES, None)
    if services is not None and not hasattr(config, "workerinput"):
        services.close()


@pytest.fixture(scope="session")
def services(request: pytest.FixtureRequest) -> SharedServices:
    """What this test run has started so far."""
    return request.config.stash[_SERVICES]


@pytest.fixture(scope="session")
def login(services: SharedServices) -> Login:
    """Who logs in over SSH: a throw-away user if possible, see :func:`tests.services.login.default_login`."""
    return Login.load(services.once("login.json", lambda file: default_login(services.directory).save(file)))


@pytest.fixture(scope="session")
def sshd(services: SharedServices, login: Login) -> Sshd:
    """A server that all tests share: not to be stopped or frozen."""
    return Sshd(services.once("sshd", lambda place: Sshd(place, login).start()), login)


@pytest.fixture(scope="session")
def gateway(services: SharedServices, login: Login) -> Sshd:
    """Another shared server, named ``gateway``: for a jump to :func:`sshd`."""
    place = services.once("gateway", lambda place: Sshd(place, login, name="gateway").start())
    return Sshd(place, login, name="gateway")


@pytest.fixture(scope="session")
def slurm(services: SharedServices) -> Slurm:
    """A cluster that all tests share: not to be stopped, and its controller not to be killed."""
    return Slurm(services.once("slurm", lambda place: Slurm(place).start()))


@pytest.fixture(scope="session")
def short_slurm(services: SharedServices) -> Slurm:
    """Another shared cluster, which forgets a finished job after two seconds (it takes up to ten)."""
    return Slurm(services.once("short_slurm", lambda place: Slurm(place, min_job_age=2).start()))


@pytest.fixture(scope="session")
def sge(services: SharedServices) -> GridEngine:
    """A Grid Engine that all tests share: not to be stopped, and its master not to be killed."""
    return GridEngine(services.once("sge", lambda place: GridEngine(place).start()))


@pytest.fixture(scope="session")
def slurm_sshd(services: SharedServices, login: Login, slurm: Slurm) -> Sshd:
    """A shared server from which the clients of :func:`slurm` find their cluster; without SFTP."""
    place = services.once("slurm_sshd", lambda place: _slurm_sshd(place, login, slurm).start())
    return _slurm_sshd(place, login, slurm)


def _slurm_sshd(place: Path, login: Login, slurm: Slurm) -> Sshd:
    return Sshd(place, login, name="slurm", env=slurm.env, sftp=False)


@pytest.fixture
def slurm_env(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """The shared cluster, and this process finds it: for workers of type ``local``."""
    return _here(slurm, monkeypatch)


@pytest.fixture
def sge_env(sge: GridEngine, monkeypatch: pytest.MonkeyPatch) -> GridEngine:
    """The shared Grid Engine, and this process finds it: for workers of type ``local``."""
    return _here(sge, monkeypatch)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place to run jobs, by its name: ``@pytest.mark.parametrize("place", PLACES, indirect=True)``.

    Its environment is set in this process.
    """
    return _here(place_of(request.param, request, tmp_path), monkeypatch)


def _here(thing: _Thing, monkeypatch: pytest.MonkeyPatch) -> _Thing:
    for name, value in thing.env.items():
        monkeypatch.setenv(name, value, prepend=os.pathsep if name == "PATH" else None)
    return thing


@pytest.fixture
def new_slurm(services: SharedServices) -> Iterator[Callable[..., Slurm]]:
    """Start clusters for one test, to stop and to kill: ``new_slurm(nodes=1, cpus=4)``. A second each."""
    with ExitStack() as stack:

        def start(**options: Any) -> Slurm:
            cluster = Slurm(services.private("slurm"), **options)
            stack.callback(cluster.close)
            cluster.start()
            return cluster

        yield start


@pytest.fixture
def slurm_database(services: SharedServices) -> Iterator[SlurmDatabase]:
    """A data base for clusters of ``new_slurm(database=..., name=...)``. Seven seconds."""
    database = SlurmDatabase(services.private("slurmdbd"))
    try:
        database.start()
        yield database
    finally:
        database.close()


@pytest.fixture
def new_sge(services: SharedServices) -> Iterator[Callable[..., GridEngine]]:
    """Start Grid Engines for one test, to stop and to kill. Three seconds each."""
    with ExitStack() as stack:

        def start(**options: int) -> GridEngine:
            cell = GridEngine(services.private("sge"), **options)
            stack.callback(cell.close)
            cell.start()
            return cell

        yield start


@pytest.fixture
def new_account(services: SharedServices) -> Callable[..., Login]:
    """Make more throw-away users: ``new_account(shell="/bin/tcsh", home="a b")``; gone after the run.

    Without root it is the present user with another home, and the shell cannot be chosen. They may be unable
    to read the Python of the tests.
    """
    services.open()

    def make(*, shell: str = "", home: str = "") -> Login:
        if os.geteuid() != 0 and not shell:
            return present_login(services.directory, home=home)
        return new_login(services.directory, shell=shell or "/bin/bash", home=home)

    return make


class NewSshd(Protocol):
    """See :class:`tests.services.sshd.Sshd`."""

    def __call__(
        self,
        *,
        login: Login | None = None,
        name: str = "cluster",
        env: Mapping[str, str] | None = None,
        sftp: bool = True,
        lines: Sequence[str] = (),
    ) -> Sshd:
        """Start a server that ends with the test; logs in the run's :func:`login` if no other is given."""
        ...


@pytest.fixture
def new_sshd(services: SharedServices, login: Login) -> Iterator[NewSshd]:
    """Start servers for one test: variants, second ones, ones to stop. 0.1 s each."""
    with ExitStack() as stack:

        def start(*, login: Login | None = None, **options: object) -> Sshd:
            server = Sshd(services.private("sshd"), login or default, **options)  # type: ignore[arg-type]
            stack.callback(server.close)
            server.start()
            return server

        default = login
        yield start
