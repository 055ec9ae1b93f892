"""Attempts that continue earlier ones: the files that they begin with, and the signal before the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reconciler.execution import launcher
from reconciler.jobs.restarts import run_again
from tests.execution.support import World


@pytest.fixture
def dirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The run directory of an earlier attempt, with files of ours and of the job, and an empty one."""
    monkeypatch.setenv(launcher.PREVIOUS, "of an earlier test")
    before, here = tmp_path / "before", tmp_path / "here"
    here.mkdir()
    for name in ("claim/result.json", "job.json", "submit.sh", "queue.out", "files/ab/x.ckpt"):
        (before / name).parent.mkdir(parents=True, exist_ok=True)
        (before / name).write_text("ours")
    for name in ("WAVECAR", "CONTCAR", "POSCAR", "a.ckpt", "b.ckpt", "sub/deep/c.ckpt", "log"):
        (before / name).parent.mkdir(parents=True, exist_ok=True)
        (before / name).write_text(f"{name} of before")
    return before, here


def found(here: Path) -> dict[str, str]:
    return {
        str(path.relative_to(here)): path.read_text() for path in sorted(here.rglob("*")) if path.is_file()
    }


def go_on(
    dirs: tuple[Path, Path], *keep: str, rename: dict[str, str] | None = None, link: bool = False
) -> dict[str, str]:
    launcher.continue_attempt(dirs[1], str(dirs[0]), list(keep), rename or {}, link)
    return found(dirs[1])


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (["WAVECAR"], ["WAVECAR"]),
        (["*.ckpt", "nowhere*"], ["a.ckpt", "b.ckpt"]),
        (["sub"], ["sub/deep/c.ckpt"]),
        (["**/*.ckpt"], ["a.ckpt", "b.ckpt", "sub/deep/c.ckpt"]),
        (["*"], ["CONTCAR", "POSCAR", "WAVECAR", "a.ckpt", "b.ckpt", "log", "sub/deep/c.ckpt"]),
        ([], []),
    ],
)
@pytest.mark.parametrize("link", [False, True])
def test_files_are_kept_by_patterns(
    dirs: tuple[Path, Path], keep: list[str], names: list[str], link: bool
) -> None:
    assert go_on(dirs, *keep, link=link) == {name: f"{name} of before" for name in names}
    assert os.environ[launcher.PREVIOUS] == str(dirs[0])
    for name in names:
        assert (dirs[0] / name).samefile(dirs[1] / name) == link


def test_a_copy_can_be_written_without_a_change_of_the_original(dirs: tuple[Path, Path]) -> None:
    go_on(dirs, "WAVECAR")
    (dirs[1] / "WAVECAR").write_text("of here")
    assert (dirs[0] / "WAVECAR").read_text() == "WAVECAR of before"


@pytest.mark.parametrize(
    ("contcar", "poscar"),
    [("relaxed", "relaxed"), ("", "POSCAR of before"), (None, "POSCAR of before")],
)
def test_a_renamed_file_that_was_not_written_leaves_what_the_attempt_began_with(
    dirs: tuple[Path, Path], contcar: str | None, poscar: str
) -> None:
    if contcar is None:
        (dirs[0] / "CONTCAR").unlink()
    else:
        (dirs[0] / "CONTCAR").write_text(contcar)
    assert go_on(dirs, "CONTCAR", rename={"CONTCAR": "POSCAR"}) == {"POSCAR": poscar}


def test_what_is_there_already_stays(dirs: tuple[Path, Path]) -> None:
    """A scheduler that starts the attempt again finds newer files; a copy that was cut off is made anew."""
    (dirs[1] / "a.ckpt").write_text("newer")
    (dirs[1] / ".b.ckpt.partial").write_text("b.ck")
    (dirs[1] / ".sub.partial").mkdir()
    (dirs[1] / ".sub.partial" / "half").write_text("")
    assert go_on(dirs, "*.ckpt", "sub") == {
        "a.ckpt": "newer", "b.ckpt": "b.ckpt of before", "sub/deep/c.ckpt": "sub/deep/c.ckpt of before",
    }  # fmt: skip


