"""The verbs that read, on a state with one of everything."""

from __future__ import annotations

import json

import pytest

from tests.cli.world import World

pytestmark = pytest.mark.usefixtures("warm")

ARITHMETIC = ["arithmetic/value", "arithmetic/add", "arithmetic/twin-1", "arithmetic/twin-2"]


def names(world: World, *arguments: str) -> list[str]:
    done = world.run("get", "jobs", *arguments, "-o", "name")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


class TestGetJobs:
    def test_one_flow(self, world: World) -> None:
        assert names(world, "--flow", "arithmetic") == ARITHMETIC

    def test_patterns(self, world: World) -> None:
        assert names(world, "arithmetic/twin-*", "failing/*") == [
            "arithmetic/twin-1", "arithmetic/twin-2", "failing/bad", "failing/never",
        ]  # fmt: skip

    def test_globs_do_not_reach_across_the_slash(self, world: World) -> None:
        done = world.run("get", "jobs", "*twin*", "-o", "name")
        assert (done.stdout, "for jobs of all flows, write '*/*twin*'" in done.stderr) == ("", True)
        assert names(world, "*/*twin*") == ARITHMETIC[2:]

    def test_states_in_any_case(self, world: World) -> None:
        assert names(world, "--state", "failed", "--state", "WAITING") == ["failing/bad", "failing/never"]

    def test_worker(self, world: World) -> None:
        assert {name.partition("/")[0] for name in names(world, "--worker", "w2")} == {"generating"}

    def test_limit(self, world: World) -> None:
        assert names(world, "--limit", "2") == ARITHMETIC[:2]

    def test_filters_together(self, world: World) -> None:
        assert names(world, "--flow", "arithmetic", "--state", "COMPLETED", "*/*add*") == ["arithmetic/add"]

    def test_unknown_state_is_a_mistake(self, world: World) -> None:
        done = world.run("get", "jobs", "--state", "FAILD")
        assert done.returncode == 2
        assert done.stderr == "error: there is no state 'FAILD'\n  help: did you mean 'FAILED'?\n"

    def test_unknown_flow_and_worker_are_mistakes(self, world: World) -> None:
        for option, name in (("--flow", "arithmetics"), ("--worker", "w3")):
            done = world.run("get", "jobs", option, name)
            assert done.returncode == 2
            assert f" '{name}'\n  help: " in done.stderr

    def test_no_match(self, world: World) -> None:
        done = world.run("get", "jobs", "nothing/*")
        assert (done.returncode, done.stdout) == (0, "")
        assert "no job matches 'nothing/*'" in done.stderr

    def test_table(self, world: World) -> None:
        header, *lines = world.run("get", "jobs", "--flow", "failing").stdout.splitlines()
        assert header.split() == ["KEY", "STATE", "WORKER", "PRIORITY", "ERROR"]
        assert lines[0].split() == [
            "failing/bad",
            "FAILED",
            "w1",
            "0",
            "RuntimeError:",
            "no",
            "luck",
            "today",
        ]
        assert lines[1].split() == ["failing/never", "WAITING", "w1", "0", "-"]

    def test_wide_table_is_never_cut_off_a_terminal(self, world: World) -> None:
        lines = world.run("get", "jobs", "-o", "wide").stdout.splitlines()
        assert "RUN DIR" in lines[0]
        assert not any("…" in line for line in lines)


class TestGetOthers:
    def test_flows(self, world: World) -> None:
        lines = world.run("get", "flows", "a*", "failing").stdout.splitlines()
        assert [line.split()[:3] for line in lines[1:]] == [
            ["arithmetic", "Synced", "Healthy"], ["failing", "Synced", "Degraded"],
        ]  # fmt: skip
        assert "1 FAILED 1 WAITING" in lines[2]

    def test_names_of_everything(self, world: World) -> None:
        found = {kind: world.run("get", kind, "-o", "name").stdout.split() for kind in ("workers", "rules")}
        assert found == {"workers": ["w1", "w2"], "rules": ["hurry"]}

    def test_workers_count_their_jobs(self, world: World) -> None:
        workers = {worker["name"]: worker for worker in world.json("get", "workers")}
        assert (workers["w1"]["active"], workers["w1"]["ready"]) == (1, 0)
        assert (workers["w2"]["active"], workers["w2"]["reachable"]) == (0, True)

    def test_rules_show_what_they_set(self, world: World) -> None:
        (rule,) = world.json("get", "rules")
        assert (rule["order"], rule["flows"], rule["sets"]) == (
            100,
            ["slow"],
            {"priority": 9, "resources": {}},
        )


