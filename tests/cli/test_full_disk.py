"""A disk that is full under the state: exit code 3, a clear word, and nothing is lost."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.support import ROOT, Repository, minimal_project, no_small_disk


def add_flow(repository: Repository, name: str, number: int, length: int) -> None:
    """Commit a flow of ``number`` jobs, each with so long an argument, which cannot be compressed."""
    random = Random(name)
    jobs = [
        {
            "id": f"j{n}",
            "function": "reconciler.examples.value",
            "args": [random.randbytes(length // 2).hex()],
        }
        for n in range(number)
    ]
    spec = json.dumps({"suspend": True, "jobs": jobs})
    text = f"apiVersion: reconciler/v1\nkind: Flow\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    repository.write(f"flows/{name}.yaml", text)
    repository.commit(f"add {name}")


def on_small_disk(place: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with a disk of 8 MiB at ``place``, that nobody else sees and that goes with it."""
    mount = f"mount -t tmpfs -o size=8m,mode=700 tmpfs {shlex.quote(str(place))} || exit 99"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", f"{mount}\n{script}"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if "unshare:" in done.stderr or done.returncode == 99:
        no_small_disk(done.stderr)
    return done


@pytest.fixture
def small(repository: Repository, tmp_path: Path) -> Repository:
    """A campaign of one small flow."""
    minimal_project(repository, tmp_path / "work")
    add_flow(repository, "small", 1, 2)
    return repository


def test_a_full_disk_at_the_very_beginning(small: Repository, state_dir: Path) -> None:
    """Neither the store fits, nor, when it does, the code of the repository."""
    file = small.path / "reconciler.yaml"
    file.write_text(file.read_text().replace("  defaults:", "  python_path: [lib]\n  defaults:"))
    small.write("lib/big.py", "#" * 8_350_000 + "\nfrom reconciler.examples import value\n")
    small.write("flows/small.yaml", (small.path / "flows/small.yaml").read_text().replace(
        "reconciler.examples.value", "big.value"
    ))  # fmt: skip
    small.commit("code")
    state_dir.mkdir()
    program = shlex.join([sys.executable, "-m", "reconciler", "--repo", str(small.path)])
    script = f"""
        export RECONCILER_STATE_DIR={shlex.quote(str(state_dir))}
        head -c 8M /dev/zero > "$RECONCILER_STATE_DIR/ballast"
        {program} --once 2>&1
        echo "code $?"
        rm "$RECONCILER_STATE_DIR/ballast"
        {program} --once 2>&1
        echo "code $?"
        ls -A "$RECONCILER_STATE_DIR/code"
    """
    done = on_small_disk(state_dir, script)
    assert done.stdout.count("code 3\n") == 2, done.stdout + done.stderr
    first, second, left = done.stdout.split("code 3\n")
    assert first.startswith(
        f"error: cannot open the store in {state_dir}/lmdb: no space is left on the disk\n"
    )
    assert f"error: cannot write {state_dir}/code/" in second
    assert "No space left on device" in second
    assert left == "", "nothing half written"


def test_a_full_disk_under_the_state(small: Repository, state_dir: Path) -> None:
    """The big flow does not fit; it comes when there is room."""
    state_dir.mkdir()
    add_flow(small, "big", 50, 20_000)
    program = shlex.join([sys.executable, "-m", "reconciler", "--repo", str(small.path)])
    script = f"""
        export RECONCILER_STATE_DIR={shlex.quote(str(state_dir))}
        {program} --branch HEAD~1 --once > /dev/null || exit 98
        free=$(df --output=avail -k "$RECONCILER_STATE_DIR" | tail -1)
        head -c $(( (free - 800) * 1024 )) /dev/zero > "$RECONCILER_STATE_DIR/ballast"
        {program} --once 2>&1
        echo "code $?"
        {program} get flows -o name
        {program} fsck > /dev/null && echo clean
        rm "$RECONCILER_STATE_DIR/ballast"
        {program} --once > /dev/null && {program} get flows -o name
    """
    done = on_small_disk(state_dir, script)
    assert done.returncode == 0, done.stdout + done.stderr
    said, _, after = done.stdout.partition("code ")
    assert "error: cannot write to the store" in said
    assert "no space is left on the disk\n  help: free some space there, then try again" in said
    assert after.split() == ["3", "small", "clean", "big", "small"]
