"""The plain shell as a queue, on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from qtoolkit.core.data_objects import SubmissionStatus
from qtoolkit.core.exceptions import OutputParsingError
from qtoolkit.host.local import LocalHost as TheirLocalHost
from qtoolkit.io import ShellIO
from qtoolkit.manager import QueueManager

import reconciler.execution.queues.shell as shell_module
from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult, new_sentinel, read_sections, sections_script
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.queues.base import QueueEntry, QueueState
from reconciler.execution.queues.shell import ShellQueue
from tests.execution.support import eventually, is_running
from tests.services import processes
from tests.services.programs import PATIENCE

RUNNING, SUSPENDED = QueueEntry(QueueState.RUNNING), QueueEntry(QueueState.SUSPENDED)


class Shell:
    """Run directories with scripts; what was started is ended at the end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = LocalHost()
        self.queue = ShellQueue()
        self.groups: list[int] = []
        self.names: dict[str, str] = {}

    def run(self, command: str) -> CommandResult:
        """Run what the queue wrote, on this machine."""
        return self.host.run(command, timeout=PATIENCE)

    def write(self, name: str, script: str) -> Path:
        """Write a script into a directory of its own."""
        directory = self.root / name
        directory.mkdir(parents=True)
        (directory / "submit.sh").write_text("#!/bin/bash\n" + script)
        return directory

    def submit(self, name: str, script: str) -> str:
        """Start a script."""
        return self.submit_all(self.write(name, script))[0]

    def submit_all(self, *directories: Path) -> list[str]:
        """Start scripts with one command."""
        submit = self.queue.submit_command("submit.sh")
        sign = new_sentinel()
        calls = {str(number): f"cd '{where}' && {submit}" for number, where in enumerate(directories)}
        found = read_sections(self.run(sections_script(calls, sign)).stdout, sign)
        pids = []
        for number, answer in found.items():
            queue_id = self.queue.submitted_id(answer.stdout) if answer.exit_code == 0 else None
            if queue_id is not None:
                pids.append(queue_id)
                self.groups.append(int(queue_id))
                self.names[queue_id] = directories[int(number)].name
        return pids

    def entries(self, *queue_ids: str, directory: str = "") -> dict[str, QueueEntry]:
        """Return the listing of these jobs, by default of those whose scripts run in their directories."""
        names = {queue_id: directory or self.names.get(queue_id, "none") for queue_id in queue_ids}
        return self.queue.listing(names, self.run(self.queue.listing_command(queue_ids)))

    def cancel(self, *queue_ids: str) -> dict[str, str]:
        """Cancel jobs; return the problems."""
        return self.queue.cancelled(queue_ids, self.run(self.queue.cancel_command(queue_ids)))

    def end(self) -> None:
        """Kill what still runs."""
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path / "work")
    yield made
    made.end()


def appears(file: Path) -> bool:
    """Wait for a file."""
    return eventually(file.exists)


# submitting -------------------------------------------------------------------------------------------


def test_many_scripts_start_with_one_command(shell: Shell) -> None:
    script = "echo $$ > pid.partial; mv pid.partial pid; sleep 300"
    jobs = [shell.write(f"job{number}", script) for number in range(60)]
    ids = shell.submit_all(*jobs)
    assert all(appears(job / "pid") for job in jobs)
    assert [(job / "pid").read_text().strip() for job in jobs] == ids
    assert shell.entries(*ids) == dict.fromkeys(ids, RUNNING)
    assert shell.host.commands == 2


@pytest.mark.parametrize("name", ["a b", 'double"d', "$HOME `id` $(id)", "ü-日本-😀", "new\nline", "*?[x]"])
def test_odd_paths(shell: Shell, name: str) -> None:
    shell.submit(name, "pwd > where.partial; mv where.partial where")
    assert appears(shell.root / name / "where")
    assert (shell.root / name / "where").read_text() == f"{shell.root / name}\n"


def test_each_job_leads_a_session_of_its_own(shell: Shell) -> None:
    pid = int(shell.submit("job", "sleep 300"))
    assert eventually(lambda: os.getsid(pid) == pid)
    assert os.getpgid(pid) == pid != os.getsid(0)


