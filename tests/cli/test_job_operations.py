"""The verbs of a job's life on the command line: selectors, what is shown, asked, refused; exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.cli.main import main
from reconciler.model.applied import AppliedConfig
from reconciler.model.manifests import WorkerSpec
from reconciler.model.records import FlowRecord, JobAttempt, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import JobState
from tests.support import Repository

PROJECT = Origin(Level.PROJECT, "Project", "test", "/spec/defaults/worker")
BY = "(Ada Tester <ada@example.invalid>)"


class Done(msgspec.Struct):
    """How a run of the program ended."""

    code: int
    out: str
    err: str


Terminal = Callable[..., Done]

JOBS = {
    "eos-al": {"relax": "COMPLETED", "fit": "FAILED", "bands": "WAITING"},
    "eos-cu": {"relax": "FAILED", "fit": "WAITING", "relax big": "READY"},
    "old": {"relax": "COMPLETED", "fit": "USER_STOPPED"},
}


def record(flow: str, key: str, number: int, state: str) -> JobRecord:
    return JobRecord(
        uuid=f"00000000-0000-4000-8000-{number:012}", index=1, flow=flow, key=key, name=key, function="m.f",
        state=JobState(state), content=key, sequence=number,
        attempt=JobAttempt(number=int(state not in ("READY", "WAITING"))),
        config=RunConfig(worker=Setting("w2" if key == "fit" else "w1", PROJECT)),
        parents=["nobody"] if state == "WAITING" else [],
    )  # fmt: skip


def fill(writer: Writer) -> None:
    """Three flows; the last was removed."""
    spec = WorkerSpec(type="local", scheduler_type="shell", work_dir="/nowhere")
    writer.put_config(AppliedConfig(revision="main@1", workers={"w1": spec, "w2": spec}))
    number = 0
    for flow, jobs in JOBS.items():
        labels = {"metal": flow[-2:], "kind": "other" if flow == "old" else "eos"}
        writer.put_flow(
            FlowRecord(name=flow, identity=flow, build_key="", labels=labels, removed=flow == "old")
        )
        for key, state in jobs.items():
            number += 1
            writer.put_job(record(flow, key, number, state))


@pytest.fixture
def state(state_dir: Path) -> Path:
    state_dir.mkdir()
    store = Store(state_dir)
    store.write(fill)
    store.close()
    return state_dir


@pytest.fixture
def reconcile(
    repository: Repository,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Terminal:
    """Run the program in this process: that is many times faster than a new one."""

    def run(*arguments: str) -> Done:
        monkeypatch.chdir(repository.path)
        monkeypatch.setattr("sys.argv", ["reconcile", "--state-dir", str(state), *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capfd.readouterr()
        return Done(int(caught.value.code or 0), captured.out, captured.err)

    return run


def states(state: Path) -> dict[str, str]:
    store = Store(state)
    try:
        with store.read() as view:
            return {job.path: str(job.state) for job in view.jobs()}
    finally:
        store.close()


class TestSelectors:
    @pytest.mark.parametrize(
        ("words", "selected"),
        [
            (["eos-al"], ["eos-al/relax", "eos-al/fit", "eos-al/bands"]),
            (["eos-*/relax*"], ["eos-al/relax", "eos-cu/relax", "eos-cu/relax big"]),
            (["eos-cu/relax"], ["eos-cu/relax"]),
            (["*"], [f"{flow}/{key}" for flow in ("eos-al", "eos-cu") for key in JOBS[flow]]),
            (["state:failed"], ["eos-al/fit", "eos-cu/relax"]),
            (["state:WAITING,READY", "worker:w1"], ["eos-al/bands", "eos-cu/relax big"]),
            (["state:WAITING", "state:READY", "eos-cu"], ["eos-cu/fit", "eos-cu/relax big"]),
            (["flow:metal=cu", "state:FAILED"], ["eos-cu/relax"]),
            (["flow:metal=cu", "flow:metal=al", "worker:w2"], ["eos-al/fit", "eos-cu/fit"]),
            (["label:metal=cu,al", "worker:w2"], ["eos-al/fit", "eos-cu/fit"]),
            (["label:metal=cu", "label:kind=eos"], ["eos-cu/fit", "eos-cu/relax", "eos-cu/relax big"]),
            (["label:metal=al", "label:kind=other"], []),
            (["label:kind=eos", "state:FAILED"], ["eos-al/fit", "eos-cu/relax"]),
            (["00000000-0000-4000-8000-000000000002"], ["eos-al/fit"]),
            (["00000000-0000-4000-8000-000000000004_1", "eos-al/fit"], ["eos-al/fit", "eos-cu/relax"]),
            (["eos-al", "state:PAUSED"], []),
        ],
    )
    def test_selected_jobs(self, reconcile: Terminal, words: list[str], selected: list[str]) -> None:
        data = json.loads(reconcile("cancel", *words, "--dry-run", "-o", "json").out)
        found = [job["key"] for kind in ("jobs", "refused", "left_alone") for job in data[kind]]
        assert sorted(found) == sorted(selected)

    @pytest.mark.parametrize(
        ("word", "said"),
        [
            ("eos-ag", "no flow matches 'eos-ag'\n  help: did you mean 'eos-al'?"),
            ("eso-al/relax", "no flow matches 'eso-al'\n  help: did you mean 'eos-al/relax'?"),
            ("eos-al/relx", "no job matches 'eos-al/relx'\n  help: did you mean 'eos-al/relax'?"),
            ("eos-*/x*", "no job matches 'eos-*/x*'\n  help: list them with `reconcile get jobs`"),
            ("o*", "no flow matches 'o*'"),
            ("eos-al/", "'eos-al/' does not name a job"),
            ("stat:FAILED", "there is no selector 'stat:'\n  help: did you mean 'state'?"),
            ("state:FALED", "there is no state 'FALED'\n  help: did you mean 'FAILED'?"),
            ("worker:w3", "there is no worker 'w3'\n  help: known: w1, w2"),
            ("flow:eos-al", "'flow:eos-al' does not name a label\n  help: write `eos-al` for the flow"),
            ("flow:metal=Cu", "no flow has the label metal=Cu\n  help: did you mean 'metal=cu'?"),
            ("label:metal=al,Cu", "no flow has the label metal=Cu\n  help: did you mean 'metal=cu'?"),
            ("label:metal", "'label:metal' does not name a label"),
            ("lable:metal=cu", "there is no selector 'lable:'\n  help: did you mean 'label'?"),
            ("00000000-0000-4000-8000-000000000099", "there is no job '0000"),
        ],
    )
    def test_mistyped_selector(self, reconcile: Terminal, state: Path, word: str, said: str) -> None:
        before = states(state)
        done = reconcile("cancel", word)
        assert (done.code, done.out) == (2, "")
        assert f"error: {said}" in done.err
        assert states(state) == before

    def test_without_any(self, reconcile: Terminal) -> None:
        assert reconcile("retry").code == 2


class TestExecution:
    def test_jobs_in_unsuitable_states_are_left_alone(self, reconcile: Terminal, state: Path) -> None:
        done = reconcile("retry", "eos-*")
        assert done.code == 0, done.err
        assert done.out.splitlines() == [
            "   + job  eos-al/fit  (FAILED: runs again as attempt 2)",
            "   + job  eos-cu/relax  (FAILED: runs again as attempt 2)",
            "retry: 2 jobs to run again",
        ]
        assert "left alone: 1 COMPLETED, 1 READY, 2 WAITING" in done.err
        assert "reconcile --once" in done.err
        assert [states(state)[path] for path in ("eos-al/fit", "eos-cu/relax")] == ["READY", "READY"]
        events = json.loads(reconcile("events", "--for", "job/eos-al/fit", "-o", "json").out)
        (event,) = [event for event in events if event["by"]]
        assert event["type"] == "Retry"
        assert event["by"].endswith(BY)
        assert "(`reconcile retry 'eos-*'`)" in event["message"]

    def test_a_dry_run_says_the_same_and_changes_nothing(self, reconcile: Terminal, state: Path) -> None:
        before = states(state)
        shown = reconcile("retry", "eos-*", "--dry-run").out.splitlines()
        assert states(state) == before
        assert reconcile("events").out == ""
        done = reconcile("retry", "eos-*").out.splitlines()
        assert shown == [*done[:-1], f"{done[-1]}; dry run, nothing was changed"]

    def test_exactly_named_job_must_be_suitable(self, reconcile: Terminal, state: Path) -> None:
        done = reconcile("retry", "eos-al/relax", "eos-al/fit")
        assert done.code == 4
        assert "error: eos-al/relax: it is COMPLETED; retry is for jobs that are FAILED" in done.err
        assert states(state)["eos-al/fit"] == "READY", "the others are done all the same"

    def test_no_suitable_job(self, reconcile: Terminal) -> None:
        done = reconcile("resume", "eos-al")
        assert (done.code, done.out) == (4, "")
        assert done.err.count("resume is for jobs that are PAUSED") == 3
        assert "help: `reconcile retry` runs it again" in done.err

    def test_empty_selection(self, reconcile: Terminal) -> None:
        done = reconcile("retry", "state:REMOTE_ERROR")
        assert (done.code, done.out) == (0, "")
        assert "no job is selected" in done.err

    def test_pause_resume_and_cancel(self, reconcile: Terminal, state: Path) -> None:
        assert reconcile("pause", "eos-cu", "-o", "name").out == "eos-cu/fit\neos-cu/relax big\n"
        assert states(state)["eos-cu/relax big"] == "PAUSED"
        assert reconcile("resume", "eos-cu/relax big").code == 0
        assert states(state)["eos-cu/relax big"] == "READY"
        assert "cancel: 2 jobs to keep from starting" in reconcile("cancel", "eos-cu").out
        assert states(state)["eos-cu/relax big"] == states(state)["eos-cu/fit"] == "USER_STOPPED"

    def test_forget_reaches_only_history(self, reconcile: Terminal, state: Path) -> None:
        done = reconcile("rerun", "old/relax")
        assert done.code == 4
        assert "its flow was removed from git" in done.err
        done = reconcile("forget", "eos-al/relax")
        assert done.code == 4
        assert "error: eos-al/relax: it is COMPLETED, and belongs to a flow that is wanted" in done.err
        assert "no superseded job, or job of a removed flow," in reconcile("forget", "eos-al").err
        assert reconcile("forget", "*").code == 0
        assert {path.partition("/")[0] for path in states(state)} == {"eos-al", "eos-cu"}

    def test_yaml_is_the_same_data(self, reconcile: Terminal) -> None:
        data = json.loads(reconcile("retry", "eos-al", "--dry-run", "-o", "json").out)
        assert data["by"].endswith(BY)
        text = reconcile("retry", "eos-al", "--dry-run", "-o", "yaml").out
        assert f"by: {data['by']}" in text

    def test_without_a_repository_it_is_the_login(
        self, reconcile: Terminal, repository: Repository, tmp_path: Path
    ) -> None:
        (tmp_path / "nowhere").mkdir()
        data = json.loads(
            reconcile("retry", "eos-al", "--dry-run", "-o", "json", "--repo", str(tmp_path / "nowhere")).out
        )
        assert data["by"]
        assert "<" not in data["by"]

    def test_the_help_says_what_it_takes(self, reconcile: Terminal) -> None:
        for verb in ("retry", "rerun", "pause", "resume", "cancel", "forget"):
            text = reconcile(verb, "--help").out
            assert "Accepts " in text
            assert "state:FAILED" in text
        assert "--with-descendants" in reconcile("rerun", "--help").out


def on_terminal(state: Path, repository: Repository, answer: str, *arguments: str) -> tuple[int, str]:
    """Run the program on a terminal and answer its question; return the exit code and what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler", "--state-dir", str(state), *arguments],
        cwd=repository.path, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer.encode())
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    return process.returncode, out.decode()


