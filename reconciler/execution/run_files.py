"""The files of a run directory: the submission script, the input of the job, and the launcher.

All of them are made without asking the worker. The script claims its attempt by an atomic ``mkdir``, so that
a job that was submitted twice runs once. When it ends, it leaves its marker in the outbox, however it ends.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from reconciler.actual.codec import decode
from reconciler.errors import InputError
from reconciler.execution.claims import CLAIM, CLAIMED_BY_AGENT, EXIT_CODE, RESULT, claim_lines
from reconciler.execution.headers import queue_name, submission_header
from reconciler.execution.launcher import ATTEMPT, ELAPSED, PREVIOUS, bytes_as_json
from reconciler.jobs.job_json import additional_stores
from reconciler.jobs.needed_outputs import SMALL, NeededDocument
from reconciler.model.applied import AppliedConfig
from reconciler.model.flows import run_dir
from reconciler.model.manifests import ExecConfigSpec, OnSetupError, WorkerSpec
from reconciler.model.records import JobAttempt, JobRecord
from reconciler.model.schedulers import scheduler_of

SCRIPT, INPUT = "submit.sh", "job.json"
FAILED_COMMAND = f"{CLAIM}/failed_command"
"""The command of the set-up that failed, so that the job did not start."""
OLDEST_PYTHON = (3, 9)
"""The oldest Python that runs the launcher."""
HEARTBEAT = 15.0
"""Seconds between two signs of life of a script."""
OUTBOX = ".outbox"
LAUNCHERS = ".launchers"
CODE = ".code"
DOCUMENTS = ".documents"
"""Large outputs that jobs of the worker need, by the sha256 of their bytes. In an upload also the names that
one job needs."""


class WorkerPaths(msgspec.Struct, frozen=True):
    """The paths of a worker as its scripts use them: absolute, or beginning with ``~/``.

    ``python`` is a path, or a name on the PATH there.
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
    """Return the paths of a worker. ``expand`` makes paths of this machine absolute.

    On another machine, the shell expands ``~``. Python is the one that runs this program, or ``python3`` on
    another machine, unless the worker names one.
    """
    if worker.type != "local":
        return WorkerPaths(worker.work_dir.rstrip("/") or "/", worker.python or "python3")
    python = worker.python or sys.executable
    return WorkerPaths(expand(worker.work_dir), expand(python) if python.startswith("~") else python)


def next_attempt(job: JobRecord, work_dir: str, worker: str, host: str | None = None) -> JobRecord:
    """Return a job with its next attempt on a worker: the number and the run directory."""
    number = job.attempt.number + 1
    directory = run_dir(work_dir, job.uuid, job.index, number)
    attempt = JobAttempt(number=number, worker=worker, host=host, run_dir=directory)
    return msgspec.structs.replace(job, attempt=attempt)


def marker_name(job: JobRecord) -> str:
    """Return the name of the marker of the current attempt: ``<uuid>_<index>.<attempt>``."""
    return f"{job.id}.{job.attempt.number}"


def name_in_queue(job: JobRecord) -> str:
    """Return the name of the current attempt in the queue."""
    return queue_name(job.key, marker_name(job))


@cache
def launcher_source() -> bytes:
    """Return the launcher that travels with jobs."""
    return Path(__file__).with_name("launcher.py").read_bytes()


@cache
def launcher_name() -> str:
    """Return the file name of the launcher: a digest, since several versions can be in use at once."""
    return f"{hashlib.sha256(launcher_source()).hexdigest()[:16]}.py"


def script_of(job: JobRecord, config: AppliedConfig, worker: WorkerSpec, paths: WorkerPaths) -> str:
    """Return the submission script of the current attempt.

    Raises
    ------
    InputError
        The ExecConfig that the job names does not exist any more, or the scheduler cannot give the resources.
    """
    return submission_script(job, worker, paths, exec_config_of(job, config))


