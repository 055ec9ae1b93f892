"""The checks of a worker: what each asks on the host, and how it reads the answer.

All questions are sections of one shell script, which changes nothing but its own probe file. A section whose
daemon is down may hang, so those come last.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from collections.abc import Callable

import msgspec

from reconciler.doctor.check import Finding, failed, first_line, ok, skipped, space_finding, warning
from reconciler.doctor.evidence import Evidence, WorkerUnderTest
from reconciler.errors import ReconcilerError, TransientError
from reconciler.execution.headers import submission_header
from reconciler.execution.hosts.base import CommandResult
from reconciler.execution.run_files import OLDEST_PYTHON, shell_path
from reconciler.model.connections import HostKeyPolicy

# connection -------------------------------------------------------------------------------------------------

_LARGEST_SKEW = 60.0
"""Seconds by which the clocks may differ. No decision depends on it, but times in logs mislead people."""


def connection(worker: WorkerUnderTest, evidence: Evidence) -> Finding:
    """Check that the host lets us in and runs a command."""
    error, host = evidence.problem, worker.host
    if error is not None:
        fix = error.hint or f"try `ssh {host.name}` by hand"
        return failed(error.message, fix.removesuffix("; `reconcile doctor` tells more"))
    trip = f"a command takes {1000 * evidence.round_trip:.0f} ms"
    if host.is_local:
        return ok(f"this machine; {trip}")
    way = "over an OpenSSH master connection" if worker.spec.control_path else "over SSH"
    return ok(f"{host.name} {way}, connected in {1000 * evidence.connecting:.0f} ms; {trip}")


def host_key(worker: WorkerUnderTest, evidence: Evidence) -> Finding:
    """Check that no host on the way is trusted at first sight."""
    trusting = [link.host for link in worker.connections if link.host_key_policy is HostKeyPolicy.ACCEPT_NEW]
    if trusting:
        return warning(
            f"`accept-new` for {', '.join(trusting)}: the first key that a host shows is accepted, "
            "even if it comes from an attacker",
            "compare the key once with that of the administrators, then set `host_key_policy: strict`",
        )
    return ok("strict: only keys of known hosts")


def clock(worker: WorkerUnderTest, evidence: Evidence) -> Finding:
    """Check that the clocks agree."""
    if evidence.skew is None:
        return warning("`date +%s` prints no time", "install a `date` there that knows +%s")
    seconds = abs(evidence.skew)
    if seconds > _LARGEST_SKEW:
        side = "ahead of" if evidence.skew > 0 else "behind"
        return warning(f"{seconds:.0f} s {side} this machine", "synchronize both clocks with NTP")
    return ok("in sync" if seconds < 1 else f"{seconds:.0f} s off")


# shell and tools --------------------------------------------------------------------------------------------

_SLOW_LOGIN = 2.0
"""Seconds that login files may take."""

_OLDEST_BASH = 4

TOOLS = ("tar", "mkdir", "mv", "rm", "ls", "cat", "date", "wc", "ps", "tail", "chmod")
"""What the scripts of the executor call on every worker."""


def login_script(worker: WorkerUnderTest) -> str:
    """Print what the login files print, and on stderr how long they took."""
    return "TIMEFORMAT=%R; time bash -lc : </dev/null 2>&1 | head -c 400"


def login(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Check the time of the login files; what they print is cut off, so it does not matter."""
    noise = first_line(result.stdout)
    text = f"login files print `{noise[:60]}`: harmless, it is cut off" if noise else "login files are silent"
    try:
        seconds = float(result.stderr.split()[-1].replace(",", "."))
    except (IndexError, ValueError):
        return ok(text)
    if seconds > _SLOW_LOGIN:
        return warning(
            f"login files take {seconds:.1f} s, which every command pays",
            "make them shorter for shells that are not interactive, or set `login_shell: false`",
        )
    return ok(f"{text}; {1000 * seconds:.0f} ms")


