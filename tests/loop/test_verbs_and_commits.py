"""Verbs beside commits: what a person asked for stays so in the next reconcile; ``spec.rerun`` of a flow."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from reconciler.actual.writer import Writer
from reconciler.jobs.dependencies import release_dependants
from reconciler.jobs.operations import OperationRunner
from reconciler.jobs.responses import fail
from reconciler.jobs.transitions import move
from reconciler.model.actions import Action, Subject
from reconciler.model.operations import JobOperation
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import JobAttempt, JobRecord, RetryStatus
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.operations import OperationPlanner
from tests.loop.worlds import SharedBuilder, Silent, World

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: f}
    spec:
      {{SPEC}}
      jobs:
        - {id: a, function: reconciler.examples.value, args: [1]}
        - {id: b, function: reconciler.examples.add, args: [{$output: a}, 2]}
        - {id: c, function: reconciler.examples.value, args: [3]}
        - {id: d, function: reconciler.examples.value, args: [4]}
    """


class Campaign:
    """One flow, whose jobs the test moves by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = 5000.0

    def commit(self, spec: str = "", flow: str = FLOW) -> None:
        self.world.repository.write_yaml("flows/f.yaml", flow.replace("{{SPEC}}", spec))
        self.world.repository.commit(spec or "none")

    def reconcile(self, spec: str | None = None, flow: str = FLOW) -> list[Action]:
        """Commit a spec, reconcile, and return what was done; a second plan must be empty."""
        if spec is not None:
            self.commit(spec, flow)
        self.world.build()
        plan = self.world.session().reconcile(Silent(), allow_prune=True).plan
        assert self.world.plan().effective == ()
        return list(plan.effective)

    def put(self, **states: JobState) -> None:
        """Bring jobs to states, as if they had run."""

        def write(writer: Writer) -> None:
            for key, state in states.items():
                job = self.job(key)
                move(
                    writer,
                    job,
                    state,
                    self.clock,
                    attempt=JobAttempt(number=1),
                    error="x" if state is JobState.FAILED else None,
                )
                release_dependants(writer, job.uuid, self.clock)

        self.world.store.write(write)

    def job(self, key: str) -> JobRecord:
        (job,) = (job for job in self.world.jobs() if job.key == key and job.current)
        return job

    def states(self) -> str:
        return " ".join(self.job(key).state.value for key in "abcd")

    def operate(self, operation: str, jobs: Sequence[JobRecord], *, descendants: bool = False) -> None:
        def write(writer: Writer) -> None:
            known = [job for one in jobs if (job := writer.job(one.id)) is not None]
            plan = OperationPlanner(writer, ["w1", "w2"]).plan(
                JobOperation(operation), known, descendants=descendants
            )
            OperationRunner(writer, plan, "ada", f"reconcile {operation}", self.clock).carry_out()

        self.world.store.write(write)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedBuilder]:
    shared = SharedBuilder(tmp_path_factory.mktemp("builds"))
    yield shared
    shared.close()


@pytest.fixture
def campaign(tmp_path: Path, builder: SharedBuilder) -> Iterator[Campaign]:
    world = World(tmp_path, builder)
    made = Campaign(world)
    made.reconcile("")
    yield made
    world.check_sound()
    world.close()


INDIFFERENT = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: held}
    spec:
      on_change: hold
      jobs:
        - id: x
          function: reconciler.examples.add
          args: [{$output: f/d}, 1]
          config: {on_missing_references: none}
    """


