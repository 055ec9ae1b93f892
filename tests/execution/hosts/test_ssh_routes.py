"""Ways to a host: gateways, nested ones, ssh_config, and an OpenSSH master connection."""

from __future__ import annotations

import io
import os
import shlex
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from reconciler.execution.hosts.base import AccessError
from reconciler.execution.hosts.choice import Hosts
from reconciler.execution.hosts.control_master import ControlMasterHost
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.hosts.ssh import SshHost
from reconciler.model.connections import Connection, Secret
from reconciler.model.manifests import WorkerSpec
from tests.execution.hosts.conftest import MakeHost
from tests.execution.hosts.reaching import Master, outage, reach, said, takes
from tests.services.plugin import NewSshd
from tests.services.programs import PATIENCE, run, wait_until
from tests.services.sshd import Sshd

WHERE = "echo $RC_TEST_SSHD"


class TestGateways:
    """Jump hosts."""

    def test_through_a_gateway(self, sshd: Sshd, gateway: Sshd, make_host: MakeHost) -> None:
        host = make_host(reach(sshd, gateway=reach(gateway)))
        assert said(host, f"{WHERE}; echo hällo") == f"{sshd.directory}\nhällo"
        sink = io.BytesIO()
        host.run("cat", PATIENCE, data=[b"x" * 5_000_000], sink=sink)
        assert len(sink.getvalue()) == 5_000_000

    def test_through_two_gateways(
        self, sshd: Sshd, gateway: Sshd, new_sshd: NewSshd, make_host: MakeHost
    ) -> None:
        outer = new_sshd()
        host = make_host(reach(sshd, gateway=reach(gateway, gateway=reach(outer))))
        assert said(host, WHERE) == str(sshd.directory)
        assert "Accepted publickey" in outer.log.read_text()

    def test_a_gateway_is_checked_like_a_host(self, sshd: Sshd, gateway: Sshd, make_host: MakeHost) -> None:
        """It looks for its key in the worker's known_hosts, which does not have it."""
        host = make_host(reach(sshd, gateway=reach(gateway, known_hosts=None)))
        error = outage(host)
        assert isinstance(error, AccessError)
        assert error.message.startswith(f"the host key of [127.0.0.1]:{gateway.port} is unknown")

    def test_a_host_behind_a_gateway_is_down(
        self, sshd: Sshd, gateway: Sshd, new_sshd: NewSshd, make_host: MakeHost
    ) -> None:
        down = new_sshd()
        down.stop()
        error = outage(make_host(reach(down, gateway=reach(gateway))))
        assert error.message.startswith(f"the gateway cannot reach 127.0.0.1:{down.port}: ")

    def test_a_gateway_is_down(self, sshd: Sshd, new_sshd: NewSshd, make_host: MakeHost) -> None:
        down = new_sshd()
        host = make_host(reach(sshd, gateway=reach(down)))
        assert said(host, "echo in") == "in"
        down.stop()
        down.kill_sessions()
        assert outage(host).message.startswith(f"127.0.0.1:{down.port} refuses connections")
        down.start()
        assert said(host, "echo back") == "back"


