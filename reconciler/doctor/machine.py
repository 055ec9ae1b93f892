"""Checks of this machine: Python, git, and the state directory."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from reconciler import __version__
from reconciler.actual.migrations import SCHEMA_VERSION
from reconciler.actual.state_dir import Lease, require_local
from reconciler.actual.store import Store
from reconciler.doctor.check import (
    Check,
    Finding,
    failed,
    named,
    ok,
    skipped,
    space_finding,
    warning,
)
from reconciler.errors import ReconcilerError

_GIT_TIMEOUT = 20.0
_OTHER_DIR = "choose another directory with --state-dir or RECONCILER_STATE_DIR"


class Here(msgspec.Struct, frozen=True):
    """This machine. ``state_dir`` is None if nothing tells where the state is: ``problem`` says why."""

    state_dir: Path | None
    problem: str = ""


def check_machine(here: Here) -> list[Check]:
    """Run all checks of this machine."""
    return [named(name, "machine", look(here)) for name, look in MACHINE]


def _python(here: Here) -> Finding:
    return ok(f"{platform.python_version()}, {sys.executable}, with reconciler {__version__}")


def _git(here: Here) -> Finding:
    try:
        done = subprocess.run(
            ["git", "--version"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_GIT_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return failed(f"cannot be run: {error}", "install git, and see that it is on the PATH")
    if done.returncode != 0:
        return failed(f"does not work: {done.stderr.strip()}", "repair or reinstall git")
    return ok(done.stdout.strip().removeprefix("git version "))


Look = Callable[[Path], Finding]


def _of_state_dir(look: Look) -> Callable[[Here], Finding]:
    def looked(here: Here) -> Finding:
        if here.state_dir is None:
            return skipped(f"it is not known where the state is: {here.problem}")
        return look(here.state_dir)

    return looked


def _state_dir(path: Path) -> Finding:
    try:
        require_local(path)
    except ReconcilerError as error:
        return failed(error.message, error.hint or _OTHER_DIR)
    place = _nearest(path)
    if not place.is_dir():
        return failed(f"{path} cannot be a directory: {place} is a file", _OTHER_DIR)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-"):
            pass
    except OSError as error:
        return failed(f"cannot write to {place}: {error.strerror}", f"check who owns it, or {_OTHER_DIR}")
    if place != path:
        return ok(f"{path}: not there yet, the first `reconcile --once` makes it")
    return ok(f"{path}: on a local disk, writable")


def _nearest(path: Path) -> Path:
    """Return the path itself, or the nearest directory above it that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))


def _permissions(path: Path) -> Finding:
    if not path.is_dir():
        return skipped("no state yet")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        return warning(f"mode {mode:04o}: others may look into the state", f"chmod 700 {path}")
    return ok(f"mode {mode:04o}")


def _space(path: Path) -> Finding:
    try:
        free = shutil.disk_usage(_nearest(path)).free
    except OSError as error:
        return failed(f"cannot be told: {error.strerror}", _OTHER_DIR)
    return space_finding(
        free, str(_nearest(path)), "free some space there: a full disk stops every reconcile"
    )


def _store(path: Path) -> Finding:
    if not Store.exists(path):
        return ok("no state yet")
    try:
        store = Store(path, read_only=True)
    except ReconcilerError as error:
        return failed(error.message, error.hint or _OTHER_DIR)
    try:
        with store.read() as view:
            config = view.config()
    except ReconcilerError as error:
        return failed(error.message, error.hint or "move the state directory away and start anew")
    finally:
        store.close()
    applied = f"last applied {config.revision}" if config is not None else "nothing was applied yet"
    return ok(f"opens, schema {SCHEMA_VERSION}; {applied}")


def _lease(path: Path) -> Finding:
    holder = Lease(path).holder()
    return ok("free" if holder is None else f"held by {holder}: a reconcile is at work")


MACHINE: tuple[tuple[str, Callable[[Here], Finding]], ...] = (
    ("python", _python),
    ("git", _git),
    ("state directory", _of_state_dir(_state_dir)),
    ("permissions", _of_state_dir(_permissions)),
    ("free space", _of_state_dir(_space)),
    ("store", _of_state_dir(_store)),
    ("lease", _of_state_dir(_lease)),
)
"""Every check of this machine, in order."""
