"""Table B of the conformance list: editing jobs that exist. The number of a test is the number of its case.

A commit is the setter. Real repositories, the real store, sessions in this process; where the life of the
job is the point, it really runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.jobs.job_json import JobResponse
from reconciler.loop import reconcile_once
from reconciler.model.actions import Plan
from reconciler.model.reasons import Reason, ReasonCode
from reconciler.model.records import JobRecord
from reconciler.model.states import ACTIVE, EDITABLE, JobState
from tests.conformance.edits_cases import base_files, rule
from tests.conformance.edits_world import EditWorld, MakeWorld, document, find, new_job, told
from tests.conformance.support import Silent
from tests.support import Reconcile, Repository, minimal_project

STATES = sorted(EDITABLE | ACTIVE)
FIELDS: dict[str, tuple[Any, Any, Any]] = {
    "worker": ("w2", "w1", "w2"),
    "exec_config": ("ec2", "ec1", "ec2"),
    "resources": ({}, {"qverbatim": "# flow"}, {}),
    "priority": (0, 5, 0),
}
"""By field: what a rule sets, what the plan shows as old and as new. Empty and zero are values."""


@pytest.fixture
def world(make_world: MakeWorld, tmp_path: Path) -> EditWorld:
    """One job for each state that may be edited, and for each that may not; all with values of the flow."""
    files = base_files(str(tmp_path))
    jobs = [
        {"id": state.lower(), "function": "reconciler.examples.value", "args": [number]}
        for number, state in enumerate(STATES)
    ]
    values = {"worker": "w1", "exec_config": "ec1", "resources": {"qverbatim": "# flow"}, "priority": 5}
    made = make_world(
        {name: files[name] for name in ("reconciler.yaml", "workers/all.yaml", "exec_configs/all.yaml")}
        | {"flows/states.yaml": [document("Flow", "states", values | {"jobs": jobs})]}
    )
    for state in STATES:
        if state is not JobState.READY:
            made.place(f"states/{state.lower()}", state)
    return made


def path_of(state: JobState) -> str:
    return f"states/{state.lower()}"


def set_by_rule(world: EditWorld, **values: Any) -> None:
    world.files["rules/edit.yaml"] = [rule("edit", values)]


def held(job: JobRecord) -> dict[str, Any]:
    """What must stay of a job that is not editable."""
    return msgspec.structs.asdict(job) | {"deferred": None}


def shown(job: JobRecord, field: str) -> Any:
    value = job.config.value(field)
    return value.values if field == "resources" else value


# B1 - B4: which states -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
def test_b1_editable_jobs_are_patched(world: EditWorld, field: str) -> None:
    value, old, new = FIELDS[field]
    set_by_rule(world, **{field: value})
    plan = world.reconcile()
    for state in sorted(EDITABLE):
        path = path_of(state)
        assert told(plan.effective)[f"Patch {path}"] == {field: (old, new)}
        job = world.job(path)
        assert (job.state, shown(job, field), job.wanted) == (state, value, None)
        patched = world.events(path)[-1]
        assert (patched.type, [change.field for change in patched.changes]) == ("Patched", [field])


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "priority"])
def test_b2_the_six_other_states_wait(world: EditWorld, field: str) -> None:
    check_deferred(world, field)


def test_b3_so_does_priority(world: EditWorld) -> None:
    check_deferred(world, "priority")


def check_deferred(world: EditWorld, field: str) -> None:
    value, old, new = FIELDS[field]
    before = world.jobs()
    set_by_rule(world, **{field: value})
    plan = world.reconcile()
    for state in sorted(ACTIVE):
        path = path_of(state)
        assert told(plan.effective)[f"Defer {path}"] == {field: (old, new)}
        action = next(one for one in plan.actions if one.key == path)
        assert action.reason == Reason(ReasonCode.NOT_EDITABLE, {"state": state})
        job = world.job(path)
        assert held(job) == held(before[path])
        assert (
            job.wanted is not None and shown(msgspec.structs.replace(job, config=job.wanted), field) == value
        )
        deferred = world.events(path)[-1]
        assert (deferred.type, deferred.message) == ("Deferred", str(action.reason))
    assert len(plan.effective) == len(STATES), "nothing else is done"
    for state in sorted(ACTIVE):
        check_applied_once_editable(world, path_of(state), field, value)
    assert told(world.apply().effective) == {}


def check_applied_once_editable(world: EditWorld, path: str, field: str, value: Any) -> None:
    """By the very transaction that makes the job editable; no reconcile is needed."""
    events = len(world.events(path))
    job = world.place(path, JobState.FAILED)
    assert (shown(job, field), job.wanted) == (value, None)
    kinds = [(one.type, [change.field for change in one.changes]) for one in world.events(path)[events:]]
    assert kinds[-1] == ("Patched", [field])
    assert kinds.count(kinds[-1]) == 1


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_b4_two_fields_at_once_change_no_running_job_either(world: EditWorld, state: JobState) -> None:
    before = world.job(path_of(state))
    set_by_rule(world, priority=9, resources={})
    plan = world.reconcile()
    assert told(plan.effective)[f"Defer {path_of(state)}"] == {
        "priority": (5, 9),
        "resources": ({"qverbatim": "# flow"}, {}),
    }
    assert held(world.job(path_of(state))) == held(before)


def test_b2_what_waits_may_change_or_be_taken_back(world: EditWorld) -> None:
    running = path_of(JobState.RUNNING)
    set_by_rule(world, priority=7)
    world.reconcile()
    set_by_rule(world, priority=8, worker="w2")
    assert told(world.reconcile().effective)[f"Defer {running}"] == {
        "priority": (5, 8),
        "worker": ("w1", "w2"),
    }
    wanted = world.job(running).wanted
    assert wanted is not None and (wanted.priority_value, wanted.worker_name) == (8, "w2")
    del world.files["rules/edit.yaml"]
    assert running in {action.key for action in world.reconcile().effective}
    assert world.job(running).wanted is None
    job = world.place(running, JobState.COMPLETED)
    assert (job.config.priority_value, job.config.worker_name) == (5, "w1")


# a job that really runs ------------------------------------------------------------------------------------

GATE = """
    import time
    from pathlib import Path

    from jobflow import job


    @job
    def wait_for(path):
        while not Path(path).exists():
            time.sleep(0.02)
        return path
    """


def test_b2_a_job_is_edited_while_it_runs(
    repository: Repository, reconcile: Reconcile, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    minimal_project(repository, tmp_path / "work")
    text = (repository.path / "reconciler.yaml").read_text()
    repository.write("reconciler.yaml", text.replace("defaults:", "python_path: [lib]\n  defaults:"))
    repository.write_yaml("lib/gates.py", GATE)
    jobs = [{"id": "long", "function": "gates.wait_for", "args": [str(gate)]}]
    repository.write("flows/slow.yaml", json.dumps(document("Flow", "slow", {"jobs": jobs})))
    repository.commit()
    assert reconcile("--once").returncode == 0
    started = asked(reconcile, "describe", "job", "slow/long")
    assert started["state"] in ("SUBMITTED", "RUNNING")

    repository.write("rules/edit.yaml", json.dumps(rule("edit", {"priority": 7, "worker": "w2"})))
    repository.commit("hurry", author="Ben Setter <ben@example.invalid>")
    planned = reconcile("plan").stdout
    assert "! job  slow/long" in planned and "is not editable; applied as soon as it is" in planned
    assert reconcile("--once").returncode == 0

    (row,) = asked(reconcile, "get", "jobs")
    assert (row["worker"], row["priority"]) == ("w1", 0)
    assert row["deferred"] == {"worker": "w2", "priority": 7}
    assert "! deferred:" in reconcile("describe", "job", "slow/long").stdout
    (flow,) = asked(reconcile, "get", "flows")
    assert flow["sync"] == "OutOfSync" and "deferred" in flow["reason"]
    plan = asked(reconcile, "plan")
    assert [(action["action"], action["key"]) for action in plan["actions"]] == [("Keep", "slow/long")]
    assert sum(plan["summary"].values()) == 0, "it waits already"
    planned = reconcile("plan", "--exit-code")
    assert planned.returncode == 0 and "! job  slow/long" in planned.stdout
    assert "no changes; 1 job with a deferred change" in planned.stdout

    gate.touch()
    assert reconcile("--once", "--wait").returncode == 0
    ended = asked(reconcile, "describe", "job", "slow/long")
    assert (ended["state"], ended["attempt"], ended["run_dir"]) == ("COMPLETED", 1, started["run_dir"])
    assert (ended["worker"], ended["priority"], ended["deferred"]) == ("w2", 7, None)
    assert ended["run_worker"] == "w1", "where it really ran"
    happened = asked(reconcile, "events", "--for", "job/slow/long")
    kinds = [event["type"] for event in happened]
    assert kinds.count("Deferred") == kinds.count("Patched") == 1
    assert kinds.index("Deferred") < kinds.index("Patched")
    patched = happened[kinds.index("Patched")]
    assert {change["field"]: (change["old"], change["new"]) for change in patched["changes"]} == {
        "worker": ("w1", "w2"),
        "priority": (None, 7),
    }
    assert {change["author"] for change in patched["changes"]} == {"Ben Setter <ben@example.invalid>"}
    (flow,) = asked(reconcile, "get", "flows")
    assert (flow["sync"], flow["health"]) == ("Synced", "Healthy")


def asked(reconcile: Reconcile, *arguments: str) -> Any:
    """Return what a verb answers."""
    done = reconcile(*arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# B5: jobs that are done ------------------------------------------------------------------------------------


def test_b5_a_completed_job_is_patched_but_never_runs_again(world: EditWorld) -> None:
    path = path_of(JobState.COMPLETED)
    before = world.job(path)
    set_by_rule(world, worker="w2", priority=9)
    world.reconcile()
    job = world.job(path)
    assert (job.config.worker_name, job.config.priority_value) == ("w2", 9)
    for field in ("state", "attempt", "current", "content"):
        assert getattr(job, field) == getattr(before, field)
    with world.store.read() as view:
        ready = {found.path for found in view.in_state(JobState.READY)}
    assert ready == {path_of(JobState.READY)}


def test_b5_it_counts_when_it_runs_again_and_for_what_it_generates_then(world: EditWorld) -> None:
    path = path_of(JobState.COMPLETED)
    set_by_rule(world, worker="w2")
    world.files["rules/edit.yaml"][0]["spec"]["name_filter"] = "completed"
    world.reconcile()
    world.place(path, JobState.READY)
    with world.store.read() as view:
        assert path in {found.path for found in view.in_state(JobState.READY, "w2")}
    world.complete(path, JobResponse(addition=[new_job("born", "00000000-0000-4000-8000-000000000001")]))
    born = world.job("states/born").config.worker
    assert born is not None and (born.value, born.origin.level) == ("w2", "generator")
    assert told(world.plan().effective) == {}


# B6: taking values away ------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
def test_b6_a_key_that_is_removed_falls_to_the_next_level(world: EditWorld, field: str) -> None:
    value, old, _ = FIELDS[field]
    find(world.files, "Project", "cases")["spec"]["defaults"]["worker"] = "w3"
    set_by_rule(world, **({"priority": 1, "worker": "w1", field: value}))
    world.reconcile()
    del world.files["rules/edit.yaml"][0]["spec"]["set"][field]
    world.reconcile()
    job = world.job(path_of(JobState.READY))
    assert shown(job, field) == old, "the flow's own"
    del find(world.files, "Flow", "states")["spec"][field]
    world.reconcile()
    job = world.job(path_of(JobState.READY))
    setting = job.config.setting(field)
    assert (setting.value if setting is not None else None) == ("w3" if field == "worker" else None)


@pytest.mark.parametrize("field", ["exec_config", "resources"])
def test_b6_an_empty_value_is_none_at_all(world: EditWorld, field: str) -> None:
    """Nothing of weaker levels shows through."""
    find(world.files, "Worker", "w1")["spec"]["resources"] = {"qverbatim": "# of the worker"}
    set_by_rule(world, **{field: {}})
    world.reconcile()
    job = world.job(path_of(JobState.FAILED))
    assert shown(job, field) == {}
    assert job.config.setting(field) is not None


# B7: who changed it ----------------------------------------------------------------------------------------

RULE = """\
apiVersion: reconciler/v1
kind: OverrideRule
metadata: {name: hurry}
spec:
  name_filter: value
  set:
    priority: 9