def bash(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Check the version of the shell that runs all scripts."""
    version = result.stdout.strip()
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < _OLDEST_BASH:
        return warning(f"{version} is very old", f"put bash {_OLDEST_BASH} or newer first on the PATH there")
    return ok(version)


def _missing(names: tuple[str, ...]) -> str:
    """Print those of some programs that are missing."""
    return f'for tool in {" ".join(names)}; do command -v "$tool" >/dev/null || echo "$tool"; done'


def tools(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Check the programs that the scripts call."""
    missing = result.stdout.split()
    if missing:
        return failed(f"not found: {', '.join(missing)}", "install them there, or put them on the PATH")
    return ok("all found")


# files ------------------------------------------------------------------------------------------------------

_NOT_A_DIRECTORY = 65
"""Exit code of :func:`work_dir_script`: something that is not a directory is in the way."""


def _places(worker: WorkerUnderTest) -> str:
    """Set ``wanted`` to the work_dir, ``place`` to it or the nearest that exists above it, and ``probe``."""
    return (
        f"wanted={shell_path(worker.place.work_dir)}; place=$wanted\n"
        'until [ -e "$place" ] || [ -L "$place" ]; do place=$(dirname -- "$place"); done\n'
        f"probe=${{place%/}}/.doctor-{worker.token}"
    )


def _write_probe(worker: WorkerUnderTest) -> str:
    return f'printf %s {worker.token} > "$probe.partial" && mv -- "$probe.partial" "$probe"'


def work_dir_script(worker: WorkerUnderTest) -> str:
    """Print ``wanted`` and ``place``; write a file, rename it, read it and remove it."""
    return (
        f"{_places(worker)}\n"
        'printf "%s\\n%s\\n" "$wanted" "$place"\n'
        f'[ -d "$place" ] || exit {_NOT_A_DIRECTORY}\n'
        'trap \'rm -f -- "$probe" "$probe.partial"\' EXIT\n'
        f'{_write_probe(worker)} && [ "$(cat -- "$probe")" = {worker.token} ]'
    )


def work_dir(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Check that files can be made, renamed and read in the work_dir, or where it would be made."""
    wanted, place = [*result.stdout.splitlines(), "", ""][:2]
    if result.exit_code == _NOT_A_DIRECTORY:
        message = f"{wanted} cannot be a directory: {place} is not a directory"
        return failed(message, "move that file away, or change `work_dir`")
    if result.exit_code != 0:
        why = first_line(result.stderr).rpartition(": ")[2] or "a file reads differently than written"
        return failed(
            f"cannot write to {place}: {why}", "check owner, permissions and quota, or change `work_dir`"
        )
    if wanted != place:
        return ok(f"{wanted}: does not exist yet, can be made in {place}")
    return ok(f"{wanted}: writable")


def space_script(worker: WorkerUnderTest) -> str:
    """Print the free space of the work_dir, in KiB, in the last line."""
    return f'{_places(worker)}\ndf -Pk -- "$place" | tail -n 1'


def space(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Check the free space, from the last line of ``df -Pk``."""
    found = re.search(r"\s\d+\s+\d+\s+(\d+)\s+(?:\d+%|-)\s", result.stdout)
    if found is None:
        message = f"`df` does not report the free space: {first_line(result.stderr)}"
        return warning(message, "check the quota and the disk")
    return space_finding(int(found[1]) * 1024, "work_dir", "remove old run directories, or change `work_dir`")


def _free_space(worker: WorkerUnderTest, evidence: Evidence) -> Finding:
    if evidence.answers["work_dir"].exit_code != 0:
        return skipped("work_dir cannot be used")
    return space(worker, evidence.answers["space"])


def transfer(worker: WorkerUnderTest, evidence: Evidence) -> Finding:
    """Write a file where jobs run, and look for it by the way that files take."""
    assert worker.transfer is not None
    timeout, name = float(worker.spec.timeout_execute), worker.transfer.name
    if evidence.answers["work_dir"].exit_code != 0:
        return skipped("work_dir cannot be used")
    look = (  # network file systems may take some seconds
        f"{_places(worker)}\nfor second in 1 2 3 4 5; do\n"
        f'[ "$(cat -- "$probe" 2>/dev/null)" = {worker.token} ] && exit 0\nsleep 1\ndone\n'
        'echo "$wanted"; exit 1'
    )
    try:
        worker.host.run(f"{_places(worker)}\n{_write_probe(worker)}", timeout)
        try:
            seen = worker.transfer.run(look, timeout)
        finally:
            worker.host.run(f'{_places(worker)}\nrm -f -- "$probe" "$probe.partial"', timeout)
    except ReconcilerError as error:
        return failed(error.message, error.hint or f"try `ssh {name}` by hand")
    if seen.exit_code != 0:
        return failed(
            f"{name} does not see a file in work_dir",
            "put `work_dir` on a file system that both hosts have under the same path, or drop `transfer`",
        )
    return ok(f"{name} sees the same work_dir")


# python -----------------------------------------------------------------------------------------------------

_REPORT = "doctor-says"

# Any Python of the last twenty years must be able to run it, to report that it is too old.
_PYTHON = f"""
import sys
def say(key, value):
    sys.stdout.write("\\n{_REPORT} %s %s\\n" % (key, " ".join(str(value).split())))
say("python", ".".join(map(str, sys.version_info[:3])))
say("path", sys.executable)
try:
    import jobflow
except BaseException:
    kind, error = sys.exc_info()[:2]
    say("error", "%s: %s" % (kind.__name__, error))
else:
    try:
        from importlib.metadata import version
        say("jobflow", version("jobflow"))
    except Exception:
        say("jobflow", getattr(jobflow, "__version__", "?"))
"""


def python_script(worker: WorkerUnderTest) -> str:
    """Run the Python of the jobs, which reports its version and that of jobflow."""
    # In a directory without modules, because -c imports from the current one first.
    return f"cd / && {shell_path(worker.place.python)} -c {shlex.quote(_PYTHON)}"


def _reported(result: CommandResult) -> dict[str, str]:
    sign = f"{_REPORT} "
    lines = (line.removeprefix(sign) for line in result.stdout.splitlines() if line.startswith(sign))
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def _failed_unless_pre_run(worker: WorkerUnderTest, message: str, fix: str, wanted: str) -> Finding:
    if not worker.spec.pre_run.strip():
        return failed(message, fix)
    message += "; `pre_run`, which is not run here, may provide it"
    return warning(message, f"give `python:` of the worker {wanted}")


def python(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Check that the Python of the jobs runs, and is new enough for the launcher."""
    report = _reported(result)
    if "python" not in report:
        why = first_line(result.stderr) or f"exit code {result.exit_code}"
        return _failed_unless_pre_run(
            worker,
            f"{worker.place.python} does not run: {why}",
            "set `python:` of the worker to the path of a Python that has jobflow",
            "an absolute path, then it can be checked",
        )
    text = f"{report['python']}, {report.get('path', worker.place.python)}"
    if tuple(int(number) for number in report["python"].split(".")[:2]) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return failed(f"{text} is too old", f"set `python:` of the worker to Python {oldest} or newer")
    return ok(text)


def jobflow(worker: WorkerUnderTest, result: CommandResult, local: str) -> Finding:
    """Check that jobflow can be imported there, and is about the version of this machine (``local``)."""
    report = _reported(result)
    if "python" not in report:
        return skipped("there is no Python")
    if "jobflow" not in report:
        return _failed_unless_pre_run(
            worker,
            f"cannot be imported: {report.get('error', 'Python ended in mid-import')}",
            f"{report.get('path', worker.place.python)} -m pip install jobflow, or set `python:`",
            "the path of the environment that has jobflow",
        )
    there = report["jobflow"]
    if there.split(".")[:2] != local.split(".")[:2]:
        return warning(
            f"{there} there, {local} here: jobs may be read differently",
            f"install jobflow {local} there, or {there} here",
        )
    return ok(f"{there} there, {local} here")


# scheduler --------------------------------------------------------------------------------------------------

_SOME_ID = "1"
"""The id of a job that may or may not exist: the queue must only answer."""


def commands(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Check that the commands of the scheduler are there."""
    missing = result.stdout.split()
    if not missing:
        return ok(" ".join(worker.scheduler.commands))
    fix = f"install them there, or put those of {worker.scheduler.title} on the PATH"
    if worker.spec.type == "remote":
        fix += "; with `login_shell: true` the login files can do that"
    return failed(f"not found: {', '.join(missing)}", fix)


def version(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Show the version of the scheduler."""
    text = first_line(result.stdout)
    is_version = re.search(r"\d+\.\d+", text) and "error" not in text.lower()
    return ok(text) if is_version else skipped("the scheduler does not tell its version")


def queue(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Check that the queue answers, as the executor would read it."""
    try:
        worker.queue.listing({_SOME_ID: ""}, result)
    except TransientError as error:
        kind = worker.spec.scheduler_type
        fix = f"is `scheduler_type: {kind}` right, does the scheduler run, and does that host know it?"
        return failed(error.message, fix)
    return ok("answers")


def accounting(worker: WorkerUnderTest, result: CommandResult) -> Finding:
    """Check that the scheduler remembers ended jobs."""
    if result.exit_code == 0:
        return ok("works")
    command = worker.scheduler.accounting_command.split()[0]
    why = first_line(result.stderr) or f"`{command}` does not work"
    return warning(
        f"ended jobs are not remembered ({why}): jobs run, but why one was killed may stay unknown",
        worker.scheduler.accounting_fix,
    )


def resources(worker: WorkerUnderTest, evidence: Evidence) -> Finding:
    """Check that a script can be written for the resources that the worker gives by default."""
    found = worker.default_resources
    try:
        header = submission_header(worker.spec.scheduler_type, found, "doctor")
    except ReconcilerError as error:
        return failed(error.message, error.hint or "change `resources` of the worker", by_user=True)
    if found is None or not found.values:
        return ok("no default; jobs ask for what they need")
    ours = submission_header(worker.spec.scheduler_type, None, "doctor").splitlines()
    lines = [line.partition(" ")[2] for line in header.splitlines() if line not in ours]
    return ok("; ".join(lines))


# the table --------------------------------------------------------------------------------------------------

Script = Callable[[WorkerUnderTest], str]
Applies = Callable[[WorkerUnderTest], bool]


class WorkerCheck(msgspec.Struct, frozen=True):
    """One check. ``section`` is the part of the script that it needs, and ``script`` makes that part.

    ``offline`` checks need no host.
    """

    name: str
    find: Callable[[WorkerUnderTest, Evidence], Finding]
    section: str = ""
    script: Script | None = None
    applies: Applies = lambda worker: True
    offline: bool = False


def _section(
    name: str,
    section: str,
    script: Script,
    read: Callable[[WorkerUnderTest, CommandResult], Finding],
    applies: Applies = lambda worker: True,
) -> WorkerCheck:
    """Return a check that asks one section and reads its answer."""
    return WorkerCheck(
        name, lambda worker, evidence: read(worker, evidence.answers[section]), section, script, applies
    )


WORKER_CHECKS: tuple[WorkerCheck, ...] = (
    WorkerCheck("connection", connection, offline=True),
    WorkerCheck("host key", host_key, applies=lambda worker: bool(worker.connections), offline=True),
    WorkerCheck("clock", clock),
    _section("login shell", "login", login_script, login, lambda worker: worker.logs_in),
    _section("bash", "bash", lambda worker: 'echo "$BASH_VERSION"', bash),
    _section("tools", "tools", lambda worker: _missing(TOOLS), tools),
    _section("work_dir", "work_dir", work_dir_script, work_dir),
    WorkerCheck("free space", _free_space, "space", space_script),
    WorkerCheck("transfer", transfer, "work_dir", applies=lambda worker: worker.transfer is not None),
    _section("python", "python", python_script, python),
    WorkerCheck(
        "jobflow",
        lambda worker, evidence: jobflow(
            worker, evidence.answers["python"], importlib.metadata.version("jobflow")
        ),
        "python",
    ),
    _section(
        "scheduler commands",
        "commands",
        lambda worker: _missing(tuple(worker.scheduler.commands)),
        commands,
    ),
    _section(
        "scheduler version",
        "version",
        lambda worker: f"{worker.scheduler.version_command or ':'} 2>&1 | head -n 1",
        version,
        lambda worker: worker.scheduler.is_batch,
    ),
    _section("scheduler", "queue", lambda worker: worker.queue.listing_command([_SOME_ID]), queue),
    _section(
        "accounting",
        "accounting",
        lambda worker: worker.scheduler.accounting_command,
        accounting,
        lambda worker: bool(worker.scheduler.accounting_command),
    ),
    WorkerCheck("default resources", resources, offline=True),
)
"""Every check of a worker, in order."""
