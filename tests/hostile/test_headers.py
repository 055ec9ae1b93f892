"""Whatever the values: a script has the directives that it should have, and no other line of our own."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.errors import InputError
from reconciler.execution.headers import queue_name, submission_header
from reconciler.execution.run_files import WorkerPaths, submission_script
from reconciler.model.manifests import ExecConfigSpec, WorkerSpec
from reconciler.model.records import JobAttempt, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.schedulers import SCHEDULERS, scheduler_of
from reconciler.model.schedulers.base import RESERVED, VERBATIM
from reconciler.model.schedulers.generic import COUNTS, QRESOURCES_FIELDS
from reconciler.model.settings import Level, Origin, Resources, Setting
from reconciler.model.states import JobState

BATCH = sorted(name for name in SCHEDULERS if scheduler_of(name).is_batch)
ODD = st.text(
    st.one_of(
        st.sampled_from("ab1 \t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\0#$-%'\"\\`;&|=,:{}()@~*?[]!<>"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=30,
)
NASTY = (
    "a -l h_rt=99",
    "a\n#$ -l h_rt=9",
    "a\r#PBS -l walltime=9",
    "a\n#SBATCH --uid=0",
    "$(id)",
    "`id`",
    "a;id",
    "a' b",
    'a" b',
    "a\\",
    "a\\ -q b",
    "--uid=0",
    "-l x",
    "a#b",
    "{key}",
    "$${key}",
    "a\x0bb",
    "a\u2028#$ -q x",
    "",
)


def words_of(scheduler: str, line: str) -> list[str]:
    """Return the words of a directive as the scheduler splits them."""
    rest = line.removeprefix(scheduler_of(scheduler).prefix)
    if scheduler == "sge":
        return rest.split()
    return shlex.split(rest, comments=scheduler == "slurm")


def lines_of(text: str) -> list[str]:
    """Return the lines as schedulers and shells see them, which know no other line ends."""
    return text.removesuffix("\n").split("\n")


def check_header(scheduler: str, keyword: str, value: Any, *, generic: bool = False) -> None:
    """Check that one keyword gives at most one directive, with one option and one value."""
    values = {keyword: value} | ({"processes": 1, "scheduler_kwargs": {"model": "mpi"}} if generic else {})
    try:
        text = submission_header(scheduler, Resources(values, generic), "n.1")
    except InputError as error:
        assert "\n" not in error.message
        return
    without = {key: values[key] for key in values if key != keyword}
    plain = lines_of(submission_header(scheduler, Resources(without, generic), "n.1"))
    added = [line for line in lines_of(text) if line not in plain]
    many = generic and keyword in ("email_address", "time_limit")  # each has two directives
    assert len(added) <= 1 + many
    for line in added:
        assert line.startswith(f"{scheduler_of(scheduler).prefix} -"), line
        words = words_of(scheduler, line)
        limit = {"slurm": 1, "pbs": 2, "sge": 2}[scheduler]
        more = 1 if scheduler == "sge" and keyword in ("model", "place") else 0
        assert len(words) <= limit + more, words
        assert not [word for word in words[1:] if word.startswith("-") and keyword != "priority"], words


def keywords(scheduler: str) -> list[str]:
    return sorted(scheduler_of(scheduler).keywords - RESERVED - {VERBATIM})


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("scheduler", BATCH)
def test_values_that_mean_harm(scheduler: str, value: str) -> None:
    for keyword in keywords(scheduler):
        check_header(scheduler, keyword, value)
    for field in sorted(scheduler_of(scheduler).generic_fields - RESERVED - COUNTS - {"scheduler_kwargs"}):
        check_header(scheduler, field, value, generic=True)


@pytest.mark.parametrize("scheduler", BATCH)
@settings(max_examples=60, derandomize=True)
@given(data=st.data())
def test_random_values(scheduler: str, data: st.DataObject) -> None:
    value = data.draw(ODD)
    check_header(scheduler, data.draw(st.sampled_from(keywords(scheduler))), value)
    fields = sorted(QRESOURCES_FIELDS - RESERVED - COUNTS - {"scheduler_kwargs"})
    check_header(scheduler, data.draw(st.sampled_from(fields)), value, generic=True)


@settings(max_examples=60, derandomize=True)
@given(key=ODD)
@example(key="-rf")
@example(key="\n#$ -q x")
def test_names_of_jobs_in_a_queue(key: str) -> None:
    name = queue_name(key, "0f0e3fb6-0000-4000-8000-000000000001_1.1")
    assert (
        name.isascii()
        and name[0].isalpha()
        and name.replace("_", "").replace("-", "").replace(".", "").isalnum()
    )


# the whole script -------------------------------------------------------------------------------------------


def script(scheduler: str, exec_config: ExecConfigSpec, *, key: str = "j", **worker: Any) -> str:
    origin = Origin(Level.WORKER, "Worker", "w", "/spec/resources")
    job = JobRecord(
        uuid="0f0e3fb6-0000-4000-8000-000000000001",
        index=1,
        flow="f",
        key=key,
        name="j",
        function="m.f",
        state=JobState.CHECKED_OUT,
        config=RunConfig(worker=Setting("w", origin)),
        content="",
        attempt=JobAttempt(number=1, run_dir="/w/0f/0e/3f/0f0e3fb6-0000-4000-8000-000000000001_1"),
    )
    spec = WorkerSpec(type="local", scheduler_type=scheduler, work_dir="/w", **worker)
    return submission_script(job, spec, WorkerPaths("/w", "/usr/bin/python3"), exec_config)


def directives(scheduler: str, text: str) -> list[str]:
    """Return the directives that a scheduler finds: Grid Engine in all lines, others before a command."""
    prefix, found = scheduler_of(scheduler).prefix, []
    for line in lines_of(text):
        if line.startswith(prefix):
            found.append(line)
        elif scheduler != "sge" and line.strip() and not line.startswith("#"):
            break
    return found


def value_in_shell(text: str, name: str) -> str:
    """Return what a shell makes of the export in a script."""
    start = text.index(f"export {name}=")
    end = text.index("\nbuiltin cd", start)
    done = subprocess.run(
        ["bash", "-c", f'{text[start:end]}\nprintf %s "${name}"'],
        env={"HOME": "/home/ada", "SET": "set", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
        cwd="/",
    )
    return done.stdout.decode()


VALUES = (
    "plain",
    "two words",
    "a\n#$ -l h_rt=99",
    "\n#$ -q x\n",
    "a\n\n#PBS -q x\n#SBATCH -p x",
    "'",
    '"',
    "\\",
    "a\\\n#$ -q",
    "$HOME",
    "`id`",
    "$(id)",
    "!x",
    "a'\n#$ -q x'b",
    "\r",
    "é\n#$ x",
    "\x01\n#$",
)


@pytest.mark.parametrize("scheduler", [*BATCH, "shell"])
@pytest.mark.parametrize("value", VALUES)
def test_exports(scheduler: str, value: str) -> None:
    plain = script(scheduler, ExecConfigSpec())
    text = script(scheduler, ExecConfigSpec(export={"X": value}))
    assert value_in_shell(text, "X") == value
    if scheduler != "shell":
        assert directives(scheduler, text) == directives(scheduler, plain)


EXPANSIONS = (
    "${X@P}",
    "${SET@P}",
    "$[1+1]",
    "$[$(touch x)]",
    "$(id)",
    "`id`",
    "$((1+1))",
    "${SET:-$(id)}",
    "${SET:=`id`}",
    "${SET/set/$(id)}",
    "${!SET}",
    "${SET@A}",
    "$SET\n#$ -q x",
    "a[$(id)]",
    "${a[$(id)]}",
    "${SET:$(id)}",
    "$'\\x60id\\x60'",
    "\\$(id)",
    "\\\\$(id)",
    "${SET:-`id`}",
    "${SET:-${SET@P}}",
    "$\\(id)",
    "\\`id\\`",
    "${ id; }",
    "${| id; }",
    "<(id)",
    "${a[`id`]}",
    '$"x"',
)


@pytest.mark.parametrize("value", EXPANSIONS)
def test_expansions_run_nothing(value: str) -> None:
    """``expand: true`` puts in the values of variables, and nothing else has a meaning."""
    text = script("sge", ExecConfigSpec(export={"X": value}, expand=True))
    expected = value.replace("$SET", "set").replace("${SET}", "set")
    assert value_in_shell(text, "X") == expected
    assert directives("sge", text) == directives("sge", script("sge", ExecConfigSpec()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("$HOME/bin:$SET", "/home/ada/bin:set"),
        ("${HOME}/x", "/home/ada/x"),
        ("a$", "a$"),
        ("$UNSET.", "."),
        ("$1", "$1"),
        ("${SET}s", "sets"),
        ('"$SET"', '"set"'),
        ("\\$HOME", "\\/home/ada"),
        ("${SET:-x}", "set"),
        ("${UNSET:-x y}", "x y"),
        ("${UNSET:+x}", ""),
        ("${SET:+:$SET}", ":set"),
        ("${UNSET-x}", "x"),
    ],
)
def test_expansions_of_variables(value: str, expected: str) -> None:
    assert value_in_shell(script("shell", ExecConfigSpec(export={"X": value}, expand=True)), "X") == expected


@pytest.mark.parametrize("where", ["pre_run", "post_run", "worker pre_run", "worker post_run"])
@pytest.mark.parametrize(
    "command", ["#$ -l h_rt=9", "echo\n#$ -q x", "cat <<X\n#$ -q x\nX", "echo 'a\n#$ -q x'"]
)
def test_commands_that_grid_engine_would_take_for_requests(where: str, command: str) -> None:
    name = where.removeprefix("worker ")
    config = ExecConfigSpec() if "worker" in where else ExecConfigSpec(**{name: command})
    worker = {name: command} if "worker" in where else {}
    with pytest.raises(InputError, match="Grid Engine") as caught:
        script("sge", config, **worker)
    assert "#$" in caught.value.message and caught.value.hint
    for scheduler in ("slurm", "pbs"):
        text = script(scheduler, config, **worker)
        assert directives(scheduler, text) == directives(scheduler, script(scheduler, ExecConfigSpec()))


@pytest.mark.parametrize("name", ["\n#$ -q x", "a\r#$ x", "\u2028#$ -q x", "$(id)", "\x1b[2J", "a\n\n"])
@pytest.mark.parametrize("scheduler", BATCH)
def test_names_and_modules(scheduler: str, name: str) -> None:
    text = script(scheduler, ExecConfigSpec(modules=[name]), key=name)
    plain = script(scheduler, ExecConfigSpec())
    assert [
        line for line in directives(scheduler, text) if " -N " not in line and "--job-name" not in line
    ] == [line for line in directives(scheduler, plain) if " -N " not in line and "--job-name" not in line]


def test_json_in_a_script_is_on_one_line() -> None:
    error = [line for line in lines_of(script("sge", ExecConfigSpec())) if "printf" in line and "ok" in line]
    assert len(error) == 1
    assert json.loads(shlex.split(error[0].split("printf '%s\\n' ")[1])[0])["ok"] is False