def test_submitting_does_not_wait_for_the_script(shell: Shell) -> None:
    began = time.monotonic()
    shell.submit("slow", "sleep 300")
    assert time.monotonic() - began < PATIENCE


def test_what_a_script_prints_goes_to_files(shell: Shell) -> None:
    shell.submit("job", "cat; echo out; echo err >&2; : > done")
    assert appears(shell.root / "job" / "done")
    assert (shell.root / "job" / "queue.out").read_text() == "out\n"
    assert (shell.root / "job" / "queue.err").read_text() == "err\n"


def test_secrets_of_the_reconciler_do_not_reach_a_job(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGO_PASSWORD", "hunter2")
    monkeypatch.setenv("PYTHONPATH", "/secret/hunter2")
    monkeypatch.setenv("LC_NUMERIC", "C.UTF-8")
    shell.submit("job", "env > seen.partial; mv seen.partial seen")
    assert appears(shell.root / "job" / "seen")
    seen = (shell.root / "job" / "seen").read_text()
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert "hunter2" not in seen
    assert {"HOME", "PATH", "LC_NUMERIC"} <= names


# looking ----------------------------------------------------------------------------------------------


def test_what_has_ended_is_not_listed(shell: Shell) -> None:
    long, short = shell.submit("long", "sleep 300"), shell.submit("short", "true")
    assert eventually(lambda: shell.entries(long, short) == {long: RUNNING})
    assert shell.queue.accounting(short, shell.run(shell.queue.accounting_command(short))) is None


def test_a_stopped_job_is_suspended(shell: Shell) -> None:
    queue_id = shell.submit("job", "sleep 300")
    assert eventually(lambda: shell.entries(queue_id) == {queue_id: RUNNING}), "before it is one it is no job"
    os.kill(int(queue_id), signal.SIGSTOP)
    assert eventually(lambda: shell.entries(queue_id) == {queue_id: SUSPENDED})


def test_a_script_of_another_attempt_with_the_same_pid_is_not_ours(shell: Shell) -> None:
    queue_id = shell.submit("5d_1.2", "sleep 300")
    assert eventually(lambda: shell.entries(queue_id) == {queue_id: RUNNING})
    for other in ("5d_1", "5d_1.22", "d_1.2", "5d_1.1"):
        assert shell.entries(queue_id, directory=other) == {}


def test_no_clock_is_asked(shell: Shell) -> None:
    """The clock of another machine may be hours ahead, and processes may seem younger than they are."""
    assert "date" not in shell.queue.listing_command(["7"])
    assert "time" not in shell.queue.listing_command(["7"])


def test_a_group_that_somebody_else_leads_is_not_ours(shell: Shell) -> None:
    """After a restart of the machine the pid of a job may be that of the user's desktop."""
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as stranger:
        queue_id, job = str(stranger.pid), shell.submit("job", "sleep 300")
        assert eventually(lambda: shell.entries(queue_id, job) == {job: RUNNING})
        assert shell.cancel(queue_id, job) == {}
        assert eventually(lambda: not is_running(int(job)))
        assert shell.cancel(queue_id) == {}
        time.sleep(shell_module._GRACE + 1)
        assert is_running(stranger.pid)
        stranger.kill()


def test_what_a_script_has_left_behind_is_ended(shell: Shell) -> None:
    queue_id = shell.submit("job", "sleep 300 & echo $! > partial; mv partial child; sleep 300")
    assert appears(shell.root / "job" / "child")
    child = int((shell.root / "job" / "child").read_text())
    os.kill(int(queue_id), signal.SIGKILL)
    assert eventually(lambda: shell.entries(queue_id) == {})
    assert is_running(child)
    assert shell.cancel(queue_id) == {}
    assert eventually(lambda: not is_running(child))


def test_ps_tells_which_job_a_script_is_of(shell: Shell) -> None:
    queue_id = shell.submit("5d_1.1", "sleep 300")
    assert eventually(
        lambda: processes.command_of(int(queue_id)).endswith("bash submit.sh reconciler:5d_1.1 ")
    )


def test_a_process_that_leads_no_group_is_not_ours() -> None:
    with subprocess.Popen(["sleep", "300"]) as stranger:  # of our own group
        shell = Shell(Path("/"))
        assert shell.entries(str(stranger.pid)) == {}
        stranger.kill()


@pytest.mark.parametrize("fake", ["exit 1", "exit 127", "kill -9 $$", "echo; exit 0"])
def test_a_broken_ps_is_no_answer(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: str
) -> None:
    ps = tmp_path / "bin" / "ps"
    ps.parent.mkdir()
    ps.write_text(f"#!/bin/sh\n{fake}\n")
    ps.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ps.parent}:{os.environ['PATH']}")
    with pytest.raises(TransientError, match="cannot list processes"):
        shell.entries(str(os.getpid()))


