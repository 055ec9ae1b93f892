"""A host over an OpenSSH master connection that the user has opened, perhaps with a second factor."""

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
from reconciler.execution.hosts.base import AccessError, CommandResult, new_sentinel, remote_shell
from reconciler.execution.hosts.local import clean_environment, run_script
from reconciler.model.connections import Connection

_CHECK_TIMEOUT = 10.0


class ControlMasterHost:
    """Another machine, over the socket of a master connection; see the ``Host`` protocol.

    The options of ``ssh`` allow nothing but that socket: a new connection could ask for a password or a
    code, which only a person can enter.
    """

    is_local = False

    def __init__(self, connection: Connection) -> None:
        self.name = connection.name
        self.commands = 0
        self._connection = connection
        self._counting = threading.Lock()
        # Options that the master and its clients must share.
        self._target = ["-S", str(Path(connection.control_path or "").expanduser())]
        if connection.ssh_config is not None:
            self._target += ["-F", str(Path(connection.ssh_config).expanduser())]
        if connection.port is not None:
            self._target += ["-p", str(connection.port)]
        if connection.user is not None:
            self._target += ["-l", connection.user]
        # ProxyCommand=false: if the socket does not answer, ssh cannot connect in another way.
        only_master = ["-T", "-o", "ControlMaster=no", "-o", "BatchMode=yes", "-o", "ProxyCommand=false"]
        self._ssh = ["ssh", *only_master, *self._target]

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
            There is no master connection; the hint says how to open it.
        TransientError
            The connection was lost during the command, or the timeout passed.
        """
        with self._counting:
            self.commands += 1
        # Failures of ssh itself do not print this line after the script.
        end = new_sentinel()
        script = f"(\n{script}\n)\nended_with=$?\nprintf '\\n%s\\n' {end} >&2\n(exit $ended_with)"
        argv = [*self._ssh, "--", self._connection.host, remote_shell(self._connection.login_shell)]
        try:
            result = run_script(self.name, argv, clean_environment(os.environ), script, timeout, data, sink)
        except TransientError as error:
            raise self._outage() or error from error
        errors, ended, _ = result.stderr.rpartition(f"\n{end}\n")
        if ended:
            return msgspec.structs.replace(result, stderr=errors)
        if result.exit_code == 255:  # the exit code of ssh itself
            stderr = result.stderr.strip()[-300:]
            lost = TransientError(f"the connection to {self.name} was lost during a command: {stderr}")
            raise self._outage() or lost
        return result

    def close(self) -> None:
        """Do nothing: the master connection belongs to the user and stays open."""

    def _outage(self) -> AccessError | None:
        """Return the error for a master that does not answer, or None if it answers."""
        try:
            done = subprocess.run(
                [*self._ssh, "-O", "check", "--", self._connection.host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=clean_environment(os.environ),
                timeout=_CHECK_TIMEOUT,
            )
        except OSError as error:
            reason = f"ssh cannot be run: {error.strerror}"
        except subprocess.TimeoutExpired:
            reason = "it does not answer"
        else:
            if done.returncode == 0:
                return None
            reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        command = shlex.join(["ssh", "-M", "-N", "-f", *self._target, self._connection.host])
        return AccessError(
            f"there is no SSH master connection to {self.name}: {reason}", hint=f"open it: `{command}`"
        )
