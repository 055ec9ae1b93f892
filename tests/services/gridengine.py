"""A throw-away Grid Engine: one cell with this machine as its only host.

It listens on all addresses; its configuration knows no other way.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
from pathlib import Path

from tests.services import processes
from tests.services.programs import (
    PATIENCE,
    ServiceError,
    attempt,
    free_ports,
    last_lines,
    program,
    run,
    wait_until,
)
from tests.services.service import Service

_LIBRARY = Path("/usr/lib/gridengine")
_SHARE = Path("/usr/share/gridengine")

_BOOTSTRAP = """\
admin_user {admin}
default_domain none
ignore_fqdn true
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {directory}/spool/db
binary_path /usr/sbin
qmaster_spool_dir {directory}/spool/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""

_HOST = {
    "hostname": "localhost",
    "load_scaling": "NONE",
    "complex_values": "NONE",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "projects": "NONE",
    "xprojects": "NONE",
    "usage_scaling": "NONE",
    "report_variables": "NONE",
}
_PARALLEL = {
    "pe_name": "smp",
    "slots": "999",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "start_proc_args": "NONE",
    "stop_proc_args": "NONE",
    "allocation_rule": "$pe_slots",
    "control_slaves": "FALSE",
    "job_is_first_task": "TRUE",
    "urgency_slots": "min",
    "accounting_summary": "FALSE",
    "qsort_args": "NONE",
}
# Schedule at once, whatever the machine's load.
_SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "load_adjustment_decay_time": "0:0:0",
    "job_load_adjustments": "NONE",
}
_QUEUE = {
    "hostlist": "localhost",
    "load_thresholds": "NONE",
    "shell": "/bin/bash",
    "shell_start_mode": "unix_behavior",
    "pe_list": "smp",
    "min_cpu_interval": "00:00:05",
    "tmpdir": "/tmp",
}
_DAEMONS = ("sge_qmaster", "sge_execd", "sge_shepherd")
_CLIENTS = ("qsub", "qstat", "qdel", "qacct", "qconf", "qhost", "qmod", "qalter", "qhold", "qrls", "qselect")


