"""A reconcile with nothing to do: nothing is parsed, nothing heavy is imported, and it is quick."""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import pytest

from tests.support import HEAVY, Reconcile, Repository, imported_packages, minimal_project

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: one}
    spec: {jobs: [{id: value, function: reconciler.examples.value, args: [1]}]}
    """

NOT_NEEDED = {*HEAVY, "ruamel", "git", "maggma", "monty", "pymongo"}


@pytest.fixture
def done(
    repository: Repository,
    reconcile: Reconcile,
    tmp_path: Path,
    warm_python: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Repository:
    """A repository in which everything has run."""
    minimal_project(repository, tmp_path / "work")
    repository.write_yaml("flows/one.yaml", FLOW)
    repository.commit()
    with monkeypatch.context() as warm:  # what follows is run as users run it
        warm.setattr(sys, "executable", str(warm_python))
        assert reconcile("--once", "--wait").returncode == 0
    return repository


@pytest.mark.parametrize(
    "arguments",
    [
        ["--once", "--wait"],
        ["--once"],
        ["plan"],
        ["get", "jobs"],
        ["get", "flows"],
        ["get", "rules"],
        ["events"],
    ],
    ids=" ".join,
)
def test_imports(done: Repository, arguments: list[str]) -> None:
    assert imported_packages(arguments, done.path) & NOT_NEEDED == set()


def test_no_op_does_not_even_import_the_loop(done: Repository) -> None:
    """The tables and colours of rich take as long as all the rest."""
    assert "rich" not in imported_packages(["--once", "--wait"], done.path)


def test_nothing_is_parsed_and_nothing_runs(done: Repository, reconcile: Reconcile) -> None:
    before = reconcile("events", "-o", "json").stdout
    again = reconcile("-v", "--once", "--wait")
    assert again.returncode == 0
    assert again.stdout.splitlines() == [
        f"main@{done.head[:7]}: no changes", "1 flow, 1 job; nothing is running",
    ]  # fmt: skip
    assert "0 files parsed" in again.stderr
    assert reconcile("events", "-o", "json").stdout == before
    plan = reconcile("plan", "--exit-code")
    assert (plan.returncode, plan.stdout) == (0, f"main@{done.head[:7]}: no changes\n")


def test_commit_that_touches_no_manifest_parses_nothing(done: Repository, reconcile: Reconcile) -> None:
    done.write("notes.txt", "data")
    head = done.commit()
    again = reconcile("-v", "--once", "--wait")
    assert (again.returncode, "0 files parsed" in again.stderr) == (0, True)
    assert f"main@{head[:7]}: no changes" in again.stdout


def test_only_the_changed_file_is_parsed(done: Repository, reconcile: Reconcile) -> None:
    done.write_yaml("flows/two.yaml", FLOW.replace("name: one", "name: two"))
    done.commit()
    assert "1 file parsed" in reconcile("-v", "--once", "--wait").stderr


def test_moved_file_is_no_change(done: Repository, reconcile: Reconcile) -> None:
    done.move("flows/one.yaml", "flows/deeper/uno.yaml")
    done.commit()
    again = reconcile("-v", "--once", "--wait")
    assert "0 files parsed" in again.stderr
    assert "no changes" in again.stdout


def test_time(done: Repository, reconcile: Reconcile) -> None:
    """A bound that a busy machine keeps; on a quiet one it is a quarter of it.

    What is measured is the time that the processor was used for it, so that others at work do not count.
    """
    used = []
    for _ in range(7):
        before, began = os.times(), time.perf_counter()
        assert reconcile("--once", "--wait").returncode == 0
        after = os.times()
        spent = (after.children_user - before.children_user) + (
            after.children_system - before.children_system
        )
        used.append(min(spent, time.perf_counter() - began))
    assert statistics.median(used) < 0.6
