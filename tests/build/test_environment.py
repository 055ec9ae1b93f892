"""``spec.build.env``: variables of the build, declared in git, and ``{$env: NAME}`` in arguments."""

from __future__ import annotations

import json

import pytest

from tests.watch.support import WatchWorld

CODE = """
import os

from jobflow import Flow, job

ENGINE = os.environ.get("ENGINE", "none")  # as packages read their settings, when they are imported


@job
def tell(text):
    return text


def make():
    return Flow([tell(ENGINE + " " + os.environ.get("LEVEL", "none"))])
"""


def project(world: WatchWorld, **env: str) -> None:
    spec = {"python_path": ["lib"], "defaults": {"worker": "w1"}, "build": {"env": env}}
    text = (
        f"apiVersion: reconciler/v1\nkind: Project\nmetadata: {{name: watched}}\nspec: {json.dumps(spec)}\n"
    )
    world.repository.write("reconciler.yaml", text)


def factory(world: WatchWorld, name: str, **env: str) -> None:
    world.put("Flow", name, {"factory": {"function": "settings.make"}, "build": {"env": env}})


def telling(world: WatchWorld, name: str, *names: str) -> None:
    jobs = [{"id": one.lower(), "function": "settings.tell", "args": [{"$env": one}]} for one in names]
    world.put("Flow", name, {"jobs": jobs})


def outputs(world: WatchWorld) -> dict[str, str]:
    """Apply everything, and return the output of each job."""
    world.commit()
    done = world.run("--once", "--wait")
    assert done.returncode == 0, done.stderr
    return {key: json.loads(world.run("output", key).stdout) for key in current(world)}


def current(world: WatchWorld) -> dict[str, str]:
    """Return the uuid of each job that is not superseded."""
    return world.read(lambda view: {job.path: job.uuid for job in view.jobs() if job.current})


@pytest.fixture
def world(watched: WatchWorld) -> WatchWorld:
    watched.repository.write("lib/settings.py", CODE)
    return watched


def test_a_flow_gets_the_variables_of_the_project_and_its_own(
    world: WatchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE", "of the shell")
    project(world, ENGINE="a", LEVEL="1")
    factory(world, "plain")
    factory(world, "own", ENGINE="b")
    factory(world, "again")
    assert outputs(world) == {"plain/tell": "a 1", "own/tell": "b 1", "again/tell": "a 1"}


def test_an_argument_can_be_a_variable(world: WatchWorld) -> None:
    project(world, ENGINE="a", LEVEL="1")
    telling(world, "f", "ENGINE", "LEVEL")
    assert outputs(world) == {"f/engine": "a", "f/level": "1"}
    before = current(world)
    project(world, ENGINE="b", LEVEL="1")
    assert outputs(world) == {"f/engine": "b", "f/level": "1"}
    after = current(world)
    assert after["f/level"] == before["f/level"], "what does not use the variable stays"
    assert after["f/engine"] != before["f/engine"]


def test_an_edit_of_a_variable_builds_the_flow_again(world: WatchWorld) -> None:
    project(world, ENGINE="a")
    factory(world, "f")
    assert outputs(world) == {"f/tell": "a none"}
    project(world, ENGINE="b")
    assert outputs(world) == {"f/tell": "b none"}


def test_without_variables_the_shell_decides_nothing(
    world: WatchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE", "of the shell")
    factory(world, "f")
    assert outputs(world) == {"f/tell": "none none"}


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        ([{"$env": "ENGIN"}], "reference/unknown-variable", "did you mean 'ENGINE'?"),
        ([[{"a": {"$env": "OTHER"}}]], "reference/unknown-variable", "known: ENGINE"),
        ([{"$env": 5}], "value/type", ""),
        ([{"$env": "ENGINE", "default": "x"}], "value/extra-key", "must be alone"),
    ],
)
def test_a_wrong_variable_is_told_with_its_place(
    world: WatchWorld, arguments: list[object], code: str, hint: str
) -> None:
    project(world, ENGINE="a")
    world.put("Flow", "f", {"jobs": [{"id": "a", "function": "settings.tell", "args": arguments}]})
    world.commit()
    done = world.run("validate")
    assert done.returncode == 2
    assert f"error[{code}]" in done.stderr + done.stdout
    assert hint in done.stderr + done.stdout
    assert "flows/f.yaml:4" in done.stderr + done.stdout


@pytest.mark.parametrize("env", [{"A B": "1"}, {"A": 1}, {"A": None}, {"1A": "x"}])
def test_a_wrong_declaration_is_refused(world: WatchWorld, env: dict[str, object]) -> None:
    world.put("Flow", "f", {"factory": {"function": "settings.make"}, "build": {"env": env}})
    world.commit()
    done = world.run("validate")
    assert done.returncode == 2
    assert "schema/" in done.stderr + done.stdout
