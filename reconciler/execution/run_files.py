"""What a job gets into its run directory: the submission script, its input, its files, the launcher.

All of it is known without asking the worker. The script claims its attempt by an atomic ``mkdir``, so that a
job started twice runs once; and drops its marker into the outbox when it ends, however it ends.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from reconciler.execution.headers import queue_name, submission_header
from reconciler.execution.queues.registry import queue_of
from reconciler.model.flows import run_dir
from reconciler.model.manifests import ExecConfigSpec, WorkerSpec
from reconciler.model.records import AppliedConfig, JobRecord

SCRIPT, INPUT = "submit.sh", "job.json"
CLAIM = "claim"
RESULT = f"{CLAIM}/result.json"
OLDEST_PYTHON = (3, 9)
"""What the launcher needs."""
OUTBOX = ".outbox"
LAUNCHERS = ".launchers"
CODE = ".code"


class WorkerPaths(msgspec.Struct, frozen=True):
    """Where a worker has its files, as its scripts say it: absolute, or beginning with ``~/``.

    ``python`` is a path or a name on the PATH there.
    """

    work_dir: str
    python: str

    @property
    def outbox(self) -> str:
        """The directory of the markers."""
        return f"{self.work_dir}/{OUTBOX}"

    @property
    def launcher(self) -> str:
        """The file of the launcher."""
        return f"{self.work_dir}/{LAUNCHERS}/{launcher_name()}"

    def code(self, tree: str) -> str:
        """The directory of a code tree."""
        return f"{self.work_dir}/{CODE}/{tree}"


def worker_paths(worker: WorkerSpec, expand: Callable[[str], str]) -> WorkerPaths:
    """Return the place of a worker. ``expand`` makes paths of this machine absolute.

    Another machine knows itself where its ``~`` is, so there it stays in the script. Python is that which
    runs this program, and ``python3`` on another machine, unless the worker names one.
    """
    if worker.type != "local":
        return WorkerPaths(worker.work_dir.rstrip("/") or "/", worker.python or "python3")
    python = worker.python or sys.executable
    return WorkerPaths(expand(worker.work_dir), expand(python) if python.startswith("~") else python)


def next_attempt(job: JobRecord, work_dir: str) -> JobRecord:
    """Return the record of a job as its next attempt would begin: with its number and directory."""
    attempt = job.attempt + 1
    directory = run_dir(work_dir, job.uuid, job.index, attempt)
    return msgspec.structs.replace(job, attempt=attempt, run_dir=directory)


def marker_name(job: JobRecord) -> str:
    """Return the name of the marker that an attempt drops into the outbox."""
    return f"{job.id}.{job.attempt}"


def name_in_queue(job: JobRecord) -> str:
    """Return the name under which the queue knows an attempt."""
    return queue_name(job.key, marker_name(job))


@cache
def launcher_source() -> bytes:
    """Return the launcher that travels with jobs."""
    return Path(__file__).with_name("launcher.py").read_bytes()


@cache
def launcher_name() -> str:
    """Return the file name of the launcher, by its content: several versions may be in use at once."""
    return f"{hashlib.sha256(launcher_source()).hexdigest()[:16]}.py"


def script_of(job: JobRecord, config: AppliedConfig, worker: WorkerSpec, place: WorkerPaths) -> str:
    """Return the submission script of an attempt; asks neither the worker nor the store.

    Raises
    ------
    ValueError
        There is no exec_config of the name that the job has.
    InputError
        The resources do not fit the scheduler.
    """
    return submission_script(job, worker, place, _exec_config(job, config))


def _exec_config(job: JobRecord, config: AppliedConfig) -> ExecConfigSpec:
    """Return the exec_config of a job: a named one, an inline one, or none."""
    value = job.config.value("exec_config")
    if isinstance(value, dict):
        return msgspec.convert(value, ExecConfigSpec)
    if value is None:
        return ExecConfigSpec()
    found = config.commands.get(job.config.commands or "")
    if found is None:
        raise ValueError(f"there is no ExecConfig named '{value}' any more")
    return found


def submission_script(
    job: JobRecord, worker: WorkerSpec, place: WorkerPaths, exec_config: ExecConfigSpec
) -> str:
    """Return the script of one attempt.

    The worker's commands come first, then those of the exec_config, before and after the job.

    Raises
    ------
    InputError
        The worker's scheduler cannot be asked for the job's resources.
    """
    assert job.run_dir is not None
    header = submission_header(worker.scheduler_type, job.asked, name_in_queue(job))
    code = ":".join(shell_path(place.code(tree)) for tree in job.code)
    outbox = shell_path(f"{place.outbox}/{marker_name(job)}")
    enter = f"cd {shell_path(job.run_dir)}"  # again after the user's commands, which may go elsewhere
    parts = [
        header.rstrip("\n"),
        f"# {_one_line(job.path)}  {job.id}  attempt {job.attempt}",
        f"{enter} || exit 1",
        *_claim(worker.scheduler_type),
        "finish() {",
        "  code=$?",
        f"  {enter} && echo $code > {CLAIM}/exit_code",
        f"  : > {outbox}.partial && mv {outbox}.partial {outbox}",
        "}",
        "trap finish EXIT",
        "trap 'exit 143' TERM",
        *_commands(worker.pre_run),
        *[f"module load {shlex.quote(module)}" for module in exec_config.modules],
        *[_export(name, value, exec_config.expand) for name, value in exec_config.export.items()],
        *_commands(exec_config.pre_run),
        *([f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}"] if code else []),
        f"{enter} || exit 1",
        f"{shell_path(place.python)} {shell_path(place.launcher)} && job_code=0 || job_code=$?",
        _why_no_python(job.config.worker_name, place.python),
        *_commands(worker.post_run),
        *_commands(exec_config.post_run),
        "exit $job_code",
    ]
    return "\n".join(parts) + "\n"


def _claim(scheduler_type: str) -> list[str]:
    """Whoever makes the directory runs the job. A scheduler may start again what it has started before.

    But not what has ended: one that has lost its memory in a crash does not know that. Where the name of
    who runs cannot be written, since the disk is full, nothing runs.
    """
    queue_id = f'"{queue_of(scheduler_type).id_variable}"'
    same = f'[ "$(cat {CLAIM}/queue_id 2>/dev/null)" = {queue_id} ] && [ ! -e {CLAIM}/exit_code ]'
    again = "" if scheduler_type == "shell" else f" || {{ {same}; }}"
    return [f"mkdir {CLAIM} 2>/dev/null{again} || exit 0", f"echo {queue_id} > {CLAIM}/queue_id || exit 1"]


def _why_no_python(worker: str, python: str) -> str:
    """Return the line that writes the result if there is none since no fit Python could run the launcher."""
    oldest = ".".join(map(str, OLDEST_PYTHON))
    text = (
        f"worker {worker}: {python} is not there, does not run, or is older than Python {oldest}; "
        "set `python:` of the worker to the path of a Python that has jobflow"
    )
    error = {"type": "", "message": "", "traceback": text}
    result = shlex.quote(json.dumps({"ok": False, "started": 0, "ended": 0, "error": error}))
    is_fit = f"{shell_path(python)} -c 'import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})' 2>/dev/null"
    return f"[ -e {RESULT} ] || {is_fit} || printf '%s\\n' {result} > {RESULT}"


def shell_path(path: str) -> str:
    """Return a path for a script: quoted, with ``~`` where the shell that reads it has its home."""
    if path == "~":
        return '"$HOME"'
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def _one_line(text: str) -> str:
    """The name of a job may hold anything; in a comment it must not end the line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _commands(text: str) -> list[str]:
    return [text.rstrip("\n")] if text.strip() else []


def _export(name: str, value: str, expand: bool) -> str:
    """Quote the value; with ``expand`` the shell may still expand variables, but run no command."""
    if not expand:
        return f"export {name}={shlex.quote(value)}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`").replace("$(", "\\$(")
    return f'export {name}="{escaped}"'


def job_input(
    job: JobRecord,
    payload: bytes,
    documents: Sequence[dict[str, Any]],
    blobs: Mapping[str, Sequence[dict[str, Any]]],
) -> bytes:
    """Return ``job.json``: the job, and the documents of the outputs that it refers to."""
    request = {
        "worker": job.config.worker_name,
        "job": json.loads(payload),
        "documents": list(documents),
        "blobs": {name: list(docs) for name, docs in blobs.items()},
    }
    return json.dumps(request).encode()
