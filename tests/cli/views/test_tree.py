"""``get flows --tree``: what is below what, what is left out, and which signs draw it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.actual.store import Store
from reconciler.cli.views.tree import ASCII, BOXES, TreeSymbols, tree_rows
from reconciler.model.records import Cancellation, Change, DeferredPatch, JobAttempt, JobRecord
from reconciler.model.run_config import RunConfig
from reconciler.model.states import JobState
from tests.cli.members import member, put
from tests.cli.world import World
from tests.support import Reconcile, Repository, minimal_project

FLOW = {"name": "f", "health": "Healthy", "reason": "all well"}

SPREAD = [
    member("list"),
    member("spread"),
    member("add", by="spread"),
    member("relax"),
    member("relax@2", by="relax"),
    member("more", by="relax@2"),
    member("relax@3", by="relax@2"),
]


def drawn(jobs: list[JobRecord], signs: TreeSymbols = BOXES, *, everything: bool = False) -> list[str]:
    return [str(row["name"]) for row in tree_rows(FLOW, jobs, signs, everything=everything)]


def test_boxes() -> None:
    assert drawn(SPREAD) == [
        "f",
        "├─ list",
        "├─ spread",
        "│  └─ add",
        "└─ relax",
        "   ├─ relax@2",
        "   │  └─ more",
        "   └─ relax@3",
    ]


def test_ascii() -> None:
    found = drawn(SPREAD, ASCII)
    assert found[1:5] == ["|- list", "|- spread", "|  `- add", "`- relax"]
    assert all(line.isascii() for line in found)


def test_flow_without_jobs() -> None:
    assert drawn([]) == ["f"]


def test_similar_jobs_are_counted_except_failed_and_running_ones() -> None:
    jobs = [member("spread"), *(member(f"add#{number}", by="spread") for number in range(2000))]
    jobs[1500].state, jobs[1600].state, jobs[1700].state = JobState.FAILED, JobState.RUNNING, JobState.READY
    rows = list(tree_rows(FLOW, jobs, BOXES, everything=False))
    assert [row["name"] for row in rows][2:] == [
        *(f"   ├─ add#{number}" for number in (0, 1, 2, 3, 4, 1499, 1599)),
        "   └─ … 1993 more",
    ]
    assert rows[-1]["message"] == "1992 COMPLETED, 1 READY (-v shows all)"
    assert len(drawn(jobs, everything=True)) == 2002


def test_generators_are_always_shown() -> None:
    jobs = [*(member(f"job{number}") for number in range(50)), member("child", by="job49")]
    assert drawn(jobs)[-3:] == ["├─ job49", "│  └─ child", "└─ … 44 more"]


def test_a_thousand_generators_in_a_row() -> None:
    jobs = [member("j0"), *(member(f"j{number}", by=f"j{number - 1}") for number in range(1, 1200))]
    assert drawn(jobs)[-1] == "   " * 1199 + "└─ j1199"


def test_messages() -> None:
    jobs = [
        member("failed", state=JobState.FAILED, error="Traceback\nValueError: no\n"),
        member(
            "stuck", state=JobState.SUBMITTED, attempt=JobAttempt(stuck="its limit is over that of the queue")
        ),
        member("leaving", state=JobState.RUNNING, cancellation=Cancellation(reason="its flow was removed")),
        member(
            "waits",
            state=JobState.RUNNING,
            deferred=DeferredPatch(config=RunConfig(), changes=[Change(field="priority", old=0, new=9)]),
        ),
        member("well\nnamed"),
    ]
    rows = list(tree_rows(FLOW, jobs, BOXES, everything=False))
    assert [row["message"] for row in rows] == [
        "all well", "ValueError: no", "stuck: its limit is over that of the queue",
        "cancelling: its flow was removed", "deferred: priority=9", None,
    ]  # fmt: skip
    assert rows[-1]["name"] == "└─ well named"


class TestAsRun:
    @pytest.fixture
    def state(self, repository: Repository, tmp_path: Path, state_dir: Path) -> Path:
        minimal_project(repository, tmp_path / "work")
        repository.commit()
        state_dir.mkdir()
        store = Store(state_dir)
        put(store, *SPREAD, member("solo", flow="g", state=JobState.READY))
        store.close()
        return state_dir

    def test_table_and_patterns(self, reconcile: Reconcile, state: Path) -> None:
        done = reconcile("--state-dir", str(state), "get", "flows", "--tree", "g", env={"PYTHONUTF8": "1"})
        assert done.stdout.splitlines() == [
            "NAME     STATE        WORKER  MESSAGE",
            "g        Progressing  -       0 of 1 job completed",
            "└─ solo  READY        w1      -",
        ]

    def test_terminal_without_box_characters(self, reconcile: Reconcile, state: Path) -> None:
        ascii_only = {"PYTHONIOENCODING": "ascii"}
        done = reconcile("--state-dir", str(state), "get", "flows", "--tree", "g", env=ascii_only)
        assert "`- solo  READY" in done.stdout

    @pytest.mark.usefixtures("warm")
    def test_data_is_the_same_with_and_without(self, world: World) -> None:
        assert world.json("get", "flows", "--tree") == world.json("get", "flows")
        assert world.run("get", "flows", "--tree", "-o", "name").stdout.split() == [
            *("arithmetic", "failing", "generating", "held", "pair-1", "slow"),
        ]

    @pytest.mark.usefixtures("warm")
    def test_real_flows_also_one_that_was_never_submitted(self, world: World) -> None:
        lines = world.run("get", "flows", "--tree", env={"PYTHONUTF8": "1"}).stdout.splitlines()
        names = [line[: lines[0].index("STATE")].rstrip() for line in lines]
        first = names.index("generating")
        assert sorted(names[first + 1 : first + 7]) == sorted(
            ["├─ list", "├─ spread", "│  ├─ add", "│  └─ add#2", "└─ itself", "   └─ itself@2"]
        )
        (held,) = [line for line in lines if line.startswith("held")]
        assert "Degraded" in held and "there is no Worker named 'w9'" in held
        assert names[-1] == "└─ nap"
