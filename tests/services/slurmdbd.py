"""The accounting of Slurm clusters on the loopback address: a MariaDB, and slurmdbd before it."""

from __future__ import annotations

import getpass
import secrets
import shutil
from pathlib import Path

from tests.services import processes
from tests.services.programs import attempt, free_ports, is_listening, last_lines, program, run, wait_until
from tests.services.service import Service

_CONFIG = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
AuthType=auth/munge
AuthInfo=socket={munge}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct
LogFile={directory}/slurmdbd.log
PidFile={directory}/slurmdbd.pid
"""


class SlurmDatabase(Service):
    """A data base for clusters, which share its munge: associations, QOS, and jobs that have ended.

    About seven seconds to start. Clients talk to it with the configuration of any of its clusters.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        facts = self.remember(ports=free_ports(2), password=secrets.token_hex(8))
        self.port, self._storage = facts["ports"]
        self._password: str = facts["password"]
        self.munge = directory / "munge"
        self.env = {"SLURM_CONF": str(directory / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons; returns when the data base answers."""
        self.munge.mkdir(mode=0o755)
        self.munge.chmod(0o755)  # munged insists, whatever the umask
        start_munge(self.munge)
        data, user = self.directory / "data", getpass.getuser()
        root = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        run([program("mariadb-install-db"), f"--user={user}", f"--datadir={data}", *root])
        socket = self.directory / "mariadb.sock"
        options = [
            f"--datadir={data}", f"--socket={socket}", f"--port={self._storage}", f"--user={user}",
            f"--pid-file={self.directory}/mariadb.pid", f"--log-error={self.directory}/mariadb.log",
            "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900",
        ]  # fmt: skip
        command = " ".join([program("mariadbd"), "--no-defaults", *options])
        run(["bash", "-c", f"setsid {command} </dev/null >/dev/null 2>&1 &"])
        sql = [program("mariadb"), "--no-defaults", f"--socket={socket}", "-e"]
        wait_until(lambda: attempt([*sql, "select 1"]).returncode == 0, f"MariaDB\n{self._logs()}")
        account = "slurm@'127.0.0.1'"
        run([*sql, f"create user {account} identified by '{self._password}'; grant all on *.* to {account}"])
        text = _CONFIG.format(
            directory=self.directory, port=self.port, munge=self.munge / "munge.sock", user=user,
            storage=self._storage, password=self._password,
        )  # fmt: skip
        self.write("slurmdbd.conf", text, mode=0o600)
        self.write("slurm.conf", f"ClusterName=none\nSlurmctldHost=localhost\n{self.config}")
        run([program("slurmdbd")], env=self.env)
        wait_until(lambda: is_listening(self.port), f"slurmdbd\n{self._logs()}")

    @property
    def config(self) -> str:
        """The lines for the configuration of its clusters."""
        return (
            f"AuthType=auth/munge\nAuthInfo=socket={self.munge}/munge.sock\n"
            "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\n"
            # With munge the "password" is the socket for messages to slurmdbd.
            f"AccountingStoragePort={self.port}\nAccountingStoragePass={self.munge}/munge.sock\n"
        )

    def sacctmgr(self, *words: str) -> str:
        """Change or show accounts, users and QOS."""
        return run([program("sacctmgr"), "-i", *words], env=self.env)

    def stop(self) -> None:
        """End the daemons."""
        processes.end(processes.of_directory(self.directory, ("slurmdbd",)), grace=5)
        processes.end(processes.of_directory(self.directory, ("mariadbd", "munged")), grace=5)

    def close(self) -> None:
        """End the daemons, and remove all data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def is_up(self) -> bool:
        """Return whether slurmdbd answers."""
        return is_listening(self.port)

    def _logs(self) -> str:
        return last_lines(*sorted(self.directory.glob("*.log")))


def start_munge(place: Path) -> None:
    """Start a munged whose files are all in a directory; it makes a key if there is none."""
    key = place / "munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
    names = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={place}/munge.{ending}" for option, ending in names.items()]
    run([program("munged"), *options, "--num-threads=4", "--force"])
