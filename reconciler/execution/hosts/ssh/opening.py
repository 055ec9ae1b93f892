"""Opening a connection: ssh_config, jump hosts, host keys, login, socket options; and why it failed."""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
import time
from pathlib import Path
from typing import Any

import msgspec

from reconciler.errors import ReconcilerError, TransientError
from reconciler.execution.hosts.base import AccessError
from reconciler.execution.hosts.ssh.host_keys import SYSTEM_FILES, USER_FILES, KnownHosts, Policy
from reconciler.execution.hosts.ssh.login import DEFAULT_KEYS, Login
from reconciler.execution.secrets import read_secret
from reconciler.model.connections import Connection


def open_connection(connection: Connection) -> Any:
    """Return an open fabric Connection, over its gateways.

    Raises
    ------
    TransientError
        The host, or a gateway, cannot be reached.
    AccessError
        It refuses the login, or is not known to be the right host.
    """
    # Without a handler, Python prints paramiko's errors with tracebacks on stderr.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    made = _new_connection(connection)
    try:
        _open(made, connection)
    except BaseException:
        close(made)
        raise
    return made


def close(made: Any) -> None:
    """Close a fabric Connection and its gateways, also when it was opened only partly."""
    while made is not None and not isinstance(made, str):
        with contextlib.suppress(EOFError, OSError):
            made.client.close()
        made = made.gateway or None


def _new_connection(connection: Connection) -> Any:
    import fabric
    from fabric import Config
    from paramiko import ConfigParseError, SSHException

    path = connection.ssh_config
    # Lazy, with the ssh_config only: fabric's own files could change the meaning of the worker's manifest.
    config = Config(
        lazy=True,
        runtime_ssh_path=None if path is None else str(Path(path).expanduser()),
        user_ssh_path=str(Path("~/.ssh/config").expanduser()),
    )
    try:
        config.load_ssh_config()
        gateway = connection.gateway
        return fabric.Connection(
            connection.host,
            user=connection.user,
            port=connection.port,
            config=config,
            gateway=None if gateway is None else _new_connection(gateway.below(connection)),
            forward_agent=False,  # each command decides
            connect_timeout=connection.connect_timeout,
        )
    # ValueError: a value in it, such as a port, has a wrong form.
    except (OSError, ConfigParseError, UnicodeDecodeError, ValueError, SSHException) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error) or type(error).__name__
        raise AccessError(
            f"the ssh_config {path or '~/.ssh/config'} cannot be read: {reason}",
            hint="correct it, or 'ssh_config'",
        ) from error


def _open(made: Any, connection: Connection) -> None:
    """Open a connection after its gateway, so that an error names the host that caused it."""
    if made.gateway and not isinstance(made.gateway, str):
        if connection.gateway is not None:
            hop = connection.gateway.below(connection)
        else:  # a ProxyJump of the ssh_config: the same rules and passphrase, but never the password
            hop = msgspec.structs.replace(
                connection,
                host=made.gateway.original_host,
                user=None,
                port=None,
                key_filename=None,
                password=None,
            )
        _open(made.gateway, hop)
    address, began = f"{made.host}:{made.port}", time.monotonic()
    try:
        known = _known_hosts(made, connection)
        made.connect_kwargs = {
            "transport_factory": _transport_factory(known, connection),
            "auth_strategy": _login(made, connection),
            "banner_timeout": connection.connect_timeout,
            "auth_timeout": connection.connect_timeout,
            "channel_timeout": connection.connect_timeout,
        }
        made.client.set_missing_host_key_policy(Policy(known))
        made.open()
    except Exception as error:
        raise cannot_connect(connection, address, error, time.monotonic() - began) from error
    made.transport.set_keepalive(connection.keepalive)


def _known_hosts(made: Any, connection: Connection) -> KnownHosts:
    options = made.ssh_config
    given = None if connection.known_hosts is None else [connection.known_hosts]
    user_files = given or _files(options.get("userknownhostsfile")) or USER_FILES
    system_files = _files(options.get("globalknownhostsfile")) or SYSTEM_FILES
    files = [Path(file).expanduser() for file in (*user_files, *system_files)]
    name = made.host if made.port == 22 else f"[{made.host}]:{made.port}"
    port = "" if made.port == 22 else f"-p {made.port} "
    scan = f"ssh-keyscan {port}{made.host}"
    return KnownHosts(options.get("hostkeyalias", name), files, connection.host_key_policy, scan)


def _files(option: str | None) -> list[str]:
    """Return the files that an option of the ssh_config names; ``none`` stands for an empty one."""
    return ["/dev/null" if file.lower() == "none" else file for file in shlex.split(option or "")]


def _login(made: Any, connection: Connection) -> Login:
    options = made.ssh_config
    home = Path("~/.ssh").expanduser()
    passphrase, password = connection.passphrase, connection.password
    return Login(
        f"{made.host}:{made.port}" if made.port != 22 else made.host,
        made.user,
        named=connection.key_files,
        found=options.get("identityfile") or [str(home / name) for name in DEFAULT_KEYS],
        only_named=options.get("identitiesonly", "no").lower() == "yes",
        passphrase=None if passphrase is None else read_secret(passphrase, "the passphrase"),
        password=None if password is None else read_secret(password, "the password"),
    )


def _transport_factory(known: KnownHosts, connection: Connection) -> Any:
    import paramiko

    types = known.key_types
    # known_hosts files name RSA keys ssh-rsa, whatever algorithm signs with them.
    wanted = types | ({"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in types else set())

    def make(sock: Any, **rest: Any) -> Any:
        if isinstance(sock, socket.socket):
            # Send small packets at once, else each command waits 40 ms; and notice a dead peer.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
                seconds = max(connection.keepalive, 30) + connection.connect_timeout
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
        transport = paramiko.Transport(sock, **rest)
        options = transport.get_security_options()
        # The host should present a key of a type that we know it by.
        options.key_types = sorted(options.key_types, key=lambda one: one not in wanted)
        return transport

    return make


def cannot_connect(connection: Connection, address: str, error: Exception, took: float) -> ReconcilerError:
    """Return the error to raise for an exception during the opening of a connection.

    ``address`` is the host and port that was to be reached, ``took`` the seconds until the failure.
    """
    from paramiko import ChannelException
    from paramiko.ssh_exception import IncompatiblePeer, NoValidConnectionsError

    if isinstance(error, ReconcilerError):
        return error
    if isinstance(error, socket.gaierror):
        return TransientError(
            f"there is no host {address}: {error.strerror}", hint="check 'host' and the name service"
        )
    if isinstance(error, TimeoutError) or took >= connection.connect_timeout:
        return TransientError(
            f"{address} did not answer within {connection.connect_timeout} s",
            hint="check the network; raise 'connect_timeout' if the host is slow",
        )
    if isinstance(error, (NoValidConnectionsError, ConnectionRefusedError)):
        message = f"{address} refuses connections: no SSH server listens there"
        return TransientError(message, hint="check 'host' and 'port', and that the server runs")
    if isinstance(error, ChannelException):
        message = f"the gateway cannot reach {address}: {error.text}"
        return TransientError(message, hint="check 'host' and 'port', and that the gateway forwards TCP")
    if isinstance(error, IncompatiblePeer):
        return AccessError(f"{address} has no algorithm in common with us: {error}", hint="update its server")
    user = "" if connection.user is None else f"-l {connection.user} "
    port = "" if connection.port is None else f"-p {connection.port} "
    return TransientError(
        f"no SSH connection to {address}: {error or type(error).__name__}",
        hint=f"try `ssh {user}{port}{connection.host}`",
    )
