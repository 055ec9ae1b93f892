"""Hosts and queues on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import TransientError
from reconciler.execution.hosts import LocalHost
from reconciler.execution.queues import ShellQueue, Submission
from reconciler.execution.starting import BATCH
from tests.execution.support import eventually, is_running


@pytest.fixture
def queue() -> ShellQueue:
    return ShellQueue(LocalHost(), timeout=20)


class Scripts:
    """Run directories with scripts; what was started is ended at the end."""

    def __init__(self, root: Path, queue: ShellQueue) -> None:
        self.root = root
        self.queue = queue
        self.groups: list[int] = []

    def write(self, name: str, script: str) -> Submission:
        directory = self.root / name
        directory.mkdir(parents=True)
        (directory / "submit.sh").write_text("#!/bin/bash\n" + script)
        return Submission(name, str(directory))

    def submit(self, *submissions: Submission) -> dict[str, str]:
        ids = self.queue.submit(submissions)
        self.groups += [int(pid) for pid in ids.values()]
        return ids

    def end(self) -> None:
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def scripts(tmp_path: Path, queue: ShellQueue) -> Iterator[Scripts]:
    made = Scripts(tmp_path / "work", queue)
    yield made
    made.end()


def file_appears(submission: Submission, name: str) -> bool:
    return eventually((Path(submission.run_dir) / name).exists)


# submitting -------------------------------------------------------------------------------------------


def test_many_scripts_start_with_one_command(scripts: Scripts) -> None:
    jobs = [
        scripts.write(f"job{number}", "echo $$ > pid.partial; mv pid.partial pid; sleep 30")
        for number in range(60)
    ]
    ids = scripts.submit(*jobs)
    assert list(ids) == [job.job_id for job in jobs]
    assert all(file_appears(job, "pid") for job in jobs)
    assert {job.job_id: (Path(job.run_dir) / "pid").read_text().strip() for job in jobs} == ids
    now = time.time()
    assert scripts.queue.alive(dict.fromkeys(ids.values(), now)) == set(ids.values())


def test_a_whole_batch_with_long_paths_starts(scripts: Scripts) -> None:
    scripts.root = scripts.root.joinpath(*["d" * 150] * 5)
    jobs = [scripts.write(f"job{number}", "exit 0") for number in range(BATCH)]
    assert len(scripts.submit(*jobs)) == BATCH


def test_a_command_that_is_too_long_is_an_outage() -> None:
    with pytest.raises(TransientError, match="cannot run a command"):
        LocalHost().run("true " + "x" * 200_000, timeout=5)


@pytest.mark.parametrize(
    "name",
    ["a b", "quote'd", 'double"d', "$HOME `id` $(id)", "ü-日本-😀", "new\nline", "-dash", "a;b&c|d", "*?[x]"],
)
def test_odd_paths(scripts: Scripts, name: str) -> None:
    job = scripts.write(name, "pwd > where.partial; mv where.partial where")
    ids = scripts.submit(job)
    assert list(ids) == [name]
    assert file_appears(job, "where")
    assert (Path(job.run_dir) / "where").read_text() == job.run_dir + "\n"


def test_each_job_leads_a_session_of_its_own(scripts: Scripts) -> None:
    ids = scripts.submit(scripts.write("job", "sleep 30"))
    pid = int(ids["job"])
    assert eventually(lambda: os.getsid(pid) == pid)
    assert os.getpgid(pid) == pid
    assert os.getsid(0) != pid


def test_a_script_that_cannot_start_does_not_disturb_the_others(scripts: Scripts, tmp_path: Path) -> None:
    good = [scripts.write(f"good{number}", "sleep 30") for number in range(2)]
    ids = scripts.submit(good[0], Submission("bad", str(tmp_path / "nowhere")), good[1])
    assert set(ids) == {"good0", "good1"}


def test_submitting_does_not_wait_for_the_scripts(scripts: Scripts) -> None:
    began = time.monotonic()
    scripts.submit(scripts.write("slow", "sleep 30"))
    assert time.monotonic() - began < 5


def test_submitting_nothing_runs_nothing(queue: ShellQueue) -> None:
    assert queue.submit([]) == {}
    assert queue.alive({}) == set()
    queue.cancel([])


# the clean environment --------------------------------------------------------------------------------


def test_secrets_of_the_reconciler_do_not_reach_a_job(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGO_PASSWORD", "hunter2")
    monkeypatch.setenv("PYTHONPATH", "/secret/hunter2")
    monkeypatch.setenv("LC_NUMERIC", "C.UTF-8")
    job = scripts.write("job", "env > seen.partial; mv seen.partial seen")
    scripts.submit(job)
    assert file_appears(job, "seen")
    seen = (Path(job.run_dir) / "seen").read_text()
    assert "hunter2" not in seen
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert {"HOME", "PATH", "LC_NUMERIC"} <= names


# alive ------------------------------------------------------------------------------------------------


def test_alive_tells_who_still_runs(scripts: Scripts) -> None:
    ids = scripts.submit(scripts.write("long", "sleep 30"), scripts.write("short", "true"))
    submitted = dict.fromkeys(ids.values(), time.time())
    assert eventually(lambda: scripts.queue.alive(submitted) == {ids["long"]})


def test_nobody_alive_is_an_answer(queue: ShellQueue) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert queue.alive({str(gone.pid): time.time()}) == set()


def test_a_stranger_with_the_same_pid_does_not_count(queue: ShellQueue) -> None:
    """The process is younger than the submission: the pid was given out again."""
    own = str(os.getpid())
    assert queue.alive({own: time.time() + 5}) == {own}
    assert queue.alive({own: time.time() - 7 * 86400}) == set()


@pytest.mark.parametrize("fake", ["exit 1", "exit 127", "kill -9 $$", "echo; exit 0"])
def test_a_broken_ps_is_no_answer(
    queue: ShellQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: str
) -> None:
    ps = tmp_path / "bin" / "ps"
    ps.parent.mkdir()
    ps.write_text(f"#!/bin/sh\n{fake}\n")
    ps.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ps.parent}:{os.environ['PATH']}")
    with pytest.raises(TransientError, match="cannot list processes"):
        queue.alive({str(os.getpid()): time.time()})


# cancelling -------------------------------------------------------------------------------------------


def test_cancel_ends_grandchildren_that_ignore_it(scripts: Scripts) -> None:
    job = scripts.write(
        "job",
        "(trap '' TERM; (sleep 61 & echo $! > partial; mv partial grandchild; wait)) & wait",
    )
    ids = scripts.submit(job)
    assert file_appears(job, "grandchild")
    grandchild = int((Path(job.run_dir) / "grandchild").read_text())
    assert is_running(grandchild)
    began = time.monotonic()
    scripts.queue.cancel([ids["job"]])
    assert time.monotonic() - began < 1.5, "it must not wait for the end"
    assert eventually(lambda: not is_running(int(ids["job"])) and not is_running(grandchild))


def test_cancel_asks_politely_first(scripts: Scripts) -> None:
    job = scripts.write("job", "trap 'echo saved > saved; exit 0' TERM; : > ready; sleep 60 & wait")
    ids = scripts.submit(job)
    assert file_appears(job, "ready")
    scripts.queue.cancel([ids["job"]])
    assert file_appears(job, "saved")


def test_cancel_leaves_others_and_wrong_ids_alone(scripts: Scripts) -> None:
    ids = scripts.submit(scripts.write("one", "sleep 30"), scripts.write("two", "sleep 30"))
    scripts.queue.cancel(["", "0", "-1", "1; touch /tmp/never", "abc", "3.5", ids["one"]])
    assert eventually(lambda: not is_running(int(ids["one"])))
    assert is_running(int(ids["two"]))


def test_cancelling_what_has_ended_is_no_error(scripts: Scripts) -> None:
    ids = scripts.submit(scripts.write("job", "true"))
    assert eventually(lambda: not is_running(int(ids["job"])))
    scripts.queue.cancel([ids["job"]])


# the host ---------------------------------------------------------------------------------------------


def test_a_deadline_ends_the_whole_command(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(TransientError, match=r"no answer in 0\.5 s"):
        LocalHost().run(f"sleep 62 & echo $! > {note}; wait", timeout=0.5)
    assert eventually(lambda: not is_running(int(note.read_text())))


def test_a_deadline_does_not_wait_for_what_left_the_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(TransientError):
        LocalHost().run(f"setsid sleep 5 & echo $! > {note}; sleep 60", timeout=0.5)
    assert time.monotonic() - began < 4
    os.kill(int(note.read_text()), signal.SIGKILL)


def test_a_command_reports_how_it_ended() -> None:
    done = LocalHost().run("printf 'a\\377'; echo b >&2; exit 3", timeout=10)
    assert (done.exit_code, done.stdout, done.stderr) == (3, "a\ufffd", "b\n")


def test_a_command_has_no_stdin() -> None:
    assert LocalHost().run("cat", timeout=10).stdout == ""


def test_files(tmp_path: Path) -> None:
    host = LocalHost()
    name = str(tmp_path / "a" / "b" / "file")
    assert (host.read(name), host.exists(name), host.listing(str(tmp_path / "a"))) == (None, False, [])
    host.write([(name, b"one"), (name, b"two")])
    assert host.read(name) == b"two"
    assert host.listing(str(tmp_path / "a" / "b")) == ["file"]
    assert host.tail(name, 2) == "wo"
    assert host.tail(name + "x", 2) == ""
    host.remove([name, name])
    assert not host.exists(name)


def test_of_two_who_make_a_directory_one_succeeds(tmp_path: Path) -> None:
    host = LocalHost()
    assert [host.make_directory(str(tmp_path / "claim")) for _ in range(2)] == [True, False]
    with pytest.raises(TransientError):
        host.make_directory(str(tmp_path / "nowhere" / "claim"))


def test_what_cannot_be_used_now_is_an_outage(tmp_path: Path) -> None:
    """A file stands where the directory should be; to root permissions would not matter."""
    host, blocked = LocalHost(), tmp_path / "file"
    blocked.write_text("")
    inside = str(blocked / "x")
    with pytest.raises(TransientError, match="cannot write"):
        host.write([(inside, b"")])
    with pytest.raises(TransientError, match="cannot list"):
        host.listing(str(blocked))
    with pytest.raises(TransientError, match="cannot read"):
        host.read(str(tmp_path))
    with pytest.raises(TransientError, match="cannot remove"):
        host.remove([str(tmp_path)])
    with pytest.raises(TransientError, match="cannot make"):
        host.make_directory(inside)


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert LocalHost().expand("~/work") == "/somewhere/work"
