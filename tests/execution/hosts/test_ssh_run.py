"""Scripts over SSH: what comes back, streams of any size, deadlines, lost connections, many threads."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent
from typing import Any, cast

import paramiko
import pytest

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import AccessError, Host
from reconciler.execution.hosts.ssh import SshHost
from reconciler.model.connections import HostKeyPolicy
from tests.execution.hosts.conftest import MakeHost
from tests.execution.hosts.reaching import Counting, outage, reach, said, takes
from tests.services import processes
from tests.services.login import Login
from tests.services.plugin import NewSshd
from tests.services.programs import PATIENCE, program, wait_until
from tests.services.sshd import Sshd

MB = 1 << 20


class TestAnswers:
    """What a script gives back."""

    def test_output_errors_and_exit_code(self, host: Host) -> None:
        result = host.run("echo out; echo err >&2; exit 7", PATIENCE)
        assert (result.exit_code, result.stdout, result.stderr) == (7, "out\n", "err\n")
        assert host.commands == 1
        assert not host.is_local

    def test_output_is_exact(self, host: Host) -> None:
        assert host.run("printf 'a\\n\\nb'; printf '\\n\\n' >&2", PATIENCE).stdout == "a\n\nb"
        assert host.run("printf '\\n\\nb'", PATIENCE).stdout == "\n\nb"
        assert host.run("true", PATIENCE).stdout == ""

    def test_a_script_without_data_finds_nothing_to_read(self, host: Host) -> None:
        assert said(host, "cat; read -r line || echo nothing") == "nothing"

    def test_bytes_that_are_no_utf8_are_replaced(self, host: Host) -> None:
        result = host.run(r"printf 'a\377b'; printf '\200' >&2", PATIENCE)
        assert (result.stdout, result.stderr) == ("a\ufffdb", "\ufffd")

    def test_a_script_of_a_megabyte(self, host: Host) -> None:
        script = "\n".join(f"x={number:060}" for number in range(18_000)) + "\necho $x"
        assert len(script) > MB
        assert said(host, script) == f"{17_999:060}"

    def test_a_script_that_bash_cannot_read_runs_nothing(self, host: Host, tmp_path: Path) -> None:
        error = outage(host, f"touch {tmp_path}/begun\nif true")
        assert "before it ran anything" in error.message
        assert "syntax error" in error.message
        assert not (tmp_path / "begun").exists()

    def test_what_login_files_print_is_cut_off(
        self, new_sshd: NewSshd, make_host: MakeHost, tmp_path: Path
    ) -> None:
        greeting = "echo Welcome; echo 5.vm; echo oops >&2; printf 'no line end'\n"
        (tmp_path / ".bash_profile").write_text(greeting + "export FROM_PROFILE=1\n")
        tmp_path.chmod(0o755)
        server = new_sshd(env={"HOME": str(tmp_path)})
        result = make_host(reach(server)).run("echo $FROM_PROFILE; echo err >&2", PATIENCE)
        assert (result.stdout, result.stderr) == ("1\n", "err\n")
        no_login = make_host(reach(server, login_shell=False))
        assert said(no_login, "echo [$FROM_PROFILE]") == "[]"

    @pytest.mark.parametrize("shell", ["tcsh", "dash"])
    def test_an_account_with_another_shell(self, new_sshd: NewSshd, make_host: MakeHost, shell: str) -> None:
        server = new_sshd(lines=[f'ForceCommand {program(shell)} -c "$SSH_ORIGINAL_COMMAND"'])
        assert said(make_host(reach(server)), "x=(a 'b c'); echo ${x[1]}") == "b c"

    def test_an_account_without_a_shell(self, new_sshd: NewSshd, make_host: MakeHost) -> None:
        server = new_sshd(lines=["ForceCommand echo This account is not available; exit 1"])
        error = outage(make_host(reach(server)))
        assert "before it ran anything" in error.message
        assert error.message.endswith("This account is not available")

    def test_the_environment_of_the_reconciler_stays_here(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RC_SECRET_TOKEN", "hunter2")
        monkeypatch.setenv("LC_RC_SECRET", "hunter2")
        monkeypatch.setenv("LANG", "xx_SECRET")
        assert "SECRET" not in said(host, "env")
        assert "hunter2" not in said(host, "env")

    def test_no_sftp_is_needed(self, new_sshd: NewSshd, make_host: MakeHost) -> None:
        host = make_host(reach(new_sshd(sftp=False)))
        sink = io.BytesIO()
        assert host.run("cat", PATIENCE, data=[b"file"], sink=sink).exit_code == 0
        assert sink.getvalue() == b"file"


class TestStreams:
    """Data and output that are too big to keep."""

    def test_both_directions_at_once_with_flat_memory(self, host: Host) -> None:
        said(host, "true")  # what importing takes is not meant
        block, sink = b"x" * MB, Counting()
        tracemalloc.start()
        try:
            result = host.run(
                "cat; echo done >&2", PATIENCE, data=(block for _ in range(50)), sink=cast(Any, sink)
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "done\n")
        assert (sink.size, sink.head[:3]) == (50 * MB, b"xxx")
        assert peak < 12 * MB

    def test_data_is_what_the_script_finds_first(self, host: Host) -> None:
        result = host.run("read -r first; cat", PATIENCE, data=[b"", b"one\n", b"tw", b"", b"o\n"])
        assert result.stdout == "two\n"
        assert host.run("cat | wc -c", PATIENCE, data=[]).stdout.strip() == "0"

    def test_data_that_nobody_reads(self, host: Host) -> None:
        result = host.run("exit 3", PATIENCE, data=(b"x" * MB for _ in range(20)))
        assert result.exit_code == 3

    def test_an_error_in_the_data_is_the_callers(self, host: Host) -> None:
        def broken() -> Iterator[bytes]:
            yield b"one"
            raise PermissionError("the file is not yours")

        with pytest.raises(PermissionError, match="not yours"):
            host.run("cat; echo end", PATIENCE, data=broken())
        assert said(host, "echo next") == "next"

    def test_a_big_error_output(self, host: Host) -> None:
        result = host.run("head -c 3000000 /dev/zero | tr '\\0' e >&2", PATIENCE)
        assert len(result.stderr) == 3_000_000

    def test_a_stream_has_time_as_long_as_it_moves(self, host: Host) -> None:
        sink = io.BytesIO()
        host.run("for i in 1 2 3 4 5 6; do sleep 0.5; echo $i; done", 2.5, sink=sink)
        assert sink.getvalue() == b"1\n2\n3\n4\n5\n6\n"
        with takes(0.5), pytest.raises(TransientError, match=r"did not answer within 0\.6 s"):
            host.run("echo 1; sleep 60", 0.6, sink=io.BytesIO())


class TestDeadlines:
    """No command and no host can keep us waiting."""

    def test_a_silent_command(self, host: Host) -> None:
        with takes(0.4):
            assert outage(host, "sleep 60", 0.5).message.endswith("did not answer within 0.5 s")
        assert said(host, "echo next") == "next"

    def test_a_talking_command(self, host: Host) -> None:
        with takes(0.4):
            outage(host, "while sleep 0.1; do echo x; done", 0.5)

    def test_an_overdue_command_is_killed(
        self, new_sshd: NewSshd, make_host: MakeHost, request: pytest.FixtureRequest, login: Login
    ) -> None:
        # sshd signals no session of root.
        user = request.getfixturevalue("new_account")() if os.geteuid() == 0 else login
        host = make_host(reach(new_sshd(login=user)))
        said(host, "true")
        outage(host, "echo $$ > ~/overdue; sleep 60; true", 4)
        pid = int((user.home / "overdue").read_text())
        assert processes.wait_gone([pid], PATIENCE)

    def test_a_host_that_hangs(self, new_sshd: NewSshd, make_host: MakeHost) -> None:
        server = new_sshd()
        host = make_host(reach(server, connect_timeout=3))
        assert said(host, "echo up") == "up"
        with server.frozen():
            for _ in range(2):  # over the old connection, and over a new one
                with takes(2.9):
                    assert "did not answer within 3 s" in outage(host, "echo x", 3).message
        assert said(host, "echo up again") == "up again"

    def test_a_host_that_begins_to_hang_in_a_stream(self, new_sshd: NewSshd, make_host: MakeHost) -> None:
        server = new_sshd()
        host = make_host(reach(server, connect_timeout=3))
        said(host, "true")

        with ExitStack() as stack:

            def data() -> Iterator[bytes]:
                yield b"x" * MB
                stack.enter_context(server.frozen())
                while True:
                    yield b"x" * MB

            with takes(0.9), pytest.raises(TransientError, match="did not answer"):
                host.run("cat >/dev/null", 1, data=data())
        assert said(host, "echo up again") == "up again"


class Mute(paramiko.ServerInterface):
    """A server that opens sessions and then says nothing."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: Any) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        self.over.wait(120)
        return False

    def serve(self, listener: socket.socket, key: str) -> None:
        transport = paramiko.Transport(listener.accept()[0])
        transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(key))
        transport.start_server(server=self)
        self.over.wait(120)
        transport.close()


