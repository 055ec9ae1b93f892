"""One set of services for a whole test run, whatever the number of its processes.

The process that was started by hand owns the run. It chooses a directory, and pytest-xdist tells its workers.
The first test of any process that wants a service starts it there, under a lock; the others find it ready.
The owner ends everything when the run is over. Should it be killed, a keeper notices and does the same;
should that be killed too, the next run does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.services.login import remove_logins
from tests.services.processes import (
    end,
    is_alive,
    of_directory,
    started_at,
    with_descendants,
)
from tests.services.programs import ServiceError

_PREFIX = "rcs-"
_ROOT = Path(__file__).resolve().parents[2]


class SharedServices:
    """The directory of a run, and what was started there. ``owner``: the process that the run ends with."""

    def __init__(self, directory: Path, owner: int) -> None:
        self.directory, self.owner = directory, owner

    @classmethod
    def of_this_process(cls) -> SharedServices:
        """Return services for a run that this process owns; touches nothing."""
        return cls(_base() / f"{_PREFIX}{secrets.token_hex(4)}", os.getpid())

    def open(self) -> None:
        """Make the directory and what watches over it, unless another process of the run did."""
        self.directory.mkdir(mode=0o755, exist_ok=True)
        self.directory.chmod(0o755)
        with self._lock("run"):
            file = self.directory / "owner.json"
            if not file.exists():
                _remove_leftovers(self.directory.parent)
                file.write_text(json.dumps([self.owner, started_at(self.owner)]), encoding="utf-8")
                self._start_keeper()

    def once(self, name: str, start: Callable[[Path], None]) -> Path:
        """Return the directory of a service; calls ``start`` with it if this is the first process to ask.

        Raises
        ------
        ServiceError
            It did not start: now, or when another process tried.
        """
        self.open()
        place = self.directory / name
        failure, ready = self.directory / f"{name}.failed", self.directory / f"{name}.ready"
        with self._lock(name):
            if failure.exists():
                raise ServiceError(failure.read_text(encoding="utf-8"))
            if not ready.exists():
                try:
                    start(place)
                except Exception as error:
                    failure.write_text(f"{name} did not start: {error}", encoding="utf-8")
                    raise
                ready.touch()
        return place

    def private(self, name: str) -> Path:
        """Return a directory for a service of one test, below that of the run."""
        self.open()
        return self.directory / f"{name}-{secrets.token_hex(3)}"

    def close(self) -> None:
        """End everything that was started for this run, and remove its directory."""
        if self.directory.exists():
            remove_run(self.directory)

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.directory / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _start_keeper(self) -> None:
        command = [sys.executable, "-m", "tests.services.keeper", str(self.directory)]
        nothing = subprocess.DEVNULL
        subprocess.Popen(
            command, cwd=_ROOT, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )


def remove_run(directory: Path) -> None:
    """End every process of a run, whatever state it is in, and remove its users and files.

    Nothing here relies on a service that answers: who mentions the directory, and who comes from such a
    process, is ended. In rounds, since one of them may just be starting another.
    """
    for _ in range(5):
        pids = with_descendants(of_directory(directory)) - {os.getpid()}
        if not pids:
            break
        end(pids, grace=0.5)
    remove_logins(directory)
    shutil.rmtree(directory, ignore_errors=True)


def owner_is_alive(directory: Path) -> bool:
    """Return whether the process that owns the run in ``directory`` is still there."""
    try:
        pid, start = json.loads((directory / "owner.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return is_alive(pid) and started_at(pid) == start


def _remove_leftovers(base: Path) -> None:
    for directory in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            is_old = (directory / "owner.json").exists() and not owner_is_alive(directory)
            if is_old and directory.stat().st_uid == os.geteuid():
                remove_run(directory)


def _base() -> Path:
    """Return a directory that all may enter, with a short path: a socket's has at most 107 characters."""
    base = Path(tempfile.gettempdir()).resolve()
    is_open = all(place.stat().st_mode & 0o001 for place in (base, *base.parents))
    return base if is_open and len(str(base)) < 40 else Path("/tmp")