def test_processes_have_no_name_to_be_found_by(shell: Shell) -> None:
    done = shell.run(shell.queue.find_command(["a.1"]))
    assert (done.exit_code, shell.queue.found(["a.1"], done)) == (0, {})


# cancelling -------------------------------------------------------------------------------------------


def test_cancel_asks_politely_first(shell: Shell) -> None:
    script = "trap 'echo saved > saved; exit 0' TERM; : > ready; sleep 60 & wait"
    queue_id = shell.submit("job", script)
    assert appears(shell.root / "job" / "ready")
    assert shell.cancel(queue_id) == {}
    assert appears(shell.root / "job" / "saved")


def test_cancel_leaves_others_and_wrong_ids_alone(shell: Shell) -> None:
    one, two = shell.submit("one", "sleep 300"), shell.submit("two", "sleep 300")
    never = shell.root / "never"
    assert shell.cancel("", "0", "1", "-1", f"1; touch {never}", "abc", "3.5", "5\n", one) == {}
    assert eventually(lambda: not is_running(int(one)))
    assert is_running(int(two)) and not never.exists()


def test_cancelling_what_has_ended_is_no_problem(shell: Shell) -> None:
    queue_id = shell.submit("job", "true")
    assert eventually(lambda: not is_running(int(queue_id)))
    assert shell.cancel(queue_id) == {}


def test_what_may_not_be_ended_is_named() -> None:
    stderr = (
        "bash: line 5: kill: (-123) - No such process\nbash: line 5: kill: (-456) - Operation not permitted\n"
    )
    problems = ShellQueue().cancelled(["123", "456"], CommandResult(0, "", stderr))
    assert problems == {"456": "Operation not permitted"}
    with pytest.raises(TransientError, match="cannot end processes: no bash"):
        ShellQueue().cancelled(["123"], CommandResult(127, "", "no bash"))


# defects of qtoolkit ----------------------------------------------------------------------------------


