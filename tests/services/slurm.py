"""A throw-away Slurm on the loopback address: a controller, and nodes that all are this machine."""

from __future__ import annotations

import getpass
import re
import secrets
import shutil
import signal
from pathlib import Path

from tests.services import processes
from tests.services.programs import (
    PATIENCE,
    ServiceError,
    attempt,
    free_ports,
    is_listening,
    last_lines,
    program,
    run,
    wait_until,
)
from tests.services.service import Service
from tests.services.slurmdbd import SlurmDatabase, start_munge

_CONFIG = """\
ClusterName={name}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
# Listen on the addresses above instead of all.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.%n.log
PlugStackConfig={directory}/plugstack.conf
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Nodes may claim more processors than there are.
SlurmdParameters=config_overrides
ReturnToService=2
{accounting}
JobAcctGatherType=jobacct_gather/none
# What makes `sacct -c` work without a database.
JobCompType=jobcomp/filetxt
JobCompLoc={directory}/jobcomp.log
PriorityType=priority/basic
SchedulerType=sched/backfill
# Half a second from sbatch to the start of a job, instead of three.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,default_queue_depth=1000
MinJobAge={min_job_age}
KillWait=2
InactiveLimit=0
MaxJobCount=20000
{more}
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 PriorityTier=10 State=UP
PartitionName=batch Nodes=ALL MaxTime=INFINITE DefaultTime=60 PriorityTier=1 State=UP
"""
_NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=8000"
_DAEMONS = ("slurmctld", "slurmd", "slurmstepd", "munged")


