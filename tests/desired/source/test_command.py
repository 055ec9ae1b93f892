"""The one call of git: no setting and no variable of the user changes what is read of a repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.desired.source.command import printable
from reconciler.desired.source.git import Source, open_source
from reconciler.desired.source.history import History
from reconciler.desired.source.worktree import FileEdit, WorkTree
from reconciler.errors import InputError
from tests.support import Repository

SETTINGS = {
    "signatures": {"log.showSignature": "true", "gpg.program": "false"},
    "another encoding": {"i18n.logOutputEncoding": "latin-1"},
    "colors": {"color.ui": "always", "color.diff": "always", "color.status": "always"},
    "ids in full": {"core.abbrev": "40"},
    "ignored revisions": {"blame.ignoreRevsFile": ".git-blame-ignore-revs"},
    "names in full": {"core.quotePath": "false", "core.precomposeUnicode": "true"},
    "no prefixes": {"diff.noprefix": "true", "diff.mnemonicPrefix": "true", "diff.context": "0"},
    "an order of files": {"diff.orderFile": "/nowhere"},
    "a pager": {"core.pager": "false", "pager.log": "true"},
    "aliases": {"alias.log": "!false", "alias.cat-file": "!false"},
    "a format": {"format.pretty": "raw", "log.date": "relative", "log.decorate": "full"},
    "renames": {"log.follow": "true", "diff.renames": "copies", "diff.algorithm": "patience"},
    "a mailmap": {"mailmap.file": "MAILMAP"},
    "line ends": {"core.autocrlf": "true", "core.eol": "crlf"},
    "attributes": {"core.attributesFile": "ATTRIBUTES"},
    "another diff": {"diff.external": "false", "diff.odd.textconv": "false"},
    "no abbreviated paths": {"core.ignoreCase": "true", "log.showRoot": "false"},
}


@pytest.fixture
def filled(repository: Repository) -> Repository:
    """A history with a rename, odd names, an author with an umlaut, attributes and line ends."""
    repository.write("flows/größe.yaml", "a: 1\r\nb: 2\n")
    repository.write("flows/one.yaml", "x: 1\ny: 2\n")
    repository.write("code/run.sh", "#!/bin/sh\n$Id$\n")
    repository.write("code/data/t.txt", "HELLO\n")
    repository.write("code/.gitattributes", "data export-ignore\n*.sh ident\n*.txt text eol=crlf\n")
    repository.commit("first", author="Jörg Müller <jm@example.invalid>")
    repository.write("flows/one.yaml", "x: 1\ny: 3\n")
    repository.commit("sëcond")
    repository.move("flows/one.yaml", "flows/two.yaml")
    repository.commit("third")
    return repository


def answers(source: Source) -> list[object]:
    """Everything that a source says of its repository."""
    revision, history = source.revision(), History(source)
    code = source.tree_id(revision.commit, "code")
    assert code is not None
    listed = source.files(revision.commit, "")
    return [
        revision,
        source.branch_name(),
        source.reads_head(),
        source.root_commits()[-1],
        listed,
        source.files_below(revision.commit, ["flows"]),
        source.entry(revision.commit, "flows/größe.yaml"),
        list(source.blobs(sorted({entry.object_id for entry in listed}))),
        list(source.code(code)),
        source.uncommitted([""]),
        list(source.earlier_versions(revision.commit, "flows/one.yaml", 5)),
        source.removed_by(revision.commit, "flows/one.yaml"),
        history.info(revision.commit),
        history.info(source.root_commits()[-1]),
        history.last_change(revision.commit, "flows/two.yaml", 1, 1),
        history.last_change(revision.commit, "flows/two.yaml", 2, 2),
        history.last_touching(source.root_commits()[-1], revision.commit, ["flows/one.yaml"]),
        history.replaced(source.root_commits()[-1], revision.commit),
        WorkTree(source).diff(source.root_commits()[-1], revision.commit, "flows/one.yaml"),
    ]


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_no_setting_changes_an_answer(
    filled: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    scope: str,
) -> None:
    expected = answers(open_source(str(filled.path), None, "", tmp_path))
    config = tmp_path / "gitconfig"
    where = ["--file", str(config)] if scope == "global" else ["--local"]
    mailmap, attributes = tmp_path / "mailmap", tmp_path / "attributes"
    mailmap.write_text("Another <another@example.invalid> <jm@example.invalid>\n")
    attributes.write_text("* export-ignore diff=odd\n")
    for name, value in settings.items():
        value = {"MAILMAP": str(mailmap), "ATTRIBUTES": str(attributes)}.get(value, value)
        filled.run("config", *where, name, value)
    if scope == "global":
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert answers(open_source(str(filled.path), None, "", tmp_path)) == expected


VARIABLES = {
    "another repository": {"GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/", "GIT_COMMON_DIR": "/nowhere"},
    "another index": {"GIT_INDEX_FILE": "/nowhere"},
    "other objects": {"GIT_OBJECT_DIRECTORY": "/nowhere", "GIT_ALTERNATE_OBJECT_DIRECTORIES": "/"},
    "quarantine of another": {"GIT_QUARANTINE_PATH": "/nowhere/x", "GIT_OBJECT_DIRECTORY": "/nowhere/x"},
    "a namespace": {"GIT_NAMESPACE": "other"},
    "other pathspecs": {"GIT_LITERAL_PATHSPECS": "1"},
    "pathspecs of any case": {"GIT_ICASE_PATHSPECS": "1"},
    "another diff": {"GIT_EXTERNAL_DIFF": "false", "GIT_DIFF_OPTS": "-u0"},
    "traces": {"GIT_TRACE": "1", "GIT_TRACE2": "1", "GIT_TRACE_PACKET": "1"},
    "a pager": {"GIT_PAGER": "false", "PAGER": "false"},
    "parameters": {"GIT_CONFIG_PARAMETERS": "'log.showroot'='false' 'i18n.logoutputencoding'='latin-1'"},
    "settings": {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "i18n.logOutputEncoding",
        "GIT_CONFIG_VALUE_0": "latin-1",
    },
    "a language": {"LANG": "de_DE.UTF-8", "LC_MESSAGES": "de_DE.UTF-8", "LANGUAGE": "de"},
}


@pytest.mark.parametrize("variables", VARIABLES.values(), ids=VARIABLES)
def test_no_variable_changes_an_answer(
    filled: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    expected = answers(open_source(str(filled.path), None, "", tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert answers(open_source(str(filled.path), None, "", tmp_path)) == expected


def test_the_code_is_exactly_the_commits(filled: Repository, tmp_path: Path) -> None:
    source = open_source(str(filled.path), None, "", tmp_path)
    tree = source.tree_id(filled.head, "code")
    assert tree is not None
    found = {path: data for path, _, data in source.code(tree)}
    assert found["data/t.txt"] == b"HELLO\n"
    assert found["run.sh"] == b"#!/bin/sh\n$Id$\n"
    assert set(found) == {".gitattributes", "data/t.txt", "run.sh"}


def test_nothing_of_the_repository_runs(filled: Repository, tmp_path: Path) -> None:
    source = open_source(str(filled.path), None, "", tmp_path)
    trap, trace = tmp_path / "trap", tmp_path / "ran"
    trap.write_text(f"#!/bin/sh\necho $0 >> {trace}\n")
    trap.chmod(0o755)
    for name in ("post-index-change", "post-checkout", "reference-transaction"):
        shutil.copy(trap, filled.path / ".git" / "hooks" / name)
    filled.run("config", "core.fsmonitor", str(trap))
    answers(source)
    assert not trace.exists()


def test_replaced_commits_are_read_as_they_are(filled: Repository, tmp_path: Path) -> None:
    source = open_source(str(filled.path), None, "", tmp_path)
    before = source.revision()
    filled.run("replace", "HEAD", "HEAD~2")
    assert source.revision() == before
    assert [entry.path for entry in source.files(before.commit, "flows")][-1] == "flows/two.yaml"


def test_a_repository_inside_of_another_is_not_entered(filled: Repository, tmp_path: Path) -> None:
    """A bare repository among the files of another could bring its own settings along."""
    filled.run("clone", "--quiet", "--bare", ".", "trap")
    (filled.path / "trap" / "below").mkdir()
    with pytest.raises(InputError, match="without a work tree") as caught:
        open_source(str(filled.path / "trap" / "below"), None, "", tmp_path)
    assert "--repo" in (caught.value.hint or "")
    assert open_source(str(filled.path / "trap"), None, "", tmp_path).revision().commit == filled.head


def test_a_repository_of_another_user(
    filled: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(InputError, match="does not trust") as caught:
        open_source(str(filled.path), None, "", tmp_path)
    assert caught.value.hint is not None
    assert f"git config --global --add safe.directory {filled.path}" in caught.value.hint
    config = tmp_path / "gitconfig"
    filled.run("config", "--file", str(config), "safe.directory", str(filled.path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert open_source(str(filled.path), None, "", tmp_path).revision().commit == filled.head


@pytest.mark.parametrize("linked", [False, True])
def test_new_objects_of_a_push_are_read_in_its_hook(filled: Repository, tmp_path: Path, linked: bool) -> None:
    """They are in quarantine. A linked work tree has the objects of the main one."""
    server = tmp_path / "server.git"
    filled.run("clone", "--quiet", "--bare", ".", str(server))
    if linked:
        subprocess.run(
            ["git", f"--git-dir={server}", "worktree", "add", "-q", "-b", "side", str(tmp_path / "linked")],
            check=True,
        )
    hook, report = server / "hooks" / "pre-receive", tmp_path / "report"
    place = tmp_path / "linked" if linked else server
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from reconciler.desired.source.git import open_source\n"
        "new = sys.stdin.read().split()[1]\n"
        f"found = open_source({str(place)!r}, new, '', Path({str(tmp_path)!r})).revision()\n"
        f"Path({str(report)!r}).write_text(found.commit)\n"
    )
    (tmp_path / "hook.py").write_text(script)
    hook.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path / 'hook.py'}\n")
    hook.chmod(0o755)
    filled.write("flows/new.yaml", "n: 1\n")
    commit = filled.commit("pushed")
    filled.run("push", "--quiet", str(server), "main")
    assert report.read_text() == commit


def test_the_quarantine_of_another_repository_is_not_read(
    filled: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.git"
    filled.run("clone", "--quiet", "--bare", ".", str(other))
    monkeypatch.setenv("GIT_QUARANTINE_PATH", str(other / "objects" / "tmp_objdir-incoming-x"))
    head = filled.head
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / "objects" / "tmp_objdir-incoming-x"))
    assert open_source(str(filled.path), None, "", tmp_path).revision().commit == head


@pytest.mark.parametrize(
    ("text", "shown"),
    [(b"caf\xe9", "caf\\xe9"), (os.fsdecode(b"br\xff"), "br\\xff"), ("größe", "größe"), (b"", "")],
)
def test_text_that_is_not_utf8_becomes_printable(text: bytes | str, shown: str) -> None:
    assert printable(text) == shown


def test_a_commit_of_the_user_is_not_hardened(filled: Repository, tmp_path: Path) -> None:
    """Hooks of the user run for the user's own commit."""
    trace = tmp_path / "ran"
    hook = filled.path / ".git" / "hooks" / "pre-commit"
    hook.write_text(f"#!/bin/sh\ntouch {trace}\n")
    hook.chmod(0o755)
    source = open_source(str(filled.path), None, "", tmp_path)
    tree = WorkTree(source)
    before = tree.read(source.revision(), "flows/two.yaml")
    assert before is not None
    tree.commit(source.revision(), FileEdit("flows/two.yaml", before, before + b"z: 1\n"), "edit")
    assert trace.exists()
