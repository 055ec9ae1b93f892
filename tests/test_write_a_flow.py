"""Every form of a flow in docs/how-to/write-a-flow.md, as one repository that runs to the end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.support import ROOT, Reconcile, Repository

PAGE = ROOT / "docs/how-to/write-a-flow.md"
BLOCK = re.compile(r"^```(?:yaml|python|json|text)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.usefixtures("warm")


def write_examples(repository: Repository) -> None:
    """Write each block of the page that begins with a path, and the files that its scripts make."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == len(re.findall(r"^```(yaml|python|json|text)$", text, re.MULTILINE))
    for path, content in blocks:
        repository.write(path, content)
    made = subprocess.run(
        [sys.executable, str(repository.path / "scripts/serialize.py")],
        env={"PYTHONPATH": str(repository.path / "lib"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    repository.write("data/serialized.json", made.stdout)


def output(reconcile: Reconcile, key: str) -> Any:
    done = reconcile("output", key)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_example_runs_and_gives_what_it_says(repository: Repository, reconcile: Reconcile) -> None:
    write_examples(repository)
    repository.commit()

    done = reconcile("--once", "--wait", "--timeout", "300")

    assert done.returncode == 0, done.stderr
    jobs = json.loads(reconcile("get", "jobs", "-o", "json").stdout)
    assert {job["state"] for job in jobs} == {"COMPLETED"}
    keys = {job["key"] for job in jobs}
    assert {"chain/relax", "chain/static", "twice/twice/relax 1/2", "twice/twice/relax 2/2"} <= keys
    assert {"made/relax 1/2", "scan/relax 3.9", "from-file/relax 4.9"} <= keys

    assert output(reconcile, "variables/named") == "PBE"
    a = 3.6 * 0.95
    assert output(reconcile, "chain/report")["lowest"] == pytest.approx(-1 / a)
    assert output(reconcile, "twice/report") == {
        "title": "energies",
        "lowest": pytest.approx(-1 / (4.1 * 0.8**2)),
        "number": 2,
    }
    priorities = {job["key"]: job["priority"] for job in jobs if job["key"].startswith("shared/")}
    assert priorities == {
        "shared/once": 10,
        "shared/twice/fine relax 1/2": 10,
        "shared/twice/fine relax 2/2": 10,
    }
    assert output(reconcile, "values/shown") == [
        [[1, 2], [3, 4]],
        [1, 2, 3],
        {"atoms": [8, 26], "charge": 0},
        "hello",
        "a note",
        True,
        1e-5,
        "no",
    ]
    (marked,) = [job for job in jobs if job["key"].startswith("marked/")]
    assert marked["name"] == "relax Cu"
    best = output(reconcile, "compare/best")
    assert best["number"] == 5
    assert best["lowest"] == pytest.approx(min(-1 / a, -1 / (4.2 * 0.81), -1 / (3.9 * 0.9), -1 / (4.9 * 0.9)))

    again = reconcile("--once", "-v")
    assert again.returncode == 0, again.stderr
    assert "building" not in again.stderr
