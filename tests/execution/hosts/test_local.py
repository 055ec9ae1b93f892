"""This machine as a host: scripts, streams, deadlines, and an environment without secrets."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import InputError, TransientError
from reconciler.execution.hosts.base import framed, new_sentinel, read_sections, sections_script
from reconciler.execution.hosts.local import LocalHost, expand
from tests.execution.hosts.reaching import takes
from tests.execution.support import eventually, is_running
from tests.services.programs import PATIENCE

PIECE = b"x" * 65536


def run(script: str, timeout: float = PATIENCE) -> tuple[int, str, str]:
    done = LocalHost().run(script, timeout)
    return done.exit_code, done.stdout, done.stderr


# scripts ----------------------------------------------------------------------------------------------


def test_a_command_reports_how_it_ended() -> None:
    assert run("printf 'a\\377'; echo b >&2; exit 3") == (3, "a\ufffd", "b\n")


def test_a_command_has_no_stdin() -> None:
    assert run("cat") == (0, "", "")


def test_a_script_may_be_longer_than_a_command_line() -> None:
    assert run("true " + "x" * 3_000_000 + "\necho end") == (0, "end\n", "")


def test_a_script_that_was_cut_off_runs_nothing(tmp_path: Path) -> None:
    """A lost connection must not turn `rm -rf /a/b` into `rm -rf /a`."""
    note = tmp_path / "note"
    whole = framed(f"touch {note}\ntouch {note}.2", new_sentinel(), reads_data=False)
    for length in range(0, whole.index(b"\nreconciler_script"), 7):
        with os.popen("bash -s 2>/dev/null", "w") as shell:
            shell.write(whole[:length].decode())
    assert not note.exists()


def test_commands_are_counted() -> None:
    host = LocalHost()
    for _ in range(3):
        host.run("true", PATIENCE)
    assert host.commands == 3


def test_the_directory_of_this_process_is_left_alone(tmp_path: Path) -> None:
    before = Path.cwd()
    threads = [threading.Thread(target=run, args=(f"cd {tmp_path}; sleep 0.1",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert Path.cwd() == before
    assert run("pwd")[1] == f"{before}\n"


# streams ----------------------------------------------------------------------------------------------


def test_data_and_output_flow_at_the_same_time() -> None:
    sink = io.BytesIO()
    done = LocalHost().run("cat; echo said >&2", PATIENCE, data=(PIECE for _ in range(400)), sink=sink)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "said\n")
    assert sink.getbuffer() == PIECE * 400


def test_data_that_nobody_reads_is_no_error() -> None:
    done = LocalHost().run("exit 4", PATIENCE, data=(PIECE for _ in range(400)))
    assert done.exit_code == 4


def test_an_error_while_data_is_made_comes_out_and_ends_the_script(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def broken() -> Iterator[bytes]:
        yield PIECE
        assert eventually(note.exists)
        raise InputError("cannot be made")

    with pytest.raises(InputError, match="cannot be made"):
        LocalHost().run(
            f"echo $$ > {note}.partial; mv {note}.partial {note}; cat >/dev/null; sleep 60", 30, data=broken()
        )
    assert eventually(lambda: not is_running(int(note.read_text())))


def test_a_stream_may_take_longer_than_the_deadline_while_it_moves() -> None:
    sink = io.BytesIO()
    done = LocalHost().run("for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done", 2.5, sink=sink)
    assert (done.exit_code, sink.getvalue()) == (0, b"1\n2\n3\n4\n5\n6\n")


def test_a_stream_that_stands_still_is_an_outage() -> None:
    with pytest.raises(TransientError, match=r"did not answer within 0\.5 s"):
        LocalHost().run("echo 1; sleep 60", 0.5, sink=io.BytesIO())


# deadlines --------------------------------------------------------------------------------------------


def test_a_deadline_ends_the_whole_command(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(TransientError, match="did not answer within 2 s"):
        run(f"sleep 62 & echo $! > {note}; wait", timeout=2)
    assert eventually(lambda: not is_running(int(note.read_text())))


def test_a_deadline_does_not_wait_for_what_left_the_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with takes(0), pytest.raises(TransientError):
        run(f"setsid sleep 90 & echo $! > {note}; sleep 60", timeout=2)
    os.kill(int(note.read_text()), signal.SIGKILL)


def test_a_child_that_keeps_the_output_open_does_not_hold_up_the_answer(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with takes(0):
        assert run(f"setsid sleep 90 & echo $! > {note}; echo done") == (0, "done\n", "")
    os.kill(int(note.read_text()), signal.SIGKILL)


# the environment --------------------------------------------------------------------------------------


def test_secrets_of_the_reconciler_reach_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGO_PASSWORD", "hunter2")
    monkeypatch.setenv("PYTHONPATH", "/secret/hunter2")
    monkeypatch.setenv("SLURM_JOB_ID", "hunter2")  # that of the job in which the reconciler itself may run
    monkeypatch.setenv("SBATCH_PARTITION", "hunter2")
    monkeypatch.setenv("SLURM_CONF", "/here/slurm.conf")
    monkeypatch.setenv("LC_NUMERIC", "C.UTF-8")
    _, seen, _ = run("env")
    assert "hunter2" not in seen
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert {"HOME", "PATH", "LC_NUMERIC", "SLURM_CONF"} <= names


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert expand("~/work") == "/somewhere/work"


# several commands in one ------------------------------------------------------------------------------


def test_sections_keep_their_results_apart() -> None:
    sign = new_sentinel()
    script = sections_script(
        {
            "fails": "echo out; echo err >&2; exit 7",
            "moves": "cd /; pwd",
            "bare": "printf 'no newline'",
            "many": "for i in $(seq 20000); do echo $i; echo e$i >&2; done",
            "reads": "cat",
        },
        sign,
    )
    answers = read_sections(run(script)[1], sign)
    assert list(answers) == ["fails", "moves", "bare", "many", "reads"]
    assert [answer.exit_code for answer in answers.values()] == [7, 0, 0, 0, 0]
    assert (answers["fails"].stdout, answers["fails"].stderr) == ("out\n", "err")
    assert (answers["moves"].stdout, answers["bare"].stdout) == ("/\n", "no newline")
    assert len(answers["many"].stdout.splitlines()) == len(answers["many"].stderr.splitlines()) == 20000


def test_a_section_whose_end_is_missing_is_no_answer() -> None:
    sign = new_sentinel()
    text = run(sections_script({"one": "echo 1", "two": "echo 2"}, sign))[1]
    for length in range(len(text)):
        answers = read_sections(text[:length], sign)
        assert all(
            answers[name].stdout == f"{number}\n"
            for name, number in (("one", 1), ("two", 2))
            if name in answers
        )
    assert "two" not in read_sections(text[:-2], sign)


def test_noise_between_sections_belongs_to_none() -> None:
    sign = new_sentinel()
    noisy = (
        sections_script({"one": "echo 1"}, sign) + "\necho noise\n" + sections_script({"two": "echo 2"}, sign)
    )
    assert read_sections(run(noisy)[1], sign)["two"].stdout == "2\n"


def test_the_module_function_reaches_jobs_and_not_our_scripts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sites export it as a function, or name a file that defines it for every other shell."""
    each = tmp_path / "each"
    each.write_text("ml() { echo loads $1; }\n")
    monkeypatch.setenv("BASH_FUNC_module%%", "() { echo module $1; }")
    monkeypatch.setenv("BASH_FUNC_secret%%", "() { echo secret; }")
    monkeypatch.setenv("BASH_ENV", str(each))
    assert run("bash -c 'module a; ml b'")[:2] == (0, "module a\nloads b\n")
    assert run("type module ml")[0] == 1
    assert run("bash -c secret")[0] == 127