def test_a_directory_that_is_gone_means_to_begin_anew(
    dirs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    launcher.continue_attempt(dirs[1], str(dirs[0] / "gone"), ["*"], {}, link=False)
    assert found(dirs[1]) == {}
    assert launcher.PREVIOUS not in os.environ
    assert "gone is gone, so this attempt begins anew" in capsys.readouterr().err


# The signal before the end ----------------------------------------------------------------------------------

ANNOUNCED = """
import importlib.util, os, signal, subprocess, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("launcher", sys.argv[1])
launcher = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launcher)
note = Path("signalled")
launcher.announce_end("USR1", float(sys.argv[2]), note)
"""


def announced(tmp_path: Path, seconds: float, then: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ANNOUNCED + then, launcher.__file__, str(seconds)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_signal_reaches_the_programs_that_a_job_has_started(tmp_path: Path) -> None:
    """The job itself goes on, to read what they have saved."""
    program = "trap 'echo saved > saved; exit 3' USR1; while :; do sleep 0.05; done"
    done = announced(
        tmp_path, 1.0, f"print(subprocess.run(['bash', '-c', 'bash -c \"$0\"', {program!r}]).returncode)\n"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "signalled").exists()


def test_a_function_can_handle_the_signal(tmp_path: Path) -> None:
    done = announced(
        tmp_path,
        0.3,
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))\ntime.sleep(30)\n",
    )
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("seconds", "then"),
    [
        (30.0, "os.kill(os.getpid(), signal.SIGUSR1)\ntime.sleep(30)\n"),  # from elsewhere, before the time
        (0.1, "time.sleep(0.5)\nos.kill(os.getpid(), signal.SIGUSR1)\ntime.sleep(30)\n"),  # a second one
    ],
)
def test_other_signals_end_a_job_as_always(tmp_path: Path, seconds: float, then: str) -> None:
    assert announced(tmp_path, seconds, then).returncode == -signal.SIGUSR1


def test_a_job_has_no_child_of_ours_and_leaves_none(tmp_path: Path) -> None:
    done = announced(
        tmp_path,
        30.0,
        "try:\n    os.wait()\nexcept ChildProcessError:\n    print('none')\n",
    )
    assert done.stdout == "none\n"
    assert not (tmp_path / "signalled").exists()
    assert done.returncode == 0  # and `run` has read its output to the end: no process holds it


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_no_signal_comes_too_late(tmp_path: Path, seconds: float) -> None:
    done = announced(tmp_path, seconds, "time.sleep(0.3)\n")
    assert done.returncode == 0
    assert not (tmp_path / "signalled").exists()


# From attempt to attempt ------------------------------------------------------------------------------------

CONTINUE = {"keep": ["count.ckpt"], "rename": {"next.in": "start.in"}}


def counting(world: World, **retries: object) -> None:
    policy = {"limit": 3, "on": ["exception"], "backoff": "0s", "continue": CONTINUE} | retries
    world.flow("f", {"id": "a", "function": "counts_on", "args": [3]}, retries=policy)
    world.reconcile()


def test_a_retry_begins_with_what_the_attempt_before_has_left(world: World) -> None:
    counting(world)
    world.run()
    job = world.job("f/a")
    assert (job.state.value, job.attempt.number, job.retry.causes) == ("COMPLETED", 3, ["exception"] * 2)
    first, second = job.retry.run_dirs
    assert world.output("f/a") == {"attempts": ["1", "2", "3"], "previous": second, "started": "2"}
    assert [Path(path, "count.ckpt").read_text() for path in (first, second)] == ["1", "1 2"]
    told = [event for event in world.events("f/a") if "continues from there" in event]
    assert len(told) == 2 and first in told[0] and second in told[1]


def test_an_attempt_gets_only_what_is_kept(world: World) -> None:
    counting(world, **{"continue": {}, "limit": 1})
    world.run()
    job = world.job("f/a")
    assert (job.state.value, job.attempt.number) == ("FAILED", 2)
    assert Path(job.attempt.run_dir or "", "count.ckpt").read_text() == "2"


@pytest.mark.parametrize(("verb", "attempts"), [("retry", "1 2"), ("rerun", "2")])
def test_a_retry_by_hand_continues_and_a_rerun_begins_anew(world: World, verb: str, attempts: str) -> None:
    counting(world, limit=0)
    world.run()
    assert world.job("f/a").state.value == "FAILED"
    job = world.job("f/a")
    world.store.write(
        lambda writer: run_again(writer, [job], f"{verb} by hand", time.time(), as_retry=verb == "retry")
    )
    world.run()
    job = world.job("f/a")
    assert (job.state.value, job.attempt.number) == ("FAILED", 2)
    assert Path(job.attempt.run_dir or "", "count.ckpt").read_text() == attempts
