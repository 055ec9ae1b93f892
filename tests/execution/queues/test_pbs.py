"""PBS: answers as OpenPBS 23.06 writes them, and a server of files that takes the options of the real one."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from qtoolkit.core.data_objects import QState, SubmissionStatus
from qtoolkit.core.exceptions import InvalidJobIDError
from qtoolkit.io import PBSIO

from reconciler.errors import TransientError
from reconciler.execution.headers import queue_name, submission_header
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.queues.base import Queue, QueueEntry, QueueState, Refusal
from reconciler.execution.queues.pbs import PBSQueue
from reconciler.model.retries import Cause
from reconciler.model.settings import Resources
from tests.execution.queues import fake_pbs
from tests.execution.queues.recordings import answering, recorded, refusal

QUEUE = PBSQueue("ada")
NAME = "relax.ee5ed8e4-068f-5ec8-8c2f-d451816ddb65_1.1"


def ids(*numbers: int) -> dict[str, float]:
    """Return queue ids, submitted some time."""
    return {f"{number}.pbs01": 0.0 for number in numbers}


def listed(
    output: str, queue_ids: dict[str, float], errors: str = "", code: int = 0
) -> dict[str, QueueEntry]:
    """Return the listing of a recorded answer."""
    answer = answering(QUEUE.listing_command(list(queue_ids)), output, errors, code)
    return QUEUE.listing(queue_ids, answer)


class Server:
    """A PBS server of files, whose programs come first on the PATH."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("bin", "jobs", "history", "run dir"):
            (directory / name).mkdir(parents=True)
        for program in fake_pbs.OPTIONS:
            words = shlex.join([sys.executable, str(fake_pbs.__file__), str(directory), program])
            path = directory / "bin" / program
            path.write_text(f'#!/bin/bash\nexec {words} "$@"\n')
            path.chmod(0o755)

    def run(self, command: str) -> CommandResult:
        """Run a command of the queue in a run directory."""
        path = shlex.quote(str(self.directory / "bin"))
        script = f"PATH={path}:$PATH\ncd {shlex.quote(str(self.directory))}/'run dir'\n{command}"
        return LocalHost().run(script, 60)

    def submit(self, name: str, queue: str = "workq") -> CommandResult:
        """Submit a script as a worker would."""
        header = submission_header("pbs", Resources({"queue": queue}), name)
        (self.directory / "run dir" / "submit.sh").write_text(header)
        return self.run(QUEUE.submit_command("submit.sh"))

    def listing(self, queue_ids: dict[str, float]) -> dict[str, QueueEntry]:
        """List jobs."""
        return QUEUE.listing(queue_ids, self.run(QUEUE.listing_command(list(queue_ids))))

    def calls(self) -> list[str]:
        """Return what was called."""
        return (self.directory / "calls").read_text().splitlines()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "p b s")


def test_it_is_a_queue() -> None:
    queue: Queue = QUEUE
    assert (queue.scheduler.name, queue.id_variable, queue.lost_after) == ("pbs", "$PBS_JOBID", 10.0)


# a job's way through a server --------------------------------------------------------------------------


def test_submit_list_find_cancel(server: Server) -> None:
    answer = server.submit(NAME)
    queue_id = QUEUE.submitted_id(answer.stdout)
    assert queue_id == "100.pbs01" and answer.exit_code == 0
    assert server.listing({queue_id: ""}) == {queue_id: QueueEntry(QueueState.PENDING)}
    names = [NAME, "other.1"]
    assert QUEUE.found(names, server.run(QUEUE.find_command(names))) == {NAME: queue_id}
    assert QUEUE.cancelled([queue_id], server.run(QUEUE.cancel_command([queue_id]))) == {}
    assert server.listing({queue_id: ""}) == {}
    assert QUEUE.found(names, server.run(QUEUE.find_command(names))) == {}
    assert server.calls()[0] == "qsub -f ./submit.sh", "without -f it leaves a helper behind"


def test_every_name_that_we_make_is_taken(server: Server) -> None:
    for key in ("x" * 300, "0 ünï/codé", "a b"):
        name = queue_name(key, NAME.partition(".")[2])
        assert server.submit(name).exit_code == 0
        assert list(QUEUE.found([name], server.run(QUEUE.find_command([name])))) == [name]


