"""The top of a submission script for each scheduler."""

from __future__ import annotations

import subprocess
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import InputError
from reconciler.execution.headers import queue_name, submission_header
from reconciler.execution.run_files import WorkerPaths, next_attempt, submission_script, worker_paths
from reconciler.model.manifests import ExecConfigSpec, WorkerSpec
from reconciler.model.records import JobAttempt, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.schedulers import SCHEDULERS as DESCRIPTORS
from reconciler.model.schedulers.base import RESERVED
from reconciler.model.settings import Level, Origin, Resources, Setting
from reconciler.model.states import JobState

SCHEDULERS = sorted(DESCRIPTORS)
GENERIC = True

OWN = {
    "shell": [],
    "slurm": [
        "#SBATCH --job-name=n.1",
        "#SBATCH --output=queue.out",
        "#SBATCH --error=queue.err",
        "#SBATCH --no-requeue",
        "#SBATCH --open-mode=append",
    ],
    "pbs": ["#PBS -N n.1", "#PBS -o queue.out", "#PBS -e queue.err", "#PBS -r n", "#PBS -S /bin/bash"],
    "sge": ["#$ -cwd", "#$ -N n.1", "#$ -o queue.out", "#$ -e queue.err", "#$ -r n", "#$ -S /bin/bash"],
}
"""What every job of a scheduler has, whatever it asks for."""


def header(scheduler: str, values: dict[str, Any] | None, generic: bool = False) -> str:
    """Return the header of a job named ``n.1``."""
    return submission_header(scheduler, None if values is None else Resources(values, generic), "n.1")


def asked(scheduler: str, values: dict[str, Any], generic: bool = False) -> list[str]:
    """Return the request lines, without what every job has."""
    shebang, *lines = header(scheduler, values, generic).splitlines()
    assert shebang == "#!/bin/bash"
    assert [line for line in lines if line in OWN[scheduler]] == OWN[scheduler]
    return [line for line in lines if line not in OWN[scheduler]]


# in words of the scheduler ----------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("resources", [None, Resources({}), Resources({}, GENERIC)])
def test_empty_resources_ask_for_nothing(scheduler: str, resources: Resources | None) -> None:
    text = submission_header(scheduler, resources, "n.1")
    assert sorted(text.splitlines()) == sorted(["#!/bin/bash", *OWN[scheduler]])
    assert text.endswith("\n") and not text.endswith("\n\n")


@pytest.mark.parametrize(
    ("scheduler", "values", "lines"),
    [
        (
            "slurm",
            {"partition": "debug", "nodes": 2, "ntasks": 8, "time": "8:00:00"},
            ["--partition=debug", "--nodes=2", "--ntasks=8", "--time=8:00:00"],
        ),
        ("slurm", {"exclusive": True, "requeue": False}, ["--exclusive"]),
        ("slurm", {"exclusive": "user"}, ["--exclusive=user"]),
        ("slurm", {"constraint": 'a b"c'}, ['--constraint="a b\\"c"']),
        (
            "pbs",
            {"select": "select=2:ncpus=4", "walltime": "1:00:00", "rerunnable": False},
            ["-l select=2:ncpus=4", "-l walltime=1:00:00"],
        ),
        (
            "sge",
            {"model": "smp 4", "walltime": "60", "rerunnable": False},
            ["-l h_rt=60", "-pe smp 4"],
        ),
    ],
)
def test_keywords_become_directives(scheduler: str, values: dict[str, Any], lines: list[str]) -> None:
    sign = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$"}[scheduler]
    assert asked(scheduler, values) == [f"{sign} {line}" for line in lines]


def test_slurm_starts_an_attempt_again_only_where_that_is_wanted() -> None:
    """A cluster may do so by default when a node dies."""
    flags = [line for line in header("slurm", {"requeue": True}).splitlines() if "requeue" in line]
    assert flags == ["#SBATCH --requeue"]
    verbatim = header("slurm", {"qverbatim": "#SBATCH --requeue"}).splitlines()
    assert [line for line in verbatim if "requeue" in line] == ["#SBATCH --no-requeue", "#SBATCH --requeue"]
    assert verbatim[-1] == "#SBATCH --requeue", "the last one counts"


@pytest.mark.parametrize(("scheduler", "sign"), [("pbs", "#PBS"), ("sge", "#$")])
@pytest.mark.parametrize("generic", [False, GENERIC])
def test_a_job_is_run_again_only_if_the_user_says_so(scheduler: str, sign: str, generic: bool) -> None:
    """Run again, it would find its attempt claimed."""
    more = {"processes": 1} if generic else {}
    assert f"{sign} -r n" in header(scheduler, more, generic).splitlines()
    lines = header(scheduler, {"rerunnable": True} | more, generic).splitlines()
    assert f"{sign} -r y" in lines and f"{sign} -r n" not in lines


