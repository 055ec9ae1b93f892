"""Running the launcher on one job, as a worker does: its own process, a run directory, no reconciler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from jobflow import Job
from monty.json import MontyEncoder

from reconciler.execution import launcher
from reconciler.jobs.job_json import JobResult, read_result

CODE = Path(__file__).parent / "code"


class Launched(msgspec.Struct, frozen=True):
    """What one run of the launcher left."""

    run_dir: Path
    exit_code: int
    stderr: str
    result: JobResult | None

    @property
    def output(self) -> Any:
        """The output of the job, as stored."""
        assert self.result is not None and self.result.ok, self.stderr
        if self.result.packed:
            name = self.result.packed[0].sha256
            return launcher.unpacked((self.run_dir / launcher.DOCUMENTS / name).read_bytes())["output"]
        return self.result.documents[0]["output"]

    @property
    def error(self) -> str:
        """The traceback that the launcher reports."""
        assert self.result is not None and self.result.error is not None
        return self.result.error.traceback


def job_json(job: Job) -> dict[str, Any]:
    """Return a job as it travels."""
    found: dict[str, Any] = json.loads(json.dumps(job.as_dict(), cls=MontyEncoder))
    return found


def document(job: Job, output: Any, index: int = 1) -> dict[str, Any]:
    """Return the stored output of another job."""
    return {"uuid": job.uuid, "index": index, "output": output, "metadata": {}, "name": job.name}


def bare_site(directory: Path) -> Path:
    """Make a copy of the installed packages, by links, that has no reconciler."""
    directory.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if (
            not entry.name.startswith(("reconciler", "_reconciler", "__editable__"))
            and entry.suffix != ".pth"
        ):
            (directory / entry.name).symlink_to(entry)
    return directory


def prepare(
    run_dir: Path,
    job: Job | Mapping[str, Any],
    documents: Sequence[dict[str, Any]] = (),
    blobs: Mapping[str, list[dict[str, Any]]] | None = None,
) -> None:
    """Write ``job.json``."""
    run_dir.mkdir(parents=True)
    raw = job_json(job) if isinstance(job, Job) else job
    request = {"worker": "w1", "job": raw, "documents": list(documents), "blobs": dict(blobs or {})}
    (run_dir / launcher.INPUT).write_text(json.dumps(request))


def command(*, python_path: Sequence[Path]) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs the launcher without this environment's packages, and its environment."""
    env = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "MPLCONFIGDIR")}
    env["PYTHONPATH"] = os.pathsep.join(map(str, python_path))
    return [sys.executable, "-S", launcher.__file__], env


def launch(run_dir: Path, *, python_path: Sequence[Path]) -> Launched:
    """Run the launcher where :func:`prepare` has been."""
    arguments, env = command(python_path=python_path)
    done = subprocess.run(
        arguments, cwd=run_dir, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=60
    )
    return _outcome(run_dir, done.returncode, done.stderr.decode(errors="replace"))


def launch_all(run_dirs: Sequence[Path], *, python_path: Sequence[Path]) -> dict[str, Launched]:
    """Run the launcher in each directory, in a process each that a warm interpreter forks."""
    arguments, env = command(python_path=python_path)
    done = subprocess.run(
        [*arguments[:-1], str(CODE / "warm_launcher.py"), launcher.__file__],
        input="\n".join(map(str, run_dirs)), env=env, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    codes = [int(line.split()[0]) for line in done.stdout.splitlines()]
    return {
        run_dir.name: _outcome(run_dir, code, _text(run_dir / "stderr"))
        for run_dir, code in zip(run_dirs, codes, strict=True)
    }


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _outcome(run_dir: Path, exit_code: int, stderr: str) -> Launched:
    written = run_dir / launcher.RESULT
    result = read_result(written.read_bytes()) if written.exists() else None
    return Launched(run_dir, exit_code, stderr, result)
