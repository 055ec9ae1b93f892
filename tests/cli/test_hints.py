"""Commands of other tools, mistyped options and durations lead to the right command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
import pytest

from reconciler.cli.options import Duration

Program = Callable[..., Any]

KINDS = "batches, failures, flows, flowsets, jobs, makers, rules, workers"
"""What `reconcile get` lists."""


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("run", "reconcile --once"),
        ("status", "reconcile get flows"),
        ("list", "reconcile get jobs"),
        ("submit", "commit a Flow manifest"),
        ("new", "reconcile init"),
        ("delete", "remove the manifest from git"),
        ("stop", "reconcile cancel"),
        ("log", "reconcile logs"),
        ("report", "reconcile get failures"),
        ("plann", "did you mean 'plan'?"),
        ("zzz", "see `reconcile --help`"),
    ],
)
def test_unknown_command(program: Program, command: str, hint: str) -> None:
    done = program(command)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: there is no command '{command}'\n  help: ")
    assert hint in done.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["apply"],
            "error: name the plan to apply\n  help: save one with `reconcile plan --out FILE`; to apply ",
        ),
        (
            ["get"],
            f"error: `reconcile get` needs a kind\n  help: one of: {KINDS}\n",
        ),
        (
            ["describe"],
            "error: `reconcile describe` needs a kind\n  help: one of: flow, job, maker, worker\n",
        ),
        (
            ["get", "eos-al"],
            f"error: there is no `reconcile get eos-al`\n  help: known: {KINDS}",
        ),
        (["get", "flws"], "error: there is no `reconcile get flws`\n  help: did you mean 'flows'?\n"),
        (["set"], "error: `reconcile set` needs a kind\n  help: one of: "),
        (["--onc"], "error: there is no option '--onc'\n  help: did you mean '--once'?\n"),
        (
            ["get", "jobs", "--zzz"],
            "error: there is no option '--zzz'\n  help: see `reconcile get jobs --help`\n",
        ),
        (["wait", "--timeout", "soon", "x"], "'soon' is not a duration"),
        (["--once", "--wait", "--timeout", "nan"], "not in the range"),
        (["watch", "--interval", "0.5"], "0.5 is not in the range from 1 seconds"),
    ],
    ids=str,
)
def test_usage_errors(program: Program, arguments: Sequence[str], error: str) -> None:
    done = program(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert error in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1.5", 1.5),
        ("90", 90),
        ("90s", 90),
        ("1m", 60),
        ("2h", 7200),
        ("1d", 86400),
        ("1w", 604800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "1y", "-1", "1m30s", "inf", "-inf", "1e999", "٣", "1 m"])
def test_no_durations(text: str) -> None:
    if text == "٣":  # float() takes digits of all scripts
        assert Duration().convert(text, None, None) == 3
        return
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)
