"""The kinds of places where jobs run, each a Worker spec with what else it takes: for one test on all."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.services.gridengine import GridEngine
from tests.services.login import Login
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd


@dataclass(frozen=True)
class Place:
    """One place. ``spec`` is that of a Worker; ``env`` has to be in the environment of the reconciler.

    ``work_dir`` does not exist yet; the tests may read what is made there. ``slurm``, ``sge`` and ``sshd``
    are what the place consists of: shared by all tests.
    """

    name: str
    spec: Mapping[str, Any]
    work_dir: Path
    env: Mapping[str, str] = field(default_factory=dict)
    slurm: Slurm | None = None
    sge: GridEngine | None = None
    sshd: Sshd | None = None


_Make = Callable[[pytest.FixtureRequest, Path], Place]


def place_of(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a place by its name, with a work directory of its own; starts what it needs."""
    return _MAKERS[name](request, tmp_path)


def _spec(kind: str, scheduler: str, work_dir: Path, **more: Any) -> dict[str, Any]:
    return {"type": kind, "scheduler_type": scheduler, "work_dir": str(work_dir), **more}


def _local_shell(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    work_dir = tmp_path / "work"
    return Place("local-shell", _spec("local", "shell", work_dir), work_dir)


def _local_slurm(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    slurm: Slurm = request.getfixturevalue("slurm")
    work_dir = tmp_path / "work"
    return Place("local-slurm", _spec("local", "slurm", work_dir), work_dir, env=slurm.env, slurm=slurm)


def _local_sge(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    sge: GridEngine = request.getfixturevalue("sge")
    work_dir = tmp_path / "work"
    return Place("local-sge", _spec("local", "sge", work_dir), work_dir, env=sge.env, sge=sge)


def _ssh_shell(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    sshd: Sshd = request.getfixturevalue("sshd")
    work_dir = _remote_work(request)
    return Place("ssh-shell", _spec("remote", "shell", work_dir, **sshd.worker_fields()), work_dir, sshd=sshd)


def _ssh_slurm(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return _slurm_over("ssh-slurm", request, None)


def _jump_slurm(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return _slurm_over("jump-slurm", request, request.getfixturevalue("gateway"))


def _slurm_over(name: str, request: pytest.FixtureRequest, gateway: Sshd | None) -> Place:
    slurm: Slurm = request.getfixturevalue("slurm")
    sshd: Sshd = request.getfixturevalue("slurm_sshd")
    work_dir = _remote_work(request)
    spec = _spec("remote", "slurm", work_dir, **sshd.worker_fields(gateway))
    return Place(name, spec, work_dir, slurm=slurm, sshd=sshd)


def _remote_work(request: pytest.FixtureRequest) -> Path:
    login: Login = request.getfixturevalue("login")
    return login.home / f"work-{secrets.token_hex(4)}"


_MAKERS: dict[str, _Make] = {
    "local-shell": _local_shell,
    "ssh-shell": _ssh_shell,
    "local-slurm": _local_slurm,
    "ssh-slurm": _ssh_slurm,
    "jump-slurm": _jump_slurm,
    "local-sge": _local_sge,
}
PLACES = tuple(_MAKERS)
