"""Values that a scheduler refuses are found when planning; natural forms are written as it wants them."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.errors import InputError
from reconciler.execution.headers import submission_header
from reconciler.model.schedulers import SCHEDULERS
from reconciler.model.settings import Resources


@pytest.mark.parametrize(
    ("scheduler", "key", "value"),
    [
        ("slurm", "time", "soon"),
        ("slurm", "time", -5),
        ("slurm", "time", "1-"),
        ("slurm", "time", "1h"),
        ("slurm", "ntasks", -4),
        ("slurm", "cpus_per_task", "many"),
        ("slurm", "ntasks_per_node", 0),
        ("pbs", "walltime", "1-00:00:00"),
        ("pbs", "walltime", "soon"),
        ("pbs", "walltime", 0),
        ("pbs", "walltime", "1:2:3:4:5"),
        ("pbs", "priority", 5000),
        ("pbs", "priority", "-2000"),
        ("pbs", "priority", "high"),
        ("sge", "walltime", "1-00:00:00"),
        ("sge", "soft_walltime", "one"),
        ("sge", "priority", 5000),
    ],
)
def test_a_value_that_the_scheduler_would_refuse(scheduler: str, key: str, value: Any) -> None:
    (problem,) = SCHEDULERS[scheduler].keyword_problems({key: value})
    assert (problem.code, problem.key) == ("resources/impossible-value", key)
    assert problem.hint.startswith("give ")
    with pytest.raises(InputError, match=f"'{key}' cannot be"):
        submission_header(scheduler, Resources({key: value}), "n.1")


@pytest.mark.parametrize(
    ("scheduler", "values"),
    [
        ("slurm", {"time": 90}),
        ("slurm", {"time": "1-12"}),
        ("slurm", {"time": "2-00:00:00", "ntasks": "4", "nodes": "2-4"}),
        ("slurm", {"time": "UNLIMITED"}),
        ("slurm", {"time": 0}),
        ("pbs", {"walltime": "24:00:00", "priority": -1024}),
        ("pbs", {"walltime": 3600, "priority": "1023"}),
        ("sge", {"walltime": "::90", "priority": -10}),
    ],
)
def test_a_value_that_it_takes(scheduler: str, values: dict[str, Any]) -> None:
    assert list(SCHEDULERS[scheduler].keyword_problems(values)) == []


@pytest.mark.parametrize(
    ("select", "written", "cores"),
    [
        ("1:ncpus=4", "select=1:ncpus=4", 4),
        ("select=1:ncpus=4", "select=1:ncpus=4", 4),
        ("2:ncpus=8:mpiprocs=8+1:ncpus=1", "select=2:ncpus=8:mpiprocs=8+1:ncpus=1", 17),
        ("ncpus=4:mem=2gb", "select=ncpus=4:mem=2gb", 4),
        ("1:ncpus=4,walltime=1:00:00", "select=1:ncpus=4,walltime=1:00:00", 4),
        ("nodes=2:ppn=4", "nodes=2:ppn=4", 8),
        ("ncpus=4", "ncpus=4", 4),
        ("ncpus=4,walltime=1:00:00", "ncpus=4,walltime=1:00:00", 4),
        ("walltime=1:00:00", "walltime=1:00:00", None),
        (4, "select=4", None),
    ],
)
def test_select_of_pbs_is_written_out(select: Any, written: str, cores: int | None) -> None:
    header = submission_header("pbs", Resources({"select": select}), "n.1")
    assert f"#PBS -l {written}" in header.splitlines()
    assert SCHEDULERS["pbs"].request_of(Resources({"select": select})).cores == cores


def test_select_beside_generic_resources() -> None:
    values = {"processes": 1, "scheduler_kwargs": {"select": "2:ncpus=4"}}
    assert "#PBS -l select=2:ncpus=4" in submission_header("pbs", Resources(values, generic=True), "n.1")


@pytest.mark.parametrize(
    ("scheduler", "resources", "target"),
    [
        ("slurm", Resources({"partition": "a", "qos": "b", "nodes": 2}), "partition a, qos b"),
        ("slurm", Resources({"queue_name": "a", "processes": 1}, generic=True), "queue_name a"),
        ("pbs", Resources({"processes": 1, "scheduler_kwargs": {"queue": "q"}}, generic=True), "queue q"),
        ("sge", Resources({}), ""),
        ("shell", None, ""),
    ],
)
def test_target(scheduler: str, resources: Resources | None, target: str) -> None:
    assert SCHEDULERS[scheduler].target_of(resources) == target
