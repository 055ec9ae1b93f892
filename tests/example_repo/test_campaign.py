"""The example campaign end to end: as a user runs it, in a repository of its own."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, Reconcile, Repository, isolate
from tests.warm_python import warm_python

sys.path.insert(0, str(ROOT / "example-repo" / "lib"))
reference = importlib.import_module("eos.reference")

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

Jobs = dict[str, dict[str, Any]]

USED = ("ase.build", "ase.calculators.emt", "scipy.optimize", "matplotlib.pyplot")
"""What the jobs of the campaign import."""


class Campaign:
    """A fresh repository with the campaign in a folder, and the program run on it."""

    def __init__(self, root: Path) -> None:
        self.repository = Repository(root / "clone")
        shutil.copytree(
            ROOT / "example-repo", self.folder, ignore=shutil.ignore_patterns("__pycache__", ".*_cache")
        )
        self.repository.commit("the campaign")
        self._run = Reconcile(self.repository.path)

    @property
    def folder(self) -> Path:
        return self.repository.path / "example-repo"

    def __call__(self, *arguments: str) -> Any:
        return self._run("--path", "example-repo", *arguments, timeout=500)

    def data(self, *arguments: str) -> Any:
        done = self(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def jobs(self) -> Jobs:
        return {row["key"]: row for row in self.data("get", "jobs")}

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))
        self.repository.commit(f"edit {path}")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """Its first run is by a warm Python, see :mod:`tests.warm_python`; later ones are by the usual one."""
    root = tmp_path_factory.mktemp("campaign")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, root / "home")
        made = Campaign(root)
        with warm_python(*USED) as command, pytest.MonkeyPatch.context() as warm:
            warm.setattr(sys, "executable", str(command))
            done = made("--once", "--wait", "--timeout", "400")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        yield made


@pytest.fixture(autouse=True)
def _same_home(campaign: Campaign, monkeypatch: pytest.MonkeyPatch, _isolated: None) -> None:
    """All tests of this file look at the one campaign, whose state lies in its own home."""
    isolate(monkeypatch, campaign.repository.path.parent / "home")


def test_every_flow_is_healthy_and_in_sync(campaign: Campaign) -> None:
    flows = campaign.data("get", "flows")
    assert {flow["name"] for flow in flows} >= {
        "arithmetic",
        "eos-summary",
        *(_flow(m) for m in reference.METALS),
    }
    assert {(flow["sync"], flow["health"]) for flow in flows} == {("Synced", "Healthy")}
    assert {job["state"] for job in campaign.jobs().values()} == {"COMPLETED"}


def test_the_rules_decided_where_jobs_ran(campaign: Campaign) -> None:
    jobs = campaign.jobs()
    assert jobs["eos-au/strain-1"]["worker"] == "secondw"
    assert jobs["eos-al/strain-1"]["worker"] == "local_shell"
    assert jobs["eos-al/fit"]["worker"] == "local_shell"
    assert jobs["eos-al/fit"]["priority"] > jobs["eos-al/relax"]["priority"]
    assert jobs["arithmetic/add"]["worker"] == "secondw"


def _flow(metal: str) -> str:
    return f"eos-{metal.lower()}"


def test_bulk_moduli_are_near_the_reference(campaign: Campaign) -> None:
    rows = campaign.data("output", "eos-summary/summary")["rows"]
    assert [row["metal"] for row in rows] == list(reference.METALS)
    for row in rows:
        assert row["b0"] == pytest.approx(reference.bulk_modulus(row["metal"]), rel=0.15)
        assert row["a0"] == pytest.approx(reference.lattice_constant(row["metal"]), rel=0.02)


def test_table_and_plot_exist(campaign: Campaign) -> None:
    output = campaign.data("output", "eos-summary/summary")
    plot = Path(output["plot"])
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert plot.stat().st_size > 10_000
    assert len(Path(output["csv"]).read_text().splitlines()) == 1 + len(reference.METALS)


def test_a_second_run_does_nothing(campaign: Campaign) -> None:
    before = campaign.jobs()
    started = time.monotonic()
    done = campaign("--once", "--wait", "-v")
    took = time.monotonic() - started
    assert done.returncode == 0
    assert "no changes" in done.stdout
    assert "building" not in done.stderr
    assert "0 files parsed" in done.stderr
    assert campaign.jobs() == before
    assert took < 3, "a quarter of a second on a quiet machine"
    assert campaign("plan", "--exit-code").returncode == 0


def test_one_strain_runs_three_jobs_again_and_its_revert_none(campaign: Campaign) -> None:
    before = campaign.jobs()
    fitted = campaign.data("output", "eos-al/fit")
    campaign.edit("flows/eos-al.yaml", "lattice_constant}, -0.06]", "lattice_constant}, -0.05]")
    planned = campaign.data("plan")
    assert {action["key"].partition("/")[0] for action in planned["actions"]} <= {"eos-al", "eos-summary"}
    done = campaign("--once", "--wait", "--timeout", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    after = campaign.jobs()
    again = {key for key in after if after[key]["uuid"] != before[key]["uuid"]}
    assert again == {"eos-al/strain-1", "eos-al/fit", "eos-summary/summary"}
    for key in before.keys() - again:
        assert after[key]["run_dir"] == before[key]["run_dir"]
    assert campaign.data("output", "eos-al/fit") != fitted
    campaign.edit("flows/eos-al.yaml", "lattice_constant}, -0.05]", "lattice_constant}, -0.06]")
    done = campaign("--once", "--wait", "--timeout", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {key: (row["uuid"], row["run_dir"]) for key, row in campaign.jobs().items()} == {
        key: (row["uuid"], row["run_dir"]) for key, row in before.items()
    }
    assert campaign.data("output", "eos-al/fit") == fitted


def test_a_comment_in_the_code_runs_nothing_again(campaign: Campaign) -> None:
    before = campaign.jobs()
    campaign.edit("lib/eos/jobs.py", '"""The calculations:', '"""All calculations:')
    done = campaign("--once", "--wait", "--timeout", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "building eos-al" in done.stderr
    assert {key: row["run_dir"] for key, row in campaign.jobs().items()} == {
        key: row["run_dir"] for key, row in before.items()
    }