"""


def test_b7_events_say_what_where_when_and_who(
    repository: Repository, reconcile: Reconcile, tmp_path: Path
) -> None:
    minimal_project(repository, tmp_path / "work")
    jobs = [{"id": "value", "function": "reconciler.examples.value", "args": [5]}]
    flow = document("Flow", "one", {"priority": 2, "jobs": jobs})
    repository.write("flows/one.yaml", json.dumps(flow))
    repository.commit()
    assert reconcile("--once", "--wait").returncode == 0
    repository.write("rules/hurry.yaml", RULE)
    added = repository.commit("hurry", author="Ben Setter <ben@example.invalid>")
    assert reconcile("--once").returncode == 0
    repository.remove("rules/hurry.yaml")
    removed = repository.commit("no hurry", author="Cleo Remover <cleo@example.invalid>")
    assert reconcile("--once").returncode == 0

    events = asked(reconcile, "events", "--for", "job/one/value")
    first, second = [event for event in events if event["type"] == "Patched"]
    (change,) = first["changes"]
    assert (change["field"], change["old"], change["new"]) == ("priority", 2, 9)
    where = change["provenance"]
    assert (where["level"], where["kind"], where["name"]) == ("rule", "OverrideRule", "hurry")
    assert (where["file"], where["line"]) == ("rules/hurry.yaml", 7)
    assert (change["commit"], change["author"]) == (added, "Ben Setter <ben@example.invalid>")
    assert change["time"] <= first["time"]
    assert first["revision"] == f"main@{added[:7]}"

    (change,) = second["changes"]
    assert (change["field"], change["old"], change["new"]) == ("priority", 9, 2)
    where = change["provenance"]
    assert (where["level"], where["file"], where["line"]) == ("flow", "flows/one.yaml", 1)
    assert (change["commit"], change["author"]) == (removed, "Cleo Remover <cleo@example.invalid>")


# B8: between plan and apply --------------------------------------------------------------------------------


class Meanwhile(Silent):
    """A watcher: something happens after the plan was made and before it is applied."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = happens

    def planned(self, plan: Plan) -> None:
        """The plan is made."""
        self.happens()


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_b8_a_job_that_leaves_meanwhile_is_not_patched(world: EditWorld, state: JobState) -> None:
    path = path_of(JobState.READY)
    set_by_rule(world, worker="w2", resources={}, priority=9)
    plan = world.reconcile(Meanwhile(lambda: world.place(path, state)))
    assert f"Patch {path}" in told(plan.effective), "when planning it was editable"
    job = world.job(path)
    assert (job.state, job.config.worker_name, job.config.priority_value) == (state, "w1", 5)
    assert job.wanted is not None and job.wanted.worker_name == "w2"
    deferred = world.events(path)[-1]
    assert (deferred.type, deferred.message.split()[0]) == ("Deferred", str(state))
    assert told(world.plan().effective) == {}
    job = world.place(path, JobState.COMPLETED)
    assert (job.config.worker_name, job.config.priority_value, job.wanted) == ("w2", 9, None)


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED, JobState.REMOTE_ERROR])
def test_b8_a_job_that_ends_meanwhile_is_patched(world: EditWorld, state: JobState) -> None:
    path = path_of(JobState.RUNNING)
    set_by_rule(world, worker="w2")
    plan = world.reconcile(Meanwhile(lambda: world.place(path, state)))
    assert f"Defer {path}" in told(plan.effective)
    job = world.job(path)
    assert (job.state, job.config.worker_name, job.wanted) == (state, "w2", None)
    assert world.events(path)[-1].type == "Patched"
    assert told(world.plan().effective) == {}


