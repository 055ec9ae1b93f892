"""Grid Engine: a real cell, and recorded answers for what takes too long to happen."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from qtoolkit.core.exceptions import OutputParsingError
from qtoolkit.io import SGEIO

from reconciler.errors import InputError, TransientError
from reconciler.execution.headers import queue_name, submission_header
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.queues.base import Queue, QueueEntry, QueueState, Refusal, Termination
from reconciler.execution.queues.sge import SGEQueue
from reconciler.model.retries import Cause
from reconciler.model.settings import Resources
from tests.execution.queues.recordings import answering, recorded, refusal
from tests.execution.support import eventually
from tests.services.gridengine import GridEngine

QUEUE = SGEQueue()
IDENTITY = "ee5ed8e4-068f-5ec8-8c2f-d451816ddb65_1.1"


class Jobs:
    """Jobs of the real Grid Engine, submitted and asked for as a worker does it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.ids: list[str] = []

    def run(self, command: str) -> CommandResult:
        """Run a command of the queue."""
        return LocalHost().run(f"cd {shlex.quote(str(self.directory))}\n{command}", 60)

    def attempt(self, script: str, name: str = "n.1", **resources: object) -> CommandResult:
        """Submit a script."""
        header = submission_header("sge", Resources(resources), name)
        (self.directory / "submit.sh").write_text(header + script)
        return self.run(QUEUE.submit_command("submit.sh"))

    def submit(self, script: str, name: str = "n.1", **resources: object) -> str:
        """Submit a script and return its id."""
        answer = self.attempt(script, name, **resources)
        queue_id = QUEUE.submitted_id(answer.stdout)
        assert queue_id is not None, answer
        self.ids.append(queue_id)
        return queue_id

    def entry(self, queue_id: str) -> QueueEntry | None:
        """Return the entry of a job in a listing of all."""
        asked = dict.fromkeys(self.ids, 0.0)
        return QUEUE.listing(asked, self.run(QUEUE.listing_command(self.ids))).get(queue_id)

    def never(self, queue_id: str) -> str:
        """Return why a job can never start."""
        entry = self.entry(queue_id)
        return entry.never if entry else ""

    def is_in(self, queue_id: str, state: QueueState | None) -> bool:
        """Whether a job is in a state; None: not listed."""
        entry = self.entry(queue_id)
        return (entry.state if entry else None) is state

    def wait(self, queue_id: str, state: QueueState | None) -> None:
        """Wait until a job is in a state."""
        assert eventually(lambda: self.is_in(queue_id, state)), (state, self.entry(queue_id))

    def cancel(self, *queue_ids: str) -> dict[str, str]:
        """Cancel jobs and return the problems."""
        return QUEUE.cancelled(queue_ids, self.run(QUEUE.cancel_command(queue_ids)))

    def death(self, queue_id: str) -> Termination | None:
        """Return what is known of a job that is over."""
        self.wait(queue_id, None)
        return QUEUE.accounting(queue_id, self.run(QUEUE.accounting_command(queue_id)))


@pytest.fixture
def jobs(sge_env: GridEngine, tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "run dir")


def test_it_is_a_queue() -> None:
    queue: Queue = QUEUE
    assert (queue.scheduler.name, queue.id_variable, queue.lost_after) == ("sge", "$JOB_ID", 10.0)


# a real cell --------------------------------------------------------------------------------------------


def test_jobs_are_listed_of_the_user_who_is_asked_for(jobs: Jobs) -> None:
    queue_id = jobs.submit("sleep 300\n")
    asked = {queue_id: ""}
    for user, listed in (("nobody", set()), (jobs.run("id -un").stdout.strip(), {queue_id})):
        queue = SGEQueue(user)
        assert set(queue.listing(asked, jobs.run(queue.listing_command([queue_id])))) == listed
    jobs.cancel(queue_id)