class TestConfig:
    """What ~/.ssh/config says counts."""

    def test_an_alias(self, sshd: Sshd, make_host: MakeHost) -> None:
        host = make_host(Connection(host=sshd.name, ssh_config=str(sshd.ssh_config)))
        assert said(host, "id -un") == sshd.user

    def test_the_users_own_file_is_the_default(self, sshd: Sshd, make_host: MakeHost) -> None:
        home = Path("~/.ssh").expanduser()
        home.mkdir(mode=0o700)
        (home / "config").write_text(sshd.ssh_config.read_text())
        assert said(make_host(Connection(host=sshd.name)), "id -un") == sshd.user

    def test_proxy_jump(self, sshd: Sshd, gateway: Sshd, make_host: MakeHost) -> None:
        config = sshd.config_through(gateway)
        host = make_host(Connection(host=sshd.name, ssh_config=str(config)))
        before = gateway.log.read_text().count("Accepted publickey")
        assert said(host, WHERE) == str(sshd.directory)
        assert gateway.log.read_text().count("Accepted publickey") == before + 1

    def test_a_proxy_jump_is_checked_like_a_host(
        self, sshd: Sshd, gateway: Sshd, make_host: MakeHost, tmp_path: Path
    ) -> None:
        config = tmp_path / "config"
        text = sshd.config_through(gateway).read_text()
        config.write_text(text.replace(str(gateway.known_hosts), str(sshd.known_hosts)))
        error = outage(make_host(Connection(host=sshd.name, ssh_config=str(config))))
        assert isinstance(error, AccessError)
        assert f"[127.0.0.1]:{gateway.port} is unknown" in error.message

    def test_proxy_command(self, sshd: Sshd, gateway: Sshd, make_host: MakeHost, tmp_path: Path) -> None:
        config = tmp_path / "config"
        jump = shlex.join(["ssh", "-F", str(gateway.ssh_config), "-W", "%h:%p", gateway.name])
        config.write_text(sshd.ssh_config.read_text() + f"  ProxyCommand {jump}\n")
        assert said(make_host(Connection(host=sshd.name, ssh_config=str(config))), WHERE) == str(
            sshd.directory
        )

    def test_a_file_that_is_not_there(self, sshd: Sshd, make_host: MakeHost) -> None:
        error = outage(make_host(reach(sshd, ssh_config="/no/config")))
        assert isinstance(error, AccessError)
        assert error.message.startswith("the ssh_config /no/config cannot be read: No such file")

    def test_files_of_fabric_change_nothing(
        self, sshd: Sshd, make_host: MakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("~/.fabric.yaml").expanduser().write_text(
            "user: nobody\nport: 1\nconnect_kwargs: {timeout: 0}\n"
        )
        monkeypatch.setenv("FABRIC_PORT", "1")
        assert said(make_host(reach(sshd, user=sshd.user)), "id -un") == sshd.user


@pytest.fixture
def master(new_sshd: NewSshd) -> Iterator[Master]:
    made = Master(new_sshd())
    made.open()
    yield made
    made.close()


class TestControlMaster:
    """Everything over a connection that the user has opened."""

    def test_commands_and_streams(
        self, master: Master, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RC_SECRET_TOKEN", "hunter2")
        host = make_host(master.connection)
        assert isinstance(host, ControlMasterHost)
        result = host.run("echo öut; echo err >&2; exit 7", PATIENCE)
        assert (result.exit_code, result.stdout, result.stderr) == (7, "öut\n", "err\n")
        assert said(host, WHERE) == str(master.server.directory)
        assert "hunter2" not in said(host, "env")
        sink = io.BytesIO()
        host.run("cat", PATIENCE, data=(b"x" * 1_000_000 for _ in range(20)), sink=sink)
        assert len(sink.getvalue()) == 20_000_000
        assert master.server.log.read_text().count("Accepted publickey") == 1
        assert host.commands == 4

    def test_an_exit_code_that_ssh_uses_itself(self, master: Master, make_host: MakeHost) -> None:
        result = make_host(master.connection).run("echo mine >&2; exit 255", PATIENCE)
        assert (result.exit_code, result.stderr) == (255, "mine\n")

    def test_many_threads(self, master: Master, make_host: MakeHost) -> None:
        host = make_host(master.connection)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda n: said(host, f"echo {n}"), range(24))) == [str(n) for n in range(24)]
        assert master.server.log.read_text().count("Accepted publickey") == 1

    def test_a_deadline(self, master: Master, make_host: MakeHost) -> None:
        host = make_host(master.connection)
        with takes(0.4):
            assert "did not answer within 0.5 s" in outage(host, "sleep 60", 0.5).message
        assert said(host, "echo next") == "next"

    def test_no_master_no_connection_and_the_hint_opens_it(self, master: Master, make_host: MakeHost) -> None:
        host = make_host(master.connection)
        said(host, "true")
        master.close()
        error = outage(host)
        assert isinstance(error, AccessError)
        assert error.message.startswith(f"there is no SSH master connection to {master.server.name}: ")
        logins = master.server.log.read_text().count("Accepted publickey")
        assert logins == 1, "it must not connect by itself"
        command = (error.hint or "").partition("`")[2].rstrip("`")
        run(["bash", "-c", command])
        assert said(host, "echo back") == "back"

    def test_ssh_is_not_installed(self, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        error = outage(make_host(Connection(host="h", control_path="/nowhere/socket")))
        assert error.message.endswith("ssh cannot be run: No such file or directory")

    def test_the_master_dies_in_mid_command(self, master: Master, make_host: MakeHost) -> None:
        host = make_host(master.connection)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(outage, host, "touch ~/begun-under-master; sleep 90")
            begun = master.server.login.home / "begun-under-master"
            wait_until(begun.exists, "the command to begin")
            os.kill(master.pid, signal.SIGKILL)
            with takes(0):
                error = running.result()
        assert isinstance(error, AccessError)
        assert error.hint is not None and error.hint.startswith("open it: `ssh -M -N -f ")


class TestSharing:
    """One object for each connection."""

    def test_workers_with_equal_connections_share_a_host(self) -> None:
        hosts = Hosts()
        fields = {"type": "remote", "scheduler_type": "slurm", "work_dir": "/w", "host": "h", "port": 22}
        first = msgspec.convert({**fields, "key_filename": "~/k", "max_jobs": 3}, WorkerSpec)
        second = msgspec.convert({**fields, "key_filename": ["~/k"], "work_dir": "/x"}, WorkerSpec)
        other = msgspec.convert({**fields, "user": "ada"}, WorkerSpec)
        assert isinstance(hosts.of(first.connection), SshHost)
        assert hosts.of(first.connection) is hosts.of(second.connection)
        assert hosts.of(first.connection) is hosts.of(first.transfer_connection)
        assert hosts.of(first.connection) is not hosts.of(other.connection)
        assert hosts.of(other.connection).name == "ada@h:22"
        local = msgspec.convert({**fields, "type": "local"}, WorkerSpec)
        assert isinstance(hosts.of(local.connection), LocalHost)
        assert hosts.of(local.connection).is_local
        assert hosts.commands == 0
        hosts.close()

    def test_a_transfer_host_has_the_files_of_its_worker(self, sshd: Sshd) -> None:
        spec = WorkerSpec(
            type="remote",
            scheduler_type="slurm",
            work_dir="/w",
            host="h",
            known_hosts="/k",
            transfer=Connection(host="dtn", password=Secret(env="X")),
        )
        assert spec.transfer_connection == Connection(host="dtn", password=Secret(env="X"), known_hosts="/k")

    def test_closing_all_lets_go_of_each(self, new_sshd: NewSshd) -> None:
        server = new_sshd()
        hosts = Hosts()
        assert said(hosts.of(reach(server)), "echo in") == "in"
        assert said(hosts.of(None), "echo here") == "here"
        assert hosts.commands == 2
        hosts.close()
        wait_until(lambda: not server.sessions(), "the connection to end")