def test_jobs_of_another_user_are_not_found() -> None:
    assert "-u ada " in QUEUE.find_command([NAME])
    assert '-u "$(id -un)" ' in PBSQueue().find_command([NAME])
    assert "-u 'a b' " in PBSQueue("a b").find_command([NAME])


FINAL, TARGET, JOB = Refusal.FINAL, Refusal.TARGET, Refusal.JOB


@pytest.mark.parametrize(
    ("errors", "code", "expected"),
    [
        ("qsub: Unknown queue\n", 170, FINAL),
        ("qsub: Job violates queue and/or server resource limits\n", 188, FINAL),
        ("qsub: illegal -N value\nusage: qsub [-a date_time] [-A account_string]\n", 1, FINAL),
        ("qsub: Access to queue is denied\n", 165, FINAL),
        ("qsub: Queue is not enabled\n", 173, TARGET),
        ("qsub: would exceed queue workq's per-user limit\n", 75, TARGET),
        ("qsub: would exceed complex's per-user limit of jobs in 'Q' state", 75, TARGET),
        ("qsub: Maximum number of jobs already in queue", 130, TARGET),
        ("qsub: would exceed complex's per-user limit on resource ncpus", 75, JOB),
        ("qsub: request rejected as filter hook 'x' encountered an exception. Please inform Admin", 192, JOB),
        ("your shell has no project set\n", 1, JOB),
        ("", 137, JOB),
        # hooks of a site, with words that an outage could have
        ("qsub: interactive jobs are not enabled here\n", 1, FINAL),
        ("qsub: error 17: project not active\n", 1, FINAL),
        ("qsub: internal projects must set -P\n", 1, FINAL),
        ("qsub: connection to the accounting server: no more hours\n", 1, FINAL),
        ("qsub: cannot connect to server pbs01 (errno=15010)\n", 162, None),
        ("Connection refused\nqsub: cannot connect to server pbs01 (errno=111)\n", 111, None),
        ("qsub: Communication failure.\n", 1, None),
        ("qsub: PBS server internal error\n", 199, None),
        ("bash: line 1: qsub: command not found\n", 127, None),
    ],
)
def test_a_refusal_is_as_small_as_what_it_is_about(errors: str, code: int, expected: Refusal | None) -> None:
    assert refusal(QUEUE, errors, code) is expected


def test_a_server_that_is_down_is_no_answer_to_anything(server: Server) -> None:
    queue_id = QUEUE.submitted_id(server.submit(NAME).stdout) or ""
    (server.directory / "down").touch()
    assert QUEUE.refusal(server.submit(NAME)) is None
    with pytest.raises(TransientError, match="cannot connect to server pbs01"):
        server.listing({queue_id: ""})
    with pytest.raises(TransientError, match="cannot connect"):
        QUEUE.found([NAME], server.run(QUEUE.find_command([NAME])))
    with pytest.raises(TransientError, match="cannot connect"):
        QUEUE.cancelled([queue_id], server.run(QUEUE.cancel_command([queue_id])))
    assert QUEUE.accounting(queue_id, server.run(QUEUE.accounting_command(queue_id))) is None


# listings -----------------------------------------------------------------------------------------------


def test_every_state() -> None:
    entries = listed(recorded("pbs_listing.json"), ids(*range(101, 112)))
    assert {queue_id: entry.state.value for queue_id, entry in entries.items()} == {
        "101.pbs01": "running",
        "102.pbs01": "pending",
        "103.pbs01": "pending",
        "104.pbs01": "held",
        "105.pbs01": "running",  # E: it still exits
        "106.pbs01": "pending",
        "107.pbs01": "pending",
        "108.pbs01": "suspended",
        "109.pbs01": "suspended",
        "111.pbs01": "unknown",
    }
    assert entries["101.pbs01"].reason == ""
    assert entries["102.pbs01"].reason == "Not Running: Insufficient amount of resource: ncpus"
    assert entries["104.pbs01"].reason.startswith("Job held by ada")