def exec_config_of(job: JobRecord, config: AppliedConfig) -> ExecConfigSpec:
    """Return the ExecConfig of a job: named, given inline, or an empty one.

    Raises
    ------
    InputError
        The ExecConfig that the job names does not exist any more.
    """
    value = job.config.value("exec_config")
    if isinstance(value, dict):  # given inline
        return msgspec.convert(value, ExecConfigSpec)
    if value is None:
        return ExecConfigSpec()
    found = config.commands.get(job.config.commands or "")
    if found is None:
        raise InputError(f"the ExecConfig '{value}' no longer exists")
    return found


def submission_script(
    job: JobRecord, worker: WorkerSpec, paths: WorkerPaths, exec_config: ExecConfigSpec
) -> str:
    """Return the script of the current attempt.

    Before and after the job, the commands of the worker come first, then those of the exec_config. On a batch
    worker it is a script without directives: the agent of an allocation has claimed the attempt and runs it.

    Raises
    ------
    InputError
        The scheduler cannot give the resources.
    """
    assert job.attempt.run_dir is not None
    marker = shell_path(f"{paths.outbox}/{marker_name(job)}")
    if worker.batch is not None:
        header, claim = "#!/bin/bash", CLAIMED_BY_AGENT
    else:
        if worker.scheduler_type == "sge":
            _check_no_requests(f"Worker '{job.config.worker_name}'", worker)
            _check_no_requests("the exec_config", exec_config)
        header = submission_header(worker.scheduler_type, job.asked, name_in_queue(job)).rstrip("\n")
        claim = claim_lines(worker.scheduler_type, marker)
    # Repeated after the user's commands, which can change the directory.
    enter = f"builtin cd -- {shell_path(job.attempt.run_dir)}"
    # The path of a job can contain any character; in a comment it must not end the line.
    title = "".join(character if character.isprintable() else " " for character in job.path)
    own = [  # in a subshell, so that their `trap`, `set -e`, `exec` or PATH do not hide how the job ended
        *_SIGNALS,
        *_attempt_lines(job),
        *_commands(worker.pre_run),
        *environment_lines(exec_config),
        *_commands(exec_config.pre_run),
        *code_lines(job, paths),
        f"{enter} || exit 1",
        *([f"export {ELAPSED}=$SECONDS"] if job.continuation is not None else []),
        f"{shell_path(paths.python)} {shell_path(paths.launcher)} && job_code=0 || job_code=$?",
        _check_python(job.config.worker_name, paths.python),
        *_commands(worker.post_run),
        *_commands(exec_config.post_run),
        "exit $job_code",
    ]
    parts = [
        header,
        f"# {title}  {job.id}  attempt {job.attempt.number}",
        f"{enter} || exit 1",
        claim,
        *_heartbeat(),
        "finish() {",
        "  code=$?",
        "  kill $heartbeat 2>/dev/null",
        f"  {enter} && echo $code > {CLAIM}/ended.$turn && echo $code > {EXIT_CODE}",
        f"  : > {marker}.partial && mv {marker}.partial {marker}",
        "}",
        "trap finish EXIT",
        *_SIGNALS,
        "(",
        *own,
        ")",
    ]
    return "\n".join(parts) + "\n"


def _attempt_lines(job: JobRecord) -> list[str]:
    """Return the lines that tell commands and jobs which attempt this is, and which one it continues."""
    lines = [f"export {ATTEMPT}={job.attempt.number}"]
    return lines + ([f"export {PREVIOUS}={shell_path(job.continues)}"] if job.continues else [])


def environment_lines(exec_config: ExecConfigSpec) -> list[str]:
    """Return the lines that load the modules and set the variables of an exec_config."""
    exports = [_export(name, value, exec_config.expand) for name, value in exec_config.export.items()]
    return [*_load_modules(exec_config), *exports]


def code_lines(job: JobRecord, paths: WorkerPaths) -> list[str]:
    """Return the lines that put the code trees of a job on the path of Python."""
    code = ":".join(shell_path(paths.code(tree)) for tree in job.code)
    return [f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}"] if code else []


_SIGNALS = ("trap 'exit 143' TERM", "trap 'exit 138' USR1", "trap 'exit 152' XCPU")
"""The signals by which schedulers announce the end of a job. The script still tells how it ended."""

