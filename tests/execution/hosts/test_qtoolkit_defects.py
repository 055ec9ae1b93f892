"""What qtoolkit 0.1.7 does wrong on hosts, shown absent here: each defect by its number."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.execution.hosts.base import Host
from tests.execution.hosts.conftest import MakeHost
from tests.execution.hosts.reaching import outage, reach, said, takes
from tests.services.login import Login
from tests.services.plugin import NewSshd
from tests.services.programs import PATIENCE
from tests.services.sshd import Sshd


@pytest.fixture(params=["local", "ssh"])
def either(request: pytest.FixtureRequest, sshd: Sshd, make_host: MakeHost) -> Iterator[tuple[Host, Path]]:
    """A host, and a directory there where the account may write."""
    login: Login = request.getfixturevalue("login")
    if request.param == "local":
        yield make_host(None), request.getfixturevalue("tmp_path")
    else:
        yield make_host(reach(sshd)), login.home


def test_defect_03_every_command_has_a_deadline(host: Host) -> None:
    with takes(0.4):
        outage(host, "sleep 60", 0.5)


def test_defect_03_a_connection_lost_in_mid_command_is_an_error(
    new_sshd: NewSshd, make_host: MakeHost
) -> None:
    """Not an empty answer with exit code -1, which looks like "no such job"."""
    server = new_sshd()
    host = make_host(reach(server))
    with server.cut_when(server.has_begun_a_command):
        assert "the connection was lost" in outage(host, "sleep 90").message


def test_defect_03_files_travel_again_after_a_lost_connection(new_sshd: NewSshd, make_host: MakeHost) -> None:
    server = new_sshd(sftp=False)
    host = make_host(reach(server))
    said(host, "true")
    server.kill_sessions()
    assert host.run("cat", PATIENCE, data=[b"a file"]).stdout == "a file"


def test_defect_03_the_gateway_is_not_ignored(sshd: Sshd, gateway: Sshd, make_host: MakeHost) -> None:
    before = gateway.log.read_text().count("Accepted publickey")
    said(make_host(reach(sshd, gateway=reach(gateway))), "true")
    assert gateway.log.read_text().count("Accepted publickey") == before + 1


def test_defect_03_host_keys_are_checked(sshd: Sshd, make_host: MakeHost, tmp_path: Path) -> None:
    assert "is unknown" in outage(make_host(reach(sshd, known_hosts=f"{tmp_path}/none"))).message


def test_defect_04_a_script_may_have_any_character(either: tuple[Host, Path]) -> None:
    host, place = either
    text = "größe λ → ∞ 結晶 🙂"
    name = place / "größe 結晶"
    assert said(host, f"printf %s {shlex.quote(text)} > '{name}'; cat '{name}'") == text
    assert name.read_text() == text
    data = text.encode() * 1000
    assert host.run(f"cat > '{name}'", PATIENCE, data=[data]).exit_code == 0
    assert name.read_bytes() == data


def test_defect_05_no_command_changes_the_directory_of_another(either: tuple[Host, Path]) -> None:
    host, place = either
    here = Path.cwd()
    for number in range(4):
        (place / f"d{number}").mkdir(exist_ok=True)

    def where(number: int) -> bool:
        return said(host, f"cd {place}/d{number % 4}; pwd") == f"{place}/d{number % 4}"

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(where, range(80)))
    assert Path.cwd() == here


def test_defect_05_output_that_is_no_text(either: tuple[Host, Path]) -> None:
    host, _ = either
    assert host.run(r"printf '\377\376ok'", PATIENCE).stdout == "\ufffd\ufffdok"


def test_defect_05_a_silent_command_and_a_child_that_holds_the_output(either: tuple[Host, Path]) -> None:
    host, _ = either
    with takes(0):
        assert host.run("sleep 90 & echo begun", PATIENCE).stdout == "begun\n"
    with takes(0.4):
        outage(host, "sleep 60", 0.5)


@pytest.mark.parametrize("name", ["a b", "it's", 'a "b"', "$HOME `id`", "-rf", "a;b&c", "a\tb\nc", "ä ✓"])
def test_defect_13_paths_with_any_character(either: tuple[Host, Path], name: str) -> None:
    host, place = either
    directory = place / "strange" / name
    quoted = shlex.quote(str(directory))
    assert said(host, f"mkdir -p {quoted}; cd {quoted} && touch 'x y' && ls") == "x y"
    assert (directory / "x y").is_file()
    assert not (place / "strange" / "a").exists()