def test_numbers_of_c_and_stray_backslashes_spoil_nothing() -> None:
    text = recorded("pbs_invalid.json")
    with pytest.raises(ValueError):
        json.loads(text)
    assert listed(text, ids(201, 202, 203)) == {
        "201.pbs01": QueueEntry(QueueState.RUNNING),
        "202.pbs01": QueueEntry(QueueState.PENDING, "Not Running: \\Queue not started."),
        "203.pbs01": QueueEntry(QueueState.HELD),
    }


def test_the_printer_of_later_versions() -> None:
    assert listed(recorded("pbs_tabs.json"), ids(301)) == {"301.pbs01": QueueEntry(QueueState.RUNNING)}


def test_what_cannot_be_read_at_all_has_not_ended() -> None:
    text = re.sub(r"\s*\n\s*", "", recorded("pbs_invalid.json")).replace('{"timestamp"', '{"timestamp"', 1)
    assert listed(text, ids(201, 999)) == {"201.pbs01": QueueEntry(QueueState.UNKNOWN)}


def test_a_record_without_a_state_has_not_ended() -> None:
    text = recorded("pbs_listing.json").replace('"job_state":"R"', '"job_states":"R"')
    assert listed(text, ids(101))["101.pbs01"].state is QueueState.UNKNOWN


def test_unknown_and_finished_ids_are_an_answer(server: Server) -> None:
    queue_id = QUEUE.submitted_id(server.submit(NAME).stdout) or ""
    (server.directory / "history" / "90.pbs01").write_text("")
    assert list(server.listing({"89.pbs01": "", "90.pbs01": "", queue_id: ""})) == [queue_id]
    assert server.listing({"90.pbs01": ""}) == {}
    assert server.listing({"89.pbs01": ""}) == {}


def test_known_ids_beside_unknown_ones_without_the_express_option() -> None:
    """Then PBS ends with the code of the last problem, and prints the others nevertheless."""
    errors = "qstat: Unknown Job Id 99.pbs01\nqstat: 98.pbs01 Job has finished, use -x or -H to obtain\n"
    found = listed(recorded("pbs_listing.json"), ids(98, 99, 101), errors, 35)
    assert found == {"101.pbs01": QueueEntry(QueueState.RUNNING)}


@pytest.mark.parametrize(
    ("output", "errors", "code"),
    [
        (recorded("pbs_nothing.json"), "qstat: cannot connect to server pbs01 (errno=15010)\n", 255),
        # the last id decides the code: an unknown one does not hide that the server was away before
        (recorded("pbs_nothing.json"), "qstat: cannot connect to server x\nqstat: Unknown Job Id 1.x\n", 153),
        ("", "bash: qstat: command not found\n", 127),
        ("", "qstat: conflicting options.\n", 2),
        ("Welcome\n", "", 0),
        ("", "", 153),
        ("", "", 137),
    ],
)
def test_no_answer_is_never_an_empty_listing(output: str, errors: str, code: int) -> None:
    with pytest.raises(TransientError) as raised:
        listed(output, ids(1, 2), errors, code)
    assert " ".join((errors or output).split()) in str(raised.value)


def test_a_script_that_was_cut_off_is_no_answer() -> None:
    command = QUEUE.listing_command(["101.pbs01"])
    whole = answering(command, recorded("pbs_listing.json"))
    for size in (0, len(whole.stdout) // 2, len(whole.stdout) - 2):
        with pytest.raises(TransientError):
            QUEUE.listing(ids(101), CommandResult(0, whole.stdout[:size], ""))


# deaths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "cause", "code", "text"),
    [
        (401, None, 0, "Exit_status 0"),
        (402, None, 3, "Exit_status 3"),
        (403, Cause.WALLTIME, None, "ran longer than its walltime"),
        (404, Cause.WALLTIME, 143, "Exit_status 271"),
        (405, Cause.OOM, None, "used more memory"),
        (406, Cause.OOM, 137, "Exit_status 137"),
        (407, Cause.KILLED, 137, "terminated by ada@login1"),
        (408, Cause.NEVER_STARTED, None, "deleted before it started"),
        (409, Cause.NEVER_STARTED, None, "could not be started"),
        (410, Cause.NODE_FAIL, None, "first node was lost"),
        (411, Cause.KILLED, None, "Exit_status -99"),
        (412, Cause.OOM, 137, "Memory limit exceeded"),
    ],
)
def test_why_a_job_died(number: int, cause: Cause | None, code: int | None, text: str) -> None:
    queue_id = f"{number}.pbs01"
    found = QUEUE.accounting(
        queue_id, answering(QUEUE.accounting_command(queue_id), recorded("pbs_history.json"))
    )
    assert found is not None and found.over
    assert (found.cause, found.exit_code) == (cause, code)
    assert text in found.text and "\n" not in found.text


