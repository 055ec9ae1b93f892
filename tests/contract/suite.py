"""What every worker must do, wherever it is: a class to be taken over by one module for each place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from reconciler.execution.batch.agent import word
from reconciler.execution.batch.tickets import BATCHES, CANCEL, RUNNING, WAITING
from reconciler.execution.run_files import OUTBOX, name_in_queue
from reconciler.execution.worker.prepare import STAGING
from tests.contract.campaign import ODD, SECRET, VALUE, Campaign
from tests.contract.schedulers import DEFAULT_SECONDS, SECONDS, SLOTS, Request, Scheduler
from tests.execution.support import eventually
from tests.services import processes


class Contract:
    """The part that holds for all. ``place`` is from ``PLACES``; ``megabytes``: the size of a big output."""

    place: ClassVar[str]
    megabytes: ClassVar[int] = 100
    overdue: ClassVar[bool] = False
    batch: ClassVar[bool] = False

    # results ------------------------------------------------------------------------------------------

    def test_a_chain_runs_and_passes_its_outputs_on(self, played: Campaign) -> None:
        assert [played.world.output(f"chain/{name}") for name in "abc"] == [3, 13, 16]
        assert played.world.states("chain/a", "chain/b", "chain/c") == ["COMPLETED"] * 3

    def test_an_error_comes_back_with_its_traceback(self, played: Campaign) -> None:
        job = played.world.job("ends/raises")
        assert (job.state.value, job.cause) == ("FAILED", "exception")
        assert "ValueError: ö went wrong" in (job.error or "")
        assert re.search(r'contract_jobs\.py", line \d+, in fails', job.error or "")
        assert played.world.state("ends/after") == "WAITING", "what needs it does not run"

    def test_a_process_that_leaves_without_a_result_has_failed(self, played: Campaign) -> None:
        job = played.world.job("ends/leaves")
        assert job.state.value == "FAILED"
        assert (job.error or "").splitlines()[0] == "last words"
        assert "it ended without a result, exit code 9" in (job.error or "")

    def test_a_big_output_arrives_whole_and_in_bounded_memory(self, played: Campaign) -> None:
        output = played.world.output("big/j")
        assert [len(text) for text in output] == [1_000_000] * self.megabytes
        assert len(set(output)) == self.megabytes
        assert played.growth < 8e6 * self.megabytes + 50e6

    # what a job is given ------------------------------------------------------------------------------

    def test_values_names_and_exports_arrive_as_they_are(self, played: Campaign) -> None:
        told = played.world.output("told/told")
        assert told["values"] == [VALUE]
        assert told["environment"]["ODD_VALUE"] == VALUE
        assert Path(told["directory"]) == played.run_dir("told/told")
        assert ODD in told["directory"]

    def test_the_commands_of_the_worker_come_before_those_of_the_exec_config(self, played: Campaign) -> None:
        assert played.world.output("told/told")["environment"]["ORDER"] == "worker,exec"
        assert (played.run_dir("told/told") / "after").read_text().split() == ["worker", "exec"]

    def test_the_environment_of_the_reconciler_reaches_no_job(self, played: Campaign) -> None:
        assert SECRET not in json.dumps(played.world.output("told/told")["environment"])

    def test_logs_shows_what_a_job_printed(self, played: Campaign) -> None:
        state = ["--state-dir", str(played.world.store.path), "--repo", str(played.world.repository.path)]
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", "logs", "prints/j", *state], capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode(errors="replace") == "grüße 😀\ufffd\n"
        assert done.stderr.decode() == "naja\n"

    # limits and order ---------------------------------------------------------------------------------

    def test_max_jobs_is_never_exceeded_and_kept_full(self, played: Campaign) -> None:
        assert len(played.samples) > 10
        assert [found for found in played.samples if found[0] > 2] == []
        assert [found for found in played.samples if found[0] < 2 and found[1] > 0] == []
        spans = [played.world.output(f"limit/j{n}") for n in range(6)]
        together = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
        assert max(together) == 2

    def test_the_most_urgent_goes_first_then_the_oldest(self, played: Campaign) -> None:
        names = ("low", "first", "second", "none")
        begins = {name: played.world.output(f"order/{name}")[0] for name in names}
        assert sorted(begins, key=begins.__getitem__) == ["first", "second", "none", "low"]

    # ends that nobody asked for -----------------------------------------------------------------------

    def test_a_killed_python_is_a_failure_with_its_signal(self, played: Campaign) -> None:
        job = played.world.job("python-killed/j")
        assert (job.state.value, job.attempt.number, job.cause) == ("FAILED", 1, "killed")
        assert "exit code 137 (signal 9)" in (job.error or "")

    def test_a_killed_process_group_is_a_failure(self, played: Campaign) -> None:
        job = played.world.job("group-killed/j")
        assert (job.state.value, job.attempt.number) == ("FAILED", 1)
        assert job.cause in ("killed", "lost")
        assert re.search(r"exit code 137|vanished without an exit code", job.error or "")

    def test_a_job_that_vanished_is_a_failure_and_never_run_again(self, played: Campaign) -> None:
        job = played.world.job("vanished/j")
        assert (job.state.value, job.attempt.number) == ("FAILED", 1)
        assert job.cause in ("killed", "lost")
        assert job.error

    def test_a_result_without_a_marker_is_found_all_the_same(self, played: Campaign) -> None:
        assert played.world.state("unmarked/j") == "COMPLETED"
        assert played.world.output("unmarked/j") == "went on"
        assert played.world.job("unmarked/j").attempt.number == 1

    # interrupted passes -------------------------------------------------------------------------------

    def test_an_uploaded_job_is_submitted_by_the_next_pass(self, played: Campaign) -> None:
        assert played.world.state("uploaded/j") == "COMPLETED"

    def test_a_submission_that_nobody_recorded_is_found_and_not_repeated(self, played: Campaign) -> None:
        job = played.world.job("submitted/j")
        assert (job.state.value, job.attempt.number, job.attempt.queue_id) == (
            "COMPLETED",
            1,
            played.first_id,
        )

    # cancelling ---------------------------------------------------------------------------------------

    def test_cancelling_ends_a_running_job_with_all_its_processes(self, played: Campaign) -> None:
        assert played.world.state("cancel-running/j") == "USER_STOPPED"
        pids = played.pids["cancel-running/j"]
        assert len(pids) == 2
        assert eventually(lambda: not any(map(processes.is_alive, pids)))

    def test_cancelling_before_the_submission_leaves_no_trace(self, played: Campaign) -> None:
        assert played.world.states("cancel-uploaded/j", "cancel-ready/j") == ["USER_STOPPED"] * 2
        owner = played.run_dir("cancel-uploaded/j") / "claim" / "queue_id"
        assert owner.read_text() == "withdrawn\n"
        assert played.world.job("cancel-ready/j").attempt.run_dir is None

    # what is left -------------------------------------------------------------------------------------

    def test_no_marker_and_no_staging_directory_is_left(self, played: Campaign) -> None:
        for worker in played.base.iterdir():
            assert list((worker / OUTBOX).iterdir()) == []
            assert list((worker / STAGING).iterdir()) == []

    def test_completed_run_directories_are_removed_where_the_worker_says_so(self, played: Campaign) -> None:
        def is_clean() -> bool:
            return list((played.base / "one").glob("??/??/??/*")) == []

        assert eventually(is_clean)
        assert (played.run_dir("chain/a") / "claim" / "result.json").is_file(), "others keep them"

    def test_no_process_is_left(self, played: Campaign) -> None:
        assert eventually(lambda: not processes.of_directory(played.base)), _told(played.base)

    def test_every_job_has_ended_as_it_should(self, played: Campaign) -> None:
        """So that a flow without a test of its own cannot go wrong unseen."""
        odd = {
            path: (job.state.value, job.error)
            for path, job in played.world.jobs().items()
            if job.state.value not in ("COMPLETED", "USER_STOPPED") and path not in _BROKEN
        }
        assert odd == {}


_BROKEN = (
    "ends/raises", "ends/leaves", "ends/after", "python-killed/j", "group-killed/j", "vanished/j",
    "refused/j", "overdue/j",
)  # fmt: skip


class ContractOfBatches(Contract):
    """What differs for jobs in allocations: they are handed over early, and wait there for a slot."""

    batch = True

    def test_max_jobs_is_never_exceeded_and_kept_full(self, played: Campaign) -> None:
        spans = [played.world.output(f"limit/j{n}") for n in range(6)]
        together = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
        assert max(together) == 2
        assert len({word(played.run_dir(f"limit/j{n}") / "claim" / "batch") for n in range(6)}) == 1

    def test_cancelling_before_the_submission_leaves_no_trace(self, played: Campaign) -> None:
        for path in ("cancel-uploaded/j", "cancel-ready/j"):
            assert played.world.state(path) == "USER_STOPPED"
            assert word(played.run_dir(path) / "claim" / "queue_id") == "withdrawn"

    def test_no_ticket_and_no_note_of_a_job_is_left(self, played: Campaign) -> None:
        for place in (WAITING, CANCEL, f"*/{RUNNING}"):
            assert list(played.base.glob(f"*/{BATCHES}/*/{place}/*")) == []


class ContractOfSchedulers(Contract):
    """What only a scheduler can do: a plain shell has no queue to wait in, no requests and no limits."""

    @pytest.fixture
    def scheduler(self, played: Campaign) -> Scheduler:
        assert played.scheduler is not None
        return played.scheduler

    def test_resources_reach_the_scheduler(self, played: Campaign, scheduler: Scheduler) -> None:
        job = played.world.job("cancel-held/j")
        asked = Request(name_in_queue(job), scheduler.queue, SECONDS, SLOTS)
        assert played.requests["cancel-held/j"] == asked

    def test_generic_resources_say_the_same(self, played: Campaign, scheduler: Scheduler) -> None:
        name = name_in_queue(played.world.job("generic/j"))
        assert played.requests["generic/j"] == Request(name, scheduler.queue, SECONDS, SLOTS)

    def test_the_worker_default_is_for_jobs_without_resources(
        self, played: Campaign, scheduler: Scheduler
    ) -> None:
        name = name_in_queue(played.world.job("default/plain"))
        assert played.requests["default/plain"] == Request(name, scheduler.queue, DEFAULT_SECONDS, 1)

    def test_empty_resources_ask_for_nothing(self, played: Campaign, scheduler: Scheduler) -> None:
        assert scheduler.is_unasked(played.requests["default/empty"])
        assert played.world.state("default/empty") == "COMPLETED"

    def test_a_refused_submission_says_why(self, played: Campaign, scheduler: Scheduler) -> None:
        job = played.world.job("refused/j")
        assert (job.state.value, job.attempt.queue_id) == ("REMOTE_ERROR", None)
        assert scheduler.refusal in (job.error or "")

    def test_a_job_that_can_never_start_is_reported_and_can_be_cancelled(
        self, played: Campaign, scheduler: Scheduler
    ) -> None:
        assert scheduler.why in played.stuck
        assert played.health == f"Degraded: j is stuck: {played.stuck}"
        job = played.world.job("cancel-never/j")
        assert (job.state.value, job.attempt.stuck) == ("USER_STOPPED", None)

    def test_a_waiting_job_can_be_cancelled(self, played: Campaign) -> None:
        job = played.world.job("cancel-held/j")
        assert job.state.value == "USER_STOPPED"
        owner = Path(job.attempt.run_dir or "") / "claim" / "queue_id"
        assert owner.read_text() == "withdrawn\n", "it never started"

    def test_an_end_by_somebody_else_has_the_words_of_the_scheduler(self, played: Campaign) -> None:
        job = played.world.job("vanished/j")
        assert job.cause == "killed"
        assert re.search(r"^(Slurm: CANCELLED|Grid Engine: failed)", job.error or "", re.MULTILINE)

    def test_no_job_is_left_in_the_queue(self, played: Campaign, scheduler: Scheduler) -> None:
        ids = [job.attempt.queue_id for job in played.world.jobs().values() if job.attempt.queue_id]
        assert len(ids) > 20
        assert eventually(lambda: not any(map(scheduler.has, ids)))


class TimeLimits(ContractOfSchedulers):
    """A time limit takes Slurm half a minute, so one of its places is enough."""

    overdue = True

    def test_a_job_beyond_its_time_limit_has_failed_for_that(self, played: Campaign) -> None:
        job = played.world.job("overdue/j")
        assert (job.state.value, job.cause, job.attempt.number) == ("FAILED", "walltime", 1)
        assert re.search(r"Slurm: TIMEOUT|h_rt", job.error or ""), job.error


def _told(base: Path) -> list[str]:
    return [processes.command_of(pid) for pid in processes.of_directory(base)]