_FIND_MODULE = """\
reconciler_find_module() {
  local file options
  options=$(set +o)
  for file in "${BASH_ENV-}" "${MODULESHOME-}/init/bash" "${LMOD_PKG-}/init/bash" /etc/profile \\
      ~/.bash_profile ~/.bash_login ~/.profile; do
    type module >/dev/null 2>&1 && break
    [ -r "$file" ] && { set +eu; . "$file"; } </dev/null >/dev/null
  done
  eval "$options"
}"""
"""Define the function ``module`` as a login shell would, where the environment does not bring it along."""


def _load_modules(exec_config: ExecConfigSpec) -> Iterator[str]:
    """Yield the lines that load modules; one that cannot be loaded ends the job before it starts.

    Some versions of ``module`` report a failure only by their error output, ``...ERROR:105: ...``.
    """
    if not exec_config.modules:
        return
    yield _FIND_MODULE
    yield "reconciler_find_module"
    yield "reconciler_load() {"
    yield f'  module load "$1" 2> {CLAIM}/module_errors; code=$?; cat {CLAIM}/module_errors >&2'
    yield f"  grep -qE '(^|:)ERROR:[0-9]+:' {CLAIM}/module_errors && [ $code = 0 ] && code=1"
    yield f"  rm -f {CLAIM}/module_errors; [ $code = 0 ] && return"
    if exec_config.on_setup_error is OnSetupError.FAIL:
        yield f'  echo "module load $1" > {FAILED_COMMAND}; exit $code'
    else:
        yield '  echo "reconciler: \\`module load $1\\` failed; on_setup_error is ignore" >&2'
    yield "}"
    for module in exec_config.modules:
        yield f"reconciler_load {one_line(module)}"


def _heartbeat() -> list[str]:
    """Return the lines that count in the claim while the script runs, which shows that it lives.

    The counter ends with the script, however that ends; it is in a process group of its own, so it is not
    taken for a part of the job. If the claim was withdrawn, since another attempt has begun, it ends the
    group of the script. Nothing is forked for the wait; without `disown` a `wait` of the user would never
    return.
    """
    tick = min(1.0, HEARTBEAT)
    beat = (
        f"exec 9<> <(:); n=0; while kill -0 $$; do "
        f"[ $((n % {round(HEARTBEAT / tick)})) -gt 0 ] || echo $n > {CLAIM}/heartbeat; n=$((n + 1)); "
        f"[ ! -e {CLAIM}/withdrawn ] || kill -TERM -- -$(ps -o pgid= -p $$ | tr -d ' '); "
        f"read -rt {tick:g} -u 9; [ $? -gt 128 ] || sleep {tick:g}; done"
    )
    return [
        f"set -m; ( {beat} ) </dev/null >/dev/null 2>&1 &",
        "heartbeat=$!; set +m; disown $heartbeat",
    ]


def _check_python(worker: str, python: str) -> str:
    """Return the line that writes a result if no suitable Python could run the launcher."""
    oldest = ".".join(map(str, OLDEST_PYTHON))
    text = (
        f"worker {worker}: {python} does not exist, does not run, or is older than Python {oldest}; "
        "set `python:` of the worker to the path of a Python that has jobflow"
    )
    error = {"type": "", "message": "", "traceback": text}
    result = shlex.quote(json.dumps({"ok": False, "started": 0, "ended": 0, "error": error}))
    suitable = (
        f"{shell_path(python)} -c 'import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})' 2>/dev/null"
    )
    return f"[ -e {RESULT} ] || {suitable} || printf '%s\\n' {result} > {RESULT}"


def shell_path(path: str) -> str:
    """Return a quoted path for a script, in which the shell still expands ``~``."""
    if path == "~":
        return '"$HOME"'
    return f'"$HOME"/{one_line(path[2:])}' if path.startswith("~/") else one_line(path)


