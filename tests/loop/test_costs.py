"""A change costs what it changes: counted operations, not seconds, in a small and in a large campaign."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import reconciler.loop
from reconciler.actual import view as view_module
from reconciler.actual.view import View
from reconciler.cli.views.data import flows_data
from reconciler.cli.wait_targets import Targets
from reconciler.desired.yaml import reader as reader_module
from reconciler.jobs.bookkeeping import summarise
from reconciler.loop import Session
from reconciler.model.actions import Plan
from reconciler.model.goals import Goal, GoalKind
from reconciler.model.states import JobState
from tests.loop.histories import History, QuickBuilder
from tests.loop.random_repositories import RepositoryModel
from tests.loop.worlds import Silent

COUNTED = ("decode_job", "decode_flow", "decode_build", "decode_parsed")
"""Readers of records in :mod:`reconciler.actual.view`; documents of manifests are in parsed files."""

SMALL, LARGE = 100, 2000


def flow(name: str, number: int, **spec: Any) -> dict[str, Any]:
    """Return a flow of two jobs."""
    jobs = [
        {"id": "a", "function": "reconciler.examples.value", "args": [number]},
        {"id": "b", "function": "reconciler.examples.add", "args": [{"$output": "a"}, 1]},
    ]
    head = {"apiVersion": "reconciler/v1", "kind": "Flow", "metadata": {"name": name}}
    return head | {"spec": {"suspend": True, "jobs": jobs, **spec}}


def rule(flows: str) -> dict[str, Any]:
    """Return a rule."""
    head = {"apiVersion": "reconciler/v1", "kind": "OverrideRule", "metadata": {"name": "rule"}}
    return head | {"spec": {"flows": [flows], "set": {"priority": 3}}}


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, History]]:
    """Campaigns of many flows, all submitted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconciler.loop, "FlowBuilder", QuickBuilder)
        for name in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{name}_NAME", "ada")
            patch.setenv(f"GIT_{name}_EMAIL", "ada@example.invalid")
        made = {size: _campaign(tmp_path_factory.mktemp(f"campaign{size}"), size) for size in (SMALL, LARGE)}
        yield made
        for history in made.values():
            history.close()


def _campaign(root: Path, size: int) -> History:
    history = History(root, random.Random(1))
    history.model = RepositoryModel([], {})
    history.extra = {f"f{number:04}": flow(f"f{number:04}", number) for number in range(size)}
    history.commit()
    history.session().reconcile(Silent())
    return history


def counted(history: History, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], Plan]:
    """Plan and apply the last commit; return how many records of each kind were read, and the plan."""
    counts: Counter[str] = Counter()

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            counts[name] += 1
            return original(*arguments)

        return run

    with monkeypatch.context() as patch:
        for name in COUNTED:
            patch.setattr(view_module, name, watched(name, getattr(view_module, name)))
        patch.setattr(reader_module, "parse_file", watched("parse_file", reader_module.parse_file))
        session = Session(history.source, history.store)
        session.compared()
        plan = session.reconcile(Silent(), allow_prune=True).plan
    return counts, plan


def change_a_flow(history: History) -> None:
    history.extra["f0042"] = flow("f0042", history.random.randint(10**6, 10**7))


def add_a_flow(history: History) -> None:
    history.extra["new"] = flow("new", 7, priority=2)


def remove_a_rule(history: History) -> None:
    history.extra.pop("rule")


def add_a_rule(history: History) -> None:
    history.extra["rule"] = rule("f001?")


def refer_to_a_flow(history: History) -> None:
    other = flow("f0007", 7)
    other["spec"]["jobs"].append(
        {"id": "c", "function": "reconciler.examples.value", "args": [{"$output": "f0042/a"}]}
    )
    history.extra["f0007"] = other


def note_beside(history: History) -> None:
    history.odd["README"] = str(history.random.random())


CHANGES: tuple[Callable[[History], None], ...] = (
    change_a_flow, add_a_flow, add_a_rule, remove_a_rule, refer_to_a_flow, change_a_flow, note_beside,
)  # fmt: skip
"""One after the other, in both campaigns."""


