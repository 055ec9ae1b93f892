"""Reading a repository, whatever it contains, runs nothing of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler.desired.source.command import run_git
from reconciler.desired.source.git import open_source
from reconciler.desired.source.history import History
from reconciler.desired.source.mirror import mirror_of
from reconciler.errors import InputError, ReconcilerError, TransientError
from tests.support import Repository, minimal_project

COMMANDS = ("fsmonitor", "hook", "ssh", "uploadpack", "ext", "alternates", "pager", "textconv", "filter")
"""The ways in which the configuration of a repository names a command."""


def planted(tmp_path: Path, kind: str) -> tuple[Path, Path]:
    """Return a repository whose configuration runs a trap, and the trace that the trap leaves."""
    trace, trap = tmp_path / "ran", tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {trace}\nexit 1\n")
    trap.chmod(0o755)
    made = Repository(tmp_path / "planted")
    minimal_project(made, tmp_path / "work")
    made.write("flows/f.yaml", "a: 1\n")
    made.write(".gitattributes", "*.yaml diff=odd filter=odd\n")
    made.commit("planted")
    git_dir = made.path / ".git"
    settings: dict[str, dict[str, str]] = {
        "fsmonitor": {"core.fsmonitor": str(trap)},
        "hook": {"core.hooksPath": str(tmp_path / "hooks")},
        "ssh": {"core.sshCommand": str(trap), "remote.origin.url": "ssh://host/x"},
        "uploadpack": {"remote.origin.uploadpack": str(trap), "remote.origin.url": str(tmp_path)},
        "ext": {"protocol.ext.allow": "always", "remote.origin.url": f"ext::{trap}"},
        "alternates": {"core.alternateRefsCommand": str(trap)},
        "pager": {"core.pager": str(trap), "pager.log": "true", "pager.cat-file": "true"},
        "textconv": {
            "diff.odd.textconv": str(trap),
            "diff.odd.command": str(trap),
            "diff.external": str(trap),
        },
        "filter": {"filter.odd.clean": str(trap), "filter.odd.smudge": str(trap)},
    }
    promisor = {"core.repositoryFormatVersion": "1", "extensions.partialClone": "origin"}
    promisor |= {"remote.origin.promisor": "true", "remote.origin.fetch": "+refs/heads/*:refs/heads/*"}
    for name, value in settings[kind].items():
        made.run("config", name, value)
    if kind in ("ssh", "uploadpack", "ext"):
        for name, value in promisor.items():
            made.run("config", name, value)
        blob = made.run("rev-parse", "HEAD:flows/f.yaml")
        (git_dir / "objects" / blob[:2] / blob[2:]).unlink()  # so git asks the remote for it
    (tmp_path / "hooks").mkdir()
    shutil.copy(trap, tmp_path / "hooks" / "post-index-change")
    return git_dir, trace


def read_everything(place: Path, mirrors: Path) -> None:
    """Ask a source for all that commands ask."""
    source = open_source(str(place), None, "", mirrors)
    revision, history = source.revision(), History(source)
    list(source.blobs([entry.object_id for entry in source.files(revision.commit, "")]))
    source.uncommitted([""])
    history.info(revision.commit)
    history.last_change(revision.commit, "flows/f.yaml", 1, 1)


@pytest.mark.parametrize("named", ["folder", "link", "folder below", "dotted path"])
@pytest.mark.parametrize("kind", COMMANDS)
def test_the_files_of_a_repository_among_those_of_a_branch(tmp_path: Path, kind: str, named: str) -> None:
    """A branch can have a folder with HEAD, objects, refs and a config of its own; git would run it."""
    git_dir, trace = planted(tmp_path, kind)
    clone = Repository(tmp_path / "clone")
    minimal_project(clone, tmp_path / "work")
    shutil.copytree(git_dir, clone.path / "campaign")
    (clone.path / "campaign" / "refs" / "keep").touch()
    clone.write("campaign/below/reconciler.yaml", "a: 1\n")
    clone.commit("a campaign")
    (tmp_path / "link").symlink_to(clone.path / "campaign")
    place = {
        "folder": clone.path / "campaign",
        "link": tmp_path / "link",
        "folder below": clone.path / "campaign" / "below",
        "dotted path": clone.path / "flows" / ".." / "campaign",
    }[named]
    (clone.path / "flows").mkdir(exist_ok=True)
    with pytest.raises(InputError) as caught:
        read_everything(place, tmp_path)
    assert "repository" in caught.value.message and caught.value.hint
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["fsmonitor", "hook", "ext", "alternates", "pager", "textconv"])
def test_the_configuration_of_a_repository_that_is_read(tmp_path: Path, kind: str) -> None:
    git_dir, trace = planted(tmp_path, kind)
    if kind == "ext":
        with pytest.raises(ReconcilerError):
            read_everything(git_dir.parent, tmp_path)
    else:
        read_everything(git_dir.parent, tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% TRACE",
        "ext::TRAP",
        "--upload-pack=TRAP://x",
        "fd::3://x",
        "ssh://-oProxyCommand=TRAP/x",
    ],
)
def test_a_remote_that_is_a_command(tmp_path: Path, url: str) -> None:
    trace, trap = tmp_path / "ran", tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {trace}\n")
    trap.chmod(0o755)
    with pytest.raises(TransientError):
        mirror_of(
            url.replace("TRACE", str(trace)).replace("TRAP", str(trap)), tmp_path / "mirrors", fetch=True
        )
    assert not trace.exists()


def _damaged_tree(repository: Repository, entries: bytes) -> str:
    tree = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"],
        cwd=repository.path, input=entries, capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    return repository.run("commit-tree", tree, "-m", "odd")


@pytest.mark.parametrize("name", [b"..", b".", b".git", b"a/b", b""])
def test_a_tree_that_git_never_makes_is_not_fetched(tmp_path: Path, name: bytes) -> None:
    remote = Repository(tmp_path / "remote")
    blob = bytes.fromhex(remote.run("hash-object", "-w", str(remote.write("x", "x"))))
    commit = _damaged_tree(remote, b"100644 " + name + b"\0" + blob)
    remote.run("update-ref", "refs/heads/main", commit)
    with pytest.raises(TransientError, match="fetch"):
        mirror_of(f"file://{remote.path}", tmp_path / "mirrors", fetch=True)


def test_a_remote_with_an_old_history_is_fetched(tmp_path: Path) -> None:
    """Tools of earlier times padded the modes of files and forgot time zones."""
    remote = Repository(tmp_path / "remote")
    blob = bytes.fromhex(remote.run("hash-object", "-w", str(remote.write("x", "x"))))
    commit = _damaged_tree(remote, b"0100644 x\0" + blob)
    remote.run("update-ref", "refs/heads/main", commit)
    mirror = mirror_of(f"file://{remote.path}", tmp_path / "mirrors", fetch=True)
    assert run_git([f"--git-dir={mirror}", "rev-parse", "main"]).stdout.decode().strip() == commit