class TestDescribe:
    def test_job(self, world: World) -> None:
        text = world.run("describe", "job", "arithmetic/add").stdout
        assert "needs:        arithmetic/value" in text
        assert "  priority:    3   # job in flow arithmetic, flows/flows.yaml:8, " in text
        assert "Ada Tester <ada@example.invalid>" in text
        assert "  resources:   (none)" in text

    def test_failed_job_shows_its_traceback(self, world: World) -> None:
        text = world.run("describe", "job", "failing/bad").stdout
        assert "RuntimeError: no luck today" in text
        assert "examples.py" in text

    def test_deferred_change(self, world: World) -> None:
        assert "! deferred: " in world.run("describe", "job", "slow/nap").stdout

    def test_by_uuid_and_by_uuid_and_index(self, world: World) -> None:
        uuid = world.json("describe", "job", "arithmetic/add")["uuid"]
        assert world.json("describe", "job", uuid)["key"] == "arithmetic/add"
        assert world.json("describe", "job", f"{uuid}_1")["key"] == "arithmetic/add"

    def test_flow(self, world: World) -> None:
        text = world.run("describe", "flow", "failing").stdout
        assert "health:    Degraded" in text
        assert "failing/bad" not in text.partition("jobs:")[0]
        assert "RuntimeError: no luck today" in text

    @pytest.mark.parametrize(
        ("kind", "name", "near"),
        [("flow", "arithmetik", "arithmetic"), ("job", "arithmetic/ad", "arithmetic/add")],
    )
    def test_near_miss(self, world: World, kind: str, name: str, near: str) -> None:
        done = world.run("describe", kind, name)
        assert done.returncode == 2
        assert done.stderr == f"error: there is no {kind} '{name}'\n  help: did you mean '{near}'?\n"

    def test_flow_that_was_never_submitted(self, world: World) -> None:
        done = world.run("describe", "flow", "held")
        assert done.returncode == 0, done.stderr
        assert "there is no Worker named 'w9'" in done.stdout


class TestOutputAndLogs:
    def test_output_is_json(self, world: World) -> None:
        done = world.run("output", "arithmetic/add")
        assert (done.returncode, json.loads(done.stdout)) == (0, 7)

    def test_output_of_a_replaced_job_is_that_of_the_last_generation(self, world: World) -> None:
        uuid = world.json("describe", "job", "generating/itself")["uuid"]
        assert json.loads(world.run("output", uuid).stdout) == 0

    def test_output_as_yaml(self, world: World) -> None:
        assert world.run("output", "generating/list", "-o", "yaml").stdout.split() == ["-", "1", "-", "1"]

    @pytest.mark.parametrize("key", ["failing/bad", "failing/never"])
    def test_no_output(self, world: World, key: str) -> None:
        done = world.run("output", key)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"error: {key} has no output: it is " in done.stderr
        assert f"see `reconcile describe job {key}`" in done.stderr

    def test_logs(self, world: World) -> None:
        done = world.run("logs", "arithmetic/add")
        assert done.returncode == 0
        assert "before" in done.stdout.splitlines()

    def test_logs_of_one_stream(self, world: World) -> None:
        done = world.run("logs", "failing/bad", "--stderr")
        assert "no luck today" in done.stdout
        assert done.stderr == ""
        assert "no luck today" not in world.run("logs", "failing/bad", "--stdout").stdout

    def test_logs_of_a_job_that_never_ran(self, world: World) -> None:
        done = world.run("logs", "failing/never")
        assert done.returncode == 2
        assert "error: failing/never has no run directory: it is WAITING" in done.stderr