def test_submit_list_find_cancel(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "word")
    name = queue_name("0 ünï/codé " + "x" * 60, IDENTITY)
    queue_id = jobs.submit("echo $JOB_ID > id; env > environment; sleep 300\n", name)
    jobs.wait(queue_id, QueueState.RUNNING)
    assert eventually((jobs.directory / "environment").exists)
    names = [name, "other.1"]
    assert QUEUE.found(names, jobs.run(QUEUE.find_command(names))) == {name: queue_id}
    accounting = jobs.run(QUEUE.accounting_command(queue_id))
    assert QUEUE.accounting(queue_id, accounting) == Termination(
        "Grid Engine: the job is in the queue", over=False
    )
    assert (jobs.directory / "id").read_text() == f"{queue_id}\n", "it runs where it was submitted"
    assert "word" not in (jobs.directory / "environment").read_text()
    assert jobs.cancel(queue_id) == {}
    found = jobs.death(queue_id)
    assert found is not None and found.cause is Cause.KILLED and found.exit_code == 137
    assert QUEUE.found(names, jobs.run(QUEUE.find_command(names))) == {}


def test_held_jobs_and_jobs_in_the_error_state(jobs: Jobs) -> None:
    held = jobs.submit("exit 0\n", qverbatim="#$ -h")
    wrong = jobs.submit("exit 0\n", qverbatim="#$ -o /nonexistent/x")
    jobs.wait(held, QueueState.HELD)
    assert eventually(lambda: f"`qstat -j {wrong}` shows why" in jobs.never(wrong))
    assert jobs.cancel(held, wrong) == {}
    jobs.wait(wrong, None)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"select": "mem_total=900G"}, "it offers only hl:mem_total="),
        ({"model": "smp 500"}, 'cannot run in PE "smp"'),
        ({"select": "arch=none"}, "arch=none"),
    ],
)
def test_a_job_that_no_queue_can_run_says_so(jobs: Jobs, request_: dict[str, str], words: str) -> None:
    queue_id = jobs.submit("exit 0\n", **request_)
    assert eventually(lambda: words in jobs.never(queue_id))
    assert jobs.never(queue_id).startswith("no queue can run it: ")
    assert jobs.cancel(queue_id) == {}


def test_a_job_that_waits_for_a_disabled_queue_can_still_run(jobs: Jobs, sge: GridEngine) -> None:
    sge.call("qmod", "-d", "batch.q")
    try:
        queue_id = jobs.submit("exit 0\n", queue="batch.q")
        jobs.wait(queue_id, QueueState.PENDING)
        assert jobs.never(queue_id) == ""
    finally:
        sge.call("qmod", "-e", "batch.q")
    jobs.wait(queue_id, None)


def test_suspended_jobs(jobs: Jobs, sge: GridEngine) -> None:
    queue_id = jobs.submit("sleep 300\n")
    jobs.wait(queue_id, QueueState.RUNNING)
    sge.call("qmod", "-sj", queue_id)
    jobs.wait(queue_id, QueueState.SUSPENDED)
    jobs.cancel(queue_id)


def test_why_jobs_died(jobs: Jobs) -> None:
    failed = jobs.submit("exit 3\n")
    too_long = jobs.submit("sleep 300\n", walltime="2")
    killed = jobs.submit("kill -9 $$\n")
    assert jobs.death(failed) == Termination("Grid Engine: failed 0, exit_status 3", None, 3)
    dead = jobs.death(killed)
    assert dead is not None and (dead.cause, dead.exit_code) == (Cause.KILLED, 137)
    late = jobs.death(too_long)
    assert late is not None and late.cause is Cause.WALLTIME and "h_rt" in late.text


def test_a_refusal_is_told_from_a_failure(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"queue": "nosuch"}, {"model": "nosuch 4"}, {"select": "nosuch=1"}):
        answer = jobs.attempt("exit 0\n", **wrong)
        assert QUEUE.refusal(answer) is Refusal.FINAL and QUEUE.submitted_id(answer.stdout) is None, answer
    monkeypatch.setenv("SGE_QMASTER_PORT", "1")
    assert QUEUE.refusal(jobs.attempt("exit 0\n")) is None
    assert QUEUE.refusal(CommandResult(127, "", "bash: qsub: command not found\n")) is None


