"""The hosts by connection: one object, and so one open connection, for all workers on a host."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from reconciler.execution.hosts.base import Host
from reconciler.execution.hosts.local import LocalHost
from reconciler.model.connections import Connection


def host_of(connection: Connection | None) -> Host:
    """Return a new host; None means this machine. The first command opens the connection."""
    if connection is None:
        return LocalHost()
    if connection.control_path is not None:
        from reconciler.execution.hosts.control_master import ControlMasterHost

        return ControlMasterHost(connection)
    from reconciler.execution.hosts.ssh import SshHost

    return SshHost(connection)


class Hosts:
    """The hosts of all workers. Safe to use from several threads."""

    def __init__(self) -> None:
        self._hosts: dict[bytes, Host] = {}
        self._lock = threading.Lock()

    def of(self, connection: Connection | None) -> Host:
        """Return the host of a connection; equal connections share one host."""
        key = b"" if connection is None else connection.key
        with self._lock:
            if key not in self._hosts:
                self._hosts[key] = host_of(connection)
            return self._hosts[key]

    def keep(self, connections: Iterable[Connection | None]) -> None:
        """Close all connections except these."""
        keys = {b"" if connection is None else connection.key for connection in connections}
        with self._lock:
            gone = [self._hosts.pop(key) for key in self._hosts.keys() - keys]
        for host in gone:
            host.close()

    @property
    def commands(self) -> int:
        """The number of commands that all hosts have run."""
        with self._lock:
            return sum(host.commands for host in self._hosts.values())

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for host in self._hosts.values():
                host.close()