def test_values_of_pbs_may_have_blanks_and_quotes() -> None:
    assert asked("pbs", {"account": 'a b"c\\ '}) == ['#PBS -A a\\ b\\"c\\\\']


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("model", "smp 4", "-pe smp 4"),
        ("model", "mpi 4-16", "-pe mpi 4-16"),
        ("place", "linear:2", "-binding linear:2"),
        ("place", "env linear:2", "-binding env linear:2"),
    ],
)
def test_two_words_of_grid_engine(key: str, value: str, line: str) -> None:
    assert asked("sge", {key: value}) == [f"#$ {line}"]


def test_verbatim_lines_stand_as_they_are_and_last() -> None:
    text = header("slurm", {"qverbatim": "#SBATCH --comment=$$\n#SBATCH --wait", "nodes": 1})
    assert text.splitlines()[-2:] == ["#SBATCH --comment=$$", "#SBATCH --wait"]


def test_verbatim_lines_are_all_that_a_shell_takes() -> None:
    assert asked("shell", {"qverbatim": "ulimit -c 0"}) == ["ulimit -c 0"]


@pytest.mark.parametrize(
    ("scheduler", "values", "message", "hint"),
    [
        ("slurm", {"ntask": 4}, "'ntask' is not a Slurm keyword", "did you mean 'ntasks'?"),
        ("pbs", {"zz": 1}, "'zz' is not a PBS keyword", "known: account"),
        ("shell", {"nodes": 1}, "a plain shell cannot give 'nodes'", "resources: {}"),
        ("sge", {"job_name": "mine"}, "reconciler sets 'job_name'", "remove 'job_name'"),
        ("slurm", {"nodes": True}, "'nodes' cannot be true", "give a text or a number"),
        ("slurm", {"requeue": "1"}, "'requeue' cannot be '1'", "give true or false"),
        ("slurm", {"account": "a\n#SBATCH --qos=b"}, "'account' has a line break", "one line"),
        ("pbs", {"account": "a$$b"}, "'account' has '$$'", "one plain value"),
        ("sge", {"group_list": "p1"}, "'group_list' is an option of PBS", "`device`"),
        ("sge", {"device": "p 1"}, "'device' cannot be 'p 1' with Grid Engine", "blanks"),
        ("sge", {"model": "smp 4 -v A"}, "'model' cannot be 'smp 4 -v A'", "blanks"),
        ("lsf", {}, "there is no scheduler 'lsf'", "known: pbs, sge, shell, slurm"),
    ],
)
def test_what_cannot_be_asked_for_is_named(
    scheduler: str, values: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(InputError) as found:
        header(scheduler, values)
    assert message in found.value.message
    assert hint in (found.value.hint or "")


# generic resources ------------------------------------------------------------------------------------

FOUR = {"processes": 4, "threads_per_process": 2, "time_limit": 3600, "memory_per_thread": 100}


def test_generic_resources_on_slurm() -> None:
    assert asked("slurm", FOUR | {"queue_name": "debug", "gpus_per_job": 1}, GENERIC) == [
        "#SBATCH --partition=debug",
        "#SBATCH --ntasks=4",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH --mem-per-cpu=100",
        "#SBATCH --time=0-1:0:0",
        "#SBATCH --gres=gpu:1",
    ]


def test_generic_resources_on_pbs_take_a_project_for_a_project() -> None:
    assert asked("pbs", FOUR | {"project": "p1"}, GENERIC) == [
        "#PBS -l select=4:ncpus=2:ompthreads=2:mem=200mb",
        "#PBS -l walltime=1:0:0",
        "#PBS -P p1",
    ]


def test_generic_resources_on_grid_engine_become_slots() -> None:
    """What qtoolkit makes of them Grid Engine refuses: `-l select=...`."""
    values = FOUR | {"project": "p1", "scheduler_kwargs": {"model": "smp", "select": "h_vmem=1G"}}
    assert asked("sge", values, GENERIC) == [
        "#$ -P p1",
        "#$ -l h_vmem=1G,mem_free=100M",
        "#$ -l h_rt=1:0:0",
        "#$ -l s_rt=0:59:24",
        "#$ -pe smp 8",
    ]


def test_one_process_on_grid_engine_needs_no_parallel_environment() -> None:
    assert asked("sge", {"processes": 1}, GENERIC) == []


def test_the_user_may_count_the_slots() -> None:
    values = {"nodes": 2, "processes_per_node": 4, "scheduler_kwargs": {"model": "mpi 16"}}
    assert asked("sge", values, GENERIC) == ["#$ -pe mpi 16"]


def test_words_of_the_scheduler_beside_generic_ones() -> None:
    values = {"processes": 1, "scheduler_kwargs": {"constraint": "rome"}}
    assert asked("slurm", values, GENERIC) == ["#SBATCH --ntasks=1", "#SBATCH --constraint=rome"]


@pytest.mark.parametrize("placement", ["SCATTERED", "SAME_NODE", "NO_CONSTRAINTS"])
def test_placement_is_given_by_its_name(placement: str) -> None:
    lines = asked("slurm", {"processes": 2, "process_placement": placement}, GENERIC)
    nodes = {"SCATTERED": ["#SBATCH --nodes=2"], "SAME_NODE": ["#SBATCH --nodes=1"], "NO_CONSTRAINTS": []}
    assert [line for line in lines if "--nodes=" in line] == nodes[placement]


@pytest.mark.parametrize(
    ("scheduler", "values", "message"),
    [
        ("slurm", {"proceses": 4}, "'proceses' is not a QResources field"),
        ("slurm", {"processes": 1, "rerunnable": False}, "Slurm jobs cannot ask for 'rerunnable'"),
        ("shell", {"processes": 1}, "shell jobs cannot ask for 'processes'"),
        ("slurm", {"processes": -1}, "'processes' is -1"),
        ("slurm", {"processes": 0}, "'processes' is 0"),
        ("pbs", {"processes": "4"}, "'processes' is '4'"),
        ("slurm", {"njobs": 3, "processes": 1}, "'njobs'"),
        ("slurm", {"queue_name": "debug"}, "qresources need `processes` or `nodes` together"),
        ("slurm", {"processes": 1, "process_placement": "SCATERED"}, "no process_placement 'SCATERED'"),
        ("slurm", {"processes": 1, "scheduler_kwargs": {"ntask": 1}}, "'ntask' is not a Slurm keyword"),
        ("slurm", {"processes": 1, "scheduler_kwargs": {"job_name": "x"}}, "reconciler sets 'job_name'"),
        ("pbs", {"processes": 1, "gpus_per_job": 1}, "PBS jobs cannot ask for 'gpus_per_job'"),
        ("sge", {"processes": 1, "gpus_per_job": 1}, "Grid Engine jobs cannot ask for 'gpus_per_job'"),
        ("pbs", {"processes": 1, "qos": "high"}, "PBS jobs cannot ask for 'qos'"),
        ("sge", {"processes": 1, "account": "a"}, "Grid Engine jobs cannot ask for 'account'"),
        ("sge", {"processes": 4}, "4 slots only in a parallel environment"),
        ("pbs", {"processes": 1, "project": "a\n#PBS -W x"}, "'project' has a line break"),
    ],
)
def test_what_generic_resources_cannot_ask_for(scheduler: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as found:
        header(scheduler, values, GENERIC)
    assert message in found.value.message


# never a line of somebody else ------------------------------------------------------------------------

_PLAIN = {
    name: sorted(one.keywords - RESERVED - {"qverbatim", "rerunnable"}) for name, one in DESCRIPTORS.items()
}


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "sge"])
@given(data=st.data())
def test_a_value_never_makes_a_line_of_its_own(scheduler: str, data: st.DataObject) -> None:
    values = data.draw(st.dictionaries(st.sampled_from(_PLAIN[scheduler]), st.text(), max_size=3))
    try:
        lines = header(scheduler, values).split("\n")
    except InputError:
        return
    sign = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$"}[scheduler]
    assert lines[0] == "#!/bin/bash" and lines[-1] == ""
    assert all(line.startswith(sign) for line in lines[1:-1])
    assert len(lines) - 2 == len(OWN[scheduler]) + len(values) - ("cwd" in values)


