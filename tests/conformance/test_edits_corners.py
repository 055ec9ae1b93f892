"""Edits and jobs that are generated: what random commits and lives once found, each as small as it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.jobs.job_json import JobResponse
from reconciler.model.actions import ActionType
from reconciler.model.records import JobRecord
from reconciler.model.states import JobState
from tests.conformance.edits_cases import base_files, rule, spec_of
from tests.conformance.edits_world import EditWorld, Files, MakeWorld, find, new_job, told
from tests.conformance.support import Silent

BORN = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return base_files(str(tmp_path))


def give_birth(world: EditWorld, path: str, **own: Any) -> JobRecord:
    """Complete a job that adds a job ``kid``."""
    world.complete(path, JobResponse(addition=[new_job("kid", BORN, **own)]))
    return world.job(f"{path.partition('/')[0]}/kid")


def test_what_a_job_adds_while_it_replaces_itself_inherits_from_the_job(
    make_world: MakeWorld, files: Files
) -> None:
    """Not from its replacement, which has the same uuid."""
    world = make_world(files)
    generator = world.job("other/value")
    replacement = new_job("value", generator.uuid, 2, priority=9)
    world.complete("other/value", JobResponse(replace=[replacement], addition=[new_job("kid", BORN)]))
    assert (world.job("other/value@2").config.priority_value, world.job("other/kid").config.priority) == (
        9,
        None,
    )
    assert told(world.plan().effective) == {}
    assert world.job("other/kid").generator == generator.id


def test_a_value_that_comes_from_elsewhere_now_is_passed_on_as_from_there(
    make_world: MakeWorld, files: Files
) -> None:
    """A worker's default is not inherited: another worker has its own."""
    spec_of(files, "Worker", "w1")["resources"] = {"qverbatim": "# same"}
    spec_of(files, "Flow", "other")["worker"] = "w1"
    files["rules/c.yaml"] = [rule("kids", {"worker": "w3"}, name_filter="kid")]
    files["rules/d.yaml"] = [rule("same", {"resources": {"qverbatim": "# same"}}, flows=["other"])]
    world = make_world(files)
    world.place("other/value", JobState.RUNNING)
    del world.files["rules/d.yaml"]
    plan = world.reconcile()
    assert told(plan.effective) == {}, "no value changes"
    assert {action.key for action in plan.restated} == {"other/value", "other/add"}
    events = world.count_events()
    again = world.apply()
    assert (told(again.effective), again.restated, world.count_events()) == ({}, (), events)
    kid = give_birth(world, "other/value")
    resources = kid.config.resources_value
    assert resources is not None and resources.values == {"qverbatim": "# default"}
    assert told(world.plan().effective) == {}


def test_a_deferred_change_is_undone_by_another_rule_than_gave_the_value(
    make_world: MakeWorld, files: Files
) -> None:
    world = make_world(files)
    world.place("other/value", JobState.RUNNING)
    world.files["rules/z.yaml"] = [rule("z", {"worker": "w2"}, flows=["other"])]
    assert "Defer other/value" in told(world.reconcile().effective)
    world.files["rules/z.yaml"] = [rule("z", {"worker": "w3"}, flows=["other"])]
    world.reconcile()
    job = world.job("other/value")
    assert job.wanted is None and job.config.worker is not None
    assert (job.config.worker.value, job.config.worker.origin.name) == ("w3", "z"), "it was the flow's"
    assert world.plan().restated == ()


def test_what_a_job_says_itself_is_known_although_a_rule_was_stronger(
    make_world: MakeWorld, files: Files
) -> None:
    """A held flow keeps its content; what its jobs said when it was held comes back without the rule."""
    spec_of(files, "Flow", "other")["on_change"] = "hold"
    files["rules/b.yaml"] = [rule("strong", {"priority": 10}, flows=["other"])]
    world = make_world(files)
    spec_of(world.files, "Flow", "other")["jobs"][0]["priority"] = 4
    assert told(world.reconcile().effective) == {}
    spec_of(world.files, "Flow", "other")["jobs"][0]["args"] = [77]
    world.files["rules/b.yaml"] = []
    world.builds.give(world.source, loaded(world), world.store)
    assert told(world.reconcile().effective) == {
        "Patch other/value": {"priority": (10, 4)},
        "Patch other/add": {"priority": (10, None)},
    }


def loaded(world: EditWorld) -> Any:
    world.commit()
    return world.session().load().state


def test_the_jobs_that_a_held_flow_generates_follow_its_run_config(
    make_world: MakeWorld, files: Files
) -> None:
    spec_of(files, "Flow", "other")["on_change"] = "hold"
    world = make_world(files)
    spec = spec_of(world.files, "Flow", "other")
    spec["jobs"][0]["args"] = [78]
    spec["priority"] = 6
    find(world.files, "Flow", "other")["metadata"]["labels"] = {"stage": "kids"}
    world.files["rules/kids.yaml"] = [
        rule("kids", {"worker": "w2"}, labels={"stage": "kids"}, name_filter="kid")
    ]
    world.builds.give(world.source, loaded(world), world.store)
    assert told(world.reconcile().effective)["Patch other"].keys() == {"run config", "labels"}
    assert told(world.plan().effective) == {}
    kid = give_birth(world, "other/value")
    assert (kid.config.priority_value, kid.config.worker_name) == (6, "w2")
    assert told(world.plan().effective) == {}
    with world.store.read() as view:
        flow, config = view.flow("other"), view.config()
    assert flow is not None and config is not None
    assert config.out_of_sync.keys() == {"other"}, "its content still waits"


def test_a_worker_is_renamed_that_a_generated_job_named_itself(make_world: MakeWorld, files: Files) -> None:
    """Nobody can edit what it said; once it has ended it is in nobody's way."""
    world = make_world(files)
    kid = give_birth(world, "other/value", worker="w2")
    assert kid.config.worker_name == "w2"
    find(world.files, "Worker", "w2")["metadata"]["name"] = "renamed"
    spec_of(world.files, "Flow", "other")["priority"] = 1
    world.commit()
    plan = world.session().reconcile(Silent()).plan
    assert [action.key for action in plan.actions if action.type is ActionType.KEEP] == ["other"]
    assert plan.has_errors
    world.place("other/kid", JobState.COMPLETED)
    plan = world.apply()
    assert "Patch other/value" in told(plan.effective)
    assert world.job("other/kid").config == kid.config
    assert "there is no Worker named 'w2'" in [found.message for found in plan.diagnostics]
    assert told(world.plan().effective) == {}


def test_the_running_job_of_a_renamed_worker_ends_where_it_runs(make_world: MakeWorld, files: Files) -> None:
    world = make_world(files)
    world.place("other/value", JobState.RUNNING)
    find(world.files, "Worker", "w3")["metadata"]["name"] = "big"
    spec_of(world.files, "Flow", "other")["worker"] = "big"
    world.reconcile()
    with world.store.read() as view:
        config = view.config()
        assert config is not None and {"w3", "big"} <= config.workers.keys()
        assert [job.path for job in view.in_state(JobState.RUNNING, "w3")] == ["other/value"]
    world.place("other/value", JobState.COMPLETED)
    assert world.job("other/value").config.worker_name == "big"
    world.files["rules/new.yaml"] = [rule("new", {"priority": 2}, name_filter="none")]
    world.reconcile()
    with world.store.read() as view:
        config = view.config()
    assert config is not None and "w3" not in config.workers, "its last job has ended"
