"""What went wrong with a connection, in words for people and with the way out."""

from __future__ import annotations

import socket

from reconciler.errors import ReconcilerError, TransientError
from reconciler.execution.hosts.access import AccessError
from reconciler.model.connections import Connection


def cannot_connect(connection: Connection, address: str, error: Exception, took: float) -> ReconcilerError:
    """Return the error to raise for one that came up when a connection was opened.

    ``address`` is the host and port that the connection was to go to; it ``took`` so many seconds.
    """
    if isinstance(error, ReconcilerError):
        return error
    if isinstance(error, socket.gaierror):
        return TransientError(
            f"there is no host {address}: {error.strerror}", hint="check 'host' and the name service"
        )
    if isinstance(error, TimeoutError) or took >= connection.connect_timeout:
        return TransientError(
            f"{address} gave no answer in {connection.connect_timeout} s",
            hint="check the network; raise 'connect_timeout' if the host is slow",
        )
    refused = _refused(address, error)
    message = f"no SSH connection to {address}: {_said(error)}"
    return refused or TransientError(message, hint=_hint(connection))


def _refused(address: str, error: Exception) -> TransientError | None:
    from paramiko import ChannelException
    from paramiko.ssh_exception import IncompatiblePeer, NoValidConnectionsError

    if isinstance(error, (NoValidConnectionsError, ConnectionRefusedError)):
        message = f"{address} refuses connections: no SSH server listens there"
        return TransientError(message, hint="check 'host' and 'port', and that the server runs")
    if isinstance(error, ChannelException):
        message = f"the gateway cannot reach {address}: {error.text}"
        return TransientError(message, hint="check 'host' and 'port', and that the gateway forwards TCP")
    if isinstance(error, IncompatiblePeer):
        return AccessError(f"{address} has no algorithm in common with us: {error}", hint="update its server")
    return None


def bad_ssh_config(path: str, error: Exception) -> AccessError:
    """Return the error for an ssh_config that cannot be used."""
    said = error.strerror if isinstance(error, OSError) else _said(error)
    return AccessError(f"the ssh_config {path} cannot be read: {said}", hint="correct it, or 'ssh_config'")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _hint(connection: Connection) -> str:
    user = "" if connection.user is None else f"-l {connection.user} "
    port = "" if connection.port is None else f"-p {connection.port} "
    return f"try `ssh {user}{port}{connection.host}`"