@given(st.text(max_size=80))
def test_a_queue_name_is_taken_by_every_scheduler(key: str) -> None:
    name = queue_name(key, "ee5ed8e4-068f-5ec8-8c2f-d451816ddb65_1.1")
    assert name[0].isascii() and name[0].isalpha()
    assert all(character.isascii() and (character.isalnum() or character in "-_.") for character in name)
    assert name.endswith(".ee5ed8e4-068f-5ec8-8c2f-d451816ddb65_1.1") and len(name) < 100


def test_defect_14_header_injection() -> None:
    """qtoolkit quotes nothing: a value can end its line, vanish, or be a command."""
    from qtoolkit.io import ShellIO, SlurmIO

    injected, lost = {"account": "a\n#SBATCH --uid=0"}, {"account": "a$$b"}
    assert "#SBATCH --uid=0" in SlurmIO().generate_header(injected).splitlines(), "qtoolkit has learned it"
    assert "account" not in SlurmIO().generate_header(lost), "qtoolkit has learned it"
    assert "echo x; id" in ShellIO().generate_header({"job_name": "x; id"}), "qtoolkit has learned it"
    for values in (injected, lost):
        with pytest.raises(InputError, match="'account' has"):
            header("slurm", values)
    assert submission_header("shell", None, "x; id") == "#!/bin/bash\n"
    assert asked("slurm", {"account": 'a b "c'}) == ['#SBATCH --account="a b \\"c"']


