"""``reconcile init`` writes a campaign that runs at once; ``reconcile schema`` prints what it copies."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from reconciler.desired.schemas import schema_path
from reconciler.model.manifests import DEFAULT_DIRECTORIES, Kind
from tests.cli.conftest import Ended
from tests.support import Reconcile

Program = Callable[..., Ended]

WORKERS = {
    "local": {"type": "local", "scheduler_type": "shell"},
    "slurm:ada@login.example.org": {"type": "remote", "host": "login.example.org", "user": "ada"},
    "pbs:hpc": {"type": "remote", "scheduler_type": "pbs", "host": "hpc"},
    "sge:10.0.0.7": {"type": "remote", "scheduler_type": "sge", "host": "10.0.0.7"},
}


def commit(folder: Path) -> None:
    for arguments in (["add", "."], ["commit", "--quiet", "-m", "Start"]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    return tmp_path / "2 My campaign"


@pytest.mark.usefixtures("warm")
def test_a_new_campaign_runs_at_once(campaign: Path, reconcile: Reconcile) -> None:
    done = reconcile("init", str(campaign), cwd=campaign.parent)
    assert done.returncode == 0, done.stderr
    assert "git add . && git commit" in done.stderr
    assert not subprocess.run(
        ["git", "-C", str(campaign), "rev-parse", "--verify", "-q", "HEAD"], capture_output=True, check=False
    ).stdout, "nothing is committed"
    commit(campaign)
    done = reconcile("--once", "--wait", cwd=campaign)
    assert done.returncode == 0, done.stderr
    deep = campaign / "lib" / "campaign_2_my_campaign"
    assert reconcile("output", "hello/total", cwd=deep).stdout.strip() == "25"


@pytest.mark.parametrize("worker", WORKERS)
def test_every_worker_is_valid(
    worker: str, campaign: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program("init", str(campaign), "--worker", worker).code == 0
    (file,) = (campaign / "workers").iterdir()
    spec = YAML(typ="safe").load(file)["spec"]
    assert WORKERS[worker].items() <= spec.items()
    commit(campaign)
    monkeypatch.chdir(campaign)
    done = program("plan")
    assert (done.code, "3 jobs to submit" in done.stdout) == (0, True), done.stderr
    assert "warning" not in done.stderr


@pytest.mark.parametrize(
    ("folder", "name", "package"),
    [
        ("2026", "campaign-2026", "campaign_2026"),
        ("true", "campaign", "campaign"),
        ("Cu & Ag", "cu-ag", "cu_ag"),
        ("json", "json", "json_campaign"),
        ("import", "import", "import_campaign"),
        ("été", "t", "t"),
    ],
)
def test_names_are_taken_from_the_folder(
    folder: str, name: str, package: str, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program("init", str(tmp_path / folder)).code == 0
    commit(tmp_path / folder)
    monkeypatch.chdir(tmp_path / folder)
    done = program("validate")
    assert done.code == 0, done.stderr
    assert YAML(typ="safe").load(tmp_path / folder / "reconciler.yaml")["metadata"]["name"] == name
    assert (tmp_path / folder / "lib" / package / "jobs.py").is_file()


@pytest.mark.parametrize(
    ("worker", "words"),
    [
        ("slrm:host", "did you mean 'slurm'?"),
        ("slurm:", "slurm:USER@HOST"),
        ("slurm:a b", "slurm:USER@HOST"),
        ("slurm:-oProxyCommand=x", "slurm:USER@HOST"),
        ("locl", "did you mean 'local'?"),
    ],
)
def test_a_worker_that_cannot_be(worker: str, words: str, campaign: Path, program: Program) -> None:
    done = program("init", str(campaign), "--worker", worker)
    assert (done.code, words in done.stderr) == (2, True), done.stderr
    assert not campaign.exists()


def test_existing_files_are_kept(campaign: Path, program: Program) -> None:
    (campaign / "flows").mkdir(parents=True)
    (campaign / "README.md").write_text("mine")
    (campaign / ".gitignore").symlink_to("nowhere")
    done = program("init", str(campaign))
    assert [line for line in done.stdout.splitlines() if line.startswith("kept")] == [
        "kept   README.md",
        "kept   .gitignore",
    ]
    assert (campaign / "README.md").read_text() == "mine"
    done = program("init", str(campaign))
    assert (done.code, "there is a campaign already" in done.stderr) == (4, True)


def test_a_campaign_inside_a_repository_makes_no_second_one(campaign: Path, program: Program) -> None:
    subprocess.run(["git", "init", "--quiet", str(campaign)], check=True)
    assert program("init", str(campaign / "sub")).code == 0
    assert not (campaign / "sub" / ".git").exists()


@pytest.mark.parametrize(
    ("ci", "file"), [("github", ".github/workflows/plan.yml"), ("gitlab", ".gitlab-ci.yml")]
)
def test_ci_files_are_yaml_and_name_commands_that_exist(
    ci: str, file: str, campaign: Path, program: Program
) -> None:
    done = program("init", str(campaign), "--ci", ci)
    assert "set RECONCILER" in done.stderr
    text = (campaign / file).read_text()
    assert YAML(typ="safe").load(text)
    assert "reconcile plan --base" in text and "pip install reconciler" not in text


def test_the_schema_lines_of_all_manifests_resolve(campaign: Path, program: Program) -> None:
    program("init", str(campaign))
    manifests = [file for file in campaign.rglob("*.yaml") if ".git" not in file.parts]
    assert len(manifests) == 4, "all of them are read by default"
    for file in manifests:
        first = file.read_text().splitlines()[0]
        schema = json.loads((file.parent / first.partition("$schema=")[2]).read_text())
        assert schema["properties"]["kind"]["const"] == YAML(typ="safe").load(file)["kind"]
    settings = json.loads((campaign / ".vscode/settings.json").read_text())["yaml.schemas"]
    folders = {Path(place).parts[0] for place in settings.values()}
    assert folders == {"reconciler.yaml", *DEFAULT_DIRECTORIES}
    assert all((campaign / path).is_file() for path in settings)


def test_schemas_are_printed_listed_and_written(program: Program, tmp_path: Path) -> None:
    assert json.loads(program("schema", "flow").stdout) == json.loads(schema_path(Kind.FLOW).read_text())
    listed = json.loads(program("schema", "-o", "json").stdout)
    assert {row["kind"]: Path(row["file"]).is_file() for row in listed} == {str(kind): True for kind in Kind}
    assert program("schema", "--write", str(tmp_path)).code == 0
    assert len(list(tmp_path.glob("*.schema.json"))) == len(Kind)
    done = program("schema", "Flw")
    assert (done.code, "there is no kind 'Flw'" in done.stderr) == (2, True)
    assert program("schema", "Flow", "--write", str(tmp_path)).code == 2
