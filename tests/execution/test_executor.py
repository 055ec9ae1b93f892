"""Passes of the executor: limits, order, outages, cancelling, deferred patches, jobs that vanish."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import TransientError
from reconciler.execution.pacing import _FIRST_BACK_OFF, _LONGEST_BACK_OFF
from reconciler.jobs.jobstore import ForeignOutputs
from reconciler.model.records import JobRecord, WorkerStatus
from reconciler.model.run_config import RunConfig
from reconciler.model.settings import Level, Origin, Setting
from reconciler.model.states import ACTIVE, JobState
from tests.execution.support import World, eventually, gate, lines, processes_below, running
from tests.services import processes

pytestmark = pytest.mark.timeout(600)  # for a machine that is busy with other things, too

MakeWorld = Callable[..., World]


# how jobs end -----------------------------------------------------------------------------------------


def test_jobs_that_end_in_every_way(world: World) -> None:
    world.flow(
        "ends",
        {"id": "raises", "function": "fails", "args": ["ö went wrong"]},
        {"id": "dies", "function": "dies", "args": [9]},
        {"id": "dies-well", "function": "dies", "args": [0]},
        {"id": "homeless", "function": "removes_its_directory"},
        {"id": "bytes", "function": "prints_bytes"},
        {"id": "parent", "function": "leaves_a_child"},
        {"id": "heavy", "function": "keeps_heavy", "args": [3]},
        {"id": "uses-heavy", "function": "total", "args": [{"$output": "heavy.heavy"}]},
    )
    world.reconcile()
    world.run()
    error = {path.partition("/")[2]: job.error or "" for path, job in world.jobs().items()}
    assert world.states("ends/raises", "ends/dies", "ends/dies-well") == ["FAILED"] * 3
    assert "ValueError: ö went wrong" in error["raises"]
    assert "simple_jobs.py" in error["raises"]
    assert error["dies"].startswith("last words \ufffd")
    assert error["dies"].endswith("it ended without a result, exit code 9")
    assert error["dies-well"].endswith("it ended without a result, exit code 0")
    assert world.output("ends/homeless") == "homeless"
    assert world.output("ends/bytes") == "printed"
    assert world.state("ends/parent") == "COMPLETED"
    os.kill(world.output("ends/parent"), signal.SIGKILL)
    assert world.output("ends/uses-heavy") == 3


def test_a_job_whose_whole_group_vanished_says_so(world: World) -> None:
    world.flow(
        "gone",
        {"id": "group", "function": "wait_for", "args": [str(gate(world, "a"))]},
        {"id": "python", "function": "wait_for", "args": [str(gate(world, "b"))]},
        {"id": "after", "function": "give", "args": [{"$output": "group"}]},
    )
    world.reconcile()
    world.until(lambda: gate(world, "a.runs").exists() and gate(world, "b.runs").exists())
    os.killpg(int(world.job("gone/group").attempt.queue_id or "x"), signal.SIGKILL)
    script = int(world.job("gone/python").attempt.queue_id or "x")
    (python,) = (
        pid
        for pid in processes_below(world.work / "w1")
        if ".launchers/" in processes.command_of(pid) and os.getpgid(pid) == script
    )
    os.kill(python, signal.SIGKILL)
    world.run()
    group, interpreter = world.job("gone/group"), world.job("gone/python")
    assert (group.state, interpreter.state) == (JobState.FAILED, JobState.FAILED)
    assert "its process vanished without an exit code: killed, out of memory" in (group.error or "")
    assert "exit code 137 (signal 9)" in (interpreter.error or "")
    assert world.state("gone/after") == "WAITING"


@pytest.mark.usefixtures("warm")
def test_an_output_that_cannot_be_kept_fails_its_job_alone(world: World) -> None:
    """The name of its store is no name of a collection."""
    world.yaml(
        "lib/odd.py",
        """
        from jobflow import job

        @job(**{"x" * 200: "part"})
        def odd():
            return {"part": [1]}
        """,
    )
    world.flow("kept", {"id": "odd", "function": "odd.odd"}, {"id": "even", "function": "give", "args": [1]})
    world.reconcile()
    world.run()
    assert world.states("kept/odd", "kept/even") == ["REMOTE_ERROR", "COMPLETED"]
    assert "its output cannot be kept" in (world.job("kept/odd").error or "")


@pytest.mark.usefixtures("warm")
def test_a_job_store_that_goes_away_keeps_what_it_was_given_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a batch that it has, or can never hold, have ended; the others wait for it."""
    project = world.repository.path / "reconciler.yaml"
    docs = world.root / "docs.json"
    store = f"jobstore: {{docs_store: {{type: JSONStore, paths: {docs}, read_only: false}}}}"
    project.write_text(project.read_text().replace("spec: {", f"spec: {{{store}, "))
    world.yaml("lib/odd.py", "from jobflow import job\n\n@job\ndef power(of):\n    return 2**of\n")
    powers = {"one": 1, "huge": 70, "two": 2}
    world.flow("f", *({"id": name, "function": "odd.power", "args": [of]} for name, of in powers.items()))
    world.reconcile()
    world.advance()
    assert eventually(lambda: len(list((world.work / "w1/.outbox").glob("*_*"))) == len(powers))
    save, saved = ForeignOutputs.save_before, []

    def twice(self: ForeignOutputs, *arguments: Any) -> None:
        saved.append(arguments)
        if len(saved) == len(powers):
            raise TransientError("the job store does not answer: gone")
        save(self, *arguments)

    monkeypatch.setattr(ForeignOutputs, "save_before", twice)
    world.until(lambda: len(saved) == len(powers))
    states = sorted(job.state.value for job in world.jobs().values())
    assert len([state for state in states if state in ("COMPLETED", "REMOTE_ERROR")]) == len(powers) - 1
    monkeypatch.undo()
    world.advance(time.time() + 60)
    assert world.states("f/one", "f/huge", "f/two") == ["COMPLETED", "REMOTE_ERROR", "COMPLETED"]


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("odd", [{"worker": 5}, {"priority": "high"}, {"worker": {"name": "w1"}}])
def test_a_generated_job_with_impossible_run_config_fails_alone(world: World, odd: dict[str, object]) -> None:
    world.yaml(
        "lib/odd.py",
        f"""
        from jobflow import Response, job

        @job
        def child():
            return 1

        @job
        def odd():
            made = child()
            made.config.manager_config = {odd!r}
            return Response(addition=made)
        """,
    )
    world.flow("born", {"id": "odd", "function": "odd.odd"}, {"id": "even", "function": "give", "args": [1]})
    world.reconcile()
    world.run()
    assert world.states("born/odd", "born/even", "born/child") == ["COMPLETED", "COMPLETED", "FAILED"]
    reason = f"born/odd has generated a job that is not valid: {next(iter(odd))}: expected a "
    assert (world.job("born/child").error or "").startswith(reason)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("text", ["{", "[]", '{"ok": "yes"}', '{"ok": true}'])