class GridEngine(Service):
    """One cell with the queues ``all.q`` and ``batch.q`` and the parallel environment ``smp``.

    ``slots``: how many each queue has. ``env`` is what a client needs in its environment; its PATH finds the
    client programs themselves before Debian's wrappers, which cost a tenth of a second for each call.
    Started by root, jobs of every user run as that user; otherwise only those of the present user.
    """

    def __init__(self, directory: Path, *, slots: int = 8) -> None:
        super().__init__(directory)
        facts = self.remember(ports=free_ports(2), slots=slots)
        self.slots: int = facts["slots"]
        self.architecture = run([_SHARE / "util" / "arch"]).strip()
        self.env = {
            "SGE_ROOT": str(directory),
            "SGE_CELL": "default",
            "SGE_CLUSTER_NAME": "ci",
            "SGE_ARCH": self.architecture,
            "SGE_QMASTER_PORT": str(facts["ports"][0]),
            "SGE_EXECD_PORT": str(facts["ports"][1]),
            "PATH": f"{directory}/clients:/usr/local/bin:/usr/bin:/bin",
        }

    def start(self) -> None:
        """Start both daemons; returns when jobs can run."""
        is_new = not (self.directory / "default").exists()
        if is_new:
            self._write_files()
            self._fill_database()
        self.start_master()
        if is_new:
            self._configure()
        run([program("sge_execd")], env=self.env)
        wait_until(self._is_ready, f"a queue of Grid Engine\n{self._logs()}")

    def stop(self) -> None:
        """End both daemons and all jobs; the queue stays on disk."""
        shepherds = processes.of_directory(self.directory, ["sge_shepherd"])
        processes.end(processes.of_directory(self.directory, ["sge_execd"]))
        processes.end(processes.with_descendants(shepherds), grace=0)
        # Asked to end, the master works hard for seconds first; its database stands a kill.
        processes.end(processes.of_directory(self.directory, _DAEMONS), grace=0.3)

    def close(self) -> None:
        """End the cell for good and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill_master(self) -> None:
        """Kill the master; running jobs go on, clients fail."""
        pids = processes.of_directory(self.directory, ["sge_qmaster"])
        processes.send(pids, signal.SIGKILL)
        if not processes.wait_gone(pids, PATIENCE):
            raise ServiceError("sge_qmaster survived a kill")

    def start_master(self) -> None:
        """Start the master (again); returns when it answers."""
        run([program("sge_qmaster")], env=self.env)
        wait_until(self.is_up, f"sge_qmaster\n{self._logs()}")

    def is_up(self) -> bool:
        """Return whether the master answers."""
        return attempt([self._client("qconf"), "-sh"], env=self.env).returncode == 0

    def call(self, name: str, *arguments: str, text: str | None = None) -> str:
        """Run a client program here, as the present user, and return what it prints.

        Raises
        ------
        ServiceError
            It failed.
        """
        return run([self._client(name), *arguments], env=self.env, text=text)

    def qsub(self, script: str, *options: str) -> str:
        """Submit a script (lines of bash) and return the id of its job."""
        quiet = ["-terse", "-wd", "/tmp", "-o", "/dev/null", "-e", "/dev/null"]
        return self.call("qsub", *quiet, *options, text=f"#!/bin/bash\n{script}\n").strip()

    def state(self, job: str) -> str:
        """Return the letters of a job's state in qstat, "" when it is not listed (any more)."""
        rows = [line.split() for line in self.call("qstat", "-u", "*").splitlines()[2:]]
        return {row[0]: row[4] for row in rows}.get(job, "")

    def wait_state(self, job: str, *states: str) -> None:
        """Wait until qstat shows a job in one of the states ("": not at all)."""
        wait_until(lambda: self.state(job) in states, f"job {job} {' or '.join(states)}")

    def record(self, job: str) -> dict[str, str]:
        """Return what the accounting has about a finished job, which is there a moment after its end."""
        command = [self._client("qacct"), "-j", job]
        wait_until(lambda: attempt(command, env=self.env).returncode == 0, f"qacct of job {job}")
        rows = [line.split(maxsplit=1) for line in run(command, env=self.env).splitlines()[1:]]
        return {row[0]: row[1].strip() if len(row) > 1 else "" for row in rows if row}

    def cancel_all(self) -> None:
        """End all jobs, of everybody, and wait until none is listed."""
        attempt([self._client("qdel"), "-f", "-u", "*"], env=self.env)
        wait_until(lambda: not self.call("qstat", "-u", "*"), "end of all jobs of Grid Engine")

    def _client(self, name: str) -> str:
        if not (_LIBRARY / name).exists():
            raise ServiceError(f"Grid Engine's '{name}' is not installed; run: make services")
        return str(_LIBRARY / name)

    def _is_ready(self) -> bool:
        """A queue shows the load of its host as soon as the daemon there has reported."""
        listing = self.call("qstat", "-f")
        return len(re.findall(r"^(?:all|batch)\.q@localhost +\S+ +\S+ +[0-9.]+ ", listing, re.MULTILINE)) == 2

    def _write_files(self) -> None:
        for name in ("default/common", "spool/qmaster/job_scripts", "spool/execd", "spool/db", "clients"):
            (self.directory / name).mkdir(parents=True)
        for name in ("bin", "utilbin", "lib"):
            (self.directory / name).mkdir()
            (self.directory / name / self.architecture).symlink_to(_LIBRARY)
        (self.directory / "util").symlink_to(_SHARE / "util")
        for name in _CLIENTS:
            (self.directory / "clients" / name).symlink_to(_LIBRARY / name)
        admin = "none" if os.geteuid() == 0 else getpass.getuser()
        self.write("default/common/bootstrap", _BOOTSTRAP.format(directory=self.directory, admin=admin))
        self.write("default/common/act_qmaster", "localhost\n")
        self.write("default/common/host_aliases", _aliases())
        for place in self.directory.rglob("*"):  # whatever the umask: users of jobs read it
            if place.is_dir() and not place.is_symlink():
                place.chmod(0o755)

    def _fill_database(self) -> None:
        text = (_SHARE / "default-configuration").read_text(encoding="utf-8")
        text = text.replace("/var/spool/gridengine/execd", str(self.directory / "spool" / "execd"))
        text = text.replace("flush_time=00:00:15", "flush_time=00:00:01 accounting_flush_time=00:00:00")
        changes = {"min_uid": "0", "min_gid": "0", "mailer": "/bin/true", "load_report_time": "00:00:05"}
        file = self.write("configuration", _with(text, changes))
        resources = _SHARE / "util" / "resources"
        self._spool("spoolinit", "berkeleydb", "libspoolb", self.directory / "spool" / "db", "init")
        self._spool("spooldefaults", "configuration", file)
        self._spool("spooldefaults", "complexes", resources / "centry")
        self._spool("spooldefaults", "usersets", resources / "usersets")
        self._spool("spooldefaults", "managers", getpass.getuser())

    def _spool(self, name: str, *arguments: str | Path) -> None:
        run([_LIBRARY / name, *arguments], env=self.env)

    def _configure(self) -> None:
        """Make the host, the parallel environment and the queues; qconf reads each from a file."""
        self.call("qconf", "-as", "localhost")
        self._set("-Ae", _lines(_HOST))
        self._set("-Ap", _lines(_PARALLEL))
        self._set("-Msconf", _with(self.call("qconf", "-ssconf"), _SCHEDULER))
        for name in ("all.q", "batch.q"):
            values = {**_QUEUE, "qname": name, "slots": str(self.slots)}
            self._set("-Aq", _with(self.call("qconf", "-sq"), values))

    def _set(self, option: str, text: str) -> None:
        self.call("qconf", option, str(self.write("qconf.in", text)))

    def _logs(self) -> str:
        return last_lines(*sorted((self.directory / "spool").rglob("messages")))


def _with(text: str, values: dict[str, str]) -> str:
    """Return Grid Engine's own text of settings with some of them changed."""
    for name, value in values.items():
        text = re.sub(rf"^{re.escape(name)}[ \t].*(\n[ \t].*)*", f"{name} {value}", text, flags=re.MULTILINE)
    return text


def _lines(values: dict[str, str]) -> str:
    return "".join(f"{name} {value}\n" for name, value in values.items())


def _aliases() -> str:
    """Make one host of all the names of this machine, so that none has to be resolvable."""
    names = {socket.gethostname()}
    hosts = Path("/etc/hosts")
    for line in hosts.read_text(encoding="utf-8").splitlines() if hosts.is_file() else []:
        address, *others = line.partition("#")[0].split() or [""]
        if address == "127.0.0.1":
            names.update(others)
    return " ".join(["localhost", *sorted(names - {"localhost"})]) + "\n"
