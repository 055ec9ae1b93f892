"""The example campaign with its calculations on a Slurm over ssh, by one rule; the rest stays here."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.services.login import Login
from tests.services.slurm import Slurm
from tests.services.sshd import Sshd
from tests.support import ROOT, Reconcile, Repository
from tests.warm_python import warm_python

sys.path.insert(0, str(ROOT / "example-repo" / "lib"))
reference = importlib.import_module("eos.reference")

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

IMPORTED_BY_JOBS = ("ase.build", "ase.calculators.emt", "scipy.optimize")

RULE = """\
apiVersion: reconciler/v1
kind: OverrideRule
metadata: {name: calculations-on-the-cluster}
spec:
  order: 200
  flows: ["eos-*"]
  name_glob: "[rs][et]*"       # relax and strain-1 ... strain-7, but neither fit nor summary
  set:
    worker: hpc
    qresources: {queue_name: batch, processes: 1, time_limit: 600}
"""


class Campaign:
    """A copy of the example's repository, and the program run on it with a state of its own."""

    def __init__(self, root: Path) -> None:
        self.repository = Repository(root)
        shutil.copytree(
            ROOT / "example-repo", root, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
        self._run = Reconcile(root)
        self._state = ["--state-dir", str(root.with_name(f"{root.name}-state"))]

    def run(self) -> None:
        """Commit, and run everything to its end."""
        self.repository.commit()
        done = self._run("--once", "--wait", "--timeout", "400", *self._state, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr

    def data(self, *arguments: str) -> Any:
        """Return an answer."""
        done = self._run(*arguments, "-o", "json", *self._state)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def keep_flows(self, names: Sequence[str]) -> None:
        """Remove all other flows."""
        for file in (self.repository.path / "flows").iterdir():
            if file.stem not in names:
                file.unlink()


@pytest.fixture(scope="module")
def python(login: Login) -> Iterator[Path]:
    """A warm Python (see :mod:`tests.warm_python`) for who logs in, with what the calculations import."""
    with warm_python(*IMPORTED_BY_JOBS, user=login.uid if login.own else None) as command:
        yield command


@pytest.fixture
def on_cluster(tmp_path: Path, slurm: Slurm, slurm_sshd: Sshd, python: Path, warm: None) -> Campaign:
    """The campaign with one more worker and one more rule, and nothing else changed."""
    campaign = Campaign(tmp_path / "campaign")
    spec = {
        "type": "remote",
        "scheduler_type": "slurm",
        "work_dir": str(slurm_sshd.login.home / f"campaign-{tmp_path.name}"),
        "max_jobs": 8,
        **slurm_sshd.worker_fields(),
        "python": str(python),
    }
    text = msgspec.json.encode(spec).decode()
    head = "apiVersion: reconciler/v1\nkind: Worker\nmetadata: {name: hpc}\n"
    campaign.repository.write("workers/hpc.yaml", f"{head}spec: {text}\n")
    campaign.repository.write("rules/calculations-on-the-cluster.yaml", RULE)
    return campaign


def test_the_campaign_on_slurm_gives_the_numbers_of_the_local_shell(
    on_cluster: Campaign, slurm: Slurm, tmp_path: Path
) -> None:
    on_cluster.run()
    flows = on_cluster.data("get", "flows")
    assert {(flow["sync"], flow["health"]) for flow in flows} == {("Synced", "Healthy")}
    jobs = {row["key"]: row for row in on_cluster.data("get", "jobs")}
    assert {row["state"] for row in jobs.values()} == {"COMPLETED"}
    calculations = {key for key in jobs if "/relax" in key or "/strain-" in key}
    assert {key for key, row in jobs.items() if row["run_worker"] == "hpc"} == calculations
    assert len(calculations) == 7 * 8
    assert {"local_shell", "secondw"} == {jobs[key]["run_worker"] for key in jobs.keys() - calculations}
    known = {line.split()[0] for line in slurm.squeue("%i %P") if line.endswith(" batch")}
    assert {jobs[key]["queue_id"] for key in calculations} <= known

    rows = {row["metal"]: row for row in on_cluster.data("output", "eos-summary/summary")["rows"]}
    assert list(rows) == list(reference.METALS)
    for metal, row in rows.items():
        assert row["b0"] == pytest.approx(reference.bulk_modulus(metal), rel=0.15)
        assert row["a0"] == pytest.approx(reference.lattice_constant(metal), rel=0.02)

    here = Campaign(tmp_path / "here")
    here.keep_flows(["eos-cu"])
    here.run()
    assert {row["run_worker"] for row in here.data("get", "jobs")} == {"local_shell"}
    for key in ("eos-cu/relax", "eos-cu/strain-1", "eos-cu/strain-7", "eos-cu/fit"):
        assert on_cluster.data("output", key) == here.data("output", key)
