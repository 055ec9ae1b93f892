"""A throw-away OpenSSH server on the loopback address."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.services import processes
from tests.services.login import Login
from tests.services.programs import (
    PATIENCE,
    free_ports,
    is_free,
    is_listening,
    last_lines,
    program,
    run,
    wait_until,
)
from tests.services.service import Service

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
PidFile {directory}/sshd.pid
AuthorizedKeysFile {directory}/authorized_keys
# Directories below /tmp have a parent that everybody may write.
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding yes
PrintMotd no
PrintLastLog no
UseDNS no
LoginGraceTime 20
MaxStartups 200
MaxSessions 100
LogLevel VERBOSE
SetEnv {variables}
"""

_CLIENT = """\
Host {name}
  HostName 127.0.0.1
  Port {sshd.port}
  User {sshd.user}
  IdentityFile {sshd.key}
  IdentitiesOnly yes
  UserKnownHostsFile {sshd.known_hosts}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""


class Sshd(Service):
    """One server with a host key and a client's key of its own; only that key gets in.

    ``login`` is who logs in. ``env`` is set in every session, by sshd itself: that is how a Slurm or Grid
    Engine without a file in /etc becomes reachable. A PATH in it also survives a login shell. ``sftp=False``:
    a server without that subsystem. ``lines``: more for sshd_config (they change none of those there).

    ``port``, ``user``, ``key``, ``known_hosts``, ``ssh_config`` (host ``name``) are what a client needs;
    ``log`` is the server's.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        directory: Path,
        login: Login,
        *,
        name: str = "cluster",
        env: Mapping[str, str] | None = None,
        sftp: bool = True,
        lines: Sequence[str] = (),
    ) -> None:
        super().__init__(directory)
        self.login, self.user, self.name = login, login.name, name
        self.env = {**login.env, **(env or {})}
        self.key = directory / "client_key"
        self.known_hosts = directory / "known_hosts"
        self.ssh_config = directory / "ssh_config"
        self.log = directory / "sshd.log"
        self._pid_file = directory / "sshd.pid"
        self._sftp, self._lines = sftp, tuple(lines)
        self.port: int = self.remember(port=free_ports(1)[0])["port"]

    def start(self) -> None:
        """Start the server, on the port it had before; returns when it accepts connections."""
        if not self.key.exists():
            self._write_files()
        if os.geteuid() == 0:  # root's sshd wants this directory, which the system's own service would make
            Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
        # A process of the former server that has just begun a session may hold its socket for a moment.
        wait_until(lambda: is_free(self.port), f"port {self.port} to be free")
        run([program("sshd"), "-f", self.directory / "sshd_config", "-E", self.log])
        wait_until(self.is_up, f"sshd on port {self.port}: {last_lines(self.log)}")

    def is_up(self) -> bool:
        """Return whether the server accepts connections, and has written down who it is."""
        return processes.pid_in(self._pid_file) is not None and is_listening(self.port)

    def stop(self) -> None:
        """End the listener; sessions that are open go on. Returns when connections are refused."""
        self._end_listener()
        # A process that has just begun a session may hold the socket for a moment, and reset connections.
        wait_until(lambda: not is_listening(self.port), f"port {self.port} to refuse connections")

    def _end_listener(self) -> None:
        pid = processes.pid_in(self._pid_file)
        if pid is not None and processes.runs(pid, "sshd"):
            processes.end([pid])
        self._pid_file.unlink(missing_ok=True)

    def restart(self) -> None:
        """End the listener and start it again; sessions that are open go on."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server and its sessions for good, and remove its directory."""
        self._end_listener()
        self.kill_sessions()
        shutil.rmtree(self.directory, ignore_errors=True)

    def sessions(self) -> set[int]:
        """Return the processes of sshd that hold a connection of a client."""
        sockets = _connections(self.port)
        return {pid for pid in processes.all_pids() if _holds(pid, sockets)}

    def kill_sessions(self) -> None:
        """Cut all open connections, as a lost network does: what runs in them is not asked."""
        pids = self.sessions()
        processes.send(pids, signal.SIGKILL)
        processes.wait_gone(pids, PATIENCE)

    @contextlib.contextmanager
    def cut_when(self, true: Callable[[], object]) -> Iterator[None]:
        """Cut all open connections as soon as something is true, in the middle of what is done meanwhile."""

        def cut() -> None:
            wait_until(true, "the moment to cut")
            self.kill_sessions()

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(cut)
            yield
            done.result()

    def has_begun_a_command(self) -> bool:
        """Return whether a shell runs in a session."""
        return any(processes.runs(pid, "bash") for pid in processes.with_descendants(self.sessions()))

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let neither the server nor its sessions answer meanwhile: a host that hangs."""
        pid = processes.pid_in(self._pid_file)
        pids = self.sessions() | ({pid} if pid is not None else set())
        processes.send(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            processes.send(pids, signal.SIGCONT)

    def config_through(self, gateway: Sshd) -> Path:
        """Return an ssh_config in which the host ``name`` is reached through ``gateway``, of another name."""
        text = gateway.client_config() + self.client_config() + f"  ProxyJump {gateway.name}\n"
        return self.write(f"ssh_config.{gateway.port}", text)

    def worker_fields(self, gateway: Sshd | None = None) -> dict[str, Any]:
        """Return what a Worker's spec says to reach this server, through another one if given."""
        fields = {**self._connection(), "python": sys.executable, "known_hosts": str(self.known_hosts)}
        if gateway is not None:
            # The gateway's key is looked for in the same file.
            both = "".join(server.known_hosts.read_text(encoding="ascii") for server in (self, gateway))
            fields["known_hosts"] = str(self.write(f"known_hosts.{gateway.port}", both))
            fields["gateway"] = gateway._connection()
        return fields

    def client_config(self) -> str:
        """Return the lines of an ssh_config for this server."""
        return _CLIENT.format(name=self.name, sshd=self)

    def command(self, *command: str, config: Path | None = None) -> list[str]:
        """Return the call of OpenSSH's client that runs a command here."""
        return [program("ssh"), "-F", str(config or self.ssh_config), "-T", self.name, *command]

    def _connection(self) -> dict[str, Any]:
        return {"host": self.host, "port": self.port, "user": self.user, "key_filename": str(self.key)}

    def _write_files(self) -> None:
        for name in ("host_key", "client_key"):
            run(
                [
                    program("ssh-keygen"),
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-C",
                    name,
                    "-f",
                    self.directory / name,
                ]
            )
        self.write("authorized_keys", (self.directory / "client_key.pub").read_text(encoding="ascii"))
        kind, key = (self.directory / "host_key.pub").read_text(encoding="ascii").split()[:2]
        self.write("known_hosts", f"[{self.host}]:{self.port} {kind} {key}\n")
        self.write("ssh_config", self.client_config())
        self.write("sshd_config", self._server_config())

    def _server_config(self) -> str:
        env = {"RC_TEST_SSHD": str(self.directory), **self.env}
        if "PATH" in env:  # for the login files of a login shell, see the home's
            env["RC_TEST_PATH"] = env["PATH"]
        # One line: of several SetEnv, sshd takes the first.
        variables = " ".join(f'"{name}={value}"' for name, value in env.items())
        text = _CONFIG.format(port=self.port, directory=self.directory, variables=variables)
        sftp = ["Subsystem sftp internal-sftp"] if self._sftp else []
        return text + "\n".join([*sftp, *self._lines, ""])


def _connections(port: int) -> set[str]:
    """Return the sockets of established connections to a local port, as links in /proc name them."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"}


def _holds(pid: int, sockets: set[str]) -> bool:
    if not processes.runs(pid, "sshd"):  # their children have the socket as well
        return False
    with contextlib.suppress(OSError):
        return any(str(file.readlink()) in sockets for file in Path(f"/proc/{pid}/fd").iterdir())
    return False