LOOKS: tuple[Callable[[View], object], ...] = (
    flows_data,
    lambda view: Targets(["*"], None, None).verdicts(view),
    lambda view: Targets(["*"], Goal(GoalKind.SYNCED), None).verdicts(view),
    lambda view: Targets(["*"], Goal(GoalKind.IDLE), None).verdicts(view),
    lambda view: Targets(["*"], Goal(GoalKind.STATE, states=frozenset({JobState.PAUSED})), None).verdicts(
        view
    ),
    lambda view: summarise(view, "key", "main", (), clean=True),
)


@pytest.mark.parametrize("look", LOOKS)
def test_to_look_at_all_flows_reads_no_job(
    campaigns: dict[int, History], monkeypatch: pytest.MonkeyPatch, look: Callable[[View], object]
) -> None:
    def decode(data: bytes) -> None:
        raise AssertionError("a job is read")

    with campaigns[LARGE].store.read() as view, monkeypatch.context() as patch:
        patch.setattr(view_module, "decode_job", decode)
        assert look(view)


def test_a_change_costs_the_same_in_a_large_campaign(
    campaigns: dict[int, History], monkeypatch: pytest.MonkeyPatch
) -> None:
    for change in CHANGES:
        found = {}
        for size, history in campaigns.items():
            change(history)
            history.commit()
            found[size] = counted(history, monkeypatch)
        (few, small), (many, large) = found[SMALL], found[LARGE]
        assert few == many, change.__name__
        assert [(a.type, a.key) for a in small.actions] == [(a.type, a.key) for a in large.actions]
        assert bool(small.actions) == (change is not note_beside)
        if change is note_beside:
            assert few.keys() == {"decode_parsed"}  # the Project and its workers


# one FlowSet ----------------------------------------------------------------------------------------------


class SetOfItems:
    """A campaign of one FlowSet over a csv file, all submitted."""

    def __init__(self, root: Path, size: int) -> None:
        self.rows = {f"k{number:05}": str(number) for number in range(size)}
        self.history = History(root, random.Random(1))
        self.history.model = RepositoryModel([], {})
        job = {"id": "j", "function": "reconciler.examples.value", "args": [{"$item": "x"}]}
        head = {"apiVersion": "reconciler/v1", "kind": "FlowSet", "metadata": {"name": "set"}}
        items = {"from": [{"csv": "data/t.csv"}]}
        template = {"suspend": True, "jobs": [job]}
        self.spec: dict[str, Any] = {"items": items, "key": "{name}", "template": template}
        self.history.extra = {"set": head | {"spec": self.spec}}
        self.commit()
        self.history.session().reconcile(Silent())

    def commit(self) -> None:
        lines = ["name,x", *(f"{name},{x}" for name, x in self.rows.items())]
        self.history.odd["data/t.csv"] = "\n".join(lines) + "\n"
        self.history.commit()

    def change_a_row(self) -> None:
        self.rows["k00042"] = "1.5"

    def add_a_row_on_top(self) -> None:
        self.rows = {"new": "7"} | self.rows

    def sort_rows_backwards(self) -> None:
        self.rows = dict(reversed(self.rows.items()))

    def override_an_item(self) -> None:
        self.spec["overrides"] = [{"keys": ["k00007"], "set": {"priority": 3}}]

    def allow_fewer_items(self) -> None:
        self.spec["limits"] = {"max_removed": 1}


SET_CHANGES = (
    (SetOfItems.change_a_row, {"set-k00042"}),
    (SetOfItems.add_a_row_on_top, {"set-new"}),
    (SetOfItems.sort_rows_backwards, set[str]()),
    (SetOfItems.override_an_item, {"set-k00007"}),
    (SetOfItems.allow_fewer_items, set[str]()),
)


def test_a_change_of_a_flowset_costs_the_same_with_many_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler.loop, "FlowBuilder", QuickBuilder)
    sets = {size: SetOfItems(tmp_path / str(size), size) for size in (SMALL, LARGE)}
    for change, changed in SET_CHANGES:
        found = {}
        for size, one in sets.items():
            change(one)
            one.commit()
            found[size] = counted(one.history, monkeypatch)
        (few, small), (many, large) = found[SMALL], found[LARGE]
        assert few == many, change.__name__
        assert [(a.type, a.key) for a in small.actions] == [(a.type, a.key) for a in large.actions]
        assert {action.key.partition("/")[0] for action in large.actions} == changed, change.__name__
    for one in sets.values():
        one.history.close()
