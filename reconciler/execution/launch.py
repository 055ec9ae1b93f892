"""What a job gets into its run directory: the submission script, its input, its files, the launcher.

The script claims its attempt by an atomic ``mkdir``, so that a job started twice runs once; and drops its
marker into the outbox when it ends, however it ends.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from reconciler.model.manifests import ExecConfigSpec, WorkerSpec
from reconciler.model.records import JobRecord

SCRIPT, INPUT = "submit.sh", "job.json"
CLAIM = "claim"
RESULT = f"{CLAIM}/result.json"
OUTBOX = ".outbox"
LAUNCHERS = ".launchers"
CODE = ".code"

Environment = Mapping[str, str]


def marker_name(job: JobRecord) -> str:
    """Return the name of the marker that an attempt drops into the outbox."""
    return f"{job.id}.{job.attempt}"


@cache
def launcher_source() -> bytes:
    """Return the launcher that travels with jobs."""
    return (Path(__file__).parent / "bridge" / "launcher.py").read_bytes()


def submission_script(
    job: JobRecord,
    *,
    header: str,
    work_dir: str,
    launcher: str,
    python: str,
    worker: WorkerSpec,
    exec_config: ExecConfigSpec,
) -> str:
    """Return the script of one attempt. All paths are absolute on the worker.

    The worker's commands come first, then those of the exec_config, before and after the job.
    """
    assert job.run_dir is not None
    code = ":".join(f"{work_dir}/{CODE}/{tree}" for tree in job.code)
    outbox = shlex.quote(f"{work_dir}/{OUTBOX}/{marker_name(job)}")
    parts = [
        header.rstrip("\n"),
        f"# {job.path}  {job.id}  attempt {job.attempt}",
        f"cd {shlex.quote(job.run_dir)} || exit 1",
        f"mkdir {CLAIM} 2>/dev/null || exit 0",
        f"echo $$ > {CLAIM}/pid",
        "finish() {",
        "  code=$?",
        f"  echo $code > {CLAIM}/exit_code",
        f"  : > {outbox}.partial && mv {outbox}.partial {outbox}",
        "}",
        "trap finish EXIT",
        "trap 'exit 143' TERM",
        *_commands(worker.pre_run),
        *[f"module load {shlex.quote(module)}" for module in exec_config.modules],
        *[_export(name, value, exec_config.expand) for name, value in exec_config.export.items()],
        *_commands(exec_config.pre_run),
        *([f"export PYTHONPATH={shlex.quote(code)}${{PYTHONPATH:+:$PYTHONPATH}}"] if code else []),
        f"{shlex.quote(python)} {shlex.quote(launcher)}",
        "job_code=$?",
        *_commands(worker.post_run),
        *_commands(exec_config.post_run),
        "exit $job_code",
    ]
    return "\n".join(parts) + "\n"


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