def test_a_job_that_is_in_the_queue_is_not_over() -> None:
    found = QUEUE.accounting("105.pbs01", CommandResult(0, recorded("pbs_listing.json"), ""))
    assert found is not None and not found.over


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ("qstat: Unknown Job Id 1.pbs01\n", 153),
        ("qstat: PBS is not configured to maintain job history 1.pbs01\n", 0),
        ("qstat: cannot connect to server pbs01 (errno=15010)\n", 255),
    ],
)
def test_nobody_knows_the_job(errors: str, code: int) -> None:
    assert QUEUE.accounting("1.pbs01", CommandResult(code, recorded("pbs_nothing.json"), errors)) is None


def test_the_history_is_asked(server: Server) -> None:
    queue_id = QUEUE.submitted_id(server.submit(NAME).stdout) or ""
    server.run(QUEUE.cancel_command([queue_id]))
    path = server.directory / "history" / queue_id
    path.write_text(path.read_text().replace('"Q"', '"F"'))
    found = QUEUE.accounting(queue_id, server.run(QUEUE.accounting_command(queue_id)))
    assert found is not None and found.text == "PBS: it was deleted before it started"


# the defects of qtoolkit --------------------------------------------------------------------------------


def test_defect_01_no_answer_is_not_the_end_of_a_job() -> None:
    """For qtoolkit a server that is down and an unknown job are both "no such job"."""
    with pytest.raises(TransientError, match="cannot connect"):
        listed(recorded("pbs_nothing.json"), ids(1), "qstat: cannot connect to server pbs01 (errno=1)\n", 255)
    assert listed(recorded("pbs_nothing.json"), ids(1), "qstat: Unknown Job Id 1.pbs01\n", 153) == {}


def test_defect_02_the_exit_status_of_an_ended_job_is_read() -> None:
    found = QUEUE.accounting("402.pbs01", CommandResult(0, recorded("pbs_history.json"), ""))
    assert found is not None and found.exit_code == 3


def test_defect_09_can_never_run_is_said() -> None:
    entries = listed(recorded("pbs_listing.json"), ids(102, 103))
    assert entries["103.pbs01"].never.startswith("Can Never Run: Insufficient amount of resource")
    assert entries["102.pbs01"].never == ""


def test_defect_09_a_state_that_nobody_knows_spoils_no_other() -> None:
    with pytest.raises(Exception, match="Unknown job state Y"):
        PBSIO().parse_jobs_list_output(0, "Job Id: 1.vm\n    Job_Owner = a@b\n    job_state = Y\n", "")
    assert listed(recorded("pbs_listing.json"), ids(101, 111))["101.pbs01"].state is QueueState.RUNNING


def test_defect_10_thousands_of_ids_go_in_pieces(server: Server) -> None:
    queue_id = QUEUE.submitted_id(server.submit(NAME).stdout) or ""
    many = ids(*range(10_000_000, 10_001_300))
    assert list(server.listing({**many, queue_id: ""})) == [queue_id]
    asked = [call for call in server.calls() if call.startswith("qstat")]
    assert len(asked) == 3 and max(map(len, asked)) < 100_000
    assert QUEUE.cancelled(list(many), server.run(QUEUE.cancel_command(list(many)))) == {}


def test_defect_11_array_jobs_break_nothing() -> None:
    with pytest.raises(InvalidJobIDError):
        PBSIO().get_job_cmd("21[].vm")
    assert QUEUE.submitted_id("21[].vm\n") == "21[].vm"
    queue_ids = {"112[].pbs01": 0.0, **ids(101)}
    assert listed(recorded("pbs_listing.json"), queue_ids)["112[].pbs01"].state is QueueState.RUNNING
    assert "'112[].pbs01'" in QUEUE.cancel_command(["112[].pbs01"])


