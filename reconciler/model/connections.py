"""How a host is reached over SSH: the connection fields of a worker, with jobflow-remote's names."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class HostKeyPolicy(StrEnum):
    """How to treat a host key that no known_hosts file has. A changed key is always refused."""

    STRICT = "strict"
    ACCEPT_NEW = "accept-new"


class Secret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The place that a secret is read from when it is needed; manifests never hold the secret itself."""

    env: str | None = None
    file: str | None = None

    @property
    def spoken(self) -> str:
        """Its name for people: ``{env: NAME}``."""
        return f"{{env: {self.env}}}" if self.env is not None else f"{{file: {self.file}}}"


class ConnectionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a connection, without its host. Paths are on the machine that runs reconciler.

    ``connect_timeout`` and ``keepalive`` are in seconds; a ``keepalive`` of 0 sends none.
    """

    user: str | None = None
    port: int | None = None
    key_filename: str | list[str] | None = None
    passphrase: Secret | None = None
    password: Secret | None = None
    gateway: Connection | None = None
    forward_agent: bool = False
    connect_timeout: int = 20
    keepalive: int = 60
    login_shell: bool = True
    host_key_policy: HostKeyPolicy = HostKeyPolicy.STRICT
    ssh_config: str | None = None
    known_hosts: str | None = None
    control_path: str | None = None

    @property
    def key_files(self) -> list[str]:
        """``key_filename`` as a list."""
        if isinstance(self.key_filename, str):
            return [self.key_filename]
        return list(self.key_filename or ())


class Connection(ConnectionOptions, frozen=True, kw_only=True, omit_defaults=True):
    """One host and how it is reached, over any number of gateways."""

    host: str

    @property
    def name(self) -> str:
        """For people: ``ada@login.example.org``."""
        address = self.host if self.port is None else f"{self.host}:{self.port}"
        return address if self.user is None else f"{self.user}@{address}"

    @property
    def key(self) -> bytes:
        """Equal for connections that can share one session."""
        return msgspec.json.encode(msgspec.structs.replace(self, key_filename=self.key_files), order="sorted")

    def below(self, outer: ConnectionOptions) -> Connection:
        """Return this connection with the SSH files of ``outer`` where it names none of its own.

        A gateway reads the ssh_config and the known_hosts of the worker that it belongs to.
        """
        return msgspec.structs.replace(
            self,
            ssh_config=self.ssh_config if self.ssh_config is not None else outer.ssh_config,
            known_hosts=self.known_hosts if self.known_hosts is not None else outer.known_hosts,
        )


CONNECTION_FIELDS = tuple(field.name for field in msgspec.structs.fields(Connection))
"""The fields of a Worker that make its connection."""
