"""Submission scripts as bash runs them: set-up, signals, claims, and commands of users in the way."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.execution.run_files import WorkerPaths, marker_name, submission_script
from reconciler.model.manifests import ExecConfigSpec, OnSetupError, WorkerSpec
from reconciler.model.records import JobAttempt, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.states import JobState
from tests.execution.support import eventually
from tests.services.programs import PATIENCE

MODULE = """
module() {
  case $2 in
    good/*) export LOADED="${LOADED-}$2 "; return 0 ;;
    old/*) echo "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for '$2'" >&2; return 0 ;;
    *) echo "Lmod has detected the following error: $2 is unknown" >&2; return 1 ;;
  esac
}
"""


class Attempt:
    """A run directory with a script; its launcher is a shell script that is not jobflow."""

    def __init__(self, root: Path, scheduler: str = "shell", launcher: str = "exit 0", **spec: str) -> None:
        self.work = root / "work"
        self.directory = self.work / "run"
        for place in (self.directory, self.work / ".outbox", self.work / ".launchers"):
            place.mkdir(parents=True)
        python = root / "python"
        python.write_text(f"#!/bin/bash\n[ $1 = -c ] && exit 0\n{launcher}\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        self.job = JobRecord(
            uuid="u", index=1, flow="f", key="j", name="j", function="m.f", state=JobState.CHECKED_OUT,
            config=RunConfig(), content="", attempt=JobAttempt(number=1, run_dir=str(self.directory)),
        )  # fmt: skip
        self.worker = WorkerSpec(type="local", scheduler_type=scheduler, work_dir=str(self.work), **spec)
        self.paths = WorkerPaths(str(self.work), str(python))

    def start(
        self, exec_config: ExecConfigSpec | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start the script, as a scheduler would."""
        text = submission_script(self.job, self.worker, self.paths, exec_config or ExecConfigSpec())
        (self.directory / "submit.sh").write_text(text)
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.work), **(env or {})}
        return subprocess.Popen(
            ["bash", "submit.sh"], cwd=self.directory, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(
        self, exec_config: ExecConfigSpec | None = None, env: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Run the script; return the exit code that it leaves, and its error output."""
        _, errors = self.start(exec_config, env).communicate(timeout=PATIENCE)
        assert self.has_marker
        return int(self.left("exit_code")), errors

    def left(self, name: str) -> str:
        """Return the content of a file of the claim."""
        return (self.directory / "claim" / name).read_text().strip()

    @property
    def has_marker(self) -> bool:
        return (self.work / ".outbox" / marker_name(self.job)).exists()


# commands of users ----------------------------------------------------------------------------------------

IN_THE_WAY = {
    "a trap of their own": "trap 'echo bye' EXIT",
    "a PATH without programs": "export PATH=/nowhere",
    "errors that end the shell": "set -e",
    "a cd elsewhere": "cd /",
    "no file is overwritten": "set -o noclobber",
    "a cd that lists": 'cd() { builtin cd "$@"; ls; }',
    "functions for our commands": "echo() { :; }; mv() { :; }; exit_code=7",
    "signals ignored": "trap '' TERM USR1",
    "another output": "exec > out.txt 2> err.txt",
}


@pytest.mark.parametrize("pre_run", IN_THE_WAY.values(), ids=IN_THE_WAY)
@pytest.mark.parametrize("code", [0, 7])
def test_commands_of_users_do_not_hide_how_the_job_ended(tmp_path: Path, pre_run: str, code: int) -> None:
    attempt = Attempt(tmp_path, launcher=f"exit {code}", pre_run=pre_run)
    assert attempt.run()[0] == code


@pytest.mark.parametrize(("pre_run", "code"), [("exit 5", 5), ("exec false", 1), ("set -e; false", 1)])
def test_commands_that_end_the_script(tmp_path: Path, pre_run: str, code: int) -> None:
    assert Attempt(tmp_path, pre_run=pre_run).run()[0] == code


def test_a_trap_of_the_user_runs_too(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, pre_run=f"trap 'touch {tmp_path}/farewell' EXIT")
    attempt.run()
    assert (tmp_path / "farewell").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGXCPU, 152)]
)
def test_a_signal_to_all_processes(tmp_path: Path, number: signal.Signals, code: int) -> None:
    attempt = Attempt(tmp_path, launcher=f"touch {tmp_path}/runs; exec sleep 60")
    with attempt.start() as started:
        assert eventually((tmp_path / "runs").exists)
        os.killpg(started.pid, number)
        assert started.wait(PATIENCE) == code
    assert (attempt.left("exit_code"), attempt.has_marker) == (str(code), True)


# modules --------------------------------------------------------------------------------------------------


def with_modules(*modules: str, ignore: bool = False) -> ExecConfigSpec:
    on_error = OnSetupError.IGNORE if ignore else OnSetupError.FAIL
    return ExecConfigSpec(modules=list(modules), on_setup_error=on_error)


@pytest.mark.parametrize("module", ["bad/1", "old/3.2"])
def test_a_module_that_cannot_be_loaded_ends_the_job_before_it_starts(tmp_path: Path, module: str) -> None:
    attempt = Attempt(tmp_path, launcher=f"touch {tmp_path}/ran", pre_run=MODULE)
    code, errors = attempt.run(with_modules("good/1", module, "good/2"))
    assert code != 0
    assert attempt.left("failed_command") == f"module load {module}"
    assert module in errors
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("module", ["bad/1", "old/3.2"])
def test_it_can_be_ignored_and_is_still_told(tmp_path: Path, module: str) -> None:
    attempt = Attempt(tmp_path, launcher='echo "$LOADED" > loaded', pre_run=MODULE)
    code, errors = attempt.run(with_modules("good/1", module, "good/2", ignore=True))
    assert code == 0
    assert f"`module load {module}` failed; on_setup_error is ignore" in errors
    assert (attempt.directory / "loaded").read_text() == "good/1 good/2 \n"
    assert not (attempt.directory / "claim" / "failed_command").exists()


def test_without_any_module_command(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path)
    code, errors = attempt.run(with_modules("vasp/6.4"))
    assert code == 127
    assert attempt.left("failed_command") == "module load vasp/6.4"
    assert "module: command not found" in errors


@pytest.mark.parametrize(
    ("file", "variables"),
    [
        (".bash_profile", {}),
        (".profile", {}),
        ("init/bash", {"MODULESHOME": "{home}"}),
        ("init/bash", {"LMOD_PKG": "{home}"}),
        ("env.sh", {"BASH_ENV": "{home}/env.sh"}),
    ],
)
@pytest.mark.parametrize("prefix", ["", "set -eu\n", "read -p 'project? ' ANSWER\n"])
def test_module_is_found_as_in_a_login_shell(
    tmp_path: Path, file: str, variables: dict[str, str], prefix: str
) -> None:
    attempt = Attempt(tmp_path, launcher='echo "$LOADED" > loaded')
    path = attempt.work / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(prefix + MODULE)
    env = {name: value.format(home=attempt.work) for name, value in variables.items()}
    assert attempt.run(with_modules("good/1"), env)[0] == 0
    assert (attempt.directory / "loaded").read_text() == "good/1 \n"


def test_an_exported_function_is_used(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, launcher='echo "$LOADED" > loaded')
    (attempt.work / ".bash_profile").write_text("module() { echo wrong; }\n")
    function = MODULE.strip().removeprefix("module()")
    assert attempt.run(with_modules("good/1"), {"BASH_FUNC_module%%": f"(){function}"})[0] == 0
    assert (attempt.directory / "loaded").read_text() == "good/1 \n"


# starting again -------------------------------------------------------------------------------------------

SLURM = {"SLURM_JOB_ID": "7"}
AGAIN = SLURM | {"SLURM_RESTART_COUNT": "1"}


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    """An attempt of a Slurm job whose process was ended by the scheduler."""
    made = Attempt(tmp_path, "slurm", f"echo x >> {tmp_path}/ran; [ -e {tmp_path}/go ] || exec sleep 60")
    with made.start(env=SLURM) as started:
        assert eventually(lambda: times(made) == 1)
        os.killpg(started.pid, signal.SIGTERM)
    assert made.left("exit_code") == "143"
    (tmp_path / "go").touch()
    return made


def times(attempt: Attempt) -> int:
    log = attempt.work.parent / "ran"
    return log.read_text().count("x") if log.exists() else 0


def test_a_requeued_script_goes_on(attempt: Attempt) -> None:
    assert attempt.run(env=AGAIN)[0] == 0
    assert (times(attempt), attempt.left("turn.2").split()[0]) == (2, "run")
    assert attempt.run(env=AGAIN)[0] == 0  # it ended with exit code 0: that counts
    assert times(attempt) == 2


@pytest.mark.parametrize(
    ("scheduler", "first", "again", "other"),
    [
        ("pbs", {"PBS_JOBID": "7.pbs01"}, {"PBS_JOBID": "7.pbs01"}, {"PBS_JOBID": "8.pbs01"}),
        ("pbs", {"PBS_JOBID": "7[].pbs01"}, {"PBS_JOBID": "7[].pbs01"}, {"PBS_JOBID": "7.pbs01"}),
        ("sge", {"JOB_ID": "7"}, {"JOB_ID": "7", "RESTARTED": "1"}, {"JOB_ID": "7", "RESTARTED": "0"}),
    ],
)
def test_every_scheduler_starts_a_script_again(
    tmp_path: Path, scheduler: str, first: dict[str, str], again: dict[str, str], other: dict[str, str]
) -> None:
    """``qrerun`` or a node that fails; PBS does not tell it, but gives the script the same id."""
    attempt = Attempt(tmp_path, scheduler, f"echo x >> {tmp_path}/ran; [ -e {tmp_path}/go ] || exec sleep 60")
    with attempt.start(env=first) as started:
        assert eventually(lambda: times(attempt) == 1)
        os.killpg(started.pid, signal.SIGTERM)
    (tmp_path / "go").touch()
    attempt.start(env=other).communicate(timeout=PATIENCE)
    assert times(attempt) == 1, "not the one that the scheduler started again"
    assert attempt.run(env=again)[0] == 0
    assert times(attempt) == 2


@pytest.mark.parametrize(
    "case", ["closed", "withdrawn", "result", "another job", "not restarted", "exit code"]
)
def test_a_script_that_must_not_run_again(attempt: Attempt, case: str) -> None:
    claim, env = attempt.directory / "claim", dict(AGAIN)
    match case:
        case "closed":
            (claim / "turn.2").write_text("closed\n")
        case "withdrawn":
            (claim / "withdrawn").touch()
        case "result":
            (claim / "result.json").write_text("{}")
        case "another job":
            env["SLURM_JOB_ID"] = "8"
        case "not restarted":  # a controller that has lost its memory
            del env["SLURM_RESTART_COUNT"]
        case "exit code":
            (claim / "ended.1").write_text("7\n")
    attempt.start(env=env).communicate(timeout=PATIENCE)
    assert times(attempt) == 1


def test_a_start_waits_for_the_former_process_on_the_same_machine(tmp_path: Path) -> None:
    """If it ended, the job would count as lost, and its next attempt would run beside the former process."""
    attempt = Attempt(tmp_path, "slurm", f"echo x >> {tmp_path}/ran; exec sleep 60")
    first = attempt.start(env=SLURM)
    assert eventually(lambda: times(attempt) == 1)
    with attempt.start(env=AGAIN) as second:
        with pytest.raises(subprocess.TimeoutExpired):
            second.communicate(timeout=2)
        assert times(attempt) == 1
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate(timeout=PATIENCE)
        assert eventually(lambda: times(attempt) == 2)
        os.killpg(second.pid, signal.SIGKILL)


def test_a_claim_of_an_earlier_version_goes_on(attempt: Attempt) -> None:
    (attempt.directory / "claim" / "ended.1").unlink()
    (attempt.directory / "claim" / "process").unlink()
    assert attempt.run(env=AGAIN)[0] == 0
    assert times(attempt) == 2


def test_of_scripts_that_start_again_together_one_runs(attempt: Attempt) -> None:
    started = [attempt.start(env=AGAIN) for _ in range(8)]
    for process in started:
        process.communicate(timeout=PATIENCE)
    assert times(attempt) == 2
