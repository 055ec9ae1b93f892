"""A pass that reads little finds what a pass that reads everything finds: over random histories, always."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import reconciler.loop
from reconciler.actual.fsck.examine import repair
from reconciler.actual.writer import Writer
from reconciler.comparison import Comparison
from reconciler.loop import Session, reconcile_once
from reconciler.plan.planner import make_plan
from tests.loop.histories import History, QuickBuilder
from tests.loop.random_repositories import RepositoryModel
from tests.loop.worlds import Silent

EXAMPLES = int(os.environ.get("RECONCILER_TEST_HISTORIES", "8"))
STEPS = 8


@pytest.fixture(autouse=True)
def _quick_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler.loop, "FlowBuilder", QuickBuilder)


def check_unchanged(history: History) -> bool:
    """If a session says that nothing has changed, the plan that reads everything is empty."""
    session = history.session()
    if session.unchanged() is None:
        return False
    plan = session.plan(session.load())
    assert (plan.actions, plan.restated, plan.diagnostics, plan.renames) == ((), (), (), {})
    empty = session.empty_plan()
    assert (empty.revision, empty.base) == (plan.revision, plan.base)
    return True


def check_scope(history: History) -> bool:
    """If a session takes the short way, its plan is the one that reads everything."""
    session = history.session()
    loaded = session.load_scoped()
    if loaded is None:
        return False
    actual = session.actual(loaded.state, scope=loaded.scope)
    short = make_plan(loaded.state, actual, scope=loaded.scope)
    if not session.is_whole(loaded, actual, short):
        return False
    long = session.plan(session.load())
    for part in ("revision", "base", "actions", "restated", "diagnostics", "refusals", "renames"):
        assert getattr(short, part) == getattr(long, part), part
    assert set(short.unsettled) == set(long.unsettled)
    return True


def check(history: History) -> None:
    check_unchanged(history)
    check_scope(history)


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_random_histories(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, random.Random(seed))
    done: list[str] = []
    if seed % 2:
        history.add_flowset()
        history.commit()
    try:
        for _ in range(STEPS):
            history.reconcile()
            check(history)
            for _ in range(history.random.randint(0, 2)):
                history.live()
                done.append("live")
                check(history)
            done += history.step()
            check(history)
    except AssertionError as error:
        error.add_note(f"seed {seed}: {done}")
        raise
    finally:
        history.close()


class TestFilesThatCount:
    """Between two commits only files have changed; which of them make a pass read the manifests?"""

    @pytest.fixture
    def history(self, tmp_path: Path) -> Iterator[History]:
        history = History(tmp_path, random.Random(1))
        history.model = RepositoryModel([], {})
        history.extra = {
            "one": flow_manifest("one", [{"$path": "data/a.txt"}]),
            "two": flow_manifest("two", [{"path": "data/maybe.txt"}]),
        }
        history.commit()
        history.reconcile()
        yield history
        history.close()

    @pytest.mark.parametrize(
        "path", ["README", "data/b.txt", "data/a.txt.bak", "library/x.py", "flows.yaml", "a/flows/x.yaml"]
    )
    def test_others_cost_nothing_but_are_recorded(
        self, history: History, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        history.odd[path] = "other"
        history.commit()
        monkeypatch.setattr(Session, "load", lambda self: pytest.fail("reads the manifests"))
        done = reconcile_once(history.session(), Silent())
        now = str(history.session().revision)
        assert done.plan is not None
        assert (done.plan.actions, done.plan.revision, done.outcome.revision) == ((), now, now)
        with history.store.read() as view:
            config, last = view.config(), view.last_revision()
        assert config is not None and last is not None
        assert config.commit == last.commit == history.repository.head
        assert reconcile_once(history.session(), Silent()).plan is None

    @pytest.mark.parametrize(
        "path", ["data/a.txt", "data/maybe.txt", "lib/new.py", "lib/code.py", "reconciler.yml", "more/r.txt"]
    )
    def test_those_that_count(self, history: History, path: str) -> None:
        history.odd[path] = "other"
        history.commit()
        assert history.session().unchanged() is None

    def test_removed_file(self, history: History) -> None:
        del history.odd["data/a.txt"]
        history.commit()
        assert history.session().unchanged() is None

    def test_table_of_a_flowset(self, history: History) -> None:
        """The rows of a table are items: none of them may be missed."""
        job = {"id": "j", "function": "reconciler.examples.value", "args": [{"$item": "number"}]}
        items = {"from": [{"csv": "data/t.csv"}]}
        spec = {"items": items, "key": "{name}", "template": {"suspend": True, "jobs": [job]}}
        head = {"apiVersion": "reconciler/v1", "kind": "FlowSet", "metadata": {"name": "set"}}
        history.odd["data/t.csv"] = "name,number\na,1\n"
        history.extra["set"] = head | {"spec": spec}
        history.commit()
        history.reconcile()
        assert history.session().unchanged() is not None
        history.odd["data/t.csv"] += "b,2\n"
        history.commit()
        session = history.session()
        assert session.unchanged() is None
        loaded, _, plan = session.compared()
        assert loaded.scope is not None
        assert loaded.scope.flows == loaded.state.flows.keys() == {"set-b"}
        assert {action.key for action in plan.actions} == {"set-b", "set-b/j"}

    def test_another_repository(self, history: History, tmp_path: Path) -> None:
        """The same files without the applied commit may belong to another repository."""
        other = History(tmp_path / "other", random.Random(1))
        other.model, other.extra = history.model, history.extra
        other.odd["README"] = "so that no commit has the same id"
        other.commit()
        other.store.close()
        assert Session(other.source, history.store).unchanged() is None
        assert Session(history.source, history.store).unchanged() is not None

    @pytest.mark.parametrize("option", ["follow", "adopt"])
    def test_moving_the_state_reads_everything(self, history: History, option: str) -> None:
        session = history.session()
        setattr(session, option, True)
        assert session.unchanged() is None

    def test_after_a_repair_everything_is_read(self, history: History) -> None:
        repair(history.store, 1.0)
        assert history.session().unchanged() is None
        history.reconcile()
        assert history.session().unchanged() is not None


def flow_manifest(name: str, args: list[Any]) -> dict[str, Any]:
    """Return a flow of one job."""
    job = {"id": "j", "function": "reconciler.examples.value", "args": args}
    head = {"apiVersion": "reconciler/v1", "kind": "Flow", "metadata": {"name": name}}
    return head | {"spec": {"suspend": True, "jobs": [job]}}


class TestFlowSets:
    """What happens to one set may depend on documents and items that the commit leaves as they are."""

    @pytest.fixture
    def history(self, tmp_path: Path) -> Iterator[History]:
        history = History(tmp_path, random.Random(2))
        history.model = RepositoryModel([], {})
        history.odd["data/t.csv"] = "name,x\n" + "".join(f"r{number},{number}\n" for number in range(6))
        history.extra = {"set": set_manifest("set", "data/t.csv"), "set-z": flow_manifest("set-z", [1])}
        history.commit()
        history.reconcile()
        yield history
        history.close()

    def test_item_takes_the_name_of_a_document(self, history: History) -> None:
        history.odd["data/t.csv"] += "z,1\n"
        history.commit()
        check_scope(history)
        plan = history.session().compared()[2]
        assert {d.code for d in plan.diagnostics} == {"flowset/name-in-use"}

    def test_document_takes_the_name_of_an_item(self, history: History) -> None:
        history.extra["set-r1"] = flow_manifest("set-r1", [1])
        history.commit()
        check_scope(history)
        plan = history.session().compared()[2]
        assert {d.code for d in plan.diagnostics} == {"flowset/name-in-use"}

    def test_item_takes_the_name_of_another_set(self, history: History) -> None:
        history.odd["data/u.csv"] = "name,x\nb-r,1\n"
        history.extra["a"] = set_manifest("a", "data/u.csv")
        history.commit()
        history.reconcile()
        history.odd["data/v.csv"] = "name,x\nr,1\n"
        history.extra["a-b"] = set_manifest("a-b", "data/v.csv")
        history.commit()
        check_scope(history)
        plan = history.session().compared()[2]
        assert {d.code for d in plan.diagnostics} == {"flowset/name-in-use"}

    @pytest.mark.parametrize(("limit", "frozen"), [("34%", False), ("33%", True), (1, True), (2, False)])
    def test_share_that_is_gone_is_that_of_all_flows(
        self, history: History, limit: int | str, frozen: bool
    ) -> None:
        history.extra["set"]["spec"]["limits"] = {"max_removed": limit}
        history.commit()
        history.reconcile()
        history.odd["data/t.csv"] = "name,x\n" + "".join(f"r{number},{number}\n" for number in range(4))
        history.commit()
        assert check_scope(history) is not frozen
        assert bool(history.session().compared()[2].frozen) is frozen

    def test_override_loses_its_only_item(self, history: History) -> None:
        history.extra["set"]["spec"]["overrides"] = [{"keys": ["r5"], "set": {"priority": 1}}]
        history.commit()
        history.reconcile()
        history.odd["data/t.csv"] = history.odd["data/t.csv"].replace("r5,5", "r6,77")
        history.commit()
        check_scope(history)
        plan = history.session().compared()[2]
        assert {d.code for d in plan.diagnostics} == {"flowset/unused-override"}

    def test_type_of_a_value_changes(self, history: History) -> None:
        """``1 == 1.0`` in Python, but not for a job."""
        history.odd["data/t.csv"] = history.odd["data/t.csv"].replace("r1,1", "r1,1.0")
        history.commit()
        assert check_scope(history)
        assert {action.key for action in history.session().compared()[2].actions} >= {"set-r1/j"}

    def test_unsettled_flow_of_a_set_that_is_unchanged(self, history: History) -> None:
        history.store.write(lambda writer: writer.unsettle("set-r3"))
        history.odd["README"] = "other"
        history.commit()
        assert check_scope(history)
        loaded = history.session().load_scoped()
        assert loaded is not None
        assert loaded.state.flows.keys() == {"set-r3"}
        assert loaded.state.flowsets["set"].items == 6


def set_manifest(name: str, table: str) -> dict[str, Any]:
    """Return a FlowSet of flows of one job."""
    job = {"id": "j", "function": "reconciler.examples.value", "args": [{"$item": "x"}]}
    head = {"apiVersion": "reconciler/v1", "kind": "FlowSet", "metadata": {"name": name}}
    items = {"from": [{"csv": table}]}
    return head | {"spec": {"items": items, "key": "{name}", "template": {"suspend": True, "jobs": [job]}}}


class TestFullPlan:
    """``plan --full`` compares everything, and tells if the short way has missed something."""

    @pytest.fixture
    def history(self, tmp_path: Path) -> Iterator[History]:
        history = History(tmp_path, random.Random(3))
        history.model = RepositoryModel([], {})
        history.extra = {name: flow_manifest(name, [1]) for name in ("one", "two")}
        history.commit()
        history.reconcile()
        yield history
        history.close()

    def test_agrees(self, history: History) -> None:
        history.extra["one"] = flow_manifest("one", [2])
        history.commit()
        short = Comparison(history.source, history.store).compared()
        full = Comparison(history.source, history.store, full=True).compared()
        assert (short[0].scope is not None, full[0].scope) == (True, None)
        assert short[2].actions == full[2].actions != ()

    def test_reports_what_was_missed_and_wins(self, history: History) -> None:
        def tamper(writer: Writer) -> None:
            job = next(job for job in writer.jobs() if job.flow == "two")
            writer.put_job(replace(job, name="tampered"))
            writer.settle(["two"], 2**60)  # as if nobody had noticed

        history.store.write(tamper)
        assert Comparison(history.source, history.store).compared()[2].actions == ()
        plan = Comparison(history.source, history.store, full=True).compared()[2]
        assert [action.key for action in plan.actions] == ["two/j"]
        assert [(d.code, d.is_error) for d in plan.diagnostics] == [("plan/scope-bug", False)]
        assert "misses something: two" in plan.diagnostics[0].message
        assert Comparison(history.source, history.store).compared()[2].actions == plan.actions