# scripts for another machine --------------------------------------------------------------------------


def made_job(key: str = "relax", resources: dict[str, Any] | None = None) -> JobRecord:
    """Return a job that was never tried."""
    origin = Origin(Level.FLOW, "Flow", "flow", "/spec/resources")
    return JobRecord(
        uuid="ee5ed8e4-068f-5ec8-8c2f-d451816ddb65", index=1, flow="flow", key=key, name=key, function="f",
        state=JobState.READY, content="c", code=["tree1", "tree 2"],
        config=RunConfig(resources=Setting(Resources(resources or {}), origin)),
    )  # fmt: skip


def remote(**more: Any) -> WorkerSpec:
    """Return a worker on another machine."""
    return WorkerSpec(type="remote", scheduler_type="slurm", work_dir="~/my work/", **more)


def no_expansion(path: str) -> str:
    """Nobody but the other machine knows its home."""
    raise AssertionError(path)


def test_the_home_of_another_machine_is_left_to_its_shell() -> None:
    worker = remote()
    place = worker_paths(worker, no_expansion)
    script = submission_script(
        next_attempt(made_job(), place.work_dir, "far"), worker, place, ExecConfigSpec()
    )
    assert "cd -- \"$HOME\"/'my work/ee/5e/d8/ee5ed8e4-068f-5ec8-8c2f-d451816ddb65_1' || exit 1\n" in script
    assert "PYTHONPATH=\"$HOME\"/'my work/.code/tree1':\"$HOME\"/'my work/.code/tree 2'$" in script
    assert 'python3 "$HOME"/\'my work/.launchers/' in script
    assert "~" not in script


def test_its_python_is_as_the_worker_says() -> None:
    assert worker_paths(remote(python="~/env/bin/python"), no_expansion).python == "~/env/bin/python"


def test_such_a_script_runs(tmp_path: Any) -> None:
    """The shell really finds its home, claims the attempt, runs python and leaves the marker."""
    worker = remote(python="~/py thon", pre_run='echo "$PYTHONPATH"')
    place = worker_paths(worker, no_expansion)
    job = next_attempt(made_job(), place.work_dir, "far")
    run_dir = tmp_path / str(job.attempt.run_dir).removeprefix("~/")
    run_dir.mkdir(parents=True)
    (tmp_path / "my work" / ".outbox").mkdir()
    python = tmp_path / "py thon"
    python.write_text('#!/bin/bash\necho "$PYTHONPATH"\necho "$1"\nexit 3\n')
    python.chmod(0o700)
    (run_dir / "submit.sh").write_text(submission_script(job, worker, place, ExecConfigSpec()))
    done = subprocess.run(
        ["bash", str(run_dir / "submit.sh")],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    home = f"{tmp_path}/my work"
    assert done.stdout.splitlines()[:2] == ["", f"{home}/.code/tree1:{home}/.code/tree 2"]
    assert done.stdout.splitlines()[2].startswith(f"{home}/.launchers/")
    assert done.returncode == 3
    assert (run_dir / "claim" / "exit_code").read_text() == "3\n"
    assert [path.name for path in (tmp_path / "my work" / ".outbox").iterdir()] == [f"{job.id}.1"]


def test_a_name_of_a_job_stays_in_its_comment() -> None:
    job = msgspec.structs.replace(
        made_job(key="a\nrm -rf ~\u2028b"), attempt=JobAttempt(run_dir="/data/x", number=1)
    )
    worker = WorkerSpec(type="local", scheduler_type="shell", work_dir="/data")
    script = submission_script(job, worker, WorkerPaths("/data", "python3"), ExecConfigSpec())
    assert script.split("\n")[:3] == [
        "#!/bin/bash",
        f"# flow/a rm -rf ~ b  {job.id}  attempt 1",
        "builtin cd -- /data/x || exit 1",
    ]
