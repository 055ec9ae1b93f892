"""What a commit can edit, and the complete plan that it leads to; no code of the user is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.jobs.job_json import JobResponse
from reconciler.model.states import JobState
from tests.conformance.edits_cases import CASES, Case, base_files
from tests.conformance.edits_world import Builds, EditWorld, new_job, told
from tests.support import ROOT


class Answers:
    """What a process said that reconciled with every case, and after each with the commit before it."""

    def __init__(self, world: EditWorld, root: Path) -> None:
        world.complete(
            "arithmetic/value",
            JobResponse(addition=[new_job("born", "0" * 8 + "-0000-4000-8000-" + "1" * 12)]),
        )
        world.place("arithmetic/add", JobState.RUNNING)
        self.before = {
            path: [str(job.state), job.config.worker_name, False] for path, job in world.jobs().items()
        }
        assert told(world.apply().effective) == {}
        commits = []
        for case in CASES:
            world.files = base_files(str(root))
            start = world.commit(f"before: {case.name}")
            case.edit(world.files)
            edit = world.commit(case.name)
            commits += [edit, edit, start]
        world.store.close()
        done = subprocess.run(
            [sys.executable, "-m", "tests.conformance.edits_process",
             str(world.repository.path), str(world.store.path), *commits],
            cwd=ROOT, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        self.imported: set[str] = set(answer["imported"])
        plans = answer["plans"]
        self.plans: dict[str, dict[str, Any]] = {
            case.name: {
                "edit": plans[3 * number],
                "again": plans[3 * number + 1],
                "back": plans[3 * number + 2],
            }
            for number, case in enumerate(CASES)
        }


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, builds: Builds) -> Answers:
    root = tmp_path_factory.mktemp("cases")
    world = EditWorld(root, builds, base_files(str(root)))
    world.submit()
    return Answers(world, root)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_commit_leads_to_exactly_its_patches(case: Case, answers: Answers) -> None:
    found = answers.plans[case.name]["edit"]
    assert found["errors"] == []
    assert without_digests(found["told"]) == {
        action: {field: list(change) for field, change in changes.items()}
        for action, changes in case.told.items()
    }
    assert answers.plans[case.name]["again"]["told"] == {}
    running = found["jobs"]["arithmetic/add"]
    assert running == ["RUNNING", "w1", "Defer arithmetic/add" in case.told]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_commit_before_it_gives_everything_back(case: Case, answers: Answers) -> None:
    found = answers.plans[case.name]["back"]
    assert found["errors"] == []
    assert set(found["told"]) == {action.replace("Defer", "Patch") for action in case.told}
    assert found["jobs"] == answers.before


def test_no_code_of_the_user_is_imported_for_it(answers: Answers) -> None:
    heavy = {"jobflow", "maggma", "qtoolkit", "fabric", "networkx", "numpy", "pymatgen"}
    assert heavy & answers.imported == set()


def without_digests(plan: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, list[Any]]]:
    """Write ``vasp@1a2b3c4`` as ``vasp@old`` and ``vasp@new``."""
    return {
        action: {field: nameless(*change) for field, change in changes.items()}
        for action, changes in plan.items()
    }


def nameless(old: Any, new: Any) -> list[Any]:
    if not (isinstance(old, str) and "@" in old and isinstance(new, str)):
        return [old, new]
    (name, before), (other, after) = old.split("@"), new.split("@")
    assert name == other and before != after and len(before) == len(after) == 7
    return [f"{name}@old", f"{name}@new"]
