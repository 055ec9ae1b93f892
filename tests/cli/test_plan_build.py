"""``reconcile plan --build``: what the code of the flows makes, without submitting any of it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler import Campaign
from reconciler.actual.store import Store
from reconciler.cli.main import cli
from reconciler.errors import InputError
from tests.cli.test_json import validate
from tests.support import Repository, minimal_project

pytestmark = pytest.mark.usefixtures("warm")

CODE = """
    from dataclasses import dataclass
    from jobflow import Flow, Maker, job

    @job
    def give(x):
        return x

    @job(pictures="a")
    def picture(x):
        return {"a": x}

    def several(n):
        return Flow([give(number) for number in range(n)])

    def broken():
        raise ValueError("no luck")

    @dataclass
    class Giver(Maker):
        name: str = "giver"

        @job
        def make(self, x):
            return x
    """

GOOD = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {{name: scan}}
    spec: {{suspend: true, factory: {{function: toy.several, args: [{number}]}}}}
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {{name: made}}
    spec:
      suspend: true
      jobs:
        - {{id: one, maker: {{class: toy.Giver, make: {{args: [{{$output: scan/give}}]}}}}}}
    """

BAD = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: raises}
    spec: {factory: {function: toy.broken}}
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: misses}
    spec: {jobs: [{id: a, function: toy.give, kwargs: {y: 1}}]}
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: refers}
    spec: {jobs: [{id: a, function: toy.give, args: [{$output: raises/give}]}]}
    """


@pytest.fixture
def campaign(repository: Repository, tmp_path: Path) -> Repository:
    """A repository with code; its flows make three jobs."""
    minimal_project(repository, tmp_path / "work")
    project = (repository.path / "reconciler.yaml").read_text()
    repository.write("reconciler.yaml", project.replace("spec:", "spec:\n  python_path: [lib]", 1))
    repository.write_yaml("lib/toy.py", CODE)
    repository.write_yaml("flows/good.yaml", GOOD.format(number=2))
    repository.commit("flows")
    return repository


def run(repository: Repository, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--repo", str(repository.path), *arguments])


def data(repository: Repository, *arguments: str) -> Any:
    found = json.loads(run(repository, "plan", "--build", *arguments, "-o", "json").stdout)
    assert [error.message for error in validate("plan", found)] == []
    return found


def test_it_shows_the_jobs_and_keeps_nothing(campaign: Repository, tmp_path: Path) -> None:
    state = tmp_path / "state"
    told = run(campaign, "plan", "--build", "--state-dir", str(state))
    assert told.exit_code == 0
    assert "2 of 2 flows built" in told.stdout
    assert "runs the code of this repository" in told.stderr
    planned = data(campaign, "--state-dir", str(state))
    jobs = [action["key"] for action in planned["actions"] if action["kind"] == "Job"]
    assert jobs == ["made/one", "scan/give", "scan/give#2"]
    assert planned["build"] == {"flows": 2, "built": 2, "failed": [], "blocked": []}
    assert not any((state / name).exists() for name in ("code", "files"))
    with contextlib.closing(Store(state)) as store, store.read() as view:
        assert list(view.flows()) == []
    plain = json.loads(run(campaign, "plan", "--state-dir", str(state), "-o", "json").stdout)
    assert plain["build"] is None
    assert [action["build"] for action in plain["actions"]] == [True, True], "nothing was kept"
    assert run(campaign, "--once", "--state-dir", str(state)).exit_code == 0
    listed = json.loads(run(campaign, "get", "jobs", "--state-dir", str(state), "-o", "json").stdout)
    assert sorted(job["key"] for job in listed) == jobs, "a reconcile submits what was shown"
    assert data(campaign, "--state-dir", str(state))["build"]["flows"] == 0


def test_flows_that_cannot_be_built_are_counted_and_named(campaign: Repository) -> None:
    campaign.write_yaml("flows/bad.yaml", BAD)
    campaign.commit("bad flows")
    told = run(campaign, "plan", "--build")
    assert told.exit_code == 2
    assert "2 of 5 flows built; cannot be built: misses, raises" in told.stdout
    assert "not tried, because what they refer to cannot be built: refers" in told.stdout
    assert "no luck (lib/toy.py:" in told.stderr
    assert "cannot call toy.give" in told.stderr
    comment = run(campaign, "plan", "--build", "-o", "markdown").stdout
    assert "the code of the repository was run: 2 of 5 flows built" in comment
    found = data(campaign)
    assert found["build"] == {"flows": 5, "built": 2, "failed": ["misses", "raises"], "blocked": ["refers"]}
    assert {problem["code"] for problem in found["diagnostics"]} == {"build/failed"}
    kept = {action["key"]: action["code"] for action in found["actions"] if action["action"] == "Keep"}
    assert kept == {"misses": "build-failed", "raises": "build-failed", "refers": "waits"}


def test_an_additional_store_that_the_project_lacks(campaign: Repository) -> None:
    project = (campaign.path / "reconciler.yaml").read_text()
    store = "{docs_store: {type: JSONStore, paths: [/tmp/x.json], read_only: false}}"
    campaign.write("reconciler.yaml", project.replace("spec:", f"spec:\n  jobstore: {store}", 1))
    flow = GOOD.partition("---")[0].format(number=2).replace("toy.several", "toy.picture")
    campaign.write_yaml("flows/good.yaml", flow)
    campaign.commit("pictures")
    found = data(campaign)
    assert found["build"]["failed"] == ["scan"]
    assert "additional_stores.pictures" in found["diagnostics"][0]["message"]


def test_between_two_revisions_without_a_state(campaign: Repository) -> None:
    campaign.write_yaml("flows/good.yaml", GOOD.format(number=3))
    campaign.commit("one job more")
    between = ("--base", "HEAD~1")
    unknown = json.loads(run(campaign, "plan", *between, "-o", "json").stdout)
    assert not any(action["kind"] == "Job" for action in unknown["actions"])
    found = data(campaign, *between)
    jobs = {a["key"]: a["action"] for a in found["actions"] if a["kind"] == "Job"}
    assert jobs == {"scan/give#3": "Submit"}
    assert found["build"] == {"flows": 2, "built": 2, "failed": [], "blocked": []}


def test_from_python(campaign: Repository) -> None:
    found = Campaign(campaign.path).plan(build=True)
    assert found["build"]["built"] == 2
    assert Campaign(campaign.path).plan()["build"] is None


def test_a_saved_plan_runs_no_code(campaign: Repository, tmp_path: Path) -> None:
    refused = run(campaign, "plan", "--build", "--out", str(tmp_path / "plan.json"))
    assert isinstance(refused.exception, InputError)
    assert not (tmp_path / "plan.json").exists()
