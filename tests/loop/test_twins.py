"""Flows that say the same are different flows: each has jobs of its own."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.usefixtures("warm")

TWIN = """\
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {{name: {name}}}
    spec:
      jobs:
        - {{id: value, function: reconciler.examples.value, args: [5]}}
        - {{id: add, function: reconciler.examples.add, args: [{{$output: value}}, 2]}}
"""


def test_twins_have_their_own_jobs(repository, reconcile, tmp_path):
    from tests.support import minimal_project

    minimal_project(repository, tmp_path / "work")
    for name in ("one", "two"):
        repository.write_yaml(f"flows/{name}.yaml", TWIN.format(name=name))
    repository.commit()

    done = reconcile("--once", "--wait", "--timeout", "100")

    assert done.returncode == 0, done.stderr
    jobs = json.loads(reconcile("get", "jobs", "-o", "json").stdout)
    assert sorted(job["key"] for job in jobs) == ["one/add", "one/value", "two/add", "two/value"]
    assert {job["state"] for job in jobs} == {"COMPLETED"}
    assert len({job["uuid"] for job in jobs}) == 4