def test_b8_what_was_deferred_is_taken_back_although_it_was_applied_meanwhile(world: EditWorld) -> None:
    path = path_of(JobState.RUNNING)
    set_by_rule(world, worker="w2")
    world.reconcile()
    del world.files["rules/edit.yaml"]
    world.reconcile(Meanwhile(lambda: world.place(path, JobState.COMPLETED)))
    job = world.job(path)
    assert (job.config.worker_name, job.wanted) == ("w1", None)
    assert told(world.plan().effective) == {}


# B9 - B10 --------------------------------------------------------------------------------------------------


def test_b9_without_the_rule_every_job_has_what_the_other_levels_say(world: EditWorld) -> None:
    before = {path: job.config for path, job in world.jobs().items()}
    set_by_rule(world, worker="w2", exec_config={}, resources={}, priority=0)
    world.reconcile()
    del world.files["rules/edit.yaml"]
    plan = world.reconcile()
    assert {action.key for action in plan.effective} == {path_of(state) for state in STATES}
    for path, job in world.jobs().items():
        assert (job.config, job.wanted) == (before[path], None)


def test_b9_also_where_the_rule_is_all_that_gives_a_value(world: EditWorld) -> None:
    del find(world.files, "Flow", "states")["spec"]["exec_config"]
    set_by_rule(world, exec_config="ec2")
    world.reconcile()
    del world.files["rules/edit.yaml"]
    assert told(world.reconcile().effective)[f"Patch {path_of(JobState.READY)}"] == {
        "exec_config": ("ec2", None)
    }
    assert world.job(path_of(JobState.READY)).config.exec_config is None


def test_b10_a_second_reconcile_does_nothing(world: EditWorld) -> None:
    set_by_rule(world, worker="w2", priority=0)
    world.reconcile()
    jobs, events = world.jobs(), world.count_events()
    assert told(world.apply().effective) == {}
    assert (world.jobs(), world.count_events()) == (jobs, events)


def test_b10_nor_is_it_even_planned(make_world: MakeWorld, tmp_path: Path) -> None:
    """With no job that could move, the second pass knows by the commit that nothing has changed."""
    world = make_world(base_files(str(tmp_path)))
    for path in world.jobs():
        world.place(path, JobState.COMPLETED)
    world.files["rules/b.yaml"].pop()
    world.commit()
    first = reconcile_once(world.session(), Silent())
    assert first.plan is not None and first.plan.effective
    assert reconcile_once(world.session(), Silent()).plan is None
