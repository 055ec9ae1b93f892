"""No process that the program starts imports a module that lies where others can put one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.execution import launcher
from tests.execution.launching import prepare

JOB = {
    "@module": "jobflow.core.job", "@class": "Job", "uuid": "u", "index": 1, "name": "n",
    "function": {"@module": "builtins", "@callable": "abs", "@bound": None},
    "function_args": [1], "function_kwargs": {},
    "config": {"@module": "jobflow.core.job", "@class": "JobConfig"},
}  # fmt: skip


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory with modules that the launcher and jobflow import; each leaves a trace."""
    place = tmp_path / "place"
    place.mkdir()
    for name in ("base64", "json", "typing", "jobflow", "monty", "numpy", "sitecustomize", "encodings"):
        (place / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    return place


def test_beside_the_launcher(trap: Path, tmp_path: Path) -> None:
    copy = trap / "abc.py"
    copy.write_bytes(Path(launcher.__file__).read_bytes())
    prepare(tmp_path / "run", JOB)
    done = subprocess.run(
        [sys.executable, str(copy)], cwd=tmp_path / "run", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_in_the_run_directory(trap: Path) -> None:
    """A job that runs again finds what its first attempt left; so does one that others prepared."""
    prepare(trap / "run", JOB)
    for module in trap.glob("*.py"):
        module.rename(trap / "run" / module.name)
    done = subprocess.run(
        [sys.executable, launcher.__file__], cwd=trap / "run", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not (trap.parent / "ran").exists()


@pytest.mark.parametrize(
    "command", ["validate", "plan", "plan --base HEAD", "get flows", "render job f/a", "doctor"]
)
def test_where_the_user_is(trap: Path, tmp_path: Path, command: str) -> None:
    """The installed command; with ``python -m reconciler`` it is the user who asks for that directory."""
    program = "import sys; from reconciler.cli.main import main; sys.argv[0] = 'reconcile'; main()"
    subprocess.run(["git", "init", "-q", trap], check=True)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "--state-dir", str(tmp_path / "state"), *command.split()],
        cwd=trap, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, 1, 2, 3), done.stderr
    assert not (tmp_path / "ran").exists()
