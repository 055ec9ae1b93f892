"""Whole runs by other routes: files over a host of their own, everything over a master connection."""

from __future__ import annotations

from tests.clusters.support import HPC, Cluster, MakeCluster
from tests.execution.hosts.reaching import Master
from tests.services.plugin import NewSshd
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd


def finish(world: Cluster, *names: str) -> None:
    """Run everything to its end; each job must have run once, in its first attempt."""
    world.run()
    assert world.ran() == dict.fromkeys(names, 1)
    assert {(job.state.value, job.attempt.number) for job in world.jobs().values()} == {("COMPLETED", 1)}


def test_files_go_over_the_transfer_host_and_commands_do_not(
    make_cluster: MakeCluster, slurm: Slurm, slurm_sshd: Sshd, new_sshd: NewSshd
) -> None:
    """The one has no scheduler; the other is asked for no file."""
    files = new_sshd(name="files")
    transfer = {key: value for key, value in files.worker_fields().items() if key != "python"}
    world = make_cluster(
        slurm, slurm_sshd, transfer=transfer, scheduler_username=slurm_sshd.user, sanitize_command=True
    )
    names = world.logging("jobs", 3)
    world.reconcile()
    finish(world, *names)
    spec = world.view(lambda view: view.config()).workers[HPC]
    carried = world.hosts.of(spec.transfer_connection).commands
    assert carried >= 2, "an upload, and what came back"
    assert max(world.passes) <= 5
    assert world.commands > carried
    assert {world.output(f"jobs/{name}") for name in names} == set(names)


def test_everything_over_a_master_connection(
    make_cluster: MakeCluster, slurm: Slurm, new_sshd: NewSshd
) -> None:
    """Its end is an outage, and how to open it again is said; nothing else is tried meanwhile."""
    sshd = new_sshd(env=slurm.env)
    master = Master(sshd)
    master.open()
    world = make_cluster(
        slurm, sshd, control_path=str(master.socket), ssh_config=str(sshd.ssh_config), host=sshd.name
    )
    gate = world.gated("jobs", 2)
    world.reconcile()
    world.until(lambda: world.count("RUNNING") == 2 and len(world.ran()) == 2)
    before = world.tells()
    master.close()
    world.offset = 60
    world.advance()
    assert world.tells() == before
    assert not world.status.reachable
    assert "there is no SSH master connection" in world.status.reason
    gate.touch()
    world.wait_for_markers(2)
    master.open()
    world.offset = 600
    finish(world, "jobs-000", "jobs-001")
    assert sshd.log.read_text().count("Accepted publickey") == 2, "only its user has connected"
    master.close()