class TestWhoDoesNotMind:
    """Flow ``held`` goes on with what it was made of, and takes None for the result of f/d."""

    @pytest.fixture
    def both(self, campaign: Campaign) -> Campaign:
        campaign.world.repository.write_yaml("flows/held.yaml", INDIFFERENT)
        campaign.reconcile("")
        assert self.state(campaign) == "WAITING"
        return campaign

    def state(self, campaign: Campaign) -> str:
        (job,) = (job for job in campaign.world.jobs() if job.flow == "held")
        return job.state.value

    def test_goes_on_without_a_job_whose_flow_was_removed(self, both: Campaign) -> None:
        both.world.repository.remove("flows/f.yaml")
        both.world.repository.commit()
        both.world.session().reconcile(Silent(), allow_prune=True)
        assert self.state(both) == "READY"

    @pytest.mark.parametrize("state", [JobState.READY, JobState.FAILED])
    def test_goes_on_without_a_job_that_newer_content_replaced(self, both: Campaign, state: JobState) -> None:
        waits_for_a_retry = msgspec.structs.replace(
            both.job("d"),
            state=state,
            retry=RetryStatus(at=9e9 if state is JobState.FAILED else None, causes=["oom"]),
        )
        both.world.store.write(lambda writer: writer.put_job(waits_for_a_retry))
        both.reconcile("", FLOW.replace("args: [4]", "args: [5]"))
        assert self.state(both) == "READY"

    def test_waits_until_one_that_runs_has_ended(self, both: Campaign) -> None:
        both.put(d=JobState.RUNNING)
        old = both.job("d").id
        both.reconcile("", FLOW.replace("args: [4]", "args: [5]"))
        assert self.state(both) == "WAITING"
        both.world.store.write(lambda writer: _end(writer, old))
        assert self.state(both) == "READY"


class TestToken:
    def test_failed_and_cancelled_jobs_run_again_once(self, campaign: Campaign) -> None:
        campaign.put(a=JobState.FAILED, c=JobState.COMPLETED)
        campaign.operate("cancel", [campaign.job("d")])
        assert campaign.states() == "FAILED WAITING COMPLETED USER_STOPPED"
        done = campaign.reconcile("rerun: one")
        assert [(action.key, action.reason) for action in done] == [
            ("f", Reason(ReasonCode.FLOW_CHANGED)),
            ("f/a", Reason(ReasonCode.RERUN, {"state": JobState.FAILED})),
            ("f/d", Reason(ReasonCode.RERUN, {"state": JobState.USER_STOPPED})),
        ]
        assert campaign.states() == "READY WAITING COMPLETED READY"
        campaign.put(a=JobState.REMOTE_ERROR)
        assert campaign.reconcile("rerun: one  # the same") == []
        assert [action.key for action in campaign.reconcile("rerun: 2")] == ["f", "f/a"]
        campaign.put(a=JobState.FAILED)
        assert [action.key for action in campaign.reconcile("")] == ["f"], "taking the word away runs nothing"

    def test_on_a_new_flow_it_does_nothing(self, tmp_path: Path, builder: SharedBuilder) -> None:
        world = World(tmp_path, builder)
        campaign = Campaign(world)
        campaign.reconcile("rerun: 1")
        campaign.put(a=JobState.FAILED)
        assert campaign.reconcile() == []
        world.close()

    def test_with_a_new_run_config_for_both(self, campaign: Campaign) -> None:
        campaign.put(a=JobState.FAILED, c=JobState.FAILED)
        campaign.operate("cancel", [campaign.job("d")])
        campaign.reconcile("{rerun: 1, worker: w2}".strip("{}").replace(", ", "\n      "))
        assert campaign.states() == "READY WAITING READY READY"
        assert {campaign.job(key).config.worker_name for key in "abcd"} == {"w2"}

    def test_of_a_flow_that_is_held(self, campaign: Campaign) -> None:
        campaign.put(a=JobState.FAILED)
        changed = FLOW.replace("args: [4]", "args: [5]")
        actions = campaign.reconcile("on_change: hold\n      rerun: 1", changed)
        assert [action.key for action in actions if action.subject is Subject.JOB] == ["f/a"]
        assert campaign.states() == "READY WAITING READY READY"

    def test_what_leaves_does_not_run_again(self, campaign: Campaign) -> None:
        campaign.put(c=JobState.FAILED, d=JobState.FAILED)
        changed = FLOW.replace("args: [4]", "args: [5]")
        campaign.reconcile("rerun: 1", changed)
        assert campaign.states() == "READY WAITING READY READY"
        old = [job for job in campaign.world.jobs() if not job.current]
        assert [job.state for job in old] == [JobState.FAILED]

    def test_while_a_rule_is_broken_it_waits(self, campaign: Campaign) -> None:
        campaign.put(a=JobState.FAILED)
        broken = campaign.world.repository.write_yaml(
            "rules/r.yaml",
            "apiVersion: reconciler/v1\nkind: OverrideRule\nmetadata: {name: r}\nspec: {set: {worker: 3}}\n",
        )
        campaign.commit("rerun: 1")
        campaign.world.session().reconcile(Silent(), allow_prune=True)
        assert campaign.states() == "FAILED WAITING READY READY"
        broken.unlink()
        assert [action.key for action in campaign.reconcile("rerun: 1")] == ["f", "f/a"]