class TestEvents:
    def test_about_one_job(self, world: World) -> None:
        events = world.json("events", "--for", "job/arithmetic/add")
        assert {event["about"] for event in events} == {"job/arithmetic/add"}
        assert [event["time"] for event in events] == sorted(event["time"] for event in events)
        assert events[0]["type"] == "Submitted"
        assert "COMPLETED" in events[-1]["message"]

    @pytest.mark.parametrize(
        ("selectors", "about"),
        [
            (["arithmetic/add"], {"job/arithmetic/add"}),
            (["arith*/val*", "worker:w1"], {"job/arithmetic/value", "worker/w1"}),
            (["arithmetic/*", "state:FAILED"], set()),
            (["failing"], {"flow/failing", "job/failing/bad", "job/failing/never"}),
            (["label:campaign=tests"], {"flow/arithmetic", *(f"job/{job}" for job in ARITHMETIC)}),
        ],
    )
    def test_selected(self, world: World, selectors: list[str], about: set[str]) -> None:
        every = world.json("events", "--limit", "1000")
        found = world.json("events", *selectors)
        assert {event["about"] for event in found} == about & {event["about"] for event in every}
        assert found == [event for event in every if event["about"] in about]
        assert world.json("events", *selectors, "--limit", "2") == found[-2:]

    @pytest.mark.parametrize("selector", ["arithmetik", "arithmetic/ad", "worker:w3", "label:campaign=test"])
    def test_selected_by_nothing_that_exists(self, world: World, selector: str) -> None:
        done = world.run("events", selector)
        assert done.returncode == 2
        assert "did you mean" in done.stderr or "known: " in done.stderr

    def test_newest(self, world: World) -> None:
        every = world.json("events", "--limit", "1000")
        assert world.json("events", "--limit", "3") == every[-3:]

    def test_text_has_a_line_an_event(self, world: World) -> None:
        text = world.run("events", "--for", "flow/slow").stdout
        assert "flow/slow" in text
        assert "new flow" in text
        assert "[main@" in text

    @pytest.mark.parametrize("about", ["arithmetic", "job/arithmetic/ad", "flow/arithmetik"])
    def test_about_nothing_is_a_mistake(self, world: World, about: str) -> None:
        done = world.run("events", "--for", about)
        assert done.returncode == 2
        assert "  help: " in done.stderr


class TestExplain:
    def test_kind_in_any_case(self, world: World) -> None:
        done = world.run("explain", "worker")
        assert done.stdout.startswith("Worker  <")
        assert "  spec <" in done.stdout

    def test_field_with_default_and_type(self, world: World) -> None:
        text = world.run("explain", "Project.spec.max_prune").stdout
        assert text.startswith("Project.spec.max_prune  <number>\n")
        assert "default: 0.3" in text

    def test_field_of_the_entries_of_a_list(self, world: World) -> None:
        assert world.run("explain", "Flow.spec.jobs.function").stdout.startswith(
            "Flow.spec.jobs.function  <string>"
        )

    @pytest.mark.parametrize(
        ("what", "near"), [("Wrker", "Worker"), ("Worker.spec.max_job", "max_jobs"), ("Flow.speck", "spec")]
    )
    def test_near_miss(self, world: World, what: str, near: str) -> None:
        done = world.run("explain", what)
        assert done.returncode == 2
        assert f"  help: did you mean '{near}'?\n" in done.stderr

    def test_needs_no_repository(self, world: World) -> None:
        assert world.run("explain", "ExecConfig.spec.export", cwd=world.state.parent).returncode == 0


class TestPlan:
    def test_held_flow_is_explained(self, world: World) -> None:
        done = world.run("plan")
        assert done.returncode == 2
        assert "= flow held  (waits: there is no Worker named 'w9')" in done.stdout
        assert "--> flows/held.yaml:5:11" in done.stderr

    def test_names(self, world: World) -> None:
        assert world.run("plan", "-o", "name").stdout == ""


def test_failures_are_grouped_and_selected(world: World) -> None:
    (group,) = world.json("get", "failures")
    assert (group["jobs"], group["cause"], group["example"]) == (1, "exception", "failing/bad")
    assert "no luck today" in group["error"]
    selector = f"failure:{group['failure']}"
    assert [job["key"] for job in world.json("get", "jobs", selector)] == ["failing/bad"]
    assert world.json("retry", "--dry-run", selector)["jobs"][0]["key"] == "failing/bad"
    assert world.json("get", "failures", "arithmetic") == []
    shown = world.run("get", "failures").stdout
    assert group["failure"] in shown and "FAILURE" in shown


@pytest.mark.parametrize("command", [("get", "flows"), ("results",)])
@pytest.mark.parametrize("selector", ["failure:abcdef", "state:FAILED", "worker:w1"])
def test_what_selects_jobs_is_refused_where_flows_are_listed(
    world: World, command: tuple[str, ...], selector: str
) -> None:
    done = world.run(*command, selector)
    assert (done.returncode, "select jobs, not flows" in done.stderr) == (2, True)