def test_defect_01_no_ps_is_no_answer(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert QueueManager(ShellIO(), TheirLocalHost()).get_job(str(os.getpid())) is None, "qtoolkit learned it"
    with pytest.raises(TransientError, match=r"cannot list processes: .*command not found"):
        shell.entries(str(os.getpid()))


def test_defect_01_nobody_alive_is_an_answer(shell: Shell) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert shell.run(shell.queue.listing_command([str(gone.pid)])).exit_code == 1
    assert shell.entries(str(gone.pid)) == {}


def test_defect_10_very_many_ids_and_none(shell: Shell) -> None:
    many = [str(number) for number in range(5_000_000, 5_020_000)]
    with pytest.raises(OSError, match="Argument list too long"):
        TheirLocalHost().execute(ShellIO().get_jobs_list_cmd(many, None))
    queue_id = shell.submit("job", "sleep 300")
    assert eventually(lambda: shell.entries(*many, queue_id) == {queue_id: RUNNING})
    assert shell.entries() == {}
    assert shell.cancel(*many, queue_id) == {}
    assert eventually(lambda: not is_running(int(queue_id)))


def test_defect_12_banners(shell: Shell) -> None:
    theirs = ShellIO().parse_submit_output(0, "Welcome\n5", "")
    assert (theirs.status, theirs.job_id) == (SubmissionStatus.SUCCESSFUL, "Welcome\n5"), (
        "qtoolkit learned it"
    )
    assert shell.queue.submitted_id("Welcome\n5\n") == "5"
    for answer in ("", "\n", "Welcome", "5\nWelcome", "5 6", "-5", "1", "0"):
        assert shell.queue.submitted_id(answer) is None
    queue_id = shell.submit("job", "sleep 300")
    done = shell.run(f"echo 'Welcome {queue_id}'; echo; {shell.queue.listing_command([queue_id])}")
    assert shell.queue.listing({queue_id: "job"}, done) == {queue_id: RUNNING}


def test_defect_15_a_script_that_is_missing_is_not_submitted(shell: Shell, tmp_path: Path) -> None:
    io = ShellIO(stdout_path=tmp_path / "out", stderr_path=tmp_path / "err")
    done = shell.run(io.get_submit_cmd("missing.sh"))
    theirs = io.parse_submit_output(done.exit_code, done.stdout, done.stderr)
    assert theirs.status == SubmissionStatus.SUCCESSFUL, "qtoolkit has learned it"
    ours = shell.run(f"cd {tmp_path}; {shell.queue.submit_command('missing.sh')}")
    assert (ours.exit_code, ours.stdout) == (1, "")
    assert shell.queue.refusal(ours) is None


def test_defect_15_one_that_cannot_start_does_not_disturb_the_others(shell: Shell) -> None:
    good = [shell.write(f"good{number}", "sleep 300") for number in range(2)]
    unwritable = shell.write("bad", "sleep 300")
    (unwritable / "queue.out").mkdir()
    ids = shell.submit_all(good[0], shell.root / "nowhere", unwritable, good[1])
    assert len(ids) == 2
    assert eventually(lambda: shell.entries(*ids) == dict.fromkeys(ids, RUNNING))


def test_defect_15_cancel_ends_grandchildren_that_ignore_it(shell: Shell) -> None:
    script = "(trap '' TERM; (sleep 61 & echo $! > partial; mv partial grandchild; wait)) & wait"
    queue_id = shell.submit("job", script)
    assert appears(shell.root / "job" / "grandchild")
    grandchild = int((shell.root / "job" / "grandchild").read_text())
    assert is_running(grandchild)
    assert shell.cancel(queue_id) == {}
    assert eventually(lambda: not is_running(int(queue_id)) and not is_running(grandchild))


def test_cancel_does_not_wait_for_the_end(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_module, "_GRACE", 10 * PATIENCE)
    queue_id = shell.submit("job", "trap '' TERM; : > ready; sleep 300 & wait; sleep 300")
    assert appears(shell.root / "job" / "ready")
    began = time.monotonic()
    assert shell.cancel(queue_id) == {}
    assert time.monotonic() - began < PATIENCE
    assert is_running(int(queue_id))
    (late,) = (pid for pid in processes.all_pids() if f"bash -{queue_id}" in processes.command_of(pid))
    os.kill(late, signal.SIGKILL)


def test_defect_15_a_zombie_is_over(shell: Shell) -> None:
    with subprocess.Popen(["true"], start_new_session=True) as child:  # its parent does not ask for it
        zombie = str(child.pid)
        assert eventually(lambda: not is_running(child.pid))
        listed = shell.run(f"ps -o pid,state -p {zombie}").stdout
        assert listed.split()[-1] == "Z"
        assert shell.entries(zombie) == {}


def test_defect_15_odd_processes_spoil_nothing() -> None:
    odd = ("7 7 I", "8 8 ?", "9 9 R", "10 10 S", "odd", "11 x S")
    rows = "PID PGID S COMMAND\n" + "".join(f" {row} bash submit.sh reconciler:a\n" for row in odd)
    with pytest.raises(OutputParsingError):
        ShellIO().parse_jobs_list_output(0, "PID USER ELAPSED S COMMAND\n 7 root 00:01 I kworker\n", "")
    names = dict.fromkeys(["7", "8", "9", "11"], "a")
    found = ShellQueue().listing(names, CommandResult(0, f"{rows}END\n", ""))
    unknown = QueueEntry(QueueState.UNKNOWN)
    assert found == {"7": unknown, "8": unknown, "9": RUNNING}