class TestWhatAPersonAskedFor:
    def test_the_end_of_a_suspension_leaves_paused_what_was_paused_by_hand(self, campaign: Campaign) -> None:
        campaign.operate("pause", [campaign.job("c")])
        campaign.reconcile("suspend: true")
        assert campaign.states() == "PAUSED PAUSED PAUSED PAUSED"
        campaign.reconcile("suspend: false")
        assert campaign.states() == "READY WAITING PAUSED READY"
        campaign.operate("resume", [campaign.job("c")])
        campaign.reconcile("priority: 3")
        assert campaign.states() == "READY WAITING READY READY"

    def test_a_removed_flow_does_not_run_again(self, campaign: Campaign) -> None:
        campaign.put(c=JobState.RUNNING)
        campaign.operate("rerun", [campaign.job("c")])
        job = campaign.job("c")
        campaign.world.repository.remove("flows/f.yaml")
        campaign.world.repository.commit()
        campaign.world.session().reconcile(Silent(), allow_prune=True)
        campaign.world.store.write(lambda writer: _end(writer, job.id))
        assert [job.state for job in campaign.world.jobs()] == [JobState.USER_STOPPED] * 4

    def test_metadata_and_code_of_the_present_build_reach_a_job_that_runs_again(
        self, campaign: Campaign
    ) -> None:
        campaign.put(a=JobState.COMPLETED)
        campaign.reconcile("", FLOW.replace("{id: a, ", "{id: a, name: first, "))
        campaign.operate("rerun", [campaign.job("a")])
        job = campaign.job("a")
        with campaign.world.store.read() as view:
            payload = view.payload(job.id) or b""
        assert (job.state, b'"name":"first"' in payload.replace(b": ", b":")) == (JobState.READY, True)
        campaign.reconcile("", FLOW)

    def test_random_verbs_leave_nothing_to_reconcile(self, campaign: Campaign) -> None:
        source = random.Random(7)
        numbers = itertools.count()
        for _ in range(60):
            self._live(campaign, source)
            campaign.operate(
                source.choice(["retry", "rerun", "pause", "resume", "cancel"]),
                [campaign.job(key) for key in source.sample("abcd", source.randint(1, 3))],
                descendants=source.random() < 0.3,
            )
            assert campaign.world.plan().effective == ()
            campaign.world.check_sound()
            if source.random() < 0.2:
                campaign.reconcile(
                    source.choice([f"priority: {next(numbers)}", "suspend: true", f"rerun: {next(numbers)}"])
                )

    def _live(self, campaign: Campaign, source: random.Random) -> None:
        for key in "abcd":
            job = campaign.job(key)
            if source.random() < 0.5:
                continue
            if job.state is JobState.READY:
                campaign.put(**{key: source.choice(sorted(ACTIVE))})
            elif job.state in ACTIVE and (job.cancelling or source.random() < 0.5):
                campaign.world.store.write(lambda writer, job=job: _end(writer, job.id))  # type: ignore[misc]
            elif job.state in ACTIVE:
                campaign.put(**{key: JobState.COMPLETED})


def _end(writer: Writer, job_id: str) -> None:
    job = writer.job(job_id)
    assert job is not None
    fail(writer, job, "killed", 6000.0)
