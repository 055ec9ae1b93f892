"""What the answers of a worker mean: one function a check, each of them pure."""

from __future__ import annotations

import re

from reconciler.doctor import questions
from reconciler.doctor.check import Finding, failed, first_line, ok, skipped, space_finding, warning
from reconciler.doctor.worker_under_test import WorkerUnderTest
from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult

_SLOW_LOGIN = 2.0
"""Seconds that login files may take."""

_OLDEST_PYTHON = (3, 9)
_OLDEST_BASH = 4


def login(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """A login shell: what it prints is cut off, so only its time matters."""
    said = first_line(result.stdout)
    noise = f"login files print `{said[:60]}`: harmless, it is cut off" if said else "login files are silent"
    try:
        seconds = float(result.stderr.split()[-1].replace(",", "."))
    except (IndexError, ValueError):
        return ok(noise)
    if seconds > _SLOW_LOGIN:
        return warning(
            f"login files take {seconds:.1f} s, and every command pays for them",
            "make them shorter for shells that are not interactive, or set `login_shell: false`",
        )
    return ok(f"{noise}; {1000 * seconds:.0f} ms")


def bash(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """The shell that runs all scripts."""
    version = result.stdout.strip()
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < _OLDEST_BASH:
        return warning(f"{version} is very old", f"have bash {_OLDEST_BASH} or newer first on the PATH there")
    return ok(version)


def tools(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """The programs that the scripts call."""
    missing = result.stdout.split()
    if missing:
        return failed(f"not found: {', '.join(missing)}", "install them there, or put them on the PATH")
    return ok("all there")


def scheduler(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """The commands of the scheduler."""
    kind = patient.spec.scheduler_type
    missing = result.stdout.split()
    if not missing:
        return ok(" ".join(questions.COMMANDS[kind]))
    fix = f"install them there, or put those of {kind} on the PATH"
    if patient.spec.type == "remote":
        fix += "; with `login_shell: true` the login files can do that"
    return failed(f"not found: {', '.join(missing)}", fix)


def version(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """The version of the scheduler; for people only."""
    said = first_line(result.stdout)
    tells = re.search(r"\d+\.\d+", said) and "error" not in said.lower()
    return ok(said) if tells else skipped("the scheduler does not tell its version")


def listing(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """Whether the queue answers, by the judgement that the executor uses."""
    try:
        patient.queue.listing({questions.QUESTION: 0.0}, result)
    except TransientError as error:
        kind = patient.spec.scheduler_type
        fix = f"is `scheduler_type: {kind}` right, does the scheduler run, and does that host know it?"
        return failed(error.message, fix)
    return ok("answers")


def accounting(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """Whether the scheduler remembers jobs that have ended."""
    if result.exit_code == 0:
        return ok("works")
    command = questions.ACCOUNTING[patient.spec.scheduler_type].replace("command -v ", "").split()[0]
    return warning(
        f"`{command}` does not work: {first_line(result.stderr) or 'not found'}; jobs run "
        "all the same, but why one was killed may not be known",
        "nothing to do, unless the administrators switch accounting on",
    )


# files ------------------------------------------------------------------------------------------------------


def work_dir(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """Whether files can be made, renamed and read in the work_dir, or where it would be made."""
    wanted, place = [*result.stdout.splitlines(), "", ""][:2]
    if result.exit_code == questions.NO_DIRECTORY:
        return failed(
            f"{wanted} cannot be a directory: {place} is none", "move that file away, or change `work_dir`"
        )
    if result.exit_code != 0:
        why = first_line(result.stderr).rpartition(": ")[2] or "what was written is not what is read"
        return failed(
            f"cannot write to {place}: {why}", "check owner, permissions and quota, or change `work_dir`"
        )
    if wanted != place:
        return ok(f"{wanted}: not there yet, can be made in {place}")
    return ok(f"{wanted}: writable")


def space(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """Free space, from the last line of ``df -Pk``."""
    found = re.search(r"\s\d+\s+\d+\s+(\d+)\s+(?:\d+%|-)\s", result.stdout)
    if found is None:
        return warning(f"`df` does not tell: {first_line(result.stderr)}", "check quota and disk yourself")
    return space_finding(int(found[1]) * 1024, "work_dir", "remove old run directories, or change `work_dir`")


# python -----------------------------------------------------------------------------------------------------


def _said(result: CommandResult) -> dict[str, str]:
    sign = f"{questions.SAYS} "
    lines = (line.removeprefix(sign) for line in result.stdout.splitlines() if line.startswith(sign))
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def python(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    """Whether the Python of the jobs runs, and is new enough for the launcher."""
    said = _said(result)
    if "python" not in said:
        return _no_python(patient, result)
    numbers = tuple(int(number) for number in said["python"].split(".")[:2])
    text = f"{said['python']}, {said.get('path', patient.place.python)}"
    if numbers < _OLDEST_PYTHON:
        oldest = ".".join(map(str, _OLDEST_PYTHON))
        return failed(f"{text} is too old", f"set `python:` of the worker to one from {oldest} on")
    return ok(text)


def _no_python(patient: WorkerUnderTest, result: CommandResult) -> Finding:
    why = first_line(result.stderr) or f"exit code {result.exit_code}"
    message = f"{patient.place.python} does not run: {why}"
    if patient.spec.pre_run.strip():
        return warning(
            f"{message}; `pre_run`, which is not run here, may provide it",
            "give `python:` of the worker an absolute path, then it can be checked",
        )
    return failed(message, "set `python:` of the worker to the path of a Python that has jobflow")


def jobflow(patient: WorkerUnderTest, result: CommandResult, local: str) -> Finding:
    """Whether jobflow can be imported there, and is about the one of this machine (version ``local``)."""
    said = _said(result)
    if "python" not in said:
        return skipped("there is no Python")
    if "jobflow" not in said:
        return _no_jobflow(patient, said)
    there = said["jobflow"]
    if there.split(".")[:2] != local.split(".")[:2]:
        return warning(
            f"{there} there, {local} here: jobs may be read differently",
            f"install jobflow {local} there, or {there} here",
        )
    return ok(f"{there} there, {local} here")


def _no_jobflow(patient: WorkerUnderTest, said: dict[str, str]) -> Finding:
    message = f"cannot be imported: {said.get('error', 'Python ended in mid-import')}"
    if patient.spec.pre_run.strip():
        return warning(
            f"{message}; `pre_run`, which is not run here, may provide it",
            "give `python:` of the worker the path of the environment that has jobflow",
        )
    return failed(
        message, f"{said.get('path', patient.place.python)} -m pip install jobflow, or set `python:`"
    )
