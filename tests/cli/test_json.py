"""What ``-o json`` prints, against the schemas of the output: on a state with one of everything."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reconciler.desired.yaml.reader import read_documents
from reconciler.model.actions import ActionType
from reconciler.model.settings import Level
from reconciler.model.states import Health, JobState, Sync
from tests.cli.world import World
from tests.support import ROOT

pytestmark = pytest.mark.usefixtures("warm")

SCHEMAS = {file.name.partition(".")[0]: file for file in (ROOT / "schemas/output").glob("*.schema.json")}

VERBS = {
    "jobs": ["get", "jobs"],
    "flows": ["get", "flows"],
    "workers": ["get", "workers"],
    "batches": ["get", "batches"],
    "failures": ["get", "failures"],
    "rules": ["get", "rules"],
    "advise": ["advise"],
    "flowsets": ["get", "flowsets"],
    "expand": ["expand", "pair"],
    "makers": ["get", "makers"],
    "maker": ["describe", "maker", "adder"],
    "job": ["describe", "job", "arithmetic/add"],
    "flow": ["describe", "flow", "failing"],
    "worker": ["describe", "worker", "w2"],
    "events": ["events"],
    "diagnostics": ["validate"],
    "plan": ["plan"],
    "doctor": ["doctor"],
    "policy-explain": ["policy", "explain"],
    "fsck": ["fsck"],
    "graph": ["graph", "generating"],
    "history": ["history"],
    "verb": ["retry", "--dry-run", "failing"],
    "diff": ["diff", "HEAD~1", "HEAD"],
    "wait": ["wait", "arithmetic"],
    "explain-job": ["explain", "job", "arithmetic/add"],
    "explain-rule": ["explain", "rule", "hurry"],
}


def load(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(SCHEMAS[name].read_text(encoding="utf-8"))
    return schema


def closed(part: Any) -> Any:
    """Return a schema in which no object may have a field that is not described."""
    if isinstance(part, list):
        return [closed(entry) for entry in part]
    if not isinstance(part, dict):
        return part
    inner = {key: closed(value) for key, value in part.items()}
    return {"additionalProperties": False, **inner} if "properties" in part and "type" in part else inner


def described(part: Any, path: str = "") -> list[str]:
    """Return the places of all properties that have no description of their own."""
    if not isinstance(part, dict):
        return []
    bare = [
        f"{path}.{name}"
        for name, inner in part.get("properties", {}).items()
        if "description" not in inner and "$ref" not in inner
    ]
    return bare + [place for key, inner in part.items() for place in described(inner, f"{path}.{key}")]


def test_every_json_output_has_a_schema() -> None:
    assert set(SCHEMAS) == set(VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_schema_is_valid_described_and_names_itself(name: str) -> None:
    schema = load(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:reconciler:v1:output:{name}"
    words = (
        VERBS[name][:1] if name in ("graph", "diff", "verb", "wait", "expand", "advise") else VERBS[name][:2]
    )
    assert f"`reconcile {' '.join(words)}" in schema["description"]
    assert described(schema) == []


@pytest.mark.parametrize("name", VERBS)
def test_output_is_as_the_schema_says(world: World, name: str) -> None:
    """With no field that the schema does not describe, and none missing."""
    data = world.json(*VERBS[name])
    assert data, "an empty answer proves nothing"
    errors = [f"{error.json_path}: {error.message}" for error in validate(name, data)]
    assert errors == []


@pytest.mark.parametrize("name", VERBS)
def test_yaml_output_is_the_same_data(world: World, name: str) -> None:
    done = world.run(*VERBS[name], "-o", "yaml")
    (document,) = read_documents(done.stdout.encode()).documents
    assert measured(document.content) == measured(world.json(*VERBS[name]))


def measured(data: Any) -> str:
    """Return data as text without what doctor measures anew each time."""
    return re.sub(r"[\d.]+ (ms|.iB)\b", r"some \1", json.dumps(data))


def validate(name: str, data: Any) -> Any:
    return Draft202012Validator(closed(load(name))).iter_errors(data)


def test_every_generation_of_a_uuid_is_described(world: World) -> None:
    (first, *_) = [job for job in world.json("get", "jobs") if job["key"].startswith("generating/itself")]
    data = world.json("describe", "job", first["uuid"])
    assert [job["index"] for job in data] == [1, 2]
    assert list(validate("job", data)) == []


def test_stuck_job_explains_cause_and_fix(world: World) -> None:
    data = world.json("describe", "job", "failing/never")
    assert data["blocked"] == "failing/never needs failing/bad, which is FAILED"
    assert data["fix"] == "once the cause is gone: `reconcile retry failing/bad`"
    assert list(validate("job", data)) == []
    text = world.run("describe", "job", "failing/never").stdout
    assert f"blocked:      {data['blocked']}\nfix:          {data['fix']}\n" in text
    other = world.json("describe", "job", "failing/bad")
    assert (other["blocked"], other["fix"]) == (None, "")


def test_empty_answers_are_empty_lists(world: World) -> None:
    assert world.json("get", "jobs", "no-such-flow/*") == []
    assert world.json("get", "flows", "no-such-flow") == []


def enums(name: str, field: str) -> set[str]:
    found: set[str] = set()

    def look(part: Any) -> None:
        if isinstance(part, dict):
            found.update(part.get("properties", {}).get(field, {}).get("enum", []))
            for inner in part.values():
                look(inner)

    look(load(name))
    return found


def test_schemas_and_code_have_the_same_words() -> None:
    assert enums("jobs", "state") == set(JobState)
    assert enums("flows", "sync") == set(Sync)
    assert enums("flows", "health") == set(Health)
    assert enums("plan", "action") == set(ActionType)
    assert enums("job", "level") == set(Level)


def test_shared_parts_are_the_same_in_every_schema() -> None:
    """Every file stands alone, so that tools need no resolver; the parts they share must not drift apart."""
    parts: dict[str, list[Any]] = {}
    for name in SCHEMAS:
        for part, schema in load(name).get("$defs", {}).items():
            parts.setdefault(part, []).append(schema)
    assert all(schemas.count(schemas[0]) == len(schemas) for schemas in parts.values())
    assert load("jobs")["items"]["properties"] == load("flow")["$defs"]["member"]["properties"]
    assert load("flows")["items"]["properties"].items() <= load("flow")["properties"].items()


class TestJobs:
    """What scripts rely on in ``get jobs -o json``."""

    @pytest.fixture
    def jobs(self, world: World) -> dict[str, dict[str, Any]]:
        return {job["key"]: job for job in world.json("get", "jobs")}

    def test_keys_are_unique(self, world: World, jobs: dict[str, Any]) -> None:
        assert len(world.json("get", "jobs")) == len(jobs)

    def test_finished_job(self, jobs: dict[str, Any]) -> None:
        add = jobs["arithmetic/add"]
        assert (add["flow"], add["name"], add["index"], add["state"]) == ("arithmetic", "add", 1, "COMPLETED")
        assert (add["worker"], add["exec_config"], add["priority"]) == ("w1", "threads", 3)
        assert (add["resources"], add["qresources"], add["deferred"]) == (None, None, None)
        assert (add["attempt"], add["editable"], add["error"]) == (1, True, None)
        assert add["parents"] == ["arithmetic/value"]
        assert add["run_dir"].endswith(f"{add['uuid']}_1")

    def test_failed_job_says_why_and_its_child_waits(self, jobs: dict[str, Any]) -> None:
        assert jobs["failing/bad"]["state"] == "FAILED"
        assert "RuntimeError: no luck today" in jobs["failing/bad"]["error"]
        assert (jobs["failing/never"]["state"], jobs["failing/never"]["run_dir"]) == ("WAITING", None)

    def test_generated_jobs_name_their_generator(self, jobs: dict[str, Any]) -> None:
        generated = [job for job in jobs.values() if job["generated_by"]]
        assert {job["key"]: job["generated_by"] for job in generated} == {
            "generating/add": "generating/spread",
            "generating/add#2": "generating/spread",
            "generating/itself@2": "generating/itself",
        }
        assert {job["worker"] for job in generated} == {"w2"}

    def test_deferred_change_is_told(self, jobs: dict[str, Any]) -> None:
        nap = jobs["slow/nap"]
        assert nap["state"] in ("SUBMITTED", "RUNNING")
        assert (nap["editable"], nap["priority"]) == (False, 0)
        assert nap["deferred"] == {"priority": 9, "resources": {}}


def test_flows_say_how_they_stand(world: World) -> None:
    flows = {flow["name"]: flow for flow in world.json("get", "flows")}
    assert {name: (flow["sync"], flow["health"]) for name, flow in flows.items()} == {
        "arithmetic": ("Synced", "Healthy"),
        "failing": ("Synced", "Degraded"),
        "generating": ("Synced", "Healthy"),
        "held": ("Unknown", "Degraded"),
        "pair-1": ("Synced", "Suspended"),
        "slow": ("OutOfSync", "Progressing"),
    }
    assert flows["arithmetic"]["jobs"] == {"COMPLETED": 4}
    assert flows["failing"]["jobs"] == {"FAILED": 1, "WAITING": 1}
    assert flows["arithmetic"]["labels"] == {"campaign": "tests"}
    assert "there is no Worker named 'w9'" in flows["held"]["reason"]


def test_plan_names_the_line_that_changes_a_value(world: World) -> None:
    plan = world.json("plan")
    assert (plan["schema_version"], plan["base"]) == (1, plan["revision"])
    assert [problem["code"] for problem in plan["diagnostics"]] == ["reference/unknown-worker"]
    assert plan["diagnostics"][0]["location"] == {"file": "flows/held.yaml", "line": 5, "column": 11}
    (held,) = [action for action in plan["actions"] if action["key"] == "held"]
    assert (held["action"], held["kind"]) == ("Keep", "Flow")


def test_described_job_names_file_line_commit_and_author(world: World) -> None:
    found = world.json("describe", "job", "arithmetic/add")["provenance"]
    assert (found["worker"]["level"], found["worker"]["file"]) == ("project", "reconciler.yaml")
    assert (found["priority"]["level"], found["priority"]["value"]) == ("job", 3)
    assert (found["priority"]["file"], found["priority"]["line"]) == ("flows/flows.yaml", 8)
    assert found["priority"]["author"] == "Ada Tester <ada@example.invalid>"
    first = world.repository.run("rev-list", "--max-parents=0", "HEAD")
    assert found["exec_config"]["commit"] == first
