"""``explain job``, ``explain rule`` and ``events``: who gave a job which value, and what that beat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import World
from tests.support import Reconcile, Repository, isolate, minimal_project

FLOW = """
    apiVersion: reconciler/v1
    kind: Flow
    metadata: {name: f}
    spec:
      suspend: true
      priority: 5
      exec_config: threads
      jobs:
        - {id: relax, function: reconciler.examples.value, args: [5], priority: 3}
        - {id: fit, function: reconciler.examples.add, args: [{$output: relax}, 2]}
    """

RULE = """
    apiVersion: reconciler/v1
    kind: OverrideRule
    metadata: {{name: {name}}}
    spec:
      order: {order}
      name_glob: relax*
      set: {{priority: {priority}}}
    """

ANN, BO, CY = ("Ann <ann@example.invalid>", "Bo <bo@example.invalid>", "Cy <cy@example.invalid>")


def test_job_of_the_world(world: World) -> None:
    found = world.json("explain", "job", "arithmetic/add", "priority")
    (priority,) = found["fields"]
    assert (priority["value"], priority["set_by"]["level"]) == (3, "job")
    assert (priority["beats"], priority["wanted"], priority["deferred"]) == ([], None, None)
    assert priority["since"]["old"] is None


def test_deferred_change(world: World) -> None:
    found = {one["field"]: one for one in world.json("explain", "job", "slow/nap")["fields"]}
    assert (found["priority"]["value"], found["priority"]["deferred"]) == (0, 9)
    assert found["priority"]["wanted"]["name"] == "hurry"
    assert "! deferred" in world.run("explain", "job", "slow/nap").stdout


def test_generated_job_names_what_its_generator_was_given(world: World) -> None:
    """The flow gave the worker to both: one place, named once."""
    (found,) = world.json("explain", "job", "generating/add", "worker")["fields"]
    assert (found["value"], found["set_by"]["level"], found["set_by"]["kind"]) == ("w2", "generator", "Flow")
    assert [beaten["level"] for beaten in found["beats"]] == ["project"]
    assert "generator: flow generating" in world.run("explain", "job", "generating/add", "worker").stdout


def test_rule_of_the_world(world: World) -> None:
    found = world.json("explain", "rule", "hurry")
    assert [row["key"] for row in found["jobs"]] == ["slow/nap"]
    assert found["jobs"][0]["decides"] == {"priority": 9, "resources": {}}
    assert found["place"]["author"] == "Ada Tester <ada@example.invalid>"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["job", "arithmetic/ad"], "there is no job 'arithmetic/ad'", "did you mean 'arithmetic/add'?"),
        (["job", "arithmetic/add", "prority"], "no field 'prority'", "did you mean 'priority'?"),
        (["rule", "hury"], "has no rule 'hury'", "did you mean 'hurry'?"),
        (["job"], "name the job to explain", "explain job NAME"),
        (["Worker", "spec"], "takes no further argument", "explain KIND.field"),
    ],
)
def test_mistyped_arguments(world: World, arguments: list[str], message: str, hint: str) -> None:
    done = world.run("explain", *arguments)
    assert done.returncode == 2
    assert message in done.stderr and hint in done.stderr


EXEC_CONFIG = """
    apiVersion: reconciler/v1
    kind: ExecConfig
    metadata: {{name: threads}}
    spec: {{export: {{OMP_NUM_THREADS: "{number}"}}}}
    """


class History:
    """A file move, a rule reorder and changing authors; two reconciles."""

    def __init__(self, path: Path) -> None:
        self.repository = repository = Repository(path / "repository")
        self.reconcile = Reconcile(repository.path)
        minimal_project(repository, path / "work")
        repository.write_yaml("exec_configs/threads.yaml", EXEC_CONFIG.format(number=1))
        repository.write_yaml("flows/f.yaml", FLOW)
        self.flow = repository.commit("flow", author=ANN)
        repository.write_yaml("rules/low.yaml", RULE.format(name="low", order=100, priority=7))
        repository.write_yaml("rules/high.yaml", RULE.format(name="high", order=200, priority=9))
        self.rules = repository.commit("two rules", author=BO)
        self.run("--once")
        repository.move("rules/low.yaml", "rules/sub/moved.yaml")
        repository.commit("move", author=CY)
        repository.write_yaml("rules/sub/moved.yaml", RULE.format(name="low", order=300, priority=7))
        self.reorder = repository.commit("low first", author=ANN)
        repository.write_yaml("exec_configs/threads.yaml", EXEC_CONFIG.format(number=4))
        self.threads = repository.commit("four threads", author=CY)
        self.run("--once")

    def run(self, *arguments: str) -> str:
        done = self.reconcile("--state-dir", str(self.repository.path.parent / "state"), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json"))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        path = tmp_path_factory.mktemp("history")
        isolate(monkeypatch, path / "home")
        yield History(path)


def who(found: dict[str, Any]) -> tuple[Any, ...]:
    return found["value"], found["name"], f"{found['file']}:{found['line']}", found["commit"], found["author"]


def test_explained_job(history: History) -> None:
    (priority,) = history.json("explain", "job", "f/relax", "priority")["fields"]
    assert who(priority["set_by"]) == (7, "low", "rules/sub/moved.yaml:7", history.rules, BO)
    assert priority["set_by"]["order"] == 300
    assert [who(beaten) for beaten in priority["beats"]] == [
        (9, "high", "rules/high.yaml:7", history.rules, BO),
        (3, "f", "flows/f.yaml:9", history.flow, ANN),
        (5, "f", "flows/f.yaml:6", history.flow, ANN),
    ]
    since = priority["since"]
    assert (since["old"], since["commit"], since["author"]) == (9, history.reorder, ANN)


def test_explained_job_as_text(history: History) -> None:
    lines = history.run("explain", "job", "f/relax", "priority").splitlines()
    words = [line.split() for line in lines[1:]]
    assert words[0] == ["priority:", "7"]
    assert words[1][:8] == ["set", "by", "7", "rule", "low", "(order", "300)", "rules/sub/moved.yaml:7"]
    assert words[1][8] == history.rules[:7] and words[1][-2:] == ["two", "rules"]
    assert words[2][:5] == ["beats", "9", "rule", "high", "(order"]
    assert words[-1][:3] == ["since", "was", "9"] and words[-1][-3] == history.reorder[:7]


def test_content_of_an_exec_config(history: History) -> None:
    (found,) = history.json("explain", "job", "f/fit", "exec_config")["fields"]
    assert (found["value"], found["set_by"]["file"]) == ("threads", "flows/f.yaml")
    content = found["content"]
    assert (content["file"], content["commit"], content["author"]) == (
        "exec_configs/threads.yaml",
        history.threads,
        CY,
    )


def test_event_names_commit_and_author(history: History) -> None:
    events = history.json("events", "--for", "job/f/relax")
    (patched,) = [event for event in events if event["type"] == "Patched"]
    priority, commands = patched["changes"]
    assert (priority["old"], priority["new"]) == (9, 7)
    assert (priority["commit"], priority["author"]) == (history.reorder, ANN)
    place = priority["provenance"]
    assert (place["name"], place["file"], place["line"]) == ("low", "rules/sub/moved.yaml", 7)
    assert (commands["field"], commands["commit"], commands["author"]) == ("exec_config", history.threads, CY)
    assert commands["old"] != commands["new"]
    assert {value.partition("@")[0] for value in (commands["old"], commands["new"])} == {"threads"}
    text = history.run("events", "--for", "job/f/relax")
    assert f"priority: 9 -> 7   # rule low, rules/sub/moved.yaml:7, {history.reorder[:7]}" in text
    assert "# ExecConfig threads, exec_configs/threads.yaml:4" in text


def test_described_job(history: History) -> None:
    text = history.run("describe", "job", "f/relax")
    assert f"priority:    7   # rule low (order 300), rules/sub/moved.yaml:7, {history.rules[:7]}" in text
    assert f"beats 9   # rule high (order 200), rules/high.yaml:7, {history.rules[:7]}" in text


def test_explained_rules(history: History) -> None:
    high, low = (history.json("explain", "rule", name)["jobs"] for name in ("high", "low"))
    assert [(row["key"], row["decides"]) for row in high] == [("f/relax", {})]
    assert high[0]["beaten_by"]["priority"]["name"] == "low"
    assert [(row["key"], row["decides"]) for row in low] == [("f/relax", {"priority": 7})]
    text = history.run("explain", "rule", "high")
    assert (
        "sets at least one field of 0 of the 1 jobs that it matches" in text and "priority: rule low" in text
    )


def test_rule_that_matches_nothing(repository: Repository, reconcile: Reconcile) -> None:
    minimal_project(repository, repository.path.parent / "work")
    repository.write_yaml("exec_configs/threads.yaml", EXEC_CONFIG.format(number=1))
    repository.write_yaml("flows/f.yaml", FLOW)
    repository.write_yaml(
        "rules/r.yaml", RULE.format(name="r", order=1, priority=7).replace("relax*", "Relax*")
    )
    repository.commit()
    done = reconcile("--once")
    assert done.returncode == 0, "a warning blocks nothing"
    warning = "rule 'r' matches no job: name_glob 'Relax*' matches nothing"
    assert warning in done.stderr and "'relax*' would match 1 job" in done.stderr
    assert warning in reconcile("--once").stderr, "also when there is nothing to do"
    assert f"{warning}; 'relax*' would match 1 job" in reconcile("explain", "rule", "r").stdout


def test_the_last_good_version_of_a_broken_rule(repository: Repository, reconcile: Reconcile) -> None:
    minimal_project(repository, repository.path.parent / "work")
    repository.write_yaml("exec_configs/threads.yaml", EXEC_CONFIG.format(number=1))
    repository.write_yaml("flows/f.yaml", FLOW)
    repository.commit(author=ANN)
    repository.write_yaml("rules/r.yaml", RULE.format(name="r", order=1, priority=7))
    good = repository.commit("a rule", author=BO)
    assert reconcile("--once").returncode == 0
    repository.write_yaml("rules/r.yaml", RULE.format(name="r", order=1, priority="high"))
    repository.commit("broken", author=CY)
    assert reconcile("--once").returncode == 2
    found = json.loads(reconcile("explain", "job", "f/relax", "priority", "-o", "json").stdout)["fields"][0]
    assert (found["set_by"]["value"], found["set_by"]["commit"], found["set_by"]["author"]) == (7, good, BO)
