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
from reconciler.doctor.check import Check, Finding, failed, named, ok, skipped, space_finding, warning
from reconciler.errors import ReconcilerError

_GIT_TIMEOUT = 20.0
_OTHER_DIR = "choose another directory with --state-dir or RECONCILER_STATE_DIR"


class Here(msgspec.Struct, frozen=True):
    """This machine. ``state_dir`` is None if it cannot be determined; ``problem`` is why."""

    state_dir: Path | None
    problem: str = ""


def check_machine(here: Here) -> list[Check]:
    """Run all checks of this machine."""
    findings = [(name, look()) for name, look in (("python", _python), ("git", _git))]
    for name, look in STATE_DIR_CHECKS:
        if here.state_dir is None:
            findings.append((name, skipped(f"the state directory is not known: {here.problem}")))
        else:
            findings.append((name, look(here.state_dir)))
    return [named(name, "machine", finding) for name, finding in findings]


def _python() -> Finding:
    return ok(f"{platform.python_version()}, {sys.executable}, with reconciler {__version__}")


def _git() -> Finding:
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
        return failed(f"cannot be run: {error}", "install git, and put it on the PATH")
    if done.returncode != 0:
        return failed(f"does not work: {done.stderr.strip()}", "repair or reinstall git")
    return ok(done.stdout.strip().removeprefix("git version "))


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
        return failed(f"cannot write to {place}: {error.strerror}", f"check its owner, or {_OTHER_DIR}")
    if place != path:
        return ok(f"{path}: does not exist yet; the first `reconcile --once` creates it")
    return ok(f"{path}: on a local disk, writable")


def _nearest(path: Path) -> Path:
    """Return the path itself, or the nearest directory above it that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))


def _permissions(path: Path) -> Finding:
    if not path.is_dir():
        return skipped("no state yet")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        return warning(f"mode {mode:04o}: other users can read the state", f"chmod 700 {path}")
    return ok(f"mode {mode:04o}")


def _space(path: Path) -> Finding:
    try:
        free = shutil.disk_usage(_nearest(path)).free
    except OSError as error:
        return failed(f"cannot be determined: {error.strerror}", _OTHER_DIR)
    fix = "free some space there: a full disk stops every reconcile"
    return space_finding(free, str(_nearest(path)), fix)


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
    applied = f"last applied {config.revision}" if config is not None else "no revision was applied yet"
    return ok(f"opens, schema {SCHEMA_VERSION}; {applied}")


def _lease(path: Path) -> Finding:
    holder = Lease(path).holder()
    return ok("free" if holder is None else f"held by {holder}, which is reconciling")


STATE_DIR_CHECKS: tuple[tuple[str, Callable[[Path], Finding]], ...] = (
    ("state directory", _state_dir),
    ("permissions", _permissions),
    ("free space", _space),
    ("store", _store),
    ("lease", _lease),
)
"""The checks of the state directory, in order."""
