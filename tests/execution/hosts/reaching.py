"""What these tests share: how a throw-away server is reached, and what the other side of a socket sees."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import Host
from reconciler.model.connections import Connection
from tests.services.programs import PATIENCE, run
from tests.services.sshd import Sshd


def reach(server: Sshd, **changed: Any) -> Connection:
    """Return the connection to a server with its own key, with some fields changed."""
    given: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "key_filename": str(server.key),
        "known_hosts": str(server.known_hosts),
    }
    return Connection(**(given | changed))


def said(host: Host, script: str, timeout: float = PATIENCE) -> str:
    """Return what a script prints, without the last line break; it must end with 0 and no error output."""
    result = host.run(script, timeout)
    assert (result.exit_code, result.stderr) == (0, ""), result
    return result.stdout.removesuffix("\n")


def outage(host: Host, script: str = "true", timeout: float = PATIENCE) -> TransientError:
    """Return the error that a script ends with; fail if it ends well."""
    try:
        result = host.run(script, timeout)
    except TransientError as error:
        return error
    raise AssertionError(f"no error, but {result}")


@contextlib.contextmanager
def takes(least: float, most: float = PATIENCE - 15) -> Iterator[None]:
    """Check how many seconds the block takes.

    ``most`` tells an end in time from one that came by itself, or by another deadline: it is well below
    these, and far above what a busy machine may need.
    """
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert least <= took <= most, f"{took:.2f} s"


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    """Make a pair of keys."""
    size = ["-a", "1", *(["-b", "2048"] if kind == "rsa" else [])]  # weak ones are made and read quickly
    command = ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    return path


def admit(server: Sshd, key: Path) -> None:
    """Let in who has this key, too."""
    with (server.directory / "authorized_keys").open("a") as stream:
        stream.write(Path(f"{key}.pub").read_text())


class Counting:
    """A sink that keeps nothing but the size and the first bytes."""

    def __init__(self) -> None:
        self.size = 0
        self.head = b""

    def write(self, chunk: bytes) -> int:
        """Take some bytes."""
        self.head = self.head or chunk[:100]
        self.size += len(chunk)
        return len(chunk)


class Master:
    """An OpenSSH master connection, opened like a user does it."""

    def __init__(self, server: Sshd) -> None:
        self.server = server
        self.socket = server.directory / "m-%r@%h:%p"  # a short path: that of a socket has 107 characters
        self._common = ["-F", str(server.ssh_config), "-S", str(self.socket)]

    def open(self) -> None:
        """Open it; returns when it can be used."""
        run(["ssh", "-M", "-N", "-f", *self._common, self.server.name])

    def close(self) -> None:
        """End it."""
        subprocess.run(
            ["ssh", *self._common, "-O", "exit", self.server.name], capture_output=True, timeout=PATIENCE
        )

    @property
    def pid(self) -> int:
        """Its process."""
        done = subprocess.run(
            ["ssh", *self._common, "-O", "check", self.server.name],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return int(done.stderr.partition("pid=")[2].partition(")")[0])

    @property
    def connection(self) -> Connection:
        """How a worker names it."""
        config = str(self.server.ssh_config)
        return Connection(host=self.server.name, ssh_config=config, control_path=str(self.socket))