def test_an_unrequested_rerun_never_happens(jobs: Jobs, sge: GridEngine) -> None:
    queue_id = jobs.submit("exit 0\n", qverbatim="#$ -h")
    assert "restart: n" in " ".join(sge.call("qstat", "-j", queue_id).split())
    jobs.cancel(queue_id)


def test_generic_resources_are_taken(jobs: Jobs, sge: GridEngine) -> None:
    values = {
        "processes": 2, "threads_per_process": 2, "time_limit": 60, "priority": -10,
        "scheduler_kwargs": {"model": "smp", "qverbatim": "#$ -h"},
    }  # fmt: skip
    (jobs.directory / "submit.sh").write_text(submission_header("sge", Resources(values, True), "n.1"))
    queue_id = QUEUE.submitted_id(jobs.run(QUEUE.submit_command("submit.sh")).stdout) or ""
    said = " ".join(sge.call("qstat", "-j", queue_id).split())
    assert "parallel environment: smp range: 4" in said and "h_rt=60" in said
    jobs.cancel(queue_id)


def test_a_master_that_is_down_is_no_answer_to_anything(
    new_sge: Callable[[], GridEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = new_sge()
    for key, value in cell.env.items():
        monkeypatch.setenv(key, value)
    jobs = Jobs(tmp_path / "run")
    queue_id = jobs.submit("sleep 300\n", queue="batch.q")
    jobs.wait(queue_id, QueueState.RUNNING)
    cell.call("qmod", "-sq", "batch.q")
    jobs.wait(queue_id, QueueState.SUSPENDED)
    cell.kill_master()
    with pytest.raises(TransientError, match="qmaster"):
        jobs.entry(queue_id)
    with pytest.raises(TransientError, match="qmaster"):
        QUEUE.found(["n.1"], jobs.run(QUEUE.find_command(["n.1"])))
    with pytest.raises(TransientError, match="Connection refused"):
        jobs.cancel(queue_id)
    assert QUEUE.refusal(jobs.attempt("exit 0\n")) is None
    cell.start_master()
    assert jobs.is_in(queue_id, QueueState.SUSPENDED)


def test_without_a_cell_there_is_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SGE_ROOT", str(tmp_path))
    with pytest.raises(TransientError, match="doesn't exist"):
        QUEUE.listing({"1": ""}, LocalHost().run(QUEUE.listing_command(["1"]), 60))


# recorded answers ---------------------------------------------------------------------------------------


def in_state(letters: str) -> str:
    """Return a listing in which job 15 has a state."""
    return recorded("sge_states.xml").replace("@STATE@", letters)


def listed(output: str, *queue_ids: str, errors: str = "", code: int = 0) -> dict[str, QueueEntry]:
    """Return the listing of a recorded answer."""
    answer = answering(QUEUE.listing_command(queue_ids), output, errors, code)
    return QUEUE.listing(dict.fromkeys(queue_ids, ""), answer)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ("job rejected: Only 10 jobs are allowed per user (current job count: 10).", Refusal.TARGET),
        ("job rejected: Only 10 jobs are allowed per cluster.", Refusal.TARGET),
        ('job rejected: the requested parallel environment "nosuch" does not exist.', Refusal.FINAL),
        ("ask the qmaster's people for a project: your timeout has come", Refusal.FINAL),
        ("unable to contact qmaster using port 6444 on host h", None),
    ],
)
def test_a_refusal_is_as_small_as_what_it_is_about(errors: str, expected: Refusal | None) -> None:
    assert refusal(QUEUE, f"Unable to run job: {errors}\nExiting.") is expected


def test_what_no_grid_engine_says_holds_up_one_job() -> None:
    assert refusal(QUEUE, "please source /opt/sge/settings.sh") is Refusal.JOB


