"""Doctor on real hosts and schedulers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.doctor.check import Check, Status
from reconciler.doctor.worker import examine
from reconciler.execution.hosts.choice import Hosts
from reconciler.model.manifests import WorkerSpec
from tests.execution.hosts.login_files import FILES, write_login_files
from tests.execution.support import eventually
from tests.services import PLACES, Place
from tests.services.plugin import NewSshd
from tests.services.sshd import Sshd


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    hosts = Hosts()
    yield hosts
    hosts.close()


def checks(hosts: Hosts, fields: dict[str, Any]) -> dict[str, Check]:
    spec = msgspec.convert({"python": sys.executable, **fields}, WorkerSpec)
    return {check.name: check for check in examine("w1", spec, hosts)}


def over_ssh(sshd: Sshd, work_dir: str = "~/doctor work", **more: Any) -> dict[str, Any]:
    fields = {"type": "remote", "scheduler_type": "shell", "work_dir": work_dir, **sshd.worker_fields()}
    return {**fields, "python": "/bin/true", **more}


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_a_sound_worker(place: Place, hosts: Hosts) -> None:
    if place.sge is not None:  # its accounting begins with the first job that ends
        queue_id = place.sge.qsub("exit 0")
        assert eventually(lambda: place.sge is not None and place.sge.state(queue_id) == "")
        place.sge.record(queue_id)
    found = checks(hosts, dict(place.spec))
    wrong = {name: check.message for name, check in found.items() if check.status is not Status.OK}
    without_accounting = {"accounting"} if place.slurm is not None else set()
    assert set(wrong) == without_accounting, wrong
    assert found["work_dir"].message.startswith(f"{place.work_dir}: does not exist yet")
    assert found["scheduler"].message == "answers"
    assert sys.version.split()[0] in found["python"].message
    assert not place.work_dir.exists()
    assert hosts.commands == 3


@pytest.mark.usefixtures("slurm_env")
def test_slurm_tells_its_version(tmp_path: Path, hosts: Hosts) -> None:
    spec = {"type": "local", "scheduler_type": "slurm", "work_dir": str(tmp_path), "python": "/bin/true"}
    found = checks(hosts, spec)
    assert found["scheduler version"].message.startswith("slurm")
    assert "Slurm accounting storage is disabled" in found["accounting"].message


def test_nobody_listens(new_sshd: NewSshd, hosts: Hosts) -> None:
    server = new_sshd()
    server.stop()
    found = checks(hosts, over_ssh(server))
    assert found["connection"].status is Status.FAILED
    assert "no SSH server listens there" in found["connection"].message
    assert "check 'host' and 'port'" in found["connection"].fix
    assert found["tools"].status is Status.SKIPPED
    assert found["host key"].status is Status.OK


def test_unknown_host_key(sshd: Sshd, tmp_path: Path, hosts: Hosts) -> None:
    (tmp_path / "empty").touch()
    check = checks(hosts, over_ssh(sshd, known_hosts=str(tmp_path / "empty")))["connection"]
    assert check.status is Status.FAILED
    assert check.message.startswith(f"the host key of [127.0.0.1]:{sshd.port} is unknown")
    assert "ssh-keyscan" in check.fix


def test_accept_new_is_a_warning(sshd: Sshd, tmp_path: Path, hosts: Hosts) -> None:
    fields = over_ssh(sshd, known_hosts=str(tmp_path / "fresh"), host_key_policy="accept-new")
    found = checks(hosts, fields)
    assert found["connection"].status is Status.OK
    assert "over SSH, connected in " in found["connection"].message
    assert found["host key"].status is Status.WARNING


def test_home_of_the_host_counts(sshd: Sshd, hosts: Hosts) -> None:
    check = checks(hosts, over_ssh(sshd))["work_dir"]
    assert (
        check.message
        == f"{sshd.login.home}/doctor work: does not exist yet, can be made in {sshd.login.home}"
    )


def test_transfer_host_sees_the_same_files(sshd: Sshd, gateway: Sshd, hosts: Hosts) -> None:
    other = gateway.worker_fields()
    found = checks(hosts, over_ssh(sshd, transfer=other))
    assert found["transfer"].status is Status.OK
    assert found["transfer"].message.endswith(" sees the same work_dir")
    assert hosts.commands == 6
    assert [path for path in sshd.login.home.iterdir() if path.name.startswith(".doctor-")] == []


def test_login_shell(sshd: Sshd, hosts: Hosts) -> None:
    assert checks(hosts, over_ssh(sshd))["login shell"].message.startswith("login files are silent")
    assert "login shell" not in checks(hosts, over_ssh(sshd, login_shell=False))


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_login_files_in_the_way_of_nothing(
    new_sshd: NewSshd, hosts: Hosts, tmp_path: Path, text: str
) -> None:
    write_login_files(tmp_path / "far-home", text)
    server = new_sshd(env={"HOME": str(tmp_path / "far-home")})
    found = checks(hosts, over_ssh(server, work_dir=str(tmp_path / "work")))
    wrong = {name: check.message for name, check in found.items() if check.status is not Status.OK}
    assert set(wrong) <= {"python", "jobflow"}, wrong  # /bin/true is none
    assert found["work_dir"].message == f"{tmp_path / 'work'}: does not exist yet, can be made in {tmp_path}"
    assert found["login shell"].status is Status.OK


def test_a_login_file_that_ends_the_session_is_named(new_sshd: NewSshd, hosts: Hosts, tmp_path: Path) -> None:
    write_login_files(tmp_path / "far-home", "echo 'this host is for members only'; exit 3")
    server = new_sshd(env={"HOME": str(tmp_path / "far-home")})
    found = checks(hosts, over_ssh(server))
    assert found["connection"].status is Status.FAILED
    assert "members only" in found["connection"].message
    assert found["work_dir"].status is Status.SKIPPED


def test_master_connection(sshd: Sshd, hosts: Hosts) -> None:
    socket = sshd.directory / "doctor-master"
    ssh, *rest = sshd.command()
    subprocess.run([ssh, "-M", "-N", "-f", "-S", str(socket), *rest], check=True, timeout=20)
    try:
        found = checks(hosts, over_ssh(sshd, control_path=str(socket)))
    finally:
        subprocess.run([ssh, "-O", "exit", "-S", str(socket), *rest], timeout=20, capture_output=True)
    assert "over an OpenSSH master connection" in found["connection"].message
    assert "host key" not in found
    assert found["work_dir"].status is Status.OK
