"""``reconcile render job``: what it prints is what the executor writes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.actual.view import View
from reconciler.cli.main import cli
from reconciler.cli.render import Rendered, render_job
from reconciler.errors import InputError
from reconciler.loop import Session
from reconciler.model.applied import AppliedConfig
from reconciler.model.records import DeferredPatch, JobAttempt
from reconciler.model.settings import Resources
from reconciler.model.states import JobState
from tests.execution.support import Listener, World
from tests.support import isolate

EXEC_CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"export": {"A": "x y; rm", "B": "it's $HOME"}, "expand": False},
    "expanding": {"export": {"A": '$HOME/`ls` $(ls) "q" \\'}, "expand": True},
    "commands": {"pre_run": "ulimit -c 0\nset -u", "post_run": "echo after\n"},
    "modules": {"modules": ["vasp/6.4", "gcc"], "pre_run": "true"},
}

JOBS: dict[str, dict[str, Any]] = {
    **{name: {"exec_config": name} for name in EXEC_CONFIGS},
    "inline": {"exec_config": {"pre_run": "echo here", "export": {"C": "1"}}},
    "none": {"exec_config": {}},
    "empty": {"resources": {}},
    "generic": {"qresources": {}},
    "verbatim": {"resources": {"qverbatim": "ulimit -n 64"}},
    "odd": {"name": "häßlicher name", "worker": "spaced"},
    "elsewhere": {"worker": "other"},
}
"""Job -> what it says itself."""

HPC = {"type": "local", "scheduler_type": "slurm"}
FAR = {"type": "remote", "host": "login.example.org", "scheduler_type": "sge", "work_dir": "~/far"}


class Rendering(World):
    """A project whose jobs end at once: their Python is ``true``."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, defaults="worker: w1, exec_config: commands")
        self.repository.write("workers/workers.yaml", self._workers())
        for name, spec in EXEC_CONFIGS.items():
            self.put("ExecConfig", name, spec)
        jobs = [
            {"id": name, "function": "give", "args": [number]} | said
            for number, (name, said) in enumerate(JOBS.items())
        ]
        self.flow("flow", *jobs)

    def _workers(self) -> str:
        return (
            self.worker("w1", python="/bin/true", pre_run="echo worker first")
            + self.worker("other", python="true", post_run="echo worker then")
            + self.worker("spaced", python="/bin/true", work_dir=f"{self.work}/a b'c")
            + self.worker("hpc", resources={"ntasks": 4, "partition": "debug"}, **HPC)
            + self.document("Worker", "far", FAR)
        )

    @property
    def config(self) -> AppliedConfig:
        """What was applied last."""
        config = self.view(View.config)
        assert isinstance(config, AppliedConfig)
        return config

    def render(self, path: str, worker: str | None = None, **changed: Any) -> Rendered:
        """Render a job as it is now, or as it would be with other values in its record."""
        return render_job(msgspec.structs.replace(self.job(path), **changed), self.config, worker)

    def apply(self) -> None:
        """Commit and apply."""
        self.repository.commit()
        session = Session(self.source, self.store)
        plan = session.reconcile(Listener()).plan
        assert not plan.diagnostics
        self.executor = session.executor()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rendering]:
    """Jobs of which none has run. Read only."""
    path = tmp_path_factory.mktemp("rendering")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, path / "home")
        made = Rendering(path)
        made.apply()
        yield made
        made.close()


