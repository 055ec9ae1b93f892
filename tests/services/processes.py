"""Processes as /proc shows them: who is alive, who belongs to a directory, and how to end them.

A killed daemon may stay a zombie for seconds where process 1 is slow to collect its children, as in many
containers; here a zombie counts as gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie.

    A killed process with several threads looks like one a moment before the last thread, and with it the
    sockets, are gone.
    """
    state = _status(pid)[0]
    return state not in ("", "Z", "X") or (state == "Z" and _threads(pid) > 1)


def started_at(pid: int) -> str:
    """Return when a process began, in ticks since the boot: with its number, this names it for ever."""
    return _status(pid)[2]


def all_pids() -> Iterator[int]:
    """Yield the number of every process that is alive."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and is_alive(int(entry.name)):
            yield int(entry.name)


def with_descendants(pids: Iterable[int]) -> set[int]:
    """Return the processes and all that come from them."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        children.setdefault(int(_status(pid)[1] or 0), []).append(pid)
    found: set[int] = set()
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return found


def of_directory(directory: Path, programs: Collection[str] = ()) -> set[int]:
    """Return the processes that have ``directory`` in their command line, environment or working directory.

    Only those that run one of ``programs``, when there are any.
    """
    pattern = re.compile(re.escape(os.fsencode(directory)) + rb"(?![\w.-])")
    return {
        pid for pid in all_pids() if pattern.search(_marks(pid)) and (not programs or runs(pid, *programs))
    } - _own()


def of_user(uid: int) -> set[int]:
    """Return the processes of a user."""
    found = set()
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if (_PROC / str(pid)).stat().st_uid == uid:
                found.add(pid)
    return found - _own()


def end(pids: Collection[int], grace: float = 3) -> None:
    """Ask processes to end, wait ``grace`` seconds, kill what is left; returns when all are gone."""
    send(pids, signal.SIGTERM)
    if not wait_gone(pids, grace):
        send(pids, signal.SIGKILL)
        wait_gone(pids, 60)


def kill_trees(find: Callable[[], set[int]]) -> None:
    """Kill what ``find`` finds and all that comes from it, until it finds nothing.

    Everything is stopped before anything is killed: a process that forks between the look and the kill would
    leave an orphan that nobody finds any more.
    """
    while found := find():
        stopped: set[int] = set()
        while new := with_descendants(found) - stopped:
            send(new, signal.SIGSTOP)
            stopped |= new
        end(stopped, grace=0)


def send(pids: Iterable[int], number: int) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_gone(pids: Collection[int], seconds: float) -> bool:
    """Return whether all processes are gone within the time."""
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def pid_in(file: Path) -> int | None:
    """Return the number in a daemon's pid file; None when there is none (yet)."""
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text(encoding="ascii"))
    return None


def program_of(pid: int) -> str:
    """Return the name of the file that a process runs, "" when that is not known."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "exe").readlink().name.removesuffix(" (deleted)")
    return ""


def command_of(pid: int) -> str:
    """Return the command line of a process, "" when that is not known."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def runs(pid: int, *programs: str) -> bool:
    """Return whether a process runs one of the programs, or a variant: ``slurmd-wlm``, ``sshd-session``."""
    found = program_of(pid)
    return any(found == program or found.startswith(f"{program}-") for program in programs)


def _own() -> set[int]:
    """Return this process and those it comes from: never to be ended from here."""
    own, pid = set(), os.getpid()
    while pid > 0 and pid not in own:
        own.add(pid)
        pid = int(_status(pid)[1] or 0)
    return own


def _threads(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(list((_PROC / str(pid) / "task").iterdir()))
    return 0


def _marks(pid: int) -> bytes:
    place, found = _PROC / str(pid), b""
    for name in ("cmdline", "environ"):
        with contextlib.suppress(OSError):
            found += (place / name).read_bytes() + b"\0"
    with contextlib.suppress(OSError):
        found += os.fsencode((place / "cwd").readlink())
    return found


def _status(pid: int) -> tuple[str, str, str]:
    """Return (state, parent, start) of a process; empty strings when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", "", ""
    fields = text.rpartition(") ")[2].split()  # a name may contain anything, also brackets
    return fields[0], fields[1], fields[19]
