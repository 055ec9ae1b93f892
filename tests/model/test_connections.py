"""The connection fields of a worker: what the schema takes, and what is made of it."""

from __future__ import annotations

from textwrap import indent

import msgspec
import pytest

from reconciler.desired.yaml.reader import parse_file
from reconciler.diagnostics import Diagnostic
from reconciler.model.connections import CONNECTION_FIELDS, Connection, HostKeyPolicy, Secret
from reconciler.model.manifests import CleanupAfter, WorkerSpec

HEAD = """\
apiVersion: reconciler/v1
kind: Worker
metadata: {name: w1}
spec:
  type: remote
  scheduler_type: slurm
  work_dir: ~/work
"""


def problems(fields: str) -> list[Diagnostic]:
    """Return what is wrong with a remote worker that has these fields too."""
    return list(parse_file((HEAD + indent(fields, "  ")).encode()).diagnostics)


def spec(fields: str) -> WorkerSpec:
    """Return a valid remote worker that has these fields too."""
    read = parse_file((HEAD + indent(fields, "  ")).encode())
    assert read.diagnostics == []
    return msgspec.convert(read.documents[0].content["spec"], WorkerSpec)


def test_a_worker_of_jobflow_remote_can_be_copied() -> None:
    worker = spec(
        """\
host: login.example.org
user: ada
port: 2222
key_filename: ~/.ssh/id_cluster
passphrase: {env: PHRASE}
gateway: {host: gate, user: bob, gateway: {host: outer}}
forward_agent: true
connect_timeout: 5
keepalive: 30
login_shell: false
sanitize_command: true
scheduler_username: ada_hpc
timeout_execute: 90
max_jobs: 7
"""
    )
    assert worker.connection == Connection(
        host="login.example.org",
        user="ada",
        port=2222,
        key_filename="~/.ssh/id_cluster",
        passphrase=Secret(env="PHRASE"),
        gateway=Connection(host="gate", user="bob", gateway=Connection(host="outer")),
        forward_agent=True,
        connect_timeout=5,
        keepalive=30,
        login_shell=False,
    )
    assert worker.connection.name == "ada@login.example.org:2222"
    assert worker.connection.key_files == ["~/.ssh/id_cluster"]
    assert worker.transfer_connection == worker.connection
    assert (worker.scheduler_username, worker.sanitize_command) == ("ada_hpc", True)


def test_defaults() -> None:
    connection = spec("host: h").connection
    assert connection is not None
    assert (connection.connect_timeout, connection.keepalive, connection.login_shell) == (20, 60, True)
    assert connection.host_key_policy is HostKeyPolicy.STRICT
    assert (connection.key_files, connection.gateway, connection.control_path) == ([], None, None)
    assert connection.name == "h"
    assert spec("host: h").cleanup == "keep"


def test_a_local_worker_has_no_connection() -> None:
    local = WorkerSpec(type="local", scheduler_type="shell", work_dir="/w")
    assert (local.connection, local.transfer_connection) == (None, None)


def test_every_field_of_a_connection_is_one_of_the_worker() -> None:
    fields = {field.name for field in msgspec.structs.fields(WorkerSpec)}
    assert set(CONNECTION_FIELDS) <= fields
    assert {"host", "user", "control_path"} <= set(CONNECTION_FIELDS)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604800), ("1w", 604800)]
)
def test_cleanup_after_a_time(text: str, seconds: int) -> None:
    cleanup = spec(f"host: h\ncleanup: {{after: {text}}}").cleanup
    assert isinstance(cleanup, CleanupAfter)
    assert cleanup.seconds == seconds


@pytest.mark.parametrize("secret", ["hunter2", "12345678", "[hunter2]", "true"])
@pytest.mark.parametrize("field", ["password", "passphrase"])
def test_a_secret_in_git_is_refused_and_not_repeated(field: str, secret: str) -> None:
    (found,) = problems(f"host: h\n{field}: {secret}")
    assert found.code == "schema/type"
    assert found.message.startswith(f"spec.{field}: secrets must not be in git: write {{env: NAME}}")
    assert found.location.line == 9
    assert secret not in f"{found.message}{found.excerpt}{found.hint}"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("host: ada@h", "spec.host: 'ada@h': a host is only a name or an address"),
        ("host: h:22", "the port in 'port'"),
        ("host: -oProxyCommand=x", "a host is only a name or an address"),
        ("host: h\nuser: -x", "an account cannot contain spaces"),
        ("host: h\nport: 70000", "of at most 65535"),
        ("host: h\nkey_filename: keys/id", "the path must be absolute or begin with '~/'"),
        ("host: h\nkey_filename: [keys/id]", "spec.key_filename[0]: 'keys/id': the path must be absolute"),
        ("host: h\nkey_filename: []", "the list is empty"),
        ("host: h\npassword: {}", "needs exactly one of env and file"),
        ("host: h\npassword: {env: A, file: /b}", "exclude each other"),
        ("host: h\npassword: {env: 'A B'}", "the name of a variable has only letters, digits and '_'"),
        ("host: h\ngateway: {user: ada}", "spec.gateway needs the field 'host'"),
        (
            "host: h\ngateway: {host: g, gateway: {host: f, password: x}}",
            "spec.gateway.gateway.password: secrets",
        ),
        ("host: h\ngateway: {host: g, max_jobs: 3}", "spec.gateway does not have a field 'max_jobs'"),
        ("host: h\ntransfer: {host: g, prot: 3}", "spec.transfer does not have a field 'prot'"),
        ("host: h\nhost_key_policy: auto", "expected one of strict, accept-new"),
        ("host: h\nlogin_shell: yes", "expected true or false"),
        ("host: h\ncleanup: never", "expected keep, completed, or a time such as {after: 7d}"),
        ("host: h\ncleanup: {after: 7}", "expected a string"),
        ("host: h\ncleanup: {after: 7 days}", "a time is a number and one of s, m, h, d, w"),
        ("host: h\nscheduler_username: 'a b'", "an account has only letters"),
        ("host: h\nkeepalive: -1", "of at least 0"),
        ("host: h\nconnect_timeout: 0", "of at least 1"),
    ],
)
def test_what_is_wrong_is_told(fields: str, words: str) -> None:
    (found,) = problems(fields)
    assert words in found.message


@pytest.mark.parametrize(
    "host", ["h", "login-1.example.org", "10.0.0.1", "'::1'", "'fe80::1%eth0'", "my_alias"]
)
def test_hosts(host: str) -> None:
    assert problems(f"host: {host}") == []


def test_the_order_of_keys_does_not_make_two_connections() -> None:
    one = spec("host: h\nuser: ada\nkey_filename: ~/k\ngateway: {host: g, port: 1}").connection
    two = spec(
        "gateway: {port: 1, host: g}\nkey_filename: [~/k]\nuser: ada\nhost: h\nlogin_shell: true"
    ).connection
    assert one is not None and two is not None
    assert one.key == two.key
    other = spec("host: h\nuser: ada\nkey_filename: ~/k\ngateway: {host: g, port: 2}").connection
    assert other is not None and other.key != one.key


def test_what_is_stored_comes_back() -> None:
    worker = spec(
        "host: h\ngateway: {host: g, password: {file: ~/p}}\ncleanup: {after: 7d}\nhost_key_policy: strict"
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(worker), type=WorkerSpec) == worker
    assert msgspec.json.decode(msgspec.json.encode(worker), type=WorkerSpec) == worker
