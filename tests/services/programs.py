"""The programs that the services consist of, how they are run, and ports for them."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PATIENCE = 60.0
"""Seconds for what takes a moment: a machine that is busy with other things may let it wait."""

# Daemons are in directories that are not on the path of everybody.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])


class ServiceError(Exception):
    """A service cannot be started, stopped or asked; a test that needs it fails with this text."""


def program(name: str) -> str:
    """Return the absolute path of a program.

    Raises
    ------
    ServiceError
        It is not installed. This is never a reason to skip a test.
    """
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        raise ServiceError(f"'{name}' is not installed; run: make services")
    return found


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
    text: str | None = None,
) -> str:
    """Run a command to its end and return what it prints; ``text`` is its standard input.

    ``env`` is added to an environment with nothing but a PATH. A daemon may stay behind, if it lets go of its
    standard output and error as all of these do.

    Raises
    ------
    ServiceError
        The command failed, or took longer than ``timeout`` seconds.
    """
    done = attempt(command, env=env, timeout=timeout, text=text)
    if done.returncode:
        raise ServiceError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def attempt(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
    text: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Do the same, and leave it to the caller to look at the exit code."""
    try:
        return subprocess.run(
            list(map(str, command)),
            env={"PATH": SEARCH_PATH, **(env or {})},
            input=text or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            cwd="/",
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{' '.join(map(str, command))}: no end after {timeout:g} s") from error


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition()`` is true.

    Raises
    ------
    ServiceError
        It was not within the time; says ``what`` was waited for.
    """
    deadline = time.monotonic() + PATIENCE
    pause = 0.01
    while not condition():
        if time.monotonic() > deadline:
            raise ServiceError(f"waited {PATIENCE:g} s in vain: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback address on which nobody listens.

    They are below those that the system gives to outgoing connections: none of these takes one away between
    this call and the start of the daemon.
    """
    ports: set[int] = set()
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        if is_free(port):
            ports.add(port)
    return sorted(ports)


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of the loopback address."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_listening(port: int) -> bool:
    """Return whether somebody accepts connections on a port of the loopback address."""
    with socket.socket() as client:
        client.settimeout(10)
        return client.connect_ex(("127.0.0.1", port)) == 0


def last_lines(*logs: Path, lines: int = 8) -> str:
    """Return the ends of log files, for the message of an error."""
    found = [f"== {log}\n" + _tail(log, lines) for log in logs if log.is_file()]
    return "\n".join(found) or "(no log)"


def _tail(log: Path, lines: int) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
