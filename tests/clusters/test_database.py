"""Slurm with slurmdbd: limits of a QOS, accounting, and a second cluster."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.execution.queues.base import QueueState
from reconciler.execution.queues.slurm import SlurmQueue
from reconciler.model.retries import Cause
from tests.execution.support import World, eventually
from tests.services.programs import attempt, program
from tests.services.slurm import Slurm
from tests.services.slurmdbd import SlurmDatabase

LIMITS = "AccountingStorageEnforce=associations,limits,qos"


@pytest.fixture
def clusters(
    new_slurm: Callable[..., Slurm], slurm_database: SlurmDatabase, monkeypatch: pytest.MonkeyPatch
) -> tuple[Slurm, Slurm]:
    """Two clusters, ``a`` (that of this machine) and ``b``; at most one job in the QOS ``short``."""
    a = new_slurm(nodes=1, cpus=4, min_job_age=2, database=slurm_database, name="a", more=LIMITS)
    b = new_slurm(nodes=1, cpus=4, database=slurm_database, name="b", more=LIMITS)
    slurm_database.sacctmgr("add", "qos", "short", "MaxSubmitJobsPerUser=1")
    change = ["set", "qos=normal,short", "defaultqos=normal"]
    slurm_database.sacctmgr("modify", "user", getpass.getuser(), *change)
    for name, value in a.env.items():
        monkeypatch.setenv(name, value)

    def know_it() -> bool:  # the controllers learn of it a moment later
        asks = [program("sbatch"), "--test-only", "--qos=short", "--wrap=exit"]
        return all(attempt(asks, env=cluster.env).returncode == 0 for cluster in (a, b))

    assert eventually(know_it, 30)
    return a, b


@pytest.fixture
def world(tmp_path: Path, warm: None, job_python: Path) -> Iterator[World]:
    made = World(tmp_path / "world", workers=" ")
    spec = {"type": "local", "scheduler_type": "slurm", "work_dir": str(made.work), "python": str(job_python)}
    made.put("Worker", "w1", spec | {"max_jobs": 3})
    yield made
    made.close()


def jobs(name: str, count: int, **more: object) -> list[dict[str, object]]:
    return [{"id": f"{name}{n}", "function": "give", "args": [n], **more} for n in range(count)]


def test_a_full_qos_holds_up_only_its_own_jobs(clusters: tuple[Slurm, Slurm], world: World) -> None:
    """The jobs of the full one come first, and are more than ``max_jobs``."""
    a, _ = clusters
    first = a.sbatch("sleep 300", "--qos=short")
    world.flow("f", *jobs("s", 4, resources={"qos": "short"}, priority=5), *jobs("n", 4))  # type: ignore[arg-type]
    world.reconcile()
    world.until(lambda: all(world.state(f"f/n{n}") == "COMPLETED" for n in range(4)))
    states = {world.state(f"f/s{n}") for n in range(4)}
    assert states == {"READY"}
    assert "QOSMaxSubmitJobPerUserLimit" in (world.job("f/s0").attempt.waiting or "")
    a.call("scancel", first)
    begin = time.time()
    for minute in range(12):  # one after the other: the limit is one
        world.until(lambda: not world.advance(begin + 60 * minute) or world.is_idle())  # noqa: B023
        time.sleep(1)
    world.run()
    assert {job.attempt.number for job in world.jobs().values()} == {1}


def test_a_job_of_another_cluster_is_listed_found_cancelled_and_accounted_there(
    clusters: tuple[Slurm, Slurm], world: World
) -> None:
    _, b = clusters
    for _ in range(3):  # so that numbers of both clusters are the same
        b.call("scancel", b.sbatch("sleep 60"))
    world.flow(
        "f",
        {"id": "there", "function": "give", "args": [1], "resources": {"clusters": "b"}},
        {"id": "here", "function": "give", "args": [2]},
    )
    world.reconcile()
    world.until(lambda: world.job("f/there").attempt.queue_id)
    assert (world.job("f/there").attempt.queue_id or "").endswith(";b")
    assert ";" not in (world.job("f/here").attempt.queue_id or "")
    world.run()
    assert {world.state("f/there"), world.state("f/here")} == {"COMPLETED"}
    assert {job.attempt.number for job in world.jobs().values()} == {1}


def test_commands_of_a_queue_reach_the_other_cluster(clusters: tuple[Slurm, Slurm], tmp_path: Path) -> None:
    from reconciler.execution.hosts.local import LocalHost

    queue, host = SlurmQueue(), LocalHost()
    (tmp_path / "submit.sh").write_text("#!/bin/bash\n#SBATCH --clusters=b --job-name=x.1\nsleep 300\n")
    answer = host.run(f"cd {tmp_path}; {queue.submit_command('submit.sh')}", 60)
    queue_id = queue.submitted_id(answer.stdout) or ""
    assert queue_id.endswith(";b")

    def state() -> QueueState | None:
        entry = queue.listing({queue_id: ""}, host.run(queue.listing_command([queue_id]), 60)).get(queue_id)
        return entry.state if entry is not None else None

    assert eventually(lambda: state() is QueueState.RUNNING, 60)
    assert queue.found(["x.1"], host.run(queue.find_command(["x.1"]), 60)) == {"x.1": queue_id}
    assert queue.cancelled([queue_id], host.run(queue.cancel_command([queue_id]), 60)) == {}
    assert eventually(lambda: state() is None, 60)
    died = queue.accounting(queue_id, host.run(queue.accounting_command(queue_id), 60))
    assert died is not None and died.cause is Cause.KILLED


def test_the_data_base_remembers_what_the_controller_has_forgotten(
    clusters: tuple[Slurm, Slurm],
) -> None:
    from reconciler.execution.hosts.local import LocalHost

    a, _ = clusters
    queue, host = SlurmQueue(), LocalHost()
    queue_id = a.sbatch("exit 3")
    assert eventually(lambda: a.state(queue_id) == "", 60)
    died = queue.accounting(queue_id, host.run(queue.accounting_command(queue_id), 60))
    assert died is not None and (died.over, died.exit_code) == (True, 3)