def test_a_server_that_never_begins_a_command(sshd: Sshd, make_host: MakeHost, tmp_path: Path) -> None:
    """paramiko itself would wait for its answer for ever."""
    mute = Mute()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host_key = str(sshd.directory / "host_key")
        server = threading.Thread(target=mute.serve, args=(listener, host_key))
        server.start()
        known = str(tmp_path / "known")
        port = listener.getsockname()[1]
        connection = reach(sshd, port=port, known_hosts=known, host_key_policy=HostKeyPolicy.ACCEPT_NEW)
        try:
            with takes(0.9):
                assert "did not answer within 1 s" in outage(make_host(connection), timeout=1).message
        finally:
            mute.over.set()
            server.join()


class TestOutages:
    """Connections are lost, servers go away and come back."""

    def test_a_lost_connection_ends_its_command_and_the_next_has_a_new_one(
        self, new_sshd: NewSshd, make_host: MakeHost
    ) -> None:
        server = new_sshd()
        host = make_host(reach(server))
        with server.cut_when(server.has_begun_a_command), takes(0):
            assert "connection was lost" in outage(host, "sleep 90").message
        assert said(host, "echo next") == "next"

    def test_a_shell_that_is_killed_is_no_lost_connection(self, host: Host) -> None:
        assert "the shell was killed" in outage(host, "kill -9 $$").message
        before = host.commands
        assert said(host, "echo next") == "next"
        assert host.commands == before + 1

    def test_a_connection_that_was_lost_meanwhile(self, new_sshd: NewSshd, make_host: MakeHost) -> None:
        server = new_sshd()
        host = make_host(reach(server))
        for _ in range(3):
            assert said(host, "echo on") == "on"
            server.kill_sessions()

    def test_a_script_that_was_cut_off_runs_nothing(
        self, new_sshd: NewSshd, make_host: MakeHost, login: Login
    ) -> None:
        server = new_sshd()
        host = make_host(reach(server))
        begun = login.home / "cut-off-begun"
        with server.cut_when(server.has_begun_a_command):  # it reads for a second or more
            assert "lost" in outage(host, f"touch {begun}\n" + "x=1\n" * 1_500_000).message
        assert not begun.exists()

    def test_a_server_that_is_down_and_comes_back(self, new_sshd: NewSshd, make_host: MakeHost) -> None:
        server = new_sshd()
        host = make_host(reach(server, connect_timeout=120))
        said(host, "true")
        server.stop()
        server.kill_sessions()
        with takes(0):
            error = outage(host)
        assert error.message == f"127.0.0.1:{server.port} refuses connections: no SSH server listens there"
        assert not isinstance(error, AccessError)
        server.start()
        assert said(host, "echo back") == "back"

    def test_a_host_that_does_not_answer(self, make_host: MakeHost, sshd: Sshd) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(1)
            host = make_host(reach(sshd, port=silent.getsockname()[1], connect_timeout=1))
            with takes(0.9, 12):  # paramiko waits 15 s for a greeting
                error = outage(host)
        assert "did not answer within 1 s" in error.message
        assert error.hint is not None and "connect_timeout" in error.hint

    def test_a_name_that_does_not_exist(self, make_host: MakeHost, sshd: Sshd) -> None:
        error = outage(make_host(reach(sshd, host="no-such-host.invalid")))
        assert error.message.startswith("there is no host no-such-host.invalid:")

    def test_closing_lets_go_and_the_next_command_connects_again(
        self, new_sshd: NewSshd, make_host: MakeHost
    ) -> None:
        server = new_sshd()
        host = make_host(reach(server))
        said(host, "true")
        host.close()
        wait_until(lambda: not server.sessions(), "the connection to end")
        assert said(host, "echo on") == "on"

    def test_errors_are_told_by_us_only(self) -> None:
        """paramiko logs tracebacks; nothing of them reaches the terminal."""
        done = subprocess.run(
            [sys.executable, "-c", dedent(_TALK_TO_A_WEB_SERVER)], capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        assert done.stdout.startswith("no SSH connection to 127.0.0.1:")


_TALK_TO_A_WEB_SERVER = """
    import socket, threading
    from reconciler.execution.hosts.ssh import SshHost
    from reconciler.model.connections import Connection

    def serve():
        client, _ = server.accept()
        client.sendall(b"HTTP/1.1 400 Bad Request\\r\\n" * 300)
        client.close()

    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, daemon=True).start()
    try:
        SshHost(Connection(host="127.0.0.1", port=server.getsockname()[1])).run("true", 5)
    except Exception as error:
        print(error)
"""


class TestSharing:
    """One connection, whatever the number of threads."""

    def test_many_threads_share_one_connection(self, new_sshd: NewSshd, make_host: MakeHost) -> None:
        server = new_sshd()
        host = make_host(reach(server))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: said(host, f"sleep 0.02; echo {n}"), range(48)))
        assert answers == [str(number) for number in range(48)]
        assert host.commands == 48
        assert server.log.read_text().count("Accepted publickey") == 1

    @pytest.mark.parametrize("sessions", [1, 2])
    def test_a_server_that_allows_few_commands_at_a_time(
        self, new_sshd: NewSshd, make_host: MakeHost, sessions: int
    ) -> None:
        # sshd takes the first of two lines; ours has to come first.
        server = new_sshd()
        config = server.directory / "sshd_config"
        config.write_text(f"MaxSessions {sessions}\n" + config.read_text())
        server.restart()
        host = make_host(reach(server))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: said(host, f"sleep 0.01; echo {n}"), range(12)))
        assert answers == [str(number) for number in range(12)]
        assert server.log.read_text().count("Accepted publickey") == 1

    def test_a_server_that_allows_no_command(self, new_sshd: NewSshd, make_host: MakeHost) -> None:
        server = new_sshd()
        config = server.directory / "sshd_config"
        config.write_text("MaxSessions 0\n" + config.read_text())
        server.restart()
        with takes(0):
            error = outage(make_host(reach(server)))
        assert "refuses to run a command" in error.message

    def test_threads_that_find_the_host_down_try_once(self, make_host: MakeHost, sshd: Sshd) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(20)
            host = make_host(reach(sshd, port=silent.getsockname()[1], connect_timeout=3))
            together = threading.Barrier(8)

            def one(_: int) -> str:
                together.wait()
                return outage(host).message

            with ThreadPoolExecutor(8) as pool:
                assert len(set(pool.map(one, range(8)))) == 1
            silent.settimeout(0.1)
            silent.accept()[0].close()
            with pytest.raises(TimeoutError):
                silent.accept()

    def test_small_packets_are_sent_at_once(self, host: Host) -> None:
        said(host, "true")
        assert isinstance(host, SshHost)
        sock = host._opened.transport.sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    @pytest.mark.parametrize("through_another", [False, True])
    def test_an_idle_connection_says_that_it_is_alive(
        self, new_sshd: NewSshd, make_host: MakeHost, sshd: Sshd, through_another: bool
    ) -> None:
        """A firewall forgets connections in which nothing moves; that to a gateway is one like others."""
        talkative = new_sshd()
        config = talkative.directory / "sshd_config"
        config.write_text("LogLevel DEBUG\n" + config.read_text())
        talkative.restart()
        near = reach(talkative, keepalive=1)
        said(make_host(reach(sshd, gateway=near, keepalive=0) if through_another else near), "true")
        wait_until(lambda: "rtype keepalive@" in talkative.log.read_text(), "a sign of life")

    def test_a_command_over_a_kept_connection_is_quick(self, host: Host) -> None:
        said(host, "true")
        times = []
        for _ in range(20):
            began = time.perf_counter()
            host.run("true", PATIENCE)
            times.append(time.perf_counter() - began)
        assert min(times) < 0.04, "Nagle's algorithm alone costs 40 ms"

    def test_commands_on_a_kept_connection_leave_nothing_open(self, host: Host) -> None:
        said(host, "true")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(30):
            said(host, "true")
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
