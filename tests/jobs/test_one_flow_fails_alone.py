"""An unexpected error while one flow is built or applied holds back only this flow, and is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reconciler.actual.view import View
from reconciler.actual.writer import Writer
from reconciler.jobs import apply as applying
from reconciler.jobs.apply import PlanApplication
from reconciler.jobs.generated import Generation
from reconciler.loop import Session
from reconciler.model.actions import Action, Plan
from tests.execution.support import Listener, World

pytestmark = pytest.mark.usefixtures("warm")

ADD = {"function": "reconciler.examples.add", "args": [1, 2]}


def reconcile(world: World) -> Plan:
    world.repository.commit()
    session = Session(world.source, world.store, hosts=world.hosts)
    plan = session.reconcile(Listener()).plan
    world.executor = session.executor()
    return plan


def out_of_sync(world: World) -> dict[str, str]:
    config = world.view(View.config)
    assert config is not None
    found: dict[str, str] = config.out_of_sync
    return found


def bad_action(method: str, error: Exception) -> Callable[[pytest.MonkeyPatch], None]:
    """Make a step of applying raise for flow ``bad``."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(PlanApplication, method)

        def step(self: PlanApplication, action: Any, *rest: Any) -> Any:
            key = action.key if isinstance(action, Action) else str(action)
            if key.partition("/")[0] == "bad":
                raise error
            return real(self, action, *rest)

        monkeypatch.setattr(PlanApplication, method, step)

    return patch


def bad_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the store refuse the records of flow ``bad``, after all else was done."""
    real = Writer.put_job

    def put_job(self: Writer, job: Any) -> None:
        if job.flow == "bad":
            raise OverflowError("Integer value out of range")
        real(self, job)

    monkeypatch.setattr(Writer, "put_job", put_job)


def bad_recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail in a step that is about the jobs of all flows together."""
    real = applying.recheck

    def recheck(writer: Writer, jobs: Any, now: float) -> None:
        jobs = list(jobs)
        if any(job.flow == "bad" for job in jobs):
            raise RecursionError("maximum recursion depth exceeded")
        real(writer, jobs, now)

    monkeypatch.setattr(applying, "recheck", recheck)


@pytest.mark.parametrize(
    "patch",
    [
        bad_action("_flow", KeyError("x")),
        bad_action("_job", AttributeError("'NoneType' object has no attribute 'x'")),
        bad_action("_submit", ValueError("odd")),
        bad_record,
        bad_recheck,
    ],
)
def test_an_error_while_one_flow_is_applied_holds_back_only_this_flow(
    world: World, patch: Callable[[pytest.MonkeyPatch], None]
) -> None:
    world.flow("bad", {"id": "j"} | ADD)
    world.flow("good", {"id": "j"} | ADD)
    world.flow("late", {"id": "j"} | ADD)
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch)
        plan = reconcile(world)
        assert set(world.jobs()) == {"good/j", "late/j"}
        assert [found.code for found in plan.diagnostics if found.is_error] == ["plan/bug"]
        assert "flow 'bad' cannot be applied" in next(iter(plan.diagnostics)).message
        assert out_of_sync(world)["bad"].startswith("not applied: ")
        world.flow("next", {"id": "j"} | ADD)
        reconcile(world)
        assert set(world.jobs()) == {"good/j", "late/j", "next/j"}, "the next commit is applied"
    reconcile(world)
    world.run()
    assert world.states("bad/j", "good/j", "late/j", "next/j") == ["COMPLETED"] * 4


def test_an_error_about_no_flow_is_not_hidden(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("config")

    monkeypatch.setattr(Writer, "put_config", broken)
    world.flow("good", {"id": "j"} | ADD)
    with pytest.raises(KeyError):
        reconcile(world)
    assert world.jobs() == {}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nosuchmodule", "No module named 'nosuchmodule'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def flow():\n    return 5", "returned an int, not a Flow or a Job"),
    ],
)
def test_why_a_flow_cannot_be_built_is_kept(world: World, code: str, reason: str) -> None:
    world.repository.write("lib/broken.py", f"{code}\n")
    world.factory("bad", "broken.flow")
    world.flow("good", {"id": "j"} | ADD)
    reconcile(world)
    assert set(world.jobs()) == {"good/j"}
    why = out_of_sync(world)["bad"]
    assert why.startswith("cannot be built: ") and reason in why and "flows/bad.yaml:" in why
    events = world.view(lambda view: view.events("flow/bad"))
    assert [event.type for event in events] == ["BuildFailed"] and reason in events[0].message
    reconcile(world)
    world.repository.write("lib/broken.py", "from simple_jobs import log_line as flow\n")
    world.factory("bad", "broken.flow", str(world.root / "log"), "x")
    reconcile(world)
    assert "bad" not in out_of_sync(world)
    assert [path for path in world.jobs() if path.startswith("bad/")]


STORES = """
from jobflow import Flow, Response, job

@job(data="big")
def saves():
    return {"big": [1, 2, 3]}

@job
def generates():
    return Response(output=1, addition=Flow([saves()]))
"""


def with_jobstore(world: World, *additional: str) -> None:
    store = {"type": "JSONStore", "read_only": False}
    spec = {
        "docs_store": store | {"paths": str(world.root / "docs.json")},
        "additional_stores": {
            name: store | {"paths": str(world.root / f"{name}.json")} for name in additional
        },
    }
    world.repository.write(
        "reconciler.yaml",
        world.document(
            "Project", "test", {"python_path": ["lib"], "defaults": {"worker": "w1"}, "jobstore": spec}
        ),
    )


def test_a_job_whose_additional_store_does_not_exist_is_not_submitted(world: World) -> None:
    world.repository.write("lib/stores.py", STORES)
    world.factory("bad", "stores.saves")
    world.flow("good", {"id": "j"} | ADD)
    with_jobstore(world)
    for _ in range(2):  # also when its build is known
        plan = reconcile(world)
        assert set(world.jobs()) == {"good/j"}
        (problem,) = [found for found in plan.diagnostics if found.is_error]
        assert "'data'" in problem.message and "additional_stores.data" in problem.message
    with_jobstore(world, "other")
    reconcile(world)
    assert set(world.jobs()) == {"good/j"}
    with_jobstore(world, "data")
    reconcile(world)
    world.run()
    assert world.states("bad/saves", "good/j") == ["COMPLETED", "COMPLETED"]


def test_a_generated_job_whose_additional_store_does_not_exist_does_not_run(world: World) -> None:
    world.repository.write("lib/stores.py", STORES)
    world.factory("f", "stores.generates")
    with_jobstore(world)
    reconcile(world)
    world.run()
    assert world.states("f/generates", "f/saves") == ["COMPLETED", "FAILED"]
    assert "additional_stores.data" in (world.job("f/saves").error or "")


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError("too deep"), OverflowError("too large")])
def test_an_error_while_one_result_is_recorded_ends_only_this_job(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world.repository.write("lib/stores.py", STORES)
    world.factory("bad", "stores.generates")
    world.flow("good", *({"id": f"j{number}"} | ADD for number in range(3)))
    reconcile(world)

    real = Generation.add

    def add(self: Generation, *given: Any) -> Any:
        if self.generator.flow == "bad":
            raise error
        return real(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Generation, "add", add)
        world.run()
    assert world.states("good/j0", "good/j1", "good/j2") == ["COMPLETED"] * 3
    assert world.state("bad/generates") == "REMOTE_ERROR"
    assert type(error).__name__ in (world.job("bad/generates").error or "")
    world.flow("next", {"id": "j"} | ADD)
    reconcile(world)
    world.run()
    assert world.state("next/j") == "COMPLETED"
