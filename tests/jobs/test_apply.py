"""A plan does the same to the records in the store and to those in memory: there is one interpreter."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.jobs.apply import PlanApplication
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState
from reconciler.model.flows import BuiltFlow
from reconciler.model.manifests import FlowSpec, Prune
from reconciler.model.records import FlowRecord, GeneratedBy, JobAttempt, JobRecord, RetryStatus
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.interpreter import carried_out
from reconciler.plan.planner import make_plan
from tests.plan.plan_support import built, desired, flow, rule

NOW = 1000.0


class Records:
    """A store to which plans are applied, each compared with what the interpreter makes of it."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.now = NOW

    def actual(self, builds: dict[str, BuiltFlow]) -> ActualState:
        with self.store.read() as view:
            flows = {one.name: one for one in view.flows()}
            return ActualState(flows=flows, jobs={name: view.jobs_of(name) for name in flows}, built=builds)

    def apply(self, wanted: DesiredState, builds: dict[str, BuiltFlow]) -> list[str]:
        """Apply a revision both ways, check that the records are the same, return what the plan did."""
        self.now += 10
        before = self.actual(builds)
        plan = make_plan(wanted, before, allow_prune=True)
        foreseen = carried_out(plan, before, self.now)

        def write(writer: Writer) -> None:
            for one in builds.values():
                writer.put_build(one)
            PlanApplication(writer, plan, "p", builds, self.now).carry_out()

        self.store.write(write)
        after = self.actual(builds)
        assert after.flows == foreseen.flows
        assert plain(after) == plain(foreseen)
        return [f"{action.type} {action.key}" for action in plan.effective]

    def change(self, key: str, **fields: Any) -> None:
        """Change the record of a current job."""

        def write(writer: Writer) -> None:
            writer.put_job(msgspec.structs.replace(self.job(key), **fields))

        self.store.write(write)

    def job(self, key: str) -> JobRecord:
        """Return a current job."""
        found = [job for jobs in self.actual({}).jobs.values() for job in jobs if job.path == key]
        return next(job for job in found if job.current)

    def generate(self, key: str, child: str) -> None:
        """Let a completed job have generated another one."""

        def write(writer: Writer) -> None:
            parent = self.job(key)
            number = writer.next_number("sequence")
            writer.put_job(
                JobRecord(
                    uuid=f"child of {parent.uuid}",
                    index=1,
                    flow=parent.flow,
                    key=child,
                    name=child,
                    function="m.child",
                    state=JobState.COMPLETED,
                    config=parent.config,
                    content="",
                    generated_by=GeneratedBy(uuid=parent.uuid, attempt=parent.attempt.number),
                    sequence=number,
                )
            )

        self.store.write(write)


def plain(state: ActualState) -> dict[str, list[JobRecord]]:
    """Return the jobs by flow, oldest first. Whether a waiting job is READY is decided elsewhere."""
    found = {}
    for name in state.flows:
        jobs = sorted(state.jobs.get(name, ()), key=lambda job: (job.sequence, job.id))
        found[name] = [
            msgspec.structs.replace(job, sequence=number, state=JobState.WAITING, updated=0.0)
            if job.state in (JobState.READY, JobState.WAITING)
            else msgspec.structs.replace(job, sequence=number)
            for number, job in enumerate(jobs)
        ]
    return found


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "state")


def submitted(records: Records, **fields: Any) -> None:
    one = flow(jobs=("a", "b", "c"), **fields)
    assert records.apply(desired(one), {"f": built(one)})


