"""A host over an OpenSSH connection that its user has opened, with a password and a second factor perhaps."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult, new_sign
from reconciler.execution.hosts.local import clean_environment
from reconciler.execution.hosts.process import run_script
from reconciler.execution.hosts.secrets import AccessError
from reconciler.model.connections import Connection

_CHECK_TIMEOUT = 10.0


class ControlMasterHost:
    """Another machine, through the socket of a master connection; see the ``Host`` of this package.

    ``ssh`` can do nothing but use that socket: were the master gone and a new connection made, the host could
    ask for what only a person knows.
    """

    is_local = False

    def __init__(self, connection: Connection) -> None:
        self.name = connection.name
        self.commands = 0
        self._connection = connection
        self._counting = threading.Lock()

    def run(
        self,
        script: str,
        timeout: float,
        *,
        data: Iterable[bytes] | None = None,
        sink: BinaryIO | None = None,
    ) -> CommandResult:
        """Run a bash script to its end; see :class:`~reconciler.execution.hosts.base.Host`.

        Raises
        ------
        AccessError
            There is no master connection; the hint tells how to open it.
        TransientError
            The connection was lost half-way, or there was no answer in time.
        """
        with self._counting:
            self.commands += 1
        end = new_sign()
        shell = "exec bash -l -s" if self._connection.login_shell else "exec bash -s"
        argv = [*self._ssh(), "--", self._connection.host, shell]
        environment = clean_environment(os.environ)
        try:
            result = run_script(self.name, argv, environment, _ended(script, end), timeout, data, sink)
        except TransientError as error:
            raise self._outage() or error from error
        return self._checked(result, end)

    def close(self) -> None:
        """The master connection is its user's: it stays."""

    def _checked(self, result: CommandResult, end: str) -> CommandResult:
        """Return the result of the script; 255 without the sign of its end is ssh's own."""
        errors, ended, _ = result.stderr.rpartition(f"\n{end}\n")
        if ended:
            return msgspec.structs.replace(result, stderr=errors)
        if result.exit_code == 255:
            said = result.stderr.strip()[-300:]
            lost = TransientError(f"the connection to {self.name} was lost while a command ran: {said}")
            raise self._outage() or lost
        return result

    def _outage(self) -> AccessError | None:
        """Return the error for a master that does not answer; None if it does."""
        try:
            done = subprocess.run(
                [*self._ssh(), "-O", "check", "--", self._connection.host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=clean_environment(os.environ),
                timeout=_CHECK_TIMEOUT,
            )
        except OSError as error:
            said = f"ssh cannot be run: {error.strerror}"
        except subprocess.TimeoutExpired:
            said = "it gives no answer"
        else:
            if done.returncode == 0:
                return None
            said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        return AccessError(
            f"there is no SSH master connection to {self.name}: {said}", hint=f"open it: `{self._opener()}`"
        )

    def _ssh(self) -> list[str]:
        # ProxyCommand=false: should the socket not answer, ssh cannot connect in another way.
        only_master = ["-T", "-o", "ControlMaster=no", "-o", "BatchMode=yes", "-o", "ProxyCommand=false"]
        return ["ssh", *only_master, *self._where()]

    def _where(self) -> list[str]:
        """Return the options that master and client must have in common."""
        connection = self._connection
        options = ["-S", str(Path(connection.control_path or "").expanduser())]
        if connection.ssh_config is not None:
            options += ["-F", str(Path(connection.ssh_config).expanduser())]
        if connection.port is not None:
            options += ["-p", str(connection.port)]
        if connection.user is not None:
            options += ["-l", connection.user]
        return options

    def _opener(self) -> str:
        return shlex.join(["ssh", "-M", "-N", "-f", *self._where(), self._connection.host])


def _ended(script: str, end: str) -> str:
    """Return a script that prints a sign on stderr when it has ended: ssh's own failures have none."""
    return f"(\n{script}\n)\nended_with=$?\nprintf '\\n%s\\n' {end} >&2\n(exit $ended_with)"