def test_a_damaged_result_is_reported(world: World, text: str) -> None:
    world.flow("f", {"id": "j", "function": "response_flows.writes_a_false_result", "args": [text]})
    world.reconcile()
    world.run()
    assert world.state("f/j") == "REMOTE_ERROR"
    assert "claim/result.json is damaged" in (world.job("f/j").error or "")


# max_jobs and order -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("warm")
def test_the_limit_holds_at_every_instant_and_the_worker_stays_full(make_world: MakeWorld) -> None:
    world = make_world()
    world.repository.write("workers/workers.yaml", world.worker("w1", max_jobs=3))
    log = world.root / "log"
    jobs = [{"id": f"j{n}", "function": "log_span", "args": [str(log), f"j{n}", 0.6]} for n in range(9)]
    world.flow("many", *jobs)
    world.reconcile()
    while not world.is_idle():
        world.advance()
        with world.store.read() as view:
            active = sum(view.count_in_state(state) for state in ACTIVE)
            ready = view.count_in_state(JobState.READY)
        assert active == 3 or (ready == 0 and active < 3)
        time.sleep(0.01)
    inside, most = 0, 0
    for line in lines(log):
        inside += 1 if line.startswith("begin") else -1
        most = max(most, inside)
    assert (len(lines(log)), most) == (18, 3)


@pytest.mark.usefixtures("warm")
def test_a_pass_costs_what_is_active_not_what_waits(world: World) -> None:
    world.flow("hold", *[
        {"id": f"j{n}", "function": "wait_for", "args": [str(gate(world, "g"))]} for n in range(4)
    ])  # fmt: skip
    world.reconcile()
    world.until(lambda: all(running(world, f"hold/j{n}")() for n in range(4)))

    def cost(passes: int = 200) -> float:
        best = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(passes):
                world.advance()
            best = min(best, (time.perf_counter() - began) / passes)
        return best

    few = cost()
    origin = Origin(Level.PROJECT, "Project", "test", "/spec")
    template = JobRecord(
        uuid="u", index=1, flow="waiting", key="k", name="n", function="m.f", state=JobState.READY,
        config=RunConfig(worker=Setting("w1", origin)), content="c",
    )  # fmt: skip
    world.store.write(lambda writer: [writer.put_job(_numbered(template, n)) for n in range(10_000)])
    assert cost() < 3 * few + 0.001
    gate(world, "g").touch()


