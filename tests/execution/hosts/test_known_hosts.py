"""known_hosts files, read as OpenSSH reads them."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest

from reconciler.execution.hosts.base import AccessError
from reconciler.execution.hosts.ssh.host_keys import KnownHosts, fingerprint, matches
from reconciler.model.connections import HostKeyPolicy
from tests.services.programs import attempt, run

STRICT, ACCEPT_NEW = HostKeyPolicy.STRICT, HostKeyPolicy.ACCEPT_NEW
OURS, OTHER = b"our key", b"another key"


def line(names: str, key: bytes = OURS, kind: str = "ssh-ed25519") -> str:
    return f"{names} {kind} {base64.b64encode(key).decode()} comment\n"


def known(*files: Path, name: str = "h", policy: HostKeyPolicy = STRICT) -> KnownHosts:
    return KnownHosts(name, files, policy, "ssh-keyscan h")


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        ("h", "h", True),
        ("H.Example.org", "h.example.org", True),
        ("h", "hh", False),
        ("a,h", "h", True),
        ("*.example.org", "login.example.org", True),
        ("*.example.org,!login.example.org", "login.example.org", False),
        ("!login.example.org,*.example.org", "login.example.org", False),
        ("!a,*", "b", True),
        ("login?", "login1", True),
        ("login?", "login12", False),
        ("[h]:2222", "[h]:2222", True),
        ("h", "[h]:2222", False),
        ("[h]:2222", "h", False),
        ("[h]:*", "[h]:2222", True),
        ("h.x", "hyx", False),
        ("|1|bad|worse", "h", False),
        ("|1|", "h", False),
    ],
)
def test_names(patterns: str, name: str, expected: bool) -> None:
    assert matches(patterns, name) is expected


@pytest.mark.parametrize("name", ["h", "[h]:2222", "login.example.org"])
def test_openssh_finds_the_same(name: str, tmp_path: Path) -> None:
    """Hashed by OpenSSH itself; and what it finds by a pattern, we find."""
    plain = tmp_path / "plain"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"])
    kind, key = (tmp_path / "key.pub").read_text().split()[:2]
    plain.write_text(f"{name} {kind} {key}\nother {kind} {key}\n")
    run(["ssh-keygen", "-H", "-f", plain])
    hashed = [text.split()[0] for text in plain.read_text().splitlines()]
    assert [matches(one, name) for one in hashed] == [True, False]
    assert not any(matches(one, "stranger") for one in hashed)
    for pattern in ("*", "h*", "*.example.org", "[h]:*", "!h,*"):
        plain.write_text(f"{pattern} {kind} {key}\n")
        found = attempt(["ssh-keygen", "-F", name, "-f", plain]).returncode == 0
        assert matches(pattern, name) is found, pattern


def test_fingerprints_are_those_of_openssh(tmp_path: Path) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"])
    key = base64.b64decode((tmp_path / "key.pub").read_text().split()[1])
    assert fingerprint(key) == run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"]).split()[1]


def test_lines_that_say_nothing(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_bytes(b"# comment\n\nh\nh ssh-rsa\nh ssh-rsa !!!\n\xff\xfe\n" + line("h").encode())
    known(file).check("ssh-ed25519", OURS)
    assert known(file).key_types == {"ssh-ed25519"}


def test_any_of_several_files_and_keys_will_do(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(line("h", OTHER) + line("h", OTHER, "ssh-rsa"))
    second.write_text(line("h"))
    hosts = known(first, tmp_path / "absent", second)
    assert hosts.key_types == {"ssh-ed25519", "ssh-rsa"}
    hosts.check("ssh-ed25519", OURS)
    with pytest.raises(AccessError, match="has changed"):
        known(first).check("ssh-ed25519", OURS)


def test_a_certificate_authority_is_no_host_key(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(f"@cert-authority {line('h')}")
    with pytest.raises(AccessError, match="is unknown"):
        known(file).check("ssh-ed25519", OURS)


def test_revoked_wins(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(line("h") + f"@revoked {line('*')}")
    for policy in HostKeyPolicy:
        with pytest.raises(AccessError, match="is revoked"):
            known(file, policy=policy).check("ssh-ed25519", OURS)


def test_many_at_once_write_one_line(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text("# no line break at the end")
    threads = [
        threading.Thread(target=known(file, policy=ACCEPT_NEW).check, args=("ssh-ed25519", OURS))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text().splitlines() == ["# no line break at the end", line("h").rsplit(" ", 1)[0]]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="cannot be read: Is a directory"):
        known(tmp_path).check("ssh-ed25519", OURS)
    below_a_file = tmp_path / "file" / "known"
    below_a_file.parent.write_text("")
    with pytest.raises(AccessError, match="cannot be"):
        known(below_a_file, policy=ACCEPT_NEW).check("ssh-ed25519", OURS)