@pytest.mark.parametrize("state", list(JobState))
class TestInEachState:
    """What reaches a job depends on its state."""

    def test_patch_and_take_back(self, records: Records, state: JobState) -> None:
        submitted(records)
        records.change("f/a", state=state)
        one = flow(jobs=("a", "b", "c"))
        moved = desired(one, rules=[rule("r", {"worker": "w2"}, name_filter="a")])
        assert records.apply(moved, {"f": built(one)})
        assert (records.job("f/a").wanted is not None) is (state in ACTIVE)
        assert records.apply(desired(one), {"f": built(one)})

    def test_edit_and_revert(self, records: Records, state: JobState) -> None:
        submitted(records)
        records.change("f/a", state=state, error="it failed", parents=["f-b", "x"])
        one = flow(jobs=("a", "b", "c"))
        assert "Replace f/a" in records.apply(desired(one), {"f": built(one, a="new")})
        rules = [rule("r", {"priority": 3})]
        assert "Submit f/a" not in records.apply(desired(one, rules=rules), {"f": built(one, a="new")})
        records.apply(desired(one, rules=rules), {"f": built(one)})
        assert records.job("f/a").uuid == "f-a"

    def test_suspend_and_resume(self, records: Records, state: JobState) -> None:
        submitted(records)
        records.change("f/a", state=state)
        one = flow(jobs=("a", "b", "c"), spec=FlowSpec(jobs=[], suspend=True))
        assert records.apply(desired(one), {"f": built(one)}) == ["Patch f"]
        one = flow(jobs=("a", "b", "c"))
        assert records.apply(desired(one), {"f": built(one)}) == ["Patch f"]

    def test_rerun(self, records: Records, state: JobState) -> None:
        submitted(records)
        records.change("f/a", state=state, error="it failed", retry=RetryStatus(causes=["oom"]), cause="oom")
        one = flow(jobs=("a", "b", "c"), spec=FlowSpec(jobs=[], rerun="1"))
        assert records.apply(desired(one), {"f": built(one)})[0] == "Patch f"

    @pytest.mark.parametrize("prune", list(Prune))
    def test_remove_and_bring_back(self, records: Records, state: JobState, prune: Prune) -> None:
        submitted(records, prune=prune)
        records.change("f/a", state=state)
        assert records.apply(desired(), {})
        one = flow(jobs=("a", "b", "c"))
        assert records.apply(desired(one), {"f": built(one)})


def test_new_metadata_of_a_flow(records: Records) -> None:
    submitted(records)
    records.change("f/b", state=JobState.COMPLETED)
    records.change("f/c", state=JobState.RUNNING)
    one = flow(jobs=("a", "b", "c"))
    build = msgspec.structs.replace(built(one), build_key="another", code=["new tree"])
    jobs = [msgspec.structs.replace(job, name=f"new {job.name}") for job in build.jobs]
    records.apply(desired(one), {"f": msgspec.structs.replace(build, jobs=jobs)})
    assert (records.job("f/a").code, records.job("f/b").code) == (["new tree"], [])
    assert records.job("f/c").name == "new c"


def test_generated_jobs_leave_with_their_generator_and_come_back(records: Records) -> None:
    submitted(records)
    records.change("f/a", state=JobState.COMPLETED, attempt=JobAttempt(number=1))
    records.generate("f/a", "child")
    one = flow(jobs=("a", "b", "c"))
    assert "Forget f/child" in records.apply(desired(one), {"f": built(one, a="new")})
    assert "Submit f/child" in records.apply(desired(one), {"f": built(one)})


def test_a_new_name(records: Records) -> None:
    submitted(records)
    one = flow("g", jobs=("a", "b", "c"), previous_names=["f"], identity="identity of f")
    jobs = built(flow(jobs=("a", "b", "c")))
    records.apply(desired(one), {"g": jobs})
    assert records.job("g/a").uuid == "f-a"


def test_values_from_elsewhere(records: Records) -> None:
    submitted(records, values={"worker": "w1"})
    one = flow(jobs=("a", "b", "c"))
    records.apply(desired(one, rules=[rule("r", {"worker": "w1"})]), {"f": built(one)})
    origin = records.job("f/a").config.worker
    assert origin is not None and origin.origin.name == "r"


@pytest.mark.parametrize("seed", range(15))
def test_random_edits(records: Records, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(12):
        flows = {}
        for name in dice.sample(("f", "g", "h"), dice.randint(0, 3)):
            spec = FlowSpec(jobs=[], suspend=dice.random() < 0.3, rerun=dice.choice((None, "1", "2")))
            keys = dice.sample(("a", "b", "c", "d"), dice.randint(1, 4))
            flows[name] = flow(name, keys, spec=spec, prune=dice.choice(list(Prune)))
        builds = {
            name: built(one, **{job.key: f"{job.key}{dice.choice((1, 2))}" for job in one.preview})
            for name, one in flows.items()
        }
        names = dice.sample("abcd", dice.randint(0, 2))
        rules = [rule(f"r{name}", {"worker": dice.choice(("w1", "w2"))}, name_filter=name) for name in names]
        records.apply(desired(*flows.values(), rules=rules), builds)
        for jobs in records.actual({}).jobs.values():
            for job in jobs:
                if job.current and dice.random() < 0.4:
                    records.change(job.path, state=dice.choice(list(JobState)))


def test_records_of_flows_are_compared(records: Records) -> None:
    submitted(records)
    (found,) = records.actual({}).flows.values()
    assert found == FlowRecord(
        name="f", identity="identity of f", build_key="build of f ", revision="main@1234567", created=1010.0
    )
