"""What is said of a job that waits for an automatic retry, and of what a retry escalates."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.model.records import JobAttempt, RetryStatus
from reconciler.model.states import JobState
from tests.cli.conftest import Ended
from tests.execution.support import World

DIED = "Slurm: TIMEOUT: it ended without a result, exit code 143 (signal 15)"
RULE = """
apiVersion: reconciler/v1
kind: OverrideRule
metadata: {name: more-time}
spec:
  set:
    retries:
      limit: 3
      backoff: 1m
      escalate: {resources: {time: "*2", mem: "*1.5"}}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A job of a Slurm worker that died twice and is to be retried, by its record."""
    world = World(tmp_path / "world", defaults="worker: hpc")
    world.put("Worker", "hpc", {"type": "local", "scheduler_type": "slurm", "work_dir": str(world.work)})
    jobs = [{"id": name, "function": "give", "args": [name]} for name in ("j", "other")]
    world.flow("f", *jobs, resources={"time": "01:00:00", "mem": "4G", "ntasks": 2})
    world.repository.write("rules/r.yaml", RULE.lstrip())
    world.reconcile()
    world.edit(
        "f/j", state=JobState.FAILED, attempt=JobAttempt(number=2, worker="hpc", run_dir="/w/2"),
        error=f"last words\n{DIED}", cause="walltime",
        retry=RetryStatus(causes=["oom", "walltime"], at=time.time() + 3600),
        )  # fmt: skip
    yield world
    world.close()


@pytest.fixture
def reconcile(world: World, program_on: Callable[[World], Callable[..., str]]) -> Callable[..., str]:
    return program_on(world)


def test_lists_say_when_it_is_tried_again(reconcile: Callable[..., str]) -> None:
    lines = {line.split()[0]: line for line in reconcile("get", "jobs").splitlines()}
    assert re.search(r" FAILED .* retry 2 of 3 in (60|59) min: Slurm: TIMEOUT", lines["f/j"])
    (flow,) = json.loads(reconcile("get", "flows", "-o", "json"))
    assert (flow["health"], flow["reason"]) == ("Progressing", "0 of 2 jobs completed; 1 job to be retried")
    tree = reconcile("get", "flows", "--tree")
    assert f"to be retried after walltime: {DIED}" in tree
    assert f"  to be retried after walltime:  {DIED}" in reconcile("describe", "flow", "f")


def test_json_has_the_policy_and_what_was_made_of_the_resources(
    world: World, reconcile: Callable[..., str]
) -> None:
    jobs = {job["key"]: job for job in json.loads(reconcile("get", "jobs", "-o", "json"))}
    job, other = jobs["f/j"], jobs["f/other"]
    assert job["retries"]["limit"] == other["retries"]["limit"] == 3
    assert (job["retried"], other["retried"]) == (["oom", "walltime"], [])
    assert (job["retry_at"], other["retry_at"]) == (world.job("f/j").retry.at, None)
    assert job["resources"] == {"time": "04:00:00", "mem": "9G", "ntasks": 2}
    assert other["resources"] == {"time": "01:00:00", "mem": "4G", "ntasks": 2}


def test_describe_job_shows_the_escalated_values_with_their_origin(reconcile: Callable[..., str]) -> None:
    text = reconcile("describe", "job", "f/j")
    assert re.search(r"^retry: +2 of 3 in (60|59) min, after oom, walltime$", text, re.MULTILINE)
    assert (
        '  resources:   {"time": "04:00:00", "mem": "9G", "ntasks": 2}   # escalated: time *2, mem *1.5, '
        in text
    )
    assert "2 times, after oom, walltime, rule more-time (order 100), rules/r.yaml:7" in text
    assert (
        '                 from {"time": "01:00:00", "mem": "4G", "ntasks": 2}   # flow f, flows/f.yaml:5'
        in text
    )
    assert "escalated" not in reconcile("describe", "job", "f/other")
    facts = json.loads(reconcile("describe", "job", "f/j", "-o", "json"))["provenance"]
    assert facts["resources"]["escalated"]["by"]["name"] == "more-time"
    assert facts["retries"]["escalated"] is None


def test_explain_job(reconcile: Callable[..., str]) -> None:
    lines = reconcile("explain", "job", "f/j", "resources").splitlines()
    assert lines[1] == 'resources: {"time": "04:00:00", "mem": "9G", "ntasks": 2}'
    assert re.match(
        r"  escalated  time \*2, mem \*1.5, 2 times, .* rule more-time \(order 100\) +rules/r", lines[2]
    )
    assert re.match(r'  set by +{"time": "01:00:00", .* flow f +flows/f', lines[3])
    (found,) = json.loads(reconcile("explain", "job", "f/j", "retries", "-o", "json"))["fields"]
    assert (found["value"]["limit"], found["escalated"]) == (3, None)
    assert found["set_by"]["line"] == 7


def test_render_gives_the_script_of_the_retry(
    world: World,
    program: Callable[..., Ended],
    reconcile: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "#SBATCH --time=04:00:00\n" in reconcile("render", "job", "f/j")
    done = program("render", "job", "f/j", "--state-dir", str(world.root / "state"))
    assert "f/j is FAILED: as retry 2 after walltime it gets attempt 3 on worker hpc" in done.stderr
    world.edit("f/j", retry=RetryStatus(at=None))
    assert "#SBATCH --time=01:00:00\n" in reconcile("render", "job", "f/j"), "by hand it begins anew"


def test_verbs_on_a_job_that_waits_for_its_retry(world: World, reconcile: Callable[..., str]) -> None:
    text = reconcile("retry", "f/j", "--dry-run")
    assert "job  f/j  (FAILED, to be retried: that is done now, as attempt 3)" in text
    text = reconcile("cancel", "f/j")
    assert "cancel: 1 job without a further retry" in text
    assert world.job("f/j").retry.at is None
    assert "no retry: cancel by" in reconcile("events", "--for", "job/f/j")
    assert re.search(
        r"^retry: +2 of 3 made, after oom, walltime$", reconcile("describe", "job", "f/j"), re.MULTILINE
    )


def test_set_retries_writes_a_rule(world: World, reconcile: Callable[..., str]) -> None:
    text = reconcile("set", "retries", "f/other", "{limit: 0}", "--dry-run")
    assert "+    retries: {limit: 0}" in text or "+      limit: 0" in text


def test_a_pass_tells_of_the_next_retry(world: World, reconcile: Callable[..., str]) -> None:
    world.edit("f/other", state=JobState.COMPLETED)
    assert re.search(r"nothing is running; next retry in (60|59) min$", reconcile("--once"), re.MULTILINE)
    assert re.search(r"no changes\n.*next retry in (60|59) min$", reconcile("--once"), re.MULTILINE)


def test_the_attempts_that_a_job_continues_are_its_chain(world: World, reconcile: Callable[..., str]) -> None:
    world.edit("f/j", retry=RetryStatus(causes=["walltime"] * 2, run_dirs=["/w/1", "/w/2"], at=1e12))
    assert json.loads(reconcile("describe", "job", "f/j", "-o", "json"))["continues"] == []
    world.repository.write("rules/r.yaml", RULE.lstrip() + "      continue: {keep: [WAVECAR]}\n")
    world.reconcile()
    assert json.loads(reconcile("describe", "job", "f/j", "-o", "json"))["continues"] == ["/w/1", "/w/2"]
    lines = reconcile("describe", "job", "f/j").splitlines()
    assert [line.split() for line in lines if line.startswith("continues:")] == [
        ["continues:", "/w/1"],
        ["continues:", "/w/2"],
    ]
    assert "export RECONCILER_PREVIOUS_RUN_DIR=/w/2\n" in reconcile("render", "job", "f/j")
