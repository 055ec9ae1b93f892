"""Who may talk to whom: host keys, keys, passphrases, agents. With real servers and real OpenSSH tools."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.execution.hosts.base import AccessError, Host
from reconciler.model.connections import HostKeyPolicy, Secret
from tests.execution.hosts.conftest import MakeHost
from tests.execution.hosts.reaching import admit, make_key, outage, reach, said
from tests.services.login import Login
from tests.services.plugin import NewSshd
from tests.services.programs import run, wait_until
from tests.services.shared import SharedServices
from tests.services.sshd import Sshd

ACCEPT_NEW = HostKeyPolicy.ACCEPT_NEW


def refusal(host: Host) -> AccessError:
    """Return the error of a host that does not let us in, or that we do not talk to."""
    error = outage(host)
    assert isinstance(error, AccessError)
    assert error.hint
    return error


class TestHostKeys:
    """The host must be known; strict is the default."""

    def test_an_unknown_host_is_refused_and_the_hint_helps(
        self, sshd: Sshd, make_host: MakeHost, tmp_path: Path
    ) -> None:
        known = tmp_path / "not yet" / "known_hosts"
        host = make_host(reach(sshd, known_hosts=str(known)))
        error = refusal(host)
        print_of_key = run(["ssh-keygen", "-l", "-f", sshd.directory / "host_key.pub"]).split()[1]
        assert error.message == (
            f"the host key of [127.0.0.1]:{sshd.port} is unknown: ssh-ed25519 {print_of_key}"
        )
        assert error.hint is not None and f"`ssh-keyscan -p {sshd.port} 127.0.0.1 >> {known}`" in error.hint
        assert not known.parent.exists()
        known.parent.mkdir()
        known.write_text(run(["ssh-keyscan", "-p", str(sshd.port), "127.0.0.1"]))
        assert said(host, "echo in") == "in"

    def test_accept_new_writes_an_unknown_key_down_once(
        self, sshd: Sshd, make_host: MakeHost, tmp_path: Path
    ) -> None:
        known = tmp_path / "ssh" / "known_hosts"
        for _ in range(2):
            host = make_host(reach(sshd, known_hosts=str(known), host_key_policy=ACCEPT_NEW))
            said(host, "true")
            host.close()
            said(host, "true")
        assert known.read_text() == sshd.known_hosts.read_text()
        strict = make_host(reach(sshd, known_hosts=str(known)))
        assert said(strict, "echo in") == "in"

    @pytest.mark.parametrize("policy", HostKeyPolicy)
    def test_a_changed_key_is_always_refused(
        self, sshd: Sshd, gateway: Sshd, make_host: MakeHost, tmp_path: Path, policy: HostKeyPolicy
    ) -> None:
        known = tmp_path / "known_hosts"
        other = gateway.known_hosts.read_text().split()[1:]
        line = " ".join([f"[127.0.0.1]:{sshd.port}", *other, "\n"])
        known.write_text(line)
        error = refusal(make_host(reach(sshd, known_hosts=str(known), host_key_policy=policy)))
        assert f"the host key of [127.0.0.1]:{sshd.port} has changed: ssh-ed25519 SHA256:" in error.message
        assert error.hint is not None and f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in error.hint
        assert known.read_text() == line

    def test_hashed_names_and_several_keys_of_a_type(
        self, sshd: Sshd, gateway: Sshd, make_host: MakeHost, tmp_path: Path
    ) -> None:
        known = tmp_path / "known_hosts"
        other = " ".join(gateway.known_hosts.read_text().split()[1:])
        known.write_text(f"[127.0.0.1]:{sshd.port} {other}\n" + sshd.known_hosts.read_text())
        run(["ssh-keygen", "-H", "-f", known])
        assert "127.0.0.1" not in known.read_text()
        assert said(make_host(reach(sshd, known_hosts=str(known))), "echo in") == "in"

    def test_a_revoked_key_is_refused(self, sshd: Sshd, make_host: MakeHost, tmp_path: Path) -> None:
        known = tmp_path / "known_hosts"
        line = sshd.known_hosts.read_text()
        known.write_text(f"{line}@revoked * {' '.join(line.split()[1:])}\n")
        assert "is revoked" in refusal(make_host(reach(sshd, known_hosts=str(known)))).message

    def test_the_server_shows_the_key_that_we_know(
        self, new_sshd: NewSshd, make_host: MakeHost, tmp_path: Path
    ) -> None:
        """It has two; OpenSSH clients would ask for the known one, too."""
        key = make_key(tmp_path / "rsa", kind="rsa")
        server = new_sshd(lines=[f"HostKey {key}"])
        kind, blob = Path(f"{key}.pub").read_text().split()[:2]
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {kind} {blob}\n")
        assert said(make_host(reach(server, known_hosts=str(known))), "echo in") == "in"

    def test_the_users_own_file_is_the_default(self, sshd: Sshd, make_host: MakeHost) -> None:
        host = make_host(reach(sshd, known_hosts=None))
        assert "is unknown" in refusal(host).message
        mine = Path("~/.ssh/known_hosts").expanduser()
        mine.parent.mkdir(mode=0o700)
        mine.write_text(sshd.known_hosts.read_text())
        assert said(host, "echo in") == "in"


class TestKeys:
    """Private keys in files, with and without a passphrase."""

    def test_a_wrong_key_is_named(self, sshd: Sshd, make_host: MakeHost, tmp_path: Path) -> None:
        key = make_key(tmp_path / "wrong")
        error = refusal(make_host(reach(sshd, key_filename=str(key))))
        assert error.message == f"127.0.0.1:{sshd.port} refuses {sshd.user}: offered were {key}"

    def test_no_key_at_all(self, sshd: Sshd, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        error = refusal(make_host(reach(sshd, key_filename=None)))
        assert error.message.endswith("there was no key or password to offer")

    def test_the_second_key_of_a_list(self, sshd: Sshd, make_host: MakeHost, tmp_path: Path) -> None:
        key = make_key(tmp_path / "wrong")
        assert said(make_host(reach(sshd, key_filename=[str(key), str(sshd.key)])), "echo in") == "in"

    def test_a_key_of_the_home_directory(self, sshd: Sshd, make_host: MakeHost) -> None:
        home = Path("~/.ssh").expanduser()
        home.mkdir(mode=0o700)
        (home / "id_ed25519").write_bytes(sshd.key.read_bytes())
        assert said(make_host(reach(sshd, key_filename=None)), "echo in") == "in"

    def test_a_file_that_is_not_there(self, sshd: Sshd, make_host: MakeHost) -> None:
        error = refusal(make_host(reach(sshd, key_filename="~/.ssh/id_none")))
        assert "the key ~/.ssh/id_none" in error.message
        assert "No such file" in error.message

    @pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
    def test_an_encrypted_key(
        self,
        new_sshd: NewSshd,
        make_host: MakeHost,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
    ) -> None:
        server = new_sshd()
        key = make_key(tmp_path / "locked", "köy ✓", kind)
        admit(server, key)
        monkeypatch.setenv("KEY_PHRASE", "köy ✓")
        of_variable = reach(server, key_filename=str(key), passphrase=Secret(env="KEY_PHRASE"))
        assert said(make_host(of_variable), "echo in") == "in"
        phrase = tmp_path / "phrase"
        phrase.write_text("köy ✓\n")
        phrase.chmod(0o600)
        of_file = reach(server, key_filename=str(key), passphrase=Secret(file=str(phrase)))
        assert said(make_host(of_file), "echo in") == "in"

    def test_an_old_key_in_pem_form(self, new_sshd: NewSshd, make_host: MakeHost, tmp_path: Path) -> None:
        server = new_sshd()
        key = make_key(tmp_path / "pem", kind="rsa")
        run(["ssh-keygen", "-p", "-q", "-m", "PEM", "-N", "phrase", "-f", key])
        admit(server, key)
        phrase = tmp_path / "phrase"
        phrase.write_text("phrase")
        phrase.chmod(0o600)
        connection = reach(server, key_filename=str(key), passphrase=Secret(file=str(phrase)))
        assert said(make_host(connection), "echo in") == "in"

    def test_an_encrypted_key_without_its_passphrase(
        self, sshd: Sshd, make_host: MakeHost, tmp_path: Path
    ) -> None:
        key = make_key(tmp_path / "locked", "secret words")
        error = refusal(make_host(reach(sshd, key_filename=str(key))))
        assert f"encrypted, without a passphrase: {key}" in error.message
        assert error.hint is not None and "'passphrase'" in error.hint

    def test_a_wrong_passphrase_is_never_shown(
        self, sshd: Sshd, make_host: MakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = make_key(tmp_path / "locked", "secret words")
        monkeypatch.setenv("KEY_PHRASE", "hunter2")
        host = make_host(reach(sshd, key_filename=str(key), passphrase=Secret(env="KEY_PHRASE")))
        error = refusal(host)
        assert error.message.endswith("the passphrase is wrong")
        assert "hunter2" not in f"{error!r} {error.hint} {host!r} {vars(host)}"

    def test_a_secret_that_is_missing_is_named(self, sshd: Sshd, make_host: MakeHost) -> None:
        error = refusal(make_host(reach(sshd, passphrase=Secret(env="NOT_SET_ANYWHERE"))))
        assert error.message.startswith(
            "the passphrase {env: NOT_SET_ANYWHERE}: the environment of reconciler lacks this variable"
        )

    def test_a_password_that_the_host_does_not_take(
        self, sshd: Sshd, make_host: MakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PASS", "hunter2")
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        error = refusal(make_host(reach(sshd, key_filename=None, password=Secret(env="PASS"))))
        assert "offered were the password" in error.message
        assert "hunter2" not in f"{error!r} {error.hint}"

    def test_a_password(
        self,
        new_account: Callable[[], Login],
        new_sshd: NewSshd,
        make_host: MakeHost,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        account = new_account()
        run(["chpasswd"], text=f"{account.name}:pass wörd\n")
        server = new_sshd(login=account)
        config = server.directory / "sshd_config"
        config.write_text("PasswordAuthentication yes\n" + config.read_text())
        server.restart()
        connection = reach(server, key_filename=None, password=Secret(env="PASS"))
        monkeypatch.setenv("PASS", "pass wörd")
        assert said(make_host(connection), "id -un") == account.name
        monkeypatch.setenv("PASS", "hunter2")
        error = refusal(make_host(connection))
        assert error.message.endswith("offered were the password")

    def test_one_more_factor_is_wanted(self, new_sshd: NewSshd, make_host: MakeHost) -> None:
        server = new_sshd(lines=["AuthenticationMethods publickey,publickey"])
        error = refusal(make_host(reach(server)))
        assert "wants another factor (publickey)" in error.message
        assert error.hint is not None and "'control_path'" in error.hint

    def test_two_keys_where_the_host_wants_two(
        self, new_sshd: NewSshd, make_host: MakeHost, tmp_path: Path
    ) -> None:
        server = new_sshd(lines=["AuthenticationMethods publickey,publickey"])
        second = make_key(tmp_path / "second")
        admit(server, second)
        keys = [str(server.key), str(second)]
        assert said(make_host(reach(server, key_filename=keys)), "echo in") == "in"

    def test_too_many_keys(self, new_sshd: NewSshd, make_host: MakeHost, tmp_path: Path) -> None:
        server = new_sshd(lines=["MaxAuthTries 2"])
        keys = [str(make_key(tmp_path / f"k{number}")) for number in range(3)]
        error = refusal(make_host(reach(server, key_filename=keys)))
        assert error.hint is not None and "too many tries" in error.hint


@pytest.fixture
def agent(services: SharedServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real agent without keys; its socket."""
    socket = services.private("agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        wait_until(socket.exists, "the agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield socket
    finally:
        process.terminate()
        process.wait()


class TestAgent:
    """Keys that only an agent has."""

    def test_a_key_of_the_agent(self, sshd: Sshd, make_host: MakeHost, agent: Path, tmp_path: Path) -> None:
        env = {"SSH_AUTH_SOCK": str(agent)}
        host = make_host(reach(sshd, key_filename=None))
        wrong = make_key(tmp_path / "wrong")
        run(["ssh-add", "-q", wrong], env=env)
        assert "offered were key 1 of the agent" in refusal(host).message
        run(["ssh-add", "-q", sshd.key], env=env)
        assert said(host, "echo in") == "in"

    def test_the_agent_has_the_key_that_is_locked_in_the_file(
        self, new_sshd: NewSshd, make_host: MakeHost, agent: Path, tmp_path: Path
    ) -> None:
        server = new_sshd()
        key = make_key(tmp_path / "locked")
        admit(server, key)
        run(["ssh-add", "-q", key], env={"SSH_AUTH_SOCK": str(agent)})
        run(["ssh-keygen", "-p", "-q", "-N", "phrase", "-f", key])
        assert said(make_host(reach(server, key_filename=str(key))), "echo in") == "in"

    def test_identities_only_asks_the_agent_for_one_key(
        self, new_sshd: NewSshd, make_host: MakeHost, agent: Path, tmp_path: Path
    ) -> None:
        server = new_sshd(lines=["MaxAuthTries 2"])
        for number in range(4):
            run(
                ["ssh-add", "-q", make_key(tmp_path / f"k{number}")],
                env={"SSH_AUTH_SOCK": str(agent)},
            )
        run(["ssh-add", "-q", server.key], env={"SSH_AUTH_SOCK": str(agent)})
        private = tmp_path / "elsewhere"
        Path(f"{private}.pub").write_bytes(Path(f"{server.key}.pub").read_bytes())
        config = tmp_path / "config"
        config.write_text(f"Host *\n  IdentitiesOnly yes\n  IdentityFile {private}\n")
        host = make_host(reach(server, key_filename=None, ssh_config=str(config)))
        assert said(host, "echo in") == "in"

    def test_forwarding_is_off_unless_asked_for(self, sshd: Sshd, make_host: MakeHost, agent: Path) -> None:
        run(["ssh-add", "-q", sshd.key], env={"SSH_AUTH_SOCK": str(agent)})
        look = 'if [ -n "$SSH_AUTH_SOCK" ]; then ssh-add -l | wc -l; else echo none; fi'
        assert said(make_host(reach(sshd)), look) == "none"
        forwarding = make_host(reach(sshd, forward_agent=True))
        for _ in range(2):
            assert said(forwarding, look) == "1"

    def test_an_agent_that_is_gone(
        self, sshd: Sshd, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSH_AUTH_SOCK", "/no/agent")
        assert said(make_host(reach(sshd)), "echo in") == "in"
