"""Login files of any kind change nothing but the environment; what a host answers oddly is its own outage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.execution.hosts.conftest import MakeHost
from tests.execution.hosts.login_files import FILES, write_login_files
from tests.execution.hosts.reaching import reach, said
from tests.execution.support import World
from tests.services.plugin import NewSshd


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
@pytest.mark.parametrize("login_shell", [True, False])
def test_scripts_run_in_a_clean_shell(
    new_sshd: NewSshd, make_host: MakeHost, tmp_path: Path, text: str, login_shell: bool
) -> None:
    write_login_files(tmp_path / "far-home", text)
    server = new_sshd(env={"HOME": str(tmp_path / "far-home")})
    host = make_host(reach(server, login_shell=login_shell))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b'c").touch()
    steps = ["ls -1A", "echo $-", "mkdir -p x/y", "echo z > x/y/z", "echo z > x/y/z", "echo *"]
    where, flags, listed = said(host, " && ".join([f"cd {tmp_path}/a", *steps])).rsplit("\n", 2)
    assert where == "b'c"
    assert not set("eufC") & set(flags)
    assert listed == "b'c x"


def test_an_endless_question_gets_no_part_of_the_script(
    new_sshd: NewSshd, make_host: MakeHost, tmp_path: Path
) -> None:
    (tmp_path / ".bash_profile").write_text("while read -r LINE; do :; done; export FROM_PROFILE=1\n")
    tmp_path.chmod(0o755)
    host = make_host(reach(new_sshd(env={"HOME": str(tmp_path)})))
    assert said(host, "echo $FROM_PROFILE") == "1"


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    "name",
    [
        "a cd that lists",
        "functions for our commands",
        "all options exported",
        "a question",
        "options of programs",
    ],
)
def test_jobs_run(new_sshd: NewSshd, make_world: Callable[..., World], tmp_path: Path, name: str) -> None:
    write_login_files(tmp_path / "far-home", FILES[name])
    server = new_sshd(env={"HOME": str(tmp_path / "far-home")})
    fields = {"type": "remote", **server.worker_fields(), "work_dir": str(tmp_path / "far")}
    world = make_world(defaults="worker: far")
    world.repository.write("workers/far.yaml", world.worker("far", **fields))
    world.flow(
        "f", {"id": "a", "function": "give", "args": [1]}, {"id": "b", "function": "dies", "args": [3]}
    )
    world.reconcile()
    world.run()
    assert world.states("f/a", "f/b") == ["COMPLETED", "FAILED"]
    assert "exit code 3" in (world.job("f/b").error or "")


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("program", ["ps", "mv"])
def test_output_that_cannot_be_read_is_an_outage_of_its_worker(
    new_sshd: NewSshd, make_world: Callable[..., World], tmp_path: Path, program: str
) -> None:
    """A program of the host in a version of its own; the other worker goes on."""
    own = tmp_path / "bin"
    own.mkdir()
    (own / program).write_text("#!/bin/bash\necho 'this is the turbo version'\nexit 0\n")
    (own / program).chmod(0o755)
    write_login_files(tmp_path / "far-home", f"export PATH={own}:$PATH")
    server = new_sshd(env={"HOME": str(tmp_path / "far-home")})
    fields = {"type": "remote", **server.worker_fields(), "work_dir": str(tmp_path / "far")}
    world = make_world()
    world.repository.write("workers/far.yaml", world.worker("far", **fields))
    world.flow("near", {"id": "a", "function": "give", "args": [1]})
    world.flow("far", {"id": "a", "function": "give", "args": [1]}, worker="far")
    world.reconcile()
    world.until(lambda: world.state("near/a") == "COMPLETED")
    executor = world.executor
    assert executor is not None
    world.until(lambda: "far" in executor.outages())
    assert "turbo" in executor.outages()["far"]
    assert world.state("far/a") in ("READY", "CHECKED_OUT", "SUBMITTED", "RUNNING")