def one_line(text: str) -> str:
    r"""Return a quoted text for a script, on one line: a line of its own could be read as a request.

    Grid Engine reads the lines of a whole script, also those within quotes. A line break becomes ``$'\n'``.
    """
    return "$'\\n'".join(shlex.quote(line) if line else "" for line in text.split("\n")) or "''"


def _check_no_requests(owner: str, spec: WorkerSpec | ExecConfigSpec) -> None:
    """Check that no line of a user's commands is one that Grid Engine, which reads all lines, obeys.

    Raises
    ------
    InputError
        One begins with ``#$``.
    """
    for name, text in (("pre_run", spec.pre_run), ("post_run", spec.post_run)):
        line = next((line for line in text.split("\n") if line.startswith("#$")), None)
        if line is not None:
            raise InputError(
                f"`{name}` of {owner} has the line {line[:60]!r}, which Grid Engine would take for a request",
                hint="put requests into `resources` (`qverbatim` takes whole lines), or indent the line",
            )


def _commands(text: str) -> list[str]:
    return [text.rstrip("\n")] if text.strip() else []


def _export(name: str, value: str, expand: bool) -> str:
    """Return an export; with ``expand`` the shell expands each :data:`_VARIABLE` in the value."""
    if not expand:
        return f"export {name}={one_line(value)}"
    parts, end = [], 0
    for found in _VARIABLE.finditer(value):
        parts += [one_line(value[end : found.start()]), f'"{found[0]}"']
        end = found.end()
    parts.append(one_line(value[end:]))
    return f"export {name}={''.join(part for part in parts if part != _NOTHING) or _NOTHING}"


_NOTHING = "''"
_VARIABLE = re.compile(
    r"\$(?:[A-Za-z_][A-Za-z0-9_]*"
    r"|\{[A-Za-z_][A-Za-z0-9_]*(?:(?::?[-+]|%%?|##?)(?:[^{}$`\"'\\\n]|\$[A-Za-z_][A-Za-z0-9_]*)*)?\})"
)
"""``$NAME``, ``${NAME}``, and with a default, an alternative, or a pattern to remove: ``${NAME:-text}``.

Other expansions of bash can run commands: ``${NAME@P}``, ``$[...]``, ``${a[...]}``.
"""


def job_input(
    job: JobRecord,
    worker: WorkerSpec,
    payload: bytes,
    needed: Sequence[NeededDocument],
) -> tuple[bytes, dict[str, bytes]]:
    """Return ``job.json``, with the job and what it needs of earlier outputs; and the large ones among these.

    The large ones are files that jobs share, by the sha256 of their bytes; ``packed`` in ``job.json`` names
    them. It also has the parts that were cut out of large ones, what to continue, and the signal that
    announces the time limit, with the seconds after which it is sent.
    """
    content = json.loads(payload)
    documents: list[Any] = []
    blobs: dict[str, list[Any]] = {name: [] for name in additional_stores(content)}
    packed: list[dict[str, str]] = []
    large: dict[str, bytes] = {}
    for one in needed:
        if one.store:
            blobs.setdefault(one.store, [])
        if len(one.data) > SMALL:
            digest = hashlib.sha256(one.data).hexdigest()
            large[digest] = one.data
            packed.append({"store": one.store, "sha256": digest})
        elif one.is_part:
            packed.append({"store": one.store, "data": base64.b64encode(one.data).decode()})
        else:
            (blobs[one.store] if one.store else documents).append(decode(one.data))
    request = {
        "worker": job.config.worker_name,
        "job": content,
        "documents": documents,
        "blobs": blobs,
        "packed": packed,
        "attempt": job.attempt.number,
    }
    continuation = job.continuation
    if continuation is not None and job.continues is not None:
        request["continue"] = {
            "previous": job.continues,
            "keep": continuation.keep,
            "rename": continuation.rename,
            "link": continuation.link,
        }
    limit = scheduler_of(worker.scheduler_type).request_of(job.asked).seconds
    if continuation is not None and continuation.warning is not None and limit is not None:
        name, early = continuation.warning
        request["signal"] = {"name": name, "after": limit - early}
    return json.dumps(request, default=bytes_as_json).encode(), large
