"""What a request asks for, in the words of each scheduler, and what a plan costs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from qtoolkit.core.data_objects import QResources
from qtoolkit.io.pbs import PBSIO
from qtoolkit.io.slurm import SlurmIO

from reconciler.model.actions import Action, ActionType, JobPlan, Plan, Subject
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.schedulers import SCHEDULERS
from reconciler.model.schedulers.requests import UNKNOWN, ResourceRequest, clock_seconds
from reconciler.model.schedulers.slurm import slurm_seconds
from reconciler.model.settings import Resources
from reconciler.model.states import PENDING, JobState
from reconciler.plan.configs import FlowConfigs
from reconciler.plan.cost import Cost, plan_cost
from tests.plan.plan_support import built_job, desired, flow, record, worker

NEW = Reason(ReasonCode.NEW_JOB)


def asked(scheduler: str, generic: bool = False, **values: Any) -> ResourceRequest:
    return SCHEDULERS[scheduler].request_of(Resources(values, generic))


def cores(scheduler: str, **values: Any) -> int | None:
    return asked(scheduler, **values).cores


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (30, 1800),
        ("30", 1800),
        ("30:15", 1815),
        ("08:00:00", 28800),
        ("8:00:00", 28800),
        ("1-0", 86400),
        ("2-12", 216000),
        ("1-01:30", 91800),
        ("1-01:30:10", 91810),
        ("0-00:10:00", 600),
        ("0", None),
        (0, None),
        ("UNLIMITED", None),
        ("infinite", None),
        ("-1", None),
        (-1, None),
        ("1:2:3:4", None),
        ("1h", None),
        (1.5, None),
        (True, None),
        (None, None),
        ("", None),
    ],
)
def test_times_of_slurm(value: object, seconds: int | None) -> None:
    assert slurm_seconds(value) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3600, 3600),
        ("3600", 3600),
        ("10:00", 600),
        ("24:00:00", 86400),
        ("100:00:00", 360000),
        ("1:00:00:00", 86400),
        (":30:", 1800),
        ("0:0:0", None),
        ("1-0", None),
        ("1:0:0:0:0", None),
        (None, None),
        (True, None),
    ],
)
def test_times_of_pbs_and_grid_engine(value: object, seconds: int | None) -> None:
    assert clock_seconds(value) == seconds


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ntasks": 4}, 4),
        ({"ntasks": "4", "cpus_per_task": 8}, 32),
        ({"nodes": 2, "ntasks_per_node": 16}, 32),
        ({"nodes": 2, "ntasks_per_node": 16, "cpus_per_task": 2}, 64),
        ({"nodes": 2, "ntasks": 10, "ntasks_per_node": 8}, 10),
        ({"cpus_per_task": 12}, 12),
        ({"ntasks": 4, "exclusive": False}, 4),
        ({"ntasks": 4, "qverbatim": "module load x"}, 4),
        ({"nodes": 2}, None),  # whole nodes or one core of each: the site decides
        ({"time": "1:00:00"}, None),
        ({"nodes": "2-4", "ntasks_per_node": 8}, None),
        ({"ntasks": 4, "exclusive": True}, None),
        ({"ntasks": 4, "exclusive": "user"}, None),
        ({"ntasks": "many"}, None),
        ({"ntasks": 0}, None),
        ({"ntasks": 4, "qverbatim": "#SBATCH --ntasks=64"}, None),
        ({}, None),
    ],
)
def test_cores_of_slurm(values: dict[str, Any], expected: int | None) -> None:
    assert cores("slurm", **values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 0),
        ({"gpus": 4, "nodes": 2}, 4),
        ({"gpus": "a100:4"}, 4),
        ({"gpus": "a100:4,h100:1"}, None),
        ({"gpus_per_node": 2, "nodes": 3}, 6),
        ({"gres": "gpu:2"}, 2),
        ({"gres": "gpu:a100:2", "nodes": 4}, 8),
        ({"gres": "gpu"}, 1),
        ({"gres": "shard:2"}, 0),
        ({"gres": "shard:2,gpu:1"}, None),
    ],
)
def test_gpus_of_slurm(values: dict[str, Any], expected: int | None) -> None:
    assert asked("slurm", **values).gpus == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"select": "select=2:ncpus=16"}, (32, None, 0)),
        ({"select": "select=2:ncpus=16:mpiprocs=16:mem=64gb", "walltime": "24:00:00"}, (32, 86400, 0)),
        ({"select": "select=1:ncpus=8+3:ncpus=4:ngpus=1"}, (20, None, 3)),
        ({"select": "select=ncpus=4"}, (4, None, 0)),
        ({"select": "select=2:ncpus=4,walltime=1:00:00"}, (8, 3600, 0)),
        ({"select": "nodes=2:ppn=8", "walltime": 600}, (16, 600, 0)),
        ({"select": "nodes=2:ppn=8:gpus=1"}, (16, None, 2)),
        ({"select": "ncpus=6"}, (6, None, 0)),
        ({"select": "select=4"}, (None, None, 0)),  # the default of a chunk is the site's
        ({"select": "nodes=4"}, (None, None, 0)),
        ({"select": "nodes=n01:ppn=8"}, (None, None, 0)),
        ({"select": "select=2:ncpus=4", "place": "scatter:excl"}, (None, None, None)),
        ({"select": "select=2:ncpus=4", "qverbatim": "#PBS -l walltime=9:00:00"}, (None, None, None)),
        ({"walltime": "1:00:00"}, (None, 3600, 0)),
    ],
)
def test_pbs(values: dict[str, Any], expected: tuple[int | None, int | None, int | None]) -> None:
    found = asked("pbs", **values)
    assert (found.cores, found.seconds, found.gpus) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model": "mpi 16", "walltime": "12:00:00"}, (16, 43200, 0)),
        ({"model": "smp 8", "select": "h_rt=3600,h_vmem=2G"}, (8, 3600, 0)),
        ({"model": "mpi 4-16"}, (None, None, 0)),
        ({"model": "mpi 16", "select": "exclusive=true"}, (None, None, 0)),
        ({"model": "smp 8", "select": "gpu=1"}, (8, None, None)),
        ({"soft_walltime": "1:00:00"}, (None, None, 0)),
        ({"model": "mpi 16", "qverbatim": "#$ -pe mpi 64"}, (None, None, None)),
    ],
)
def test_grid_engine(values: dict[str, Any], expected: tuple[int | None, int | None, int | None]) -> None:
    found = asked("sge", **values)
    assert (found.cores, found.seconds, found.gpus) == expected


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "sge"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"processes": 8, "time_limit": 3600}, ResourceRequest(8, 3600, 0)),
        ({"processes": 8, "threads_per_process": 2}, ResourceRequest(16, None, 0)),
        ({"nodes": 2, "processes_per_node": 4, "time_limit": 60}, ResourceRequest(8, 60, 0)),
        ({"processes": 8, "gpus_per_job": 2}, ResourceRequest(8, None, 2)),
        ({"processes": 8, "scheduler_kwargs": {"partition": "short"}}, ResourceRequest(8, None, 0)),
        ({"processes": 8, "scheduler_kwargs": {"ntasks": 64}}, UNKNOWN),
        ({"nodes": 2}, ResourceRequest(None, None, 0)),
        ({"processes": 8, "time_limit": "1:00:00"}, ResourceRequest(8, None, 0)),
        ({}, ResourceRequest(None, None, 0)),
    ],
)
def test_generic_resources(scheduler: str, values: dict[str, Any], expected: ResourceRequest) -> None:
    assert asked(scheduler, generic=True, **values) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"processes": 8, "threads_per_process": 2, "time_limit": 5400},
        {"nodes": 3, "processes_per_node": 4, "time_limit": 200_000},
        {"nodes": 3, "processes_per_node": 4, "threads_per_process": 2, "time_limit": 61},
    ],
)
@pytest.mark.parametrize(("scheduler", "io"), [("slurm", SlurmIO), ("pbs", PBSIO)])
def test_generic_resources_cost_what_qtoolkit_makes_of_them(
    scheduler: str, io: type[SlurmIO] | type[PBSIO], values: dict[str, Any]
) -> None:
    keywords = io()._convert_qresources(QResources(**values))
    plain = {key: value for key, value in keywords.items() if value is not None}
    assert asked(scheduler, **plain) == asked(scheduler, generic=True, **values)


def test_a_plain_shell_and_no_resources_are_unknown() -> None:
    assert asked("shell", ntasks=4, time=30) == UNKNOWN
    assert SCHEDULERS["slurm"].request_of(None) == UNKNOWN


# of plans -------------------------------------------------------------------------------------------------

SMALL = {"resources": {"ntasks": 4, "time": "1:00:00"}}
LARGE = {"resources": {"ntasks": 64, "time": "10:00:00"}}
GPU = {"resources": {"ntasks": 4, "time": "1:00:00", "gpus": 2}}
WORKERS = {"w1": worker(scheduler_type="slurm"), "w2": worker(scheduler_type="slurm"), "sh": worker()}


def revision(*flows: DesiredFlow, **fields: Any) -> DesiredState:
    return desired(*flows, workers=WORKERS, **fields)


def plan_of(*actions: Action) -> Plan:
    return Plan(revision="main@1234567", base=None, actions=actions)


def action(
    state: DesiredState, action_type: ActionType, key: str, old: JobRecord | None = None, name: str = "f"
) -> Action:
    """Return an action on a built job, with the run config that the revision gives it."""
    job = built_job(key, f"new {key}" if old is None else key, name)
    own, config = FlowConfigs(state, state.flows[name], {}).of_built(job)
    return Action(
        type=action_type, subject=Subject.JOB, key=f"{name}/{key}", reason=NEW,
        wanted=JobPlan(job, own, config), record=old,
    )  # fmt: skip


def cost_of(state: DesiredState, *actions: Action, jobs: dict[str, list[JobRecord]] | None = None) -> Cost:
    return plan_cost(plan_of(*actions), state, jobs or {}, {})


def config_of(values: dict[str, Any], key: str = "a") -> RunConfig:
    state = revision(flow(values=values))
    return FlowConfigs(state, state.flows["f"], {}).of_preview(state.flows["f"].preview[0])


class TestPlans:
    def test_jobs_are_grouped_by_worker_and_resources(self) -> None:
        state = revision(
            flow(jobs=["a", "b", "c", "d"], values=SMALL, own={"c": LARGE, "d": {"worker": "sh"}})
        )
        cost = cost_of(state, *(action(state, ActionType.SUBMIT, key) for key in "abcd"))
        assert [(group.worker, group.jobs, group.core_hours) for group in cost.groups] == [
            ("w1", 1, 640.0), ("w1", 2, 8.0), ("sh", 1, None),
        ]  # fmt: skip
        assert cost.groups[1].request == ResourceRequest(4, 3600, 0)
        assert cost.groups[1].resources == SMALL["resources"]
        assert (cost.core_hours, cost.jobs, cost.unknown, cost.known) == (648.0, 3, 1, True)

    def test_gpu_hours(self) -> None:
        state = revision(flow(values=GPU))
        cost = cost_of(state, action(state, ActionType.REPLACE, "a"), action(state, ActionType.REPLACE, "b"))
        assert (cost.core_hours, cost.gpu_hours) == (8.0, 4.0)

    def test_equal_resources_written_twice_are_one_group(self) -> None:
        again = {"resources": {"time": "1:00:00", "ntasks": 4}}
        state = revision(flow(own={"a": SMALL, "b": again}))
        (group,) = cost_of(state, *(action(state, ActionType.SUBMIT, key) for key in "ab")).groups
        assert group.jobs == 2

    def test_generic_resources_are_a_group_of_their_own(self) -> None:
        state = revision(flow(own={"a": SMALL, "b": {"qresources": {"processes": 4, "time_limit": 3600}}}))
        groups = cost_of(state, *(action(state, ActionType.SUBMIT, key) for key in "ab")).groups
        assert [(group.core_hours, group.jobs) for group in groups] == [(4.0, 1), (4.0, 1)]
        assert groups[1].resources == {"qresources": {"processes": 4, "time_limit": 3600}}

    def test_only_what_runs_costs(self) -> None:
        state = revision(flow(values=SMALL))
        old = record(built_job("a", "a"), config=config_of(SMALL))
        others = [
            action(state, action_type, "a", old)
            for action_type in (ActionType.CANCEL, ActionType.FORGET, ActionType.DEFER, ActionType.KEEP)
        ]
        assert cost_of(state, *others) == Cost()

    def test_a_result_that_is_still_there_costs_nothing(self) -> None:
        state = revision(flow(values=SMALL))
        again = action(state, ActionType.SUBMIT, "a")
        assert again.wanted is not None
        done = record(again.wanted.job, state=JobState.COMPLETED, current=False)
        assert cost_of(state, again, jobs={"f": [done]}).jobs == 0
        failed = msgspec.structs.replace(done, state=JobState.FAILED)
        assert cost_of(state, again, jobs={"f": [failed]}).jobs == 1

    def test_jobs_that_are_only_foreseen(self) -> None:
        state = revision(flow(own={"a": SMALL, "b": LARGE}))
        foreseen = [
            Action(
                type=ActionType.SUBMIT,
                subject=Subject.JOB,
                key=f"f/{key}",
                reason=NEW,
                build=True,
            )
            for key in "ab"
        ]
        assert cost_of(state, *foreseen).core_hours == 644.0

    def test_a_plan_without_known_cost(self) -> None:
        state = revision(flow(values={"worker": "sh"}))
        cost = cost_of(state, action(state, ActionType.SUBMIT, "a"))
        assert (cost.known, cost.unknown, cost.core_hours) == (False, 1, 0.0)


class TestPatches:
    @pytest.mark.parametrize("state", sorted(JobState))
    def test_only_jobs_that_have_yet_to_run_count(self, state: JobState) -> None:
        old = record(built_job("a", "a"), config=config_of(SMALL), state=state)
        head = revision(flow(values=LARGE))
        cost = cost_of(head, action(head, ActionType.PATCH, "a", old))
        expected = (1, 4.0, 640.0) if state in PENDING else (0, 0.0, 0.0)
        assert (cost.patched, cost.before, cost.after) == expected
        assert cost.core_hours == 0.0

    def test_a_foreseen_patch_finds_its_record(self) -> None:
        old = record(built_job("a", "a"), config=config_of(SMALL))
        head = revision(flow(values=LARGE))
        patch = Action(
            type=ActionType.PATCH,
            subject=Subject.JOB,
            key="f/a",
            reason=NEW,
            build=True,
        )
        assert cost_of(head, patch, jobs={"f": [old]}).after == 640.0

    def test_a_priority_costs_nothing(self) -> None:
        old = record(built_job("a", "a"), config=config_of(SMALL))
        head = revision(flow(values=SMALL | {"priority": 3}))
        assert cost_of(head, action(head, ActionType.PATCH, "a", old)) == Cost()

    def test_what_is_unknown_before_or_after_is_counted(self) -> None:
        old = record(built_job("a", "a"), config=config_of(SMALL))
        head = revision(flow(values={"worker": "sh", "resources": {}}))
        cost = cost_of(head, action(head, ActionType.PATCH, "a", old))
        assert (cost.patched, cost.patched_unknown, cost.known) == (0, 1, False)

    def test_the_old_worker_may_be_gone(self) -> None:
        old = record(built_job("a", "a"), config=config_of(SMALL | {"worker": "old"}))
        head = revision(flow(values=LARGE))
        patch = plan_of(action(head, ActionType.PATCH, "a", old))
        assert plan_cost(patch, head, ActualState().jobs, {}).patched_unknown == 1
        assert plan_cost(patch, head, {}, {"old": worker(scheduler_type="slurm")}).before == 4.0