def _numbered(template: JobRecord, number: int) -> JobRecord:
    import msgspec

    return msgspec.structs.replace(template, uuid=f"{number:032x}", key=f"k{number}", sequence=number + 100)


# outages ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("warm")
def test_an_unusable_worker_backs_off_and_the_other_goes_on(make_world: MakeWorld) -> None:
    world = make_world()
    blocked = world.root / "blocked"
    blocked.write_text("a file where the work directory should be")
    world.repository.write(
        "workers/workers.yaml", world.worker("w1", max_jobs=2) + world.worker("w2", work_dir=str(blocked))
    )
    world.flow("good", {"id": "a", "function": "give", "args": [1]})
    world.flow("bad", {"id": "b", "function": "give", "args": [2]}, worker="w2")
    world.reconcile()
    world.until(lambda: world.state("good/a") == "COMPLETED")
    assert world.state("bad/b") == "READY", "a patch may still reach it"
    before = _status(world).failures
    for failures in range(before + 1, before + 9):
        world.restart()  # the back-off is no memory of a process
        tried = _status(world).next_try
        world.advance(tried - 0.01)
        assert _status(world).failures == failures - 1, "it must not be tried before its time"
        world.advance(tried)
        assert _status(world).failures == failures
        wait = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** (failures - 1))
        assert _status(world).next_try - tried == pytest.approx(wait)
    assert not _status(world).reachable
    assert str(blocked) in _status(world).reason
    blocked.unlink()
    world.advance(_status(world).next_try)
    assert _status(world).reachable
    world.run()
    assert world.state("bad/b") == "COMPLETED"


def _status(world: World) -> WorkerStatus:
    found = world.view(lambda view: view.worker_status("w2"))
    assert isinstance(found, WorkerStatus)
    return found


@pytest.mark.usefixtures("warm")
def test_a_wiped_work_directory_is_made_anew(world: World) -> None:
    import shutil

    world.flow("first", {"id": "j", "function": "give", "args": [1]})
    world.reconcile()
    world.run()
    shutil.rmtree(world.work)
    world.flow("second", {"id": "j", "function": "give", "args": [2]})
    world.reconcile()
    world.run()
    assert world.state("second/j") == "COMPLETED"


# deferred patches -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("warm")
def test_a_patch_is_deferred_while_the_job_runs_and_applied_when_it_has(world: World) -> None:
    world.flow("f", {"id": "j", "function": "wait_for", "args": [str(gate(world, "g"))]}, priority=1)
    world.reconcile()
    world.until(running(world, "f/j"))
    world.flow("f", {"id": "j", "function": "wait_for", "args": [str(gate(world, "g"))]}, priority=7)
    world.reconcile()
    job = world.job("f/j")
    assert (job.state.value, job.config.priority_value) == ("RUNNING", 1)
    assert job.wanted is not None
    assert job.wanted.priority_value == 7
    gate(world, "g").touch()
    world.run()
    job = world.job("f/j")
    assert (job.state.value, job.config.priority_value, job.wanted) == ("COMPLETED", 7, None)


# speed ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("warm")
def test_the_next_job_of_a_chain_starts_within_a_second(world: World) -> None:
    jobs: list[dict[str, Any]] = [{"id": "j0", "function": "give", "args": [0]}]
    jobs += [{"id": f"j{n}", "function": "give", "args": [{"$output": f"j{n - 1}"}]} for n in range(1, 4)]
    world.flow("chain", *jobs)
    world.reconcile()
    world.run()
    directories = [Path(world.job(f"chain/j{n}").attempt.run_dir or "") for n in range(4)]
    handovers = [
        (after / "claim" / "queue_id").stat().st_mtime - (before / "claim" / "result.json").stat().st_mtime
        for before, after in pairwise(directories)
    ]
    assert min(handovers) < 1.0, handovers
    assert sorted(handovers)[1] < 1.0, handovers


@pytest.mark.usefixtures("warm")
def test_commands_of_the_user_may_go_elsewhere(make_world: MakeWorld) -> None:
    """A `cd` in pre_run or post_run moves neither the job nor its claim."""
    world = make_world()
    moving = world.worker("w1", pre_run="cd /", post_run="cd /tmp")
    world.repository.write("workers/workers.yaml", moving)
    world.flow(
        "f", {"id": "a", "function": "give", "args": [1]}, {"id": "b", "function": "dies", "args": [7]}
    )
    world.reconcile()
    world.run()
    assert world.states("f/a", "f/b") == ["COMPLETED", "FAILED"]
    assert (world.job("f/b").error or "").endswith("exit code 7")
