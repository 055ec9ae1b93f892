"""Random commits and random lives of jobs: after every reconcile each job has what the levels say.

The short form runs with the suite. ``RECONCILER_TEST_EDITS=<examples>`` makes it a campaign: that many
sequences, other ones each time, three times as long.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from reconciler.jobs.job_json import JobResponse, NewJob
from reconciler.jobs.transitions import move
from reconciler.model.actions import Subject
from reconciler.model.records import JobRecord
from reconciler.model.run_config import FIELDS, RunConfig
from reconciler.model.settings import Resources
from reconciler.model.states import ACTIVE, EDITABLE, PENDING, JobState
from tests.conformance.edits_model import CODE, NAMES, Edits, first_files
from tests.conformance.edits_world import CHAIN, Builds, EditWorld, find, new_job, told
from tests.conformance.reference_levels import ReferenceJob, effective

S = JobState

CAMPAIGN = int(os.environ.get("RECONCILER_TEST_EDITS", "0"))
"""Read before the fixture that clears the environment."""

STEPS: dict[JobState, list[JobState]] = {
    S.WAITING: [S.PAUSED, S.STOPPED, S.USER_STOPPED],
    S.READY: [S.CHECKED_OUT, S.CHECKED_OUT, S.CHECKED_OUT, S.PAUSED, S.STOPPED, S.USER_STOPPED],
    S.PAUSED: [S.READY, S.USER_STOPPED],
    S.FAILED: [S.READY],
    S.REMOTE_ERROR: [S.READY],
    S.STOPPED: [S.READY],
    S.USER_STOPPED: [S.READY],
    S.COMPLETED: [],
} | {state: [after, S.FAILED, S.REMOTE_ERROR, S.USER_STOPPED, S.READY]
     for state, after in itertools.pairwise((*CHAIN, S.REMOTE_ERROR))}  # fmt: skip
"""Where a job may go from where it is, by what happens to it or what a user does to it."""

Values = dict[str, Any]

Birth = tuple[str, Values]
"""Name and own run config of a job that is generated."""

BIRTHS: st.SearchStrategy[Birth] = st.tuples(
    st.sampled_from(NAMES), st.sampled_from([{}, {}, {"priority": 9}, {"priority": 0, "resources": {}}])
)


def paths_of(job: JobRecord) -> tuple[str, ...]:
    """Return the paths of a function. Flows with code of the campaign know its names there, too."""
    alias = job.function.replace("reconciler.examples", "campaign")
    return (job.function, alias) if job.flow in ("alpha", "coded") else (job.function,)


class Machine(RuleBasedStateMachine):
    """One repository; ``facts`` has, by the id of a record, what the reference must know of that job."""

    builds: Builds
    root: Path
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        root = self.root / str(next(self.numbers))
        self.world = EditWorld(root, self.builds, first_files(str(self.root)))
        self.world.repository.write("lib/campaign.py", CODE)
        self.edits = Edits(self.world.files)
        self.facts: dict[str, ReferenceJob] = {}
        self.python_config: dict[str, bool] = {}
        self.commands: dict[str | None, str | None] = {None: None}

    @initialize()
    def submit(self) -> None:
        self.world.submit()
        for job in self.world.jobs().values():
            own = CODED.get(job.path, {})
            self.facts[job.id] = ReferenceJob(job.flow, job.name, paths_of(job), own)
            self.python_config[job.id] = bool(own)
        self.check_jobs()
        self.generate_by(self.world.job("alpha/dos"), "addition", ("static", {}))

    # what happens -------------------------------------------------------------------------------------

    @rule(data=st.data(), number=st.integers(1, 3))
    def commit(self, data: st.DataObject, number: int) -> None:
        """Edit the repository one to three times, and reconcile."""
        for _ in range(number):
            note(f"edit: {self.edits.edit(data.draw)}")
        self.reconcile()

    @rule(data=st.data(), number=st.integers(1, 6))
    def live(self, data: st.DataObject, number: int) -> None:
        """Let jobs move, and reconcile."""
        for _ in range(number):
            movable = sorted(path for path, job in self.world.jobs().items() if STEPS[job.state])
            if movable:
                job = self.world.job(data.draw(st.sampled_from(movable)))
                self.move(job, data.draw(st.sampled_from(STEPS[job.state])))
        self.reconcile()

    @rule(data=st.data(), kind=st.sampled_from(["addition", "detour", "replace", "both"]))
    def generate(self, data: st.DataObject, kind: str) -> None:
        """Complete a job, which asks for more jobs. What they get at birth is what a plan would give them."""
        able = sorted(path for path, job in self.world.jobs().items() if job.state in (*ACTIVE, S.READY))
        if not able:
            return
        job = self.world.job(data.draw(st.sampled_from(able)))
        self.generate_by(job, kind, data.draw(BIRTHS), data.draw(BIRTHS))

    def generate_by(self, job: JobRecord, kind: str, birth: Birth, replacement: Birth = ("", {})) -> None:
        note(f"{job.path} ({job.state}) completes with {kind}: {birth}, {replacement}")
        response: dict[str, list[NewJob]] = {}
        if kind in ("replace", "both"):
            response["replace"] = [self.born(job, job.uuid, job.index + 1, *replacement)]
        if kind != "replace":
            uuid = f"00000000-0000-4000-8000-{len(self.facts):012}"
            response["addition" if kind == "both" else kind] = [self.born(job, uuid, 1, *birth)]
        self.world.complete(job.path, msgspec.convert(response, JobResponse))
        self.check_jobs()
        assert told(self.world.plan().effective) == {}, "generated jobs are no drift"

    def born(self, generator: JobRecord, uuid: str, index: int, name: str, own: Values) -> NewJob:
        """What jobflow passes on stands where a job's own run config stands: then it has none of its own."""
        inherits = generator.path != "coded/static"
        passed = inherits and self.python_config[generator.id]
        self.facts[f"{uuid}_{index}"] = ReferenceJob(
            generator.flow, name, ("reconciler.examples.value",), {} if passed else own,
            self.facts[generator.id], inherits,
        )  # fmt: skip
        self.python_config[f"{uuid}_{index}"] = bool(own)
        return new_job(name, uuid, index, **own)

    # one step, and what must hold after it ------------------------------------------------------------

    def move(self, job: JobRecord, state: JobState) -> None:
        """A deferred patch is applied by the very move that makes its job editable."""
        note(f"{job.path}: {job.state} -> {state}")
        self.world.clock += 1
        moved = self.world.store.write(lambda writer: move(writer, job, state, self.world.clock))
        assert moved == self.world.job(job.path)
        if state in EDITABLE and job.wanted is not None:
            assert (moved.config, moved.wanted) == (job.wanted, None)
        else:
            assert (moved.config, moved.wanted) == (job.config, job.wanted)

    def reconcile(self) -> None:
        """One pass, and a second one that has nothing to do."""
        before, events = self.world.jobs(), self.world.count_events()
        plan = self.world.reconcile()
        self.learn_commands()
        after = self.world.jobs()
        for path, job in before.items():
            assert after[path].state is job.state, f"{path} changed its state"
            kept = self.values(after[path].config) == self.values(job.config)
            assert job.editable or kept, f"{path} is {job.state}"
        changed = {path for path in after if after[path] != before[path]}
        patched = {one.key for one in plan.effective if one.subject is Subject.JOB}
        assert changed == patched | {one.key for one in plan.restated}
        assert self.world.count_events() == events + len(plan.effective), "one event for each action"
        self.check_jobs()
        again = self.world.apply()
        assert (told(again.effective), again.restated) == ({}, ())
        assert (self.world.jobs(), self.world.count_events()) == (after, events + len(plan.effective))

    def learn_commands(self) -> set[str | None]:
        """Learn what digests stand for, and return those that the executor knows now."""
        with self.world.store.read() as view:
            config = view.config()
        assert config is not None
        self.commands |= {digest: spec.pre_run for digest, spec in config.commands.items()}
        return {None, *config.commands}

    def check_jobs(self) -> None:
        """Every job has what the reference gives it or, while it is not editable, waits for it."""
        known = self.learn_commands()
        for job in self.world.jobs().values():
            wanted = self.expected(self.now(self.facts[job.id]))
            has = self.values(job.config)
            if has == wanted:
                assert job.wanted is None, job.path
            else:
                assert not job.editable, f"{job.path} has {has}, not {wanted}"
                assert job.wanted is not None and self.values(job.wanted) == wanted, job.path
            if job.state in ACTIVE or job.state in PENDING:
                assert job.config.commands in known, "what the job is to run is known"

    def now(self, fact: ReferenceJob) -> ReferenceJob:
        """What a job of a manifest says itself is what that says by now."""
        if fact.generator is not None:
            return replace(fact, generator=self.now(fact.generator))
        jobs = find(self.world.files, "Flow", fact.flow)["spec"].get("jobs", [])
        for one in jobs:
            if one.get("name", one["id"]) == fact.name:
                return replace(fact, own=one, functions=(*fact.functions, one["function"]))
        return fact

    def expected(self, fact: ReferenceJob) -> Values:
        """What the reference gives a job, with what it is to run by its ExecConfig's name."""
        found = effective(self.world.files, fact)
        name = found["exec_config"]
        named = isinstance(name, str)
        return found | {
            "commands": find(self.world.files, "ExecConfig", name)["spec"]["pre_run"] if named else None
        }

    def values(self, config: RunConfig) -> Values:
        """What a run config of the product says, in the same form."""
        found: Values = {field: config.value(field) for field in FIELDS}
        if isinstance(found["resources"], Resources):
            values, generic = found["resources"].values, found["resources"].generic
            found["resources"] = {"qresources": values} if generic else values
        return found | {"commands": self.commands[config.commands]}

    def teardown(self) -> None:
        self.world.close()


CODED = {"coded/relax coded": {"priority": 2, "resources": {}}}
"""What jobs say themselves in Python."""


def test_every_job_has_what_the_levels_say(builds: Builds, tmp_path: Path) -> None:
    Machine.builds, Machine.root = builds, tmp_path
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=CAMPAIGN or 8,
            stateful_step_count=40 if CAMPAIGN else 14,
            derandomize=not CAMPAIGN,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink) if CAMPAIGN else (Phase.generate,),
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