@pytest.mark.parametrize(
    ("arguments", "answer", "code", "after"),
    [
        (["cancel", "eos-cu"], "n\n", 1, "READY"),
        (["cancel", "eos-cu"], "y\n", 0, "USER_STOPPED"),
        (["cancel", "eos-cu", "--yes"], "", 0, "USER_STOPPED"),
        (["pause", "eos-cu/relax big"], "", 0, "PAUSED"),
    ],
)
def test_confirmation_on_a_terminal(
    state: Path, repository: Repository, arguments: list[str], answer: str, code: int, after: str
) -> None:
    found, out = on_terminal(state, repository, answer, *arguments)
    assert (found, states(state)["eos-cu/relax big"]) == (code, after)
    assert out.count("eos-cu/relax big") == 1, "shown before the question, and not again"


def test_data_of_many_jobs(reconcile: Terminal, state: Path) -> None:
    """A long answer is cut for people, and whole for programs."""

    def many(writer: Writer) -> None:
        writer.put_flow(FlowRecord(name="many", identity="many", build_key=""))
        for number in range(100, 160):
            writer.put_job(record("many", f"j{number}", number, "FAILED"))

    store = Store(state)
    store.write(many)
    store.close()
    lines = reconcile("retry", "many", "--dry-run").out.splitlines()
    assert (len(lines), lines[-2]) == (22, "     ... and 40 jobs more; -v shows all")
    assert len(reconcile("-v", "retry", "many", "--dry-run").out.splitlines()) == 61
    data: dict[str, Any] = json.loads(reconcile("retry", "many", "-o", "json").out)
    assert len(data["jobs"]) == 60
