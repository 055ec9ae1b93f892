"""State, requests and work_dir: what others put there, or could, is neither used nor followed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.actual.daemon_requests import Answer, Requests
from reconciler.actual.state_dir import Lease, require_private
from reconciler.cli.context import opened
from reconciler.desired.source.git import open_source
from reconciler.desired.state import project_name
from reconciler.errors import InputError, ReconcilerError, RefusedError, TransientError
from reconciler.execution.batch.tickets import program, programs
from reconciler.execution.hosts.local import LocalHost
from reconciler.execution.run_files import launcher_name, launcher_source
from reconciler.execution.worker.access import WorkerAccess
from reconciler.execution.worker.upload import Repository as Code
from reconciler.model.manifests import WorkerSpec
from tests.support import Repository

# the name of a project picks the state directory ----------------------------------------------------------

NAMES = [
    "/etc",
    "../other",
    "a/b",
    "..",
    ".",
    "",
    "n" * 101,
    "n" * 5000,
    "a\nb",
    "a\0b",
    "~",
    "-x",
    "$HOME",
    "a b",
    "é",
    "x.",
    "\u202ea",
    "a\\b",
    ".hidden",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_valid_picks_no_state(repository: Repository, tmp_path: Path, name: str) -> None:
    good = "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: good}\n"
    repository.write("reconciler.yaml", good.replace("good", json.dumps(name)))
    repository.commit("bad")
    source = open_source(str(repository.path), None, "", tmp_path)
    with pytest.raises(InputError):
        project_name(source, source.revision())
    repository.write("reconciler.yaml", good)
    repository.commit("good")
    repository.write("reconciler.yaml", good.replace("good", json.dumps(name)))
    repository.commit("bad again")
    assert project_name(source, source.revision()) == "good"


# the state directory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o720, 0o702, 0o770, 0o775])
def test_a_state_directory_that_others_can_write_to(tmp_path: Path, mode: int) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(mode)
    for use in (lambda: opened(state).__enter__(), lambda: Lease(state).acquire(1.0)):
        with pytest.raises(RefusedError, match="others can write") as caught:
            use()
        assert "chmod 700" in (caught.value.hint or "")
    assert list(state.iterdir()) == []
    state.chmod(0o700)
    with opened(state):
        assert (state / "lmdb").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["directory", "link", "link to ours"])
def test_a_state_directory_of_another_user(tmp_path: Path, what: str) -> None:
    if os.geteuid() != 0:
        pytest.fail("only root can give a file away: run these tests as root")
    ours, theirs, state = tmp_path / "ours", tmp_path / "theirs", tmp_path / "state"
    ours.mkdir(mode=0o700)
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 65534, -1)
    if what == "directory":
        state = theirs
    else:
        state.symlink_to(ours if what == "link to ours" else theirs)
        os.chown(state, 65534, -1, follow_symlinks=False)
    with pytest.raises(RefusedError, match="another user"):
        require_private(state)


@pytest.mark.parametrize("file", ["lease", "lmdb/lock.mdb", "lmdb/data.mdb"])
@pytest.mark.parametrize("target", ["a file", "nothing", "a directory"])
def test_links_in_a_state_directory(tmp_path: Path, file: str, target: str) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    with opened(state):
        pass
    if target == "a file":
        victim.write_text("precious")
    elif target == "a directory":
        victim.mkdir()
    (state / file).unlink(missing_ok=True)
    (state / file).symlink_to(victim)
    for use in (lambda: opened(state).__enter__(), lambda: Lease(state).acquire(1.0)):
        with pytest.raises(ReconcilerError, match="symbolic link"):
            use()
    assert not Lease(state).is_watched()
    assert victim.exists() == (target != "nothing")
    assert target != "a file" or victim.read_text() == "precious"


def test_all_that_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "a" / "state") as store, Lease(tmp_path / "a" / "state") as lease:
            lease.acquire(1.0)
            Requests(store.path).ask("ada", 1.0)
    finally:
        os.umask(before)
    state = tmp_path / "a" / "state"
    assert state.stat().st_mode & 0o077 == 0
    assert [path for path in (state / "lmdb", state / "requests") if path.stat().st_mode & 0o077] == []


# requests -------------------------------------------------------------------------------------------------

TOKEN = "0123456789abcdef"
DONE = Answer(code=0)


def request(**fields: object) -> bytes:
    return json.dumps({"token": TOKEN, "by": "ada", "time": 1.0} | fields).encode()


REQUESTS: dict[str, Callable[[Path], object]] = {
    "a folder": lambda file: file.mkdir(),
    "a folder with a file": lambda file: (file.mkdir(), (file / "x").touch()),
    "a pipe": lambda file: os.mkfifo(file),
    "a link to a file": lambda file: file.symlink_to("/etc/passwd"),
    "a link to nothing": lambda file: file.symlink_to("/no/where"),
    "a link to itself": lambda file: file.symlink_to(file),
    "empty": lambda file: file.touch(),
    "half": lambda file: file.write_bytes(request()[:-3]),
    "bytes": lambda file: file.write_bytes(bytes(range(256))),
    "deep": lambda file: file.write_bytes(b"[" * 100_000),
    "deep in a field": lambda file: file.write_bytes(b'{"x":' + b"[" * 100_000),
    "another token": lambda file: file.write_bytes(request(token="f" * 16)),
    "a token with a path": lambda file: file.write_bytes(request(token="../../victim")),
    "a long token": lambda file: file.write_bytes(request(token="a" * 5000)),
    "a token with NUL": lambda file: file.write_bytes(request(token="a\0b")),
    "a time of text": lambda file: file.write_bytes(request(time="now")),
    "a time that is not a number": lambda file: file.write_bytes(b'{"token": "%s", "by": "", "time": NaN}'),
    "a huge file": lambda file: os.truncate(file.open("w").name, 1 << 40),
}


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    made = Requests(tmp_path / "state")
    made.directory.mkdir(parents=True)
    return made


@pytest.mark.parametrize("name", [TOKEN, "x" * 200, "a b", "..", "0123456789ABCDEF", "*"])
@pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS)
def test_requests_that_are_none(requests: Requests, make: Callable[[Path], object], name: str) -> None:
    make(requests.directory / f"{name}.request")
    right = requests.ask("ada", 2.0)
    found = requests.pending()
    assert [one.token for one in found] == [right]
    assert requests.names() == {f"{right}.request"}, "what stays is not waited for"
    requests.answer(found, DONE)
    assert requests.take_answer(right) == DONE
    requests.tidy_up(1e10)
    assert [path.name for path in requests.directory.parent.iterdir()] == ["requests"]


@pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS)
def test_answers_that_are_none(requests: Requests, make: Callable[[Path], object]) -> None:
    make(requests.directory / f"{TOKEN}.answer")
    try:
        assert requests.take_answer(TOKEN) is None
    except ReconcilerError as error:
        assert "cannot be read" in error.message


# the work_dir ---------------------------------------------------------------------------------------------


@pytest.fixture
def access(tmp_path: Path) -> Iterator[WorkerAccess]:
    spec = WorkerSpec(type="local", scheduler_type="shell", work_dir=str(tmp_path / "work"))
    made = WorkerAccess("w", spec, Code(lambda _: [], lambda _: iter(())), LocalHost())
    yield made
    made.host.close()


def test_a_new_work_dir_is_private(access: WorkerAccess, tmp_path: Path) -> None:
    access.prepare(may_create=True)
    work = tmp_path / "work"
    assert [path for path in (work, *work.iterdir()) if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("mode", [0o777, 0o703, 0o702])
def test_a_work_dir_that_everybody_can_write_to(access: WorkerAccess, tmp_path: Path, mode: int) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work").chmod(mode)
    with pytest.raises(TransientError, match="everybody can write"):
        access.prepare(may_create=True)


@pytest.mark.parametrize("name", [".outbox", ".launchers", ".code", ".staging"])
@pytest.mark.parametrize("how", ["link", "owner", "mode"])
def test_folders_of_a_work_dir_that_are_not_ours(
    access: WorkerAccess, tmp_path: Path, name: str, how: str
) -> None:
    folder = tmp_path / "work" / name
    folder.parent.mkdir(mode=0o770)
    if how == "link":
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    if how == "mode":
        access.prepare(may_create=True)
        assert folder.stat().st_mode & 0o022 == 0
        return
    if how == "owner":
        if os.geteuid() != 0:
            pytest.fail("only root can give a file away: run these tests as root")
        os.chown(folder, 65534, -1)
    with pytest.raises(TransientError, match="another user"):
        access.prepare(may_create=True)


@pytest.mark.parametrize("content", [b"", b"import os\n", launcher_source() + b"\n"])
def test_a_launcher_that_was_changed_is_sent_again(
    access: WorkerAccess, tmp_path: Path, content: bytes
) -> None:
    launchers = tmp_path / "work" / ".launchers"
    launchers.mkdir(parents=True)
    (launchers / launcher_name()).write_bytes(content)
    (launchers / "json.py").write_text("import os\n")
    access.prepare(may_create=True)
    assert list(launchers.iterdir()) == []
    (launchers / launcher_name()).write_bytes(launcher_source())
    access._cache.clear()
    access.prepare(may_create=False)
    assert [path.name for path in launchers.iterdir()] == [launcher_name()]


def test_a_program_of_allocations_that_was_changed_is_sent_again(
    access: WorkerAccess, tmp_path: Path
) -> None:
    launchers = tmp_path / "work" / ".launchers"
    launchers.mkdir(parents=True)
    for name, source in programs().items():
        (launchers / name).write_bytes(source)
    changed = launchers / program("agent.py")[0]
    changed.write_text("import os\n")
    access.prepare(may_create=True)
    assert [path.name for path in launchers.iterdir()] == [program("warm.py")[0]]
