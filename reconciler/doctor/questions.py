"""The questions to a worker: parts of one shell script that changes nothing but its own probe file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from reconciler.doctor.worker_under_test import WorkerUnderTest
from reconciler.execution.run_files import shell_path

TOOLS = ("tar", "mkdir", "mv", "rm", "ls", "cat", "date", "wc", "ps", "tail", "chmod")
"""What the scripts of the executor call on every worker."""

COMMANDS = {
    "shell": ("setsid", "kill", "nohup"),
    "slurm": ("sbatch", "squeue", "scancel", "scontrol"),
    "pbs": ("qsub", "qstat", "qdel"),
    "sge": ("qsub", "qstat", "qdel"),
}
"""What each scheduler is used through."""

ACCOUNTING = {"slurm": "sacct -n -X -j 1", "sge": "command -v qacct"}
"""A question that works where the scheduler remembers jobs that have ended."""

VERSIONS = {"slurm": "squeue --version", "pbs": "qstat --version", "sge": "qstat -help"}
"""What prints the scheduler's version in its first line."""


def login(patient: WorkerUnderTest) -> str:
    """Return what prints what the login files print, and on stderr how long they took."""
    return "TIMEFORMAT=%R; time bash -lc : </dev/null 2>&1 | head -c 400"


def bash(patient: WorkerUnderTest) -> str:
    """Return what prints the version of bash."""
    return 'echo "$BASH_VERSION"'


def tools(patient: WorkerUnderTest) -> str:
    """Return what prints the tools that are missing."""
    return _missing(TOOLS)


def scheduler(patient: WorkerUnderTest) -> str:
    """Return what prints the commands of the scheduler that are missing."""
    return _missing(COMMANDS[patient.spec.scheduler_type])


def version(patient: WorkerUnderTest) -> str:
    """Return what prints the version of the scheduler."""
    return f"{VERSIONS.get(patient.spec.scheduler_type, ':')} 2>&1 | head -n 1"


def accounting(patient: WorkerUnderTest) -> str:
    """Return what works if the scheduler remembers jobs that have ended."""
    return ACCOUNTING.get(patient.spec.scheduler_type, ":")


def _missing(names: tuple[str, ...]) -> str:
    return f'for tool in {" ".join(names)}; do command -v "$tool" >/dev/null || echo "$tool"; done'


def listing(patient: WorkerUnderTest) -> str:
    """Return a question to the queue that costs nothing: for the job 1."""
    return patient.queue.listing_command([QUESTION])


QUESTION = "1"
"""The id of a job that may or may not exist: what matters is that the queue answers."""


# files ------------------------------------------------------------------------------------------------------


def nearest(patient: WorkerUnderTest) -> str:
    """Return what sets ``wanted`` to the work_dir and ``place`` to it, or to what exists above it."""
    return (
        f"wanted={shell_path(patient.place.work_dir)}; place=$wanted\n"
        'until [ -e "$place" ] || [ -L "$place" ]; do place=$(dirname -- "$place"); done\n'
        f"probe=${{place%/}}/.doctor-{patient.token}"
    )


NO_DIRECTORY = 65
"""Exit code of :func:`work_dir`: something else than a directory is in the way."""


def work_dir(patient: WorkerUnderTest) -> str:
    """Return what writes a file, renames it, reads it and removes it; prints ``wanted`` and ``place``."""
    return (
        f"{nearest(patient)}\n"
        'printf "%s\\n%s\\n" "$wanted" "$place"\n'
        f'[ -d "$place" ] || exit {NO_DIRECTORY}\n'
        'trap \'rm -f -- "$probe" "$probe.partial"\' EXIT\n'
        f'{write_probe(patient)} && [ "$(cat -- "$probe")" = {patient.token} ]'
    )


def write_probe(patient: WorkerUnderTest) -> str:
    """Return what makes the probe file, after :func:`nearest`."""
    return f'printf %s {patient.token} > "$probe.partial" && mv -- "$probe.partial" "$probe"'


def leave_probe(patient: WorkerUnderTest) -> str:
    """Return what makes the probe file and leaves it there."""
    return f"{nearest(patient)}\n{write_probe(patient)}"


def see_probe(patient: WorkerUnderTest) -> str:
    """Return what succeeds when the probe file is seen; network file systems may take some seconds."""
    return (
        f"{nearest(patient)}\nfor second in 1 2 3 4 5; do\n"
        f'[ "$(cat -- "$probe" 2>/dev/null)" = {patient.token} ] && exit 0\nsleep 1\ndone\n'
        'echo "$wanted"; exit 1'
    )


def remove_probe(patient: WorkerUnderTest) -> str:
    """Return what removes the probe file."""
    return f'{nearest(patient)}\nrm -f -- "$probe" "$probe.partial"'


def space(patient: WorkerUnderTest) -> str:
    """Return what prints the free space of the work_dir, in KiB, in the last line."""
    return f'{nearest(patient)}\ndf -Pk -- "$place" | tail -n 1'


# python -----------------------------------------------------------------------------------------------------

SAYS = "doctor-says"

# Any Python of the last twenty years must be able to run it: it is there to say that it is too old.
_PYTHON = f"""
import sys
def say(key, value):
    sys.stdout.write("\\n{SAYS} %s %s\\n" % (key, " ".join(str(value).split())))
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


def python(patient: WorkerUnderTest) -> str:
    """Return what runs the Python of the jobs, which says who it is."""
    # In a directory without modules: -c imports from the current one first.
    return f"cd / && {shell_path(patient.place.python)} -c {shlex.quote(_PYTHON)}"


# the table --------------------------------------------------------------------------------------------------

Applies = Callable[[WorkerUnderTest], bool]


def always(patient: WorkerUnderTest) -> bool:
    """Every worker is asked."""
    return True


def has_accounting(patient: WorkerUnderTest) -> bool:
    """Whether there is a way to ask its scheduler for jobs that have ended."""
    return patient.spec.scheduler_type in ACCOUNTING


SECTIONS: Mapping[str, tuple[Callable[[WorkerUnderTest], str], Applies]] = {
    "login": (login, lambda patient: patient.logs_in),
    "bash": (bash, always),
    "tools": (tools, always),
    "scheduler": (scheduler, always),
    "version": (version, lambda patient: patient.has_scheduler),
    "work_dir": (work_dir, always),
    "space": (space, always),
    "python": (python, always),
    "accounting": (accounting, has_accounting),
    "queue": (listing, always),
}
"""The script: its questions, those last that hang when a daemon is down."""


def questions(patient: WorkerUnderTest) -> dict[str, str]:
    """Return the parts of the script for this worker, by name."""
    return {name: ask(patient) for name, (ask, applies) in SECTIONS.items() if applies(patient)}