@pytest.fixture
def shown(world: Rendering, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the verb in this process; return what it prints to stdout and stderr."""
    monkeypatch.chdir(world.repository.path)

    def run(*arguments: str) -> tuple[str, str]:
        cli.main(
            ["render", "job", *arguments, "--state-dir", str(world.root / "state")], standalone_mode=False
        )
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def is_shell_script(text: str) -> bool:
    """Whether bash can read it."""
    return subprocess.run(["bash", "-n"], input=text, text=True, timeout=20).returncode == 0


def test_identical_to_the_script_of_the_executor(tmp_path: Path) -> None:
    """Before, while its attempt goes on, and for the attempt after it."""
    world = Rendering(tmp_path)
    world.apply()
    paths = [f"flow/{name}" for name in JOBS]
    assert all(world.job(path).state is JobState.READY for path in paths)
    before = {path: world.render(path) for path in paths}
    world.advance()
    for path in paths:
        job = world.job(path)
        assert (
            before[path].job.attempt.run_dir == job.attempt.run_dir
            and before[path].job.attempt.number == job.attempt.number == 1
        )
        written = (Path(str(job.attempt.run_dir)) / "submit.sh").read_bytes()
        assert written == before[path].script.encode(), path
        assert b"PYTHONPATH=" in written, "there is a code tree"
        if job.state is not JobState.FAILED:
            assert world.render(path).script == before[path].script
        assert is_shell_script(before[path].script)
    world.until(lambda: all(world.state(path) in ("FAILED", "REMOTE_ERROR") for path in paths))
    again = world.render("flow/plain")
    assert again.job.attempt.run_dir == f"{before['flow/plain'].job.attempt.run_dir}.2"
    world.edit("flow/plain", state=JobState.READY)
    world.advance()
    assert Path(str(world.job("flow/plain").attempt.run_dir), "submit.sh").read_text() == again.script
    world.close()


def test_only_the_script_goes_to_stdout(world: Rendering, shown: Any) -> None:
    out, err = shown("flow/plain")
    assert out == world.render("flow/plain").script and out.startswith("#!/bin/bash\n")
    where = world.render("flow/plain").job.attempt.run_dir
    assert err == f"flow/plain is READY: next it gets attempt 1 on worker w1, in {where}\n"
    assert shown("flow/plain", "--quiet") == (out, "")
    assert shown(world.job("flow/plain").uuid)[0] == out
    assert not (world.work / "w1").exists(), "nothing was written"


def test_active_job_shows_its_current_attempt(world: Rendering, tmp_path: Path) -> None:
    now: dict[str, Any] = {"state": JobState.RUNNING, "attempt": JobAttempt(number=3, run_dir=str(tmp_path))}
    rendered = world.render("flow/plain", **now)
    assert f"cd -- {tmp_path} || exit 1" in rendered.script
    assert rendered.notes == [f"flow/plain is RUNNING: its attempt 3 on worker w1, {tmp_path}"]
    (tmp_path / "submit.sh").write_text(rendered.script)
    assert world.render("flow/plain", **now) == rendered
    (tmp_path / "submit.sh").write_text("#!/bin/bash\n")
    assert "differs" in world.render("flow/plain", **now).notes[-1]


def test_a_deferred_change_is_not_included_and_said(world: Rendering) -> None:
    job = world.job("flow/plain")
    wanted = msgspec.structs.replace(job.config, worker=world.job("flow/elsewhere").config.worker)
    now: dict[str, Any] = {
        "state": JobState.RUNNING,
        "attempt": world.render("flow/plain").job.attempt,
    }
    rendered = world.render("flow/plain", **now, deferred=DeferredPatch(config=wanted))
    assert rendered.job.config.worker_name == "w1"
    assert "a patch is deferred and not included: see `reconcile describe job flow/plain`" in rendered.notes
    assert rendered.script == world.render("flow/plain").script


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (JobState.COMPLETED, "if it is run again it gets attempt 2"),
        (JobState.FAILED, "when it is retried it gets attempt 2"),
        (JobState.WAITING, "next it gets attempt 2"),
    ],
)
def test_a_job_that_ended_shows_its_next_attempt(world: Rendering, state: JobState, text: str) -> None:
    rendered = world.render("flow/plain", state=state, attempt=JobAttempt(number=1, run_dir="/data/old"))
    assert text in rendered.notes[0]
    assert str(rendered.job.attempt.run_dir).endswith("_1.2")


# as if given another worker ---------------------------------------------------------------------------


def test_as_if_given_another_worker(world: Rendering) -> None:
    """Its default resources apply; what the job says stays."""
    rendered = world.render("flow/plain", "hpc")
    assert {"#SBATCH --ntasks=4", "#SBATCH --partition=debug"} <= set(rendered.script.splitlines())
    assert f"cd -- {world.work}/hpc/" in rendered.script and "export A='x y; rm'" in rendered.script
    assert "as if it had that worker" in rendered.notes[0]
    assert not rendered.notes[1:]
    assert is_shell_script(rendered.script)


def test_resources_of_the_job_keep_the_default_out(world: Rendering) -> None:
    script = world.render("flow/empty", "hpc").script
    assert "--ntasks" not in script and "#SBATCH --output=queue.out" in script


def test_default_resources_of_the_old_worker_fall_away(world: Rendering) -> None:
    config = msgspec.structs.replace(
        world.job("flow/inline").config, resources=world.config.worker_defaults["hpc"]
    )
    assert "a plain shell cannot give 'ntasks'" in problem(lambda: world.render("flow/inline", config=config))
    assert "#SBATCH" not in world.render("flow/inline", "other", config=config).script


def test_worker_is_not_contacted(world: Rendering) -> None:
    rendered = world.render("flow/plain", "far")
    assert 'cd -- "$HOME"/far/' in rendered.script and "\npython3 " in rendered.script
    assert rendered.job.attempt.run_dir is not None and rendered.job.attempt.run_dir.startswith("~/far/")
    assert "#$ -cwd" in rendered.script.splitlines()


def test_the_worker_that_it_has_changes_nothing(world: Rendering) -> None:
    assert world.render("flow/plain", "w1") == world.render("flow/plain")


def test_as_if_shows_the_next_attempt_of_a_running_job(world: Rendering) -> None:
    now: dict[str, Any] = {"state": JobState.RUNNING, "attempt": JobAttempt(number=1, run_dir="/data/now")}
    assert world.render("flow/plain", "other", **now).job.attempt.number == 2
    assert world.render("flow/plain", "w1", **now).job.attempt.number == 1


# what cannot be rendered ------------------------------------------------------------------------------


def problem(action: Callable[[], object]) -> str:
    """Return message and hint of the error that it ends with."""
    with pytest.raises(InputError) as found:
        action()
    return f"{found.value.message} / {found.value.hint}"


def test_an_unknown_worker(world: Rendering, shown: Any) -> None:
    said = problem(lambda: shown("flow/plain", "--worker", "hcp"))
    assert said.startswith("there is no worker 'hcp' in main@")
    assert said.endswith("/ did you mean 'hpc'?")


def test_resources_that_the_scheduler_does_not_know(world: Rendering) -> None:
    config = world.job("flow/empty").config
    assert config.resources is not None
    setting = msgspec.structs.replace(config.resources, value=Resources({"ntask": 1}))
    config = msgspec.structs.replace(config, resources=setting)
    assert problem(lambda: world.render("flow/empty", "hpc", config=config)) == (
        "flow/empty cannot run on worker 'hpc' (slurm): 'ntask' is not a Slurm keyword"
        " / did you mean 'ntasks'?"
    )


def test_unknown_job(shown: Any) -> None:
    said = problem(lambda: shown("flow/plian"))
    assert said == "there is no job 'flow/plian' / did you mean 'flow/plain'?"


def test_a_job_that_was_not_submitted_yet(world: Rendering, shown: Any) -> None:
    world.flow("later", {"id": "first", "function": "give", "args": [1]})
    world.factory("made", "simple_jobs.one", "give")
    world.repository.commit()
    for key in ("later/first", "made/anything"):
        said = problem(lambda key=key: shown(key))  # type: ignore[misc]
        assert said.startswith(f"the job '{key}' is not submitted yet: it is only in the revision main@")
        assert "run `reconcile --once`" in said
    assert "there is no job 'later/second'" in problem(lambda: shown("later/second"))


def test_store_answers_without_a_repository(
    world: Rendering, shown: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown("flow/plain")[0] == world.render("flow/plain").script
    assert "there is no job 'later/first'" in problem(lambda: shown("later/first"))