def test_defect_11_a_record_without_nodect() -> None:
    with pytest.raises(TypeError):
        PBSIO().parse_jobs_list_output(0, recorded("pbs_without_nodect.txt"), "")
    text = recorded("pbs_listing.json").replace('"nodect":1,', "")
    assert listed(text, ids(102))["102.pbs01"].state is QueueState.PENDING


def test_defect_11_a_job_that_is_over_already_is_no_problem_to_cancel(server: Server) -> None:
    queue_id = QUEUE.submitted_id(server.submit(NAME).stdout) or ""
    (server.directory / "history" / "90.pbs01").write_text("")
    (server.directory / "jobs" / "7.other").write_text("")
    (server.directory / "foreign").write_text("7.other")
    asked = ["89.pbs01", "90.pbs01", "7.other", queue_id]
    problems = QUEUE.cancelled(asked, server.run(QUEUE.cancel_command(asked)))
    assert problems == {"7.other": "Unauthorized Request"}
    assert server.listing({queue_id: ""}) == {}


def test_defect_12_banners_are_no_answer() -> None:
    banner = "Welcome to pbs01!\nLast login: 24.11.2024\nversion 23.06\n12.5\n"
    wrong = PBSIO().parse_submit_output(0, f"{banner}5.vm\n", "")
    assert wrong.status is SubmissionStatus.SUCCESSFUL and wrong.job_id != "5.vm"
    assert QUEUE.submitted_id(f"{banner}5.vm\n") == "5.vm"
    assert QUEUE.submitted_id(banner) is None
    entries = listed(f"{banner}{{ not this }}\n{recorded('pbs_listing.json')}", ids(101))
    assert entries == {"101.pbs01": QueueEntry(QueueState.RUNNING)}
    names = answering(f"echo Welcome; {QUEUE.find_command(['n.1'])}", "5.vm\n")
    assert QUEUE.found(["n.1"], names) == {"n.1": "5.vm"}


def test_defect_14_a_value_ends_neither_its_line_nor_itself() -> None:
    values = {"account": "my group' -v \"A\\"}
    lines = submission_header("pbs", Resources(values), "n.1").splitlines()
    assert "#PBS -A my\\ group\\'\\ -v\\ \\\"A\\\\" in lines


def test_defect_16_ids_are_text_as_the_server_gave_them() -> None:
    job = PBSIO().parse_jobs_list_output(
        0, "Job Id: 1.vm\n    Job_Owner = a@b\n    job_state = F\n    queue = q\n"
        "    Resource_List.nodect = 1\n    Resource_List.ncpus = 1\n", "",
    )[0]  # fmt: skip
    assert job.state is QState.DONE and job.job_id == "1.vm"
    assert set(listed(recorded("pbs_listing.json"), ids(101, 110))) == {"101.pbs01"}


def test_defect_17_the_script_is_named_and_its_directory_is_the_present_one() -> None:
    assert PBSIO().get_submit_cmd() == "qsub submit.script"
    assert QUEUE.submit_command("a b.sh") == "qsub -f ./'a b.sh'"


def test_defect_17_evenly_distributed_means_one_chunk_on_each_node() -> None:
    values = {"nodes": 2, "processes_per_node": 4, "process_placement": "EVENLY_DISTRIBUTED"}
    lines = submission_header("pbs", Resources(values, True), "n.1").splitlines()
    assert {"#PBS -l select=2:ncpus=4:mpiprocs=4", "#PBS -l place=scatter"} <= set(lines)


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("Traceback ...\n=>> PBS: job killed: walltime 65 exceeded limit 60\n", Cause.WALLTIME),
        ("=>> PBS: job killed: mem 2100000kb exceeded limit 2097152kb", Cause.OOM),
        ("=>> PBS: job killed: vmem 3gb exceeded limit 2gb", Cause.OOM),
        ("=>> PBS: job killed: ncpus 3.5 exceeded limit 1 (sum)", Cause.KILLED),
        ("my own words about =>> PBS: job killed: walltime", None),
        ("", None),
    ],
)
def test_the_limit_that_pbs_names_in_the_output_of_a_job(output: str, cause: Cause | None) -> None:
    """So a walltime is known where the server keeps no history."""
    assert QUEUE.cause_in_output(output) is cause