class Slurm(Service):
    """One cluster with the partitions ``debug`` (the default, at most an hour) and ``batch``.

    ``nodes`` nodes claim ``cpus`` processors each. ``min_job_age``: seconds after which the controller
    forgets a finished job (it looks every few seconds). ``more``: lines for its configuration. ``env`` is
    what a client needs in its environment. With a ``database`` it is a cluster of that, called ``name``.
    Started by root, jobs of every user run as that user; otherwise only those of the present user.
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 2,
        cpus: int = 8,
        min_job_age: int = 300,
        more: str = "",
        database: SlurmDatabase | None = None,
        name: str = "ci",
    ) -> None:
        super().__init__(directory)
        self.database, self.name = database, name
        facts = self.remember(ports=free_ports(nodes + 1), cpus=cpus, min_job_age=min_job_age, more=more)
        self.port, *self._node_ports = facts["ports"]
        self.cpus: int = facts["cpus"]
        self.min_job_age: int = facts["min_job_age"]
        self.more: str = facts["more"]
        self.nodes = [f"n{number}" for number, _ in enumerate(self._node_ports, start=1)]
        self.conf = directory / "slurm.conf"
        self.env = {"SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        """Start all daemons; returns when every node is idle."""
        if not self.conf.exists():
            self._write_files()
        if self.database is None:
            start_munge(self.directory / "munge")
        else:
            self.database.sacctmgr("add", "cluster", self.name)
        self._start_daemon("slurmctld")
        for name in self.nodes:
            self._start_daemon("slurmd", "-N", name)
        self.wait_idle()

    def stop(self) -> None:
        """End all daemons and all jobs; the state of the queue stays on disk.

        The controller ends before the nodes. The processes that watch over jobs survive a node by design and
        would wait for its return for ever: they are killed with what they run.
        """
        for name in ("slurmctld", "slurmd"):
            processes.end(self._pids(name), grace=5)
        processes.kill_trees(lambda: self._pids("slurmd", "slurmstepd"))
        processes.end(self._pids(*_DAEMONS))

    def close(self) -> None:
        """End the cluster for good and remove its directory."""
        self.stop()
        # A script whose watcher was just ending it (its node was declared dead) is nobody's descendant.
        processes.kill_trees(lambda: processes.of_directory(self.directory))
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill_controller(self, number: int = signal.SIGKILL) -> None:
        """Kill the controller (or send it another signal); nodes and running jobs go on.

        Clients wait about nine seconds for it, then fail. A kill loses what it has not written down yet, even
        jobs that it has accepted, see :meth:`wait_saved`; SIGTERM lets it write.
        """
        pids = self._pids("slurmctld")
        processes.send(pids, number)
        if not processes.wait_gone(pids, PATIENCE):
            raise ServiceError(f"slurmctld survived signal {number}")

    def wait_saved(self) -> None:
        """Wait until the controller has written down how all jobs are now: some five seconds.

        One of them, which must not be over, gets a comment by which to know it in the file.
        """
        mark = f"saved-{secrets.token_hex(4)}"
        job = next(line.split()[0] for line in self.squeue() if line.endswith(("PENDING", "RUNNING")))
        self.call("scontrol", "update", f"JobId={job}", f"Comment={mark}")
        wait_until(lambda: mark.encode() in self.saved_jobs(), "the saved state of Slurm")

    def saved_jobs(self) -> bytes:
        """Return what the controller has written down about jobs; nothing at first."""
        return self._jobs_file.read_bytes() if self._jobs_file.exists() else b""

    def forget_since(self, saved: bytes) -> None:
        """Let the controller, which must not run, believe that it never wrote more than this about jobs."""
        for file in (self._jobs_file, self._jobs_file.with_suffix(".old")):
            file.write_bytes(saved)

    @property
    def _jobs_file(self) -> Path:
        return self.directory / "state" / "job_state"

    def start_controller(self) -> None:
        """Start the controller again; returns when it answers and knows how all nodes are."""
        self._start_daemon("slurmctld")
        wait_until(self._knows_nodes, f"slurmctld: {self._logs()}")

    def is_up(self) -> bool:
        """Return whether the controller answers."""
        return (
            is_listening(self.port) and attempt([program("scontrol"), "ping"], env=self.env).returncode == 0
        )

    def call(self, name: str, *arguments: str) -> str:
        """Run a client program here, as the present user, and return what it prints.

        Raises
        ------
        ServiceError
            It failed.
        """
        return run([program(name), *arguments], env=self.env)

    def sbatch(self, script: str, *options: str) -> str:
        """Submit a script (lines of bash) and return the id of its job."""
        command = [
            program("sbatch"),
            "--parsable",
            "--export=NONE",
            "--chdir=/",
            "--output=/dev/null",
            *options,
        ]
        return run(command, env=self.env, text=f"#!/bin/bash\n{script}\n").strip()

    def squeue(self, form: str = "%i %T", *options: str) -> list[str]:
        """Return a line for each job that the controller still knows, in squeue's own ``--format``."""
        return self.call("squeue", "--noheader", "--states=all", f"--format={form}", *options).splitlines()

    def state(self, job: str) -> str:
        """Return the state of a job in the queue, "" when the controller does not know it."""
        return dict(line.split() for line in self.squeue()).get(job, "")

    def wait_state(self, job: str, *states: str) -> None:
        """Wait until a job is in one of the states ("": forgotten)."""
        wait_until(lambda: self.state(job) in states, f"job {job} {' or '.join(states)}")

    def wait_idle(self) -> None:
        """Wait until all nodes are up and run nothing."""
        wait_until(self._is_idle, f"idle nodes of Slurm\n{self._logs()}")

    def node_down(self, name: str) -> None:
        """Declare a node dead: its jobs end as NODE_FAIL, or are queued again where they may be."""
        self.call("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")

    def node_up(self, name: str) -> None:
        """Take a node back. (One whose daemon is alive comes back by itself as well.)"""
        attempt([program("scontrol"), "update", f"NodeName={name}", "State=RESUME"], env=self.env)

    def cancel_all(self) -> None:
        """End all jobs, of everybody, and wait until none is left."""
        jobs = [
            line.split()[0]
            for line in self.squeue()
            if line.split()[1] in ("RUNNING", "PENDING", "SUSPENDED")
        ]
        if jobs:
            self.call("scancel", *jobs)
        self.wait_idle()

    def _is_idle(self) -> bool:
        done = attempt(
            [
                program("sinfo"),
                "--noheader",
                "--Node",
                "--states=idle",
                "--partition=debug",
                "--format=%N %t",
            ],
            env=self.env,
        )
        return sorted(done.stdout.split()[::2]) == self.nodes

    def _knows_nodes(self) -> bool:
        if not self.is_up():
            return False
        states = self.call("sinfo", "--noheader", "--Node", "--format=%t").split()
        return not any(state.startswith("unk") or state.endswith("*") for state in states)

    def _write_files(self) -> None:
        for name in ("state", "munge", *(f"spool.{node}" for node in self.nodes)):
            (self.directory / name).mkdir(mode=0o755)
            (self.directory / name).chmod(0o755)  # munged insists, whatever the umask
        nodes = [
            _NODE.format(name=name, port=port, cpus=self.cpus)
            for name, port in zip(self.nodes, self._node_ports, strict=True)
        ]
        accounting = (
            f"AuthType=auth/munge\nAuthInfo=socket={self.directory}/munge/munge.sock\n"
            "AccountingStorageType=accounting_storage/none"
        )
        values = {
            "name": self.name,
            "accounting": self.database.config if self.database is not None else accounting,
            "port": self.port,
            "user": getpass.getuser(),
            "min_job_age": self.min_job_age,
            "more": self.more,
        }
        text = _CONFIG.format(directory=self.directory, nodes="\n".join(nodes), **values)
        self.write("slurm.conf", text)
        self.write("plugstack.conf", "")
        self.write("cgroup.conf", _cgroup_config())

    def _start_daemon(self, name: str, *options: str) -> None:
        try:
            run([program(name), *options, "-f", self.conf], env=self.env)
        except ServiceError as error:
            raise ServiceError(f"{error}\n{self._logs()}") from error

    def _pids(self, *names: str) -> set[int]:
        return processes.of_directory(self.directory, names)

    def _logs(self) -> str:
        return last_lines(*sorted(self.directory.glob("*.log")), self.directory / "munge" / "munge.log")


def _cgroup_config() -> str:
    """Slurm loads a plugin for cgroups even where nothing uses it, and dies if it finds none mounted."""
    found = re.search(r"(\d+)\.(\d+)", run([program("slurmd"), "-V"]))
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version >= (23, 11):
        return "CgroupPlugin=disabled\n"
    return "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
