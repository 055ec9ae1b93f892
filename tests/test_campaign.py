"""``from reconciler import Campaign``: the command line's answers as typed objects."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import Campaign
from reconciler.errors import ForeignStateError, InputError
from tests.support import Repository, isolate, minimal_project

FLOWS = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: good, labels: {metal: Al, kind: eos}}
    spec:
      jobs:
        - {id: value, function: reconciler.examples.value, args: [5]}
        - {id: add, function: reconciler.examples.add, args: [{$output: value}, 2]}
    ---
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: bad}
    spec:
      jobs: [{id: fail, function: reconciler.examples.fail, args: ["<b>no luck</b>"]}]
    """


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[Repository]:
    path = tmp_path_factory.mktemp("campaign")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, path / "home")
        monkeypatch.setattr(sys, "executable", str(warm_python))
        made = Repository(path / "repository")
        minimal_project(made, path / "work")
        made.write_yaml("flows/flows.yaml", FLOWS)
        made.commit("two flows")
        yield made


@pytest.fixture(scope="module")
def campaign(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign in which one flow has completed and one has failed."""
    made = Campaign(repository.path, state_dir=tmp_path_factory.mktemp("states") / "state")
    with pytest.raises(InputError, match="there is no state in"):
        made.flows()
    assert made.validate() == []
    planned = made.plan()
    assert [action["key"] for action in planned["actions"] if action["kind"] == "Flow"] == ["bad", "good"]
    assert not made.state_dir.exists(), "looking creates no state"
    applied = made.apply(wait=True, timeout=200)
    assert (applied.flows, applied.jobs, applied.idle, list(applied.degraded)) == (2, 3, True, ["bad"])
    return made


def test_flows_and_jobs_are_typed(campaign: Campaign) -> None:
    assert [(flow.name, flow.health) for flow in campaign.flows()] == [
        ("bad", "Degraded"),
        ("good", "Healthy"),
    ]
    assert [job.key for job in campaign.jobs(label={"metal": "Al"})] == ["good/value", "good/add"]
    assert len(campaign.jobs(label={"metal": "Al", "kind": "eos"})) == 2
    assert campaign.flows("label:metal=Al", "b*") == []
    (failed,) = campaign.jobs("state:FAILED")
    assert (failed.key, failed.cause, failed.seconds is not None) == ("bad/fail", "exception", True)
    with pytest.raises(InputError, match="no flow matches"):
        campaign.jobs("nothing")


def test_tables_go_to_pandas_and_notebooks(campaign: Campaign) -> None:
    frame = campaign.jobs("good").to_pandas()
    assert list(frame["state"]) == ["COMPLETED", "COMPLETED"]
    assert {"seconds", "worker", "labels"} <= set(frame.columns)
    shown = campaign.jobs("bad")._repr_html_()
    assert "&lt;b&gt;no luck" in shown and "<b>no luck" not in shown
    assert campaign.jobs("good", "state:FAILED")._repr_html_() == "<p>nothing</p>"


def test_outputs_by_key_part_and_label(campaign: Campaign) -> None:
    assert campaign.output("good/add") == 7
    assert campaign.outputs(label={"metal": "Al"}) == {"good/value": 5, "good/add": 7}
    assert campaign.outputs() == campaign.outputs("good"), "a failed job has no output"
    with pytest.raises(InputError, match="bad/fail has no output: it is FAILED"):
        campaign.output("bad/fail")


def test_a_state_alone_can_be_read_but_not_applied(campaign: Campaign) -> None:
    alone = Campaign(campaign.state_dir)
    assert alone.output("good/add") == 7
    with pytest.raises(InputError, match="only a state, without its repository"):
        alone.apply()


def test_the_state_of_another_repository_is_not_changed(campaign: Campaign, tmp_path: Path) -> None:
    other = Repository(tmp_path / "other")
    minimal_project(other, tmp_path / "work")
    other.commit("another project")
    with pytest.raises(ForeignStateError):
        Campaign(other.path, state_dir=campaign.state_dir).retry("bad")


def test_jobs_are_retried_and_waited_for(campaign: Campaign) -> None:
    assert campaign.wait("good", timeout=5)
    assert not campaign.wait("bad", timeout=30), "it cannot become healthy without help"
    assert campaign.retry("bad", "good") == ["bad/fail"]
    assert campaign.jobs("bad")[0].state == "READY"
    assert campaign.events("job/bad/fail")[-1].message.count("READY")
    assert campaign.cancel("bad") == ["bad/fail"]
    with pytest.raises(InputError, match="name the jobs to rerun"):
        campaign.rerun()


def test_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, reconciler\n"
        "assert not {'lmdb', 'click', 'jobflow'} & set(sys.modules)\n"
        "assert reconciler.Campaign"
    )
    subprocess.run([Path(sys.prefix) / "bin/python", "-c", code], check=True)
