"""Fixtures of this directory: sites, and a Python for their jobs that is there at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.execution.support import processes_below
from tests.faults.site import Site
from tests.services.login import Login

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, login: Login, warm_python: Path, warm: None) -> Iterator[MakeSite]:
    """Make sites; whatever still runs in them ends with the test."""
    made: list[Site] = []

    def make(state: Path | None = None) -> Site:
        number = len(made)
        shared = login.home / f"shared-{tmp_path.name}-{number}"
        made.append(Site(tmp_path / f"site{number}", shared, warm_python, state))
        return made[-1]

    yield make
    for site in made:
        for pid in {*processes_below(site.root), *processes_below(site.shared)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        site.close()
        shutil.rmtree(site.shared, ignore_errors=True)


class Disk:
    """A small file system, mounted at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte free meanwhile."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        try:
            yield
        finally:
            filler.unlink()


SmallDisk = Callable[[int], Disk]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mount a disk of so many megabytes, which takes root; where nobody is root this is not CI."""
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "CI must run these tests as root"
        pytest.skip("only root can mount a small disk")
    mounted: list[Path] = []

    def mount(megabytes: int) -> Disk:
        path = tmp_path / f"disk{len(mounted)}"
        path.mkdir()
        options = f"size={megabytes}m,mode=0777"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
        mounted.append(path)
        return Disk(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