@pytest.mark.parametrize(
    ("output", "errors", "code"),
    [
        ("", "error: commlib error: got select error (Connection refused)\n", 1),
        ("", "bash: qstat: command not found\n", 127),
        ("", "", 0),
        ("Welcome\n", "", 0),
        (recorded("sge_states.xml")[:-20], "", 0),
        (recorded("sge_states.xml"), "", 1),
    ],
)
def test_no_answer_is_never_an_empty_listing(output: str, errors: str, code: int) -> None:
    with pytest.raises(TransientError):
        listed(output, "1", errors=errors, code=code)


def test_whose_jobs_are_listed() -> None:
    asks = QUEUE.listing_command(["1"]).split("qstat ")[1:]
    assert [ask.split(" 2>")[0] for ask in asks] == ['-u "$(id -un)"', '-u "$(id -un)" -xml']
    asks = SGEQueue("a b").listing_command(["1"]).split("qstat ")[1:]
    assert [ask.split(" 2>")[0] for ask in asks] == ["-u 'a b'", "-u 'a b' -xml"]


@pytest.mark.parametrize(
    ("failed", "status", "more", "cause"),
    [
        ("0", "0", {}, None),
        ("1   : assumedly before job", "0", {}, Cause.NEVER_STARTED),
        ("26  : opening input/output file", "0", {}, Cause.NEVER_STARTED),
        ("19  : before writing exit_status", "0", {}, Cause.NODE_FAIL),
        ("18  : shepherd returned error", "0", {}, Cause.KILLED),
        ("37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "137", {}, Cause.WALLTIME),
        ("100 : assumedly after job", "137", {"category": "-l h_rt=1:0:0"}, Cause.KILLED),
        (
            "100 : assumedly after job",
            "137",
            {"category": "-l h_rt=1:0:0", "ru_wallclock": "3600s"},
            Cause.WALLTIME,
        ),
        (
            "100 : assumedly after job",
            "138",
            {"category": "-l s_rt=59", "ru_wallclock": "60"},
            Cause.WALLTIME,
        ),
        (
            "100 : assumedly after job",
            "137",
            {"category": "-U a -l h_vmem=1G -pe smp 2", "maxvmem": "1.013GB"},
            Cause.OOM,
        ),
        (
            "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit",
            "137",
            {"category": "-l h_cpu=5"},
            Cause.KILLED,
        ),
    ],
)
def test_causes(failed: str, status: str, more: dict[str, str], cause: Cause | None) -> None:
    fields = {"jobnumber": "4", "failed": failed, "exit_status": status, "ru_wallclock": "3s", **more}
    record = "=" * 62 + "\n" + "".join(f"{key:<13}{value}  \n" for key, value in fields.items())
    found = QUEUE.accounting("4", CommandResult(0, record, ""))
    assert found is not None and found.over and found.cause is cause
    assert found.text.startswith(f"Grid Engine: failed {failed.partition(' ')[0]}")


def test_of_several_runs_the_last_one_counts() -> None:
    again = recorded("sge_qacct_11.txt").replace("jobnumber    11", "jobnumber    4")
    text = f"{recorded('sge_qacct_4.txt')}{again}{recorded('sge_qacct_12.txt')}"
    found = QUEUE.accounting("4", CommandResult(0, text, ""))
    assert found is not None and found.exit_code == 3


def test_nobody_knows_the_job() -> None:
    assert QUEUE.accounting("4", CommandResult(1, "", "")) is None
    assert QUEUE.accounting("4", CommandResult(0, recorded("sge_qacct_12.txt"), "")) is None


def test_waiting_for_the_accounting_takes_a_bounded_time() -> None:
    """The seconds since the script began count, so that many questions share them."""
    many = "\n".join(QUEUE.accounting_command(str(number)) for number in range(20))
    answer = answering(f"SECONDS=5\n{many}", "error: job id 1 not found\n", code=1)
    assert answer.exit_code == 0
    assert QUEUE.accounting("1", answer) is None


@pytest.mark.parametrize(
    ("output", "code", "problems"),
    [
        ("ada has registered the job 4 for deletion\nada has deleted job 5\n", 0, {}),
        ('denied: job "4" does not exist\nada has deleted job 5\n', 1, {}),
        ("job 4 is already in deletion\nada has deleted job 5\n", 0, {}),
        (
            'bob - you do not have the necessary privileges to delete the job "4"\nbob has deleted job 5\n',
            1,
            {"4": 'bob - you do not have the necessary privileges to delete the job "4"'},
        ),
    ],
)
def test_what_qdel_says(output: str, code: int, problems: dict[str, str]) -> None:
    answer = answering(QUEUE.cancel_command(["4", "5"]), output, code=code)
    assert QUEUE.cancelled(["4", "5"], answer) == problems


def test_only_numbers_are_cancelled() -> None:
    """Qdel takes patterns: `*` would be all jobs of the user."""
    assert "qdel 4\n" in QUEUE.cancel_command(["*", "4"])
    assert "*" not in QUEUE.cancel_command(["*"]) and "x" not in QUEUE.accounting_command("x")


# the defects of qtoolkit --------------------------------------------------------------------------------


def test_defect_01_no_answer_is_not_the_end_of_a_job() -> None:
    with pytest.raises(TransientError, match="Connection refused"):
        listed("", "15", errors="error: commlib error: got select error (Connection refused)\n", code=1)
    assert "15" not in listed(in_state("z"), "15", "17")


def test_defect_02_the_exit_status_of_an_ended_job_is_read() -> None:
    found = QUEUE.accounting("11", CommandResult(0, recorded("sge_qacct_11.txt"), ""))
    assert found == Termination("Grid Engine: failed 0, exit_status 3", None, 3)


def test_defect_07_a_good_cancel_is_good(jobs: Jobs) -> None:
    with pytest.raises(OutputParsingError):
        SGEIO().parse_cancel_output(0, "root has registered the job 4 for deletion\n", "")
    waiting, running = jobs.submit("exit 0\n", qverbatim="#$ -h"), jobs.submit("sleep 300\n")
    jobs.wait(running, QueueState.RUNNING)
    assert jobs.cancel(waiting, running, "999999") == {}
    assert jobs.cancel(running) == {}, "also while it ends"


def test_defect_07_somebody_elses_job_is_not_cancelled(jobs: Jobs, sge: GridEngine) -> None:
    queue_id = jobs.submit("sleep 300\n")
    command = f"cd /\n{QUEUE.cancel_command([queue_id, '999999'])}"
    environment = {**sge.env, "PATH": f"{sge.env['PATH']}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", command],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    problems = QUEUE.cancelled([queue_id, "999999"], CommandResult(0, done.stdout, done.stderr))
    assert list(problems) == [queue_id] and "privileges" in problems[queue_id]
    jobs.cancel(queue_id)


def test_defect_07_an_array_does_not_lose_its_id(jobs: Jobs) -> None:
    said = 'Your job-array 3.1-3:1 ("n.1") has been submitted\n'
    with pytest.raises(OutputParsingError):
        SGEIO().parse_submit_output(0, said, "")
    assert QUEUE.submitted_id(said) == "3"
    queue_id = jobs.submit("sleep 300\n", qverbatim="#$ -t 1-3")
    jobs.wait(queue_id, QueueState.RUNNING)
    assert jobs.cancel(queue_id) == {}


STATES = {
    "r t Rr Rt dr dt dRr dRt hr d": QueueState.RUNNING,
    "s S T ts tS tT Ss Rs RtS ds dS dT dRs dRS dRT": QueueState.SUSPENDED,
    "hqw hRwq hRq hq": QueueState.HELD,
    "qw w Rq Rqw Eqw Ehqw EhRqw dEqw": QueueState.PENDING,
    "X R qw?": QueueState.UNKNOWN,
}


@pytest.mark.parametrize(
    ("letters", "state"),
    [("", QueueState.UNKNOWN), *((word, state) for words, state in STATES.items() for word in words.split())],
)
def test_defect_07_every_state(letters: str, state: QueueState) -> None:
    entries = listed(in_state(letters), "15", "17")
    assert entries["15"].state is state and entries["17"].state is QueueState.HELD
    assert bool(entries["15"].never) == ("E" in letters)


def test_defect_07_one_state_spoils_the_listing_of_qtoolkit() -> None:
    text = in_state("S").replace("<&quot;d & c", "")
    with pytest.raises(OutputParsingError, match="Unknown job state S"):
        SGEIO().parse_jobs_list_output(0, text, "")
    assert listed(text, "15")["15"].state is QueueState.SUSPENDED


def test_defect_07_a_record_that_is_no_xml_spoils_no_other() -> None:
    """Grid Engine escapes `<` as `%lt;`, and what else it lets through is its business."""
    with pytest.raises(OutputParsingError, match="XML parsing"):
        SGEIO().parse_jobs_list_output(0, in_state("r"), "")
    assert set(listed(in_state("r"), "15", "16", "17")) == {"15", "16", "17"}


def test_defect_07_select_is_never_asked_for() -> None:
    qtoolkit = SGEIO().get_submission_script("x", {"select": "select=4:ncpus=1"})
    assert "#$ -l select=" in qtoolkit
    for values in ({"processes": 1}, {"processes": 4, "scheduler_kwargs": {"model": "smp"}}):
        header = submission_header("sge", Resources({**values, "memory_per_thread": 100}, True), "n.1")
        assert "select=" not in header and "place" not in header and "-W" not in header


def test_defect_10_nothing_but_ours_is_listed() -> None:
    """Grid Engine cannot be asked for ids: what is not ours is left out here."""
    assert set(listed(in_state("r"), "17", "99")) == {"17"}
    many = [str(number) for number in range(30_000)]
    assert QUEUE.listing_command(many) == QUEUE.listing_command(["1"])
    lines = QUEUE.cancel_command(many).splitlines()
    assert max(map(len, lines)) < 100_000


def test_defect_12_banners_are_no_answer() -> None:
    banner = "Welcome <?xml fans!\n24 jobs\n"
    assert QUEUE.submitted_id(f"{banner}17\n") == "17"
    assert QUEUE.submitted_id(f'{banner}Your job 17 ("n.1") has been submitted\n') == "17"
    assert QUEUE.submitted_id(banner) is None
    assert set(listed(banner + in_state("r"), "15")) == {"15"}
    named = answering(QUEUE.find_command(["n"]), banner + in_state("r").replace("long.sh", "n"))
    assert QUEUE.found(["n"], named) == {"n": "15"}


@pytest.mark.parametrize("value", ["a b", "a'b", 'a"b', "a\\b", "x -v SECRET"])
def test_defect_14_a_value_that_ends_early_is_refused(value: str) -> None:
    for key in ("device", "queue", "select", "model", "place"):
        with pytest.raises(InputError, match=f"'{key}' cannot be"):
            submission_header("sge", Resources({key: value}), "n.1")


def test_defect_16_ids_are_text() -> None:
    job = SGEIO().parse_jobs_list_output(0, in_state("r").replace("<&quot;d & c", ""), "")[0]
    assert job.job_id == "15" and job.info.partition is None, "its queue is lost"
    assert set(listed(in_state("r"), "15")) == {"15"}


def test_defect_17_the_script_is_named_and_its_directory_is_the_present_one(jobs: Jobs) -> None:
    assert SGEIO().get_submit_cmd() == "qsub submit.script"
    assert QUEUE.submit_command("a b.sh") == "qsub -terse ./'a b.sh'"
    queue_id = jobs.submit("pwd > place\n")
    jobs.wait(queue_id, None)
    assert (jobs.directory / "place").read_text().strip() == str(jobs.directory)
