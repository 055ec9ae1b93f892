"""``reconcile advise`` on real jobs, with a request that no shell would take."""

from __future__ import annotations

import json

import msgspec
import pytest

from reconciler.actual.store import Store
from reconciler.model.run_config import Level, Origin
from reconciler.model.settings import Resources, Setting
from tests.watch.support import WatchWorld


@pytest.fixture
def used(watched: WatchWorld) -> WatchWorld:
    """Three jobs that ran for a moment on a shell; the state says that they asked Slurm for eight hours."""
    for name in "abc":
        watched.log_flow(name)
    watched.commit()
    assert watched.run("--once", "--wait").returncode == 0
    store = Store(watched.state)
    with store.read() as view:
        config, jobs = view.config(), list(view.jobs())
    assert config is not None
    assert all(job.attempt.cpu and job.attempt.memory for job in jobs), "the launcher measures"
    asked = Resources({"ntasks": 1, "time": "8:00:00"})
    setting = Setting(asked, Origin(Level.JOB, "Flow", "a", ""))
    slurm = msgspec.structs.replace(config.workers["w1"], scheduler_type="slurm")

    def change(writer):  # type: ignore[no-untyped-def]
        writer.put_config(msgspec.structs.replace(config, workers=config.workers | {"w1": slurm}))
        for job in jobs:
            run_config = msgspec.structs.replace(job.config, resources=setting)
            attempt = msgspec.structs.replace(job.attempt, seconds=1000.0)
            writer.put_job(msgspec.structs.replace(job, config=run_config, attempt=attempt))

    store.write(change)
    store.close()
    return watched


def test_a_row_for_each_function_and_a_rule_that_can_be_committed(used: WatchWorld) -> None:
    done = used.run("advise")
    assert "simple_jobs.log_line  w1      3     16 min 40 s of 8 h" in done.stdout
    assert "# simple_jobs.log_line on w1: the longest job took 0:16:40 of 8:00:00 (3 jobs)" in done.stdout
    (row,) = json.loads(used.run("advise", "-o", "json").stdout)
    assert row["rule"]["spec"] == {
        "order": 100,
        "function_filter": "simple_jobs.log_line",
        "set": {"resources": {"ntasks": 1, "time": "0:35:00"}},
    }
    text = "---".join(done.stdout.split("---")[1:])
    used.repository.write("rules/advice.yaml", text)
    used.worker("w1", scheduler_type="slurm")
    used.commit()
    found = used.run("validate")
    assert (found.returncode, found.stderr) == (0, ""), found.stdout


def test_write_commits_the_rule(used: WatchWorld) -> None:
    used.worker("w1", scheduler_type="slurm")
    used.commit()
    done = used.run("advise", "--write")
    assert done.returncode == 0, done.stderr
    assert "the longest job took" in used.repository.run("log", "-1", "--format=%s")
    assert 'time: "0:35:00"' in (used.repository.path / "rules" / "set.yaml").read_text().replace("'", '"')


def test_nothing_has_ended(watched: WatchWorld) -> None:
    watched.log_flow("a", suspend=True)
    watched.commit()
    watched.run("--once")
    done = watched.run("advise")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no job has ended yet" in done.stderr
