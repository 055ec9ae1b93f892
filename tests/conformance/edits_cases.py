"""Commits that edit what was submitted: each with the complete plan that it must lead to.

Setting: arithmetic/value is COMPLETED and has generated arithmetic/born (READY), arithmetic/add is RUNNING;
other/value is READY, other/add is WAITING.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tests.conformance.edits_world import Document, Files, document, find

Told = dict[str, dict[str, tuple[Any, Any]]]
"""What a plan does: ``{"Patch flow/job": {field: (old, new)}}``."""

JOBS: list[dict[str, Any]] = [
    {"id": "value", "function": "reconciler.examples.value", "args": [5]},
    {"id": "add", "function": "reconciler.examples.add", "args": [{"$output": "value"}, 2], "priority": 3},
]


def rule(name: str, values: dict[str, Any], **selector: Any) -> Document:
    """Return an override rule."""
    return document("OverrideRule", name, selector | {"set": values})


def base_files(root: str) -> Files:
    """Return the manifests that every case edits."""
    local = {"type": "local", "scheduler_type": "shell"}
    workers = [
        document("Worker", name, local | {"work_dir": f"{root}/{name}"}) for name in ("w1", "w2", "w3")
    ]
    workers[2]["spec"]["resources"] = {"qverbatim": "# default"}
    other = [JOBS[0], {key: JOBS[1][key] for key in ("id", "function", "args")}]
    arithmetic = {"exec_config": "ec1", "priority": 5, "jobs": JOBS}
    files = {
        "reconciler.yaml": [document("Project", "cases", {"defaults": {"worker": "w1"}})],
        "workers/all.yaml": workers,
        "exec_configs/all.yaml": [
            document("ExecConfig", name, {"pre_run": f"echo {name}"}) for name in ("ec1", "ec2")
        ],
        "flows/arithmetic.yaml": [document("Flow", "arithmetic", arithmetic, labels={"campaign": "eos"})],
        "flows/other.yaml": [document("Flow", "other", {"worker": "w3", "jobs": other})],
        "rules/b.yaml": [
            rule("first", {"priority": 7}, name_filter="add"),
            rule("second", {"priority": 8, "exec_config": "ec2"}, flows=["other"], name_glob="a*"),
        ],
        "rules/c.yaml": [rule("born", {"priority": 1}, flows=["arith*"], name_filter="born")],
        "rules/labelled.yaml": [rule("tested", {"resources": {}}, labels={"stage": "test"})],
    }
    return {file: deepcopy(documents) for file, documents in files.items()}


@dataclass(frozen=True)
class Case:
    """One commit, and what must come of it."""

    name: str
    edit: Callable[[Files], None]
    told: Told


CASES: list[Case] = []


def case(name: str, **told: dict[str, tuple[Any, Any]]) -> Callable[[Callable[[Files], None]], None]:
    """Add a case; ``Patch_other__add`` stands for ``Patch other/add``."""

    def add(edit: Callable[[Files], None]) -> None:
        expected = {key.replace("__", "/").replace("_", " "): changes for key, changes in told.items()}
        CASES.append(Case(name, edit, expected))

    return add


def spec_of(files: Files, kind: str, name: str) -> dict[str, Any]:
    """Return the spec of a manifest, to be changed."""
    found: dict[str, Any] = find(files, kind, name)["spec"]
    return found


# rules ----------------------------------------------------------------------------------------------------

DEFAULT = {"qverbatim": "# default"}


@case(
    "a rule is added",
    Patch_arithmetic__value={"worker": ("w1", "w2")},
    Patch_other__value={"worker": ("w3", "w2"), "resources": (DEFAULT, None)},
    Patch_arithmetic__born={"worker": ("w1", "w2")},
)
def _(files: Files) -> None:
    files["rules/new.yaml"] = [rule("new", {"worker": "w2"}, name_glob="val*")]


@case("a rule is added that agrees with what is")
def _(files: Files) -> None:
    files["rules/new.yaml"] = [
        rule("new", {"worker": "w1", "priority": 5}, flows=["arithmetic"], name_glob="value")
    ]


@case("a rule is changed", Defer_arithmetic__add={"priority": (7, -2)})
def _(files: Files) -> None:
    """Of other/add the second rule decides."""
    spec_of(files, "OverrideRule", "first")["set"]["priority"] = -2


@case(
    "a rule selects other jobs",
    Defer_arithmetic__add={"priority": (7, 3)},
    Patch_other__value={"priority": (None, 7)},
)
def _(files: Files) -> None:
    spec = spec_of(files, "OverrideRule", "first")
    del spec["name_filter"]
    spec |= {"function_filter": "reconciler.examples.value", "flows": ["oth?r"]}


@case("the order of a rule", Patch_other__add={"priority": (8, 7)})
def _(files: Files) -> None:
    spec_of(files, "OverrideRule", "first")["order"] = 101


@case("the file name of a rule", Patch_other__add={"priority": (8, 7)})
def _(files: Files) -> None:
    files["rules/z.yaml"] = [files["rules/b.yaml"].pop(0)]


@case("the position of a rule in its file", Patch_other__add={"priority": (8, 7)})
def _(files: Files) -> None:
    files["rules/b.yaml"].reverse()


@case("a rule is moved to where nothing changes")
def _(files: Files) -> None:
    files["rules/a.yaml"] = [files["rules/b.yaml"].pop(0)]


@case("a rule is renamed")
def _(files: Files) -> None:
    find(files, "OverrideRule", "first")["metadata"]["name"] = "anew"


@case("a rule is removed", Patch_other__add={"priority": (8, 7), "exec_config": ("ec2", None)})
def _(files: Files) -> None:
    files["rules/b.yaml"].pop()


@case("a key of a rule is removed", Patch_other__add={"exec_config": ("ec2", None)})
def _(files: Files) -> None:
    del spec_of(files, "OverrideRule", "second")["set"]["exec_config"]


@case("a value of a rule is emptied", Patch_other__add={"exec_config": ("ec2", {})})
def _(files: Files) -> None:
    spec_of(files, "OverrideRule", "second")["set"]["exec_config"] = {}


@case(
    "a rule is no longer dynamic: what it gave to a generated job goes",
    Patch_arithmetic__born={"priority": (1, 5)},
)
def _(files: Files) -> None:
    spec_of(files, "OverrideRule", "born")["dynamic"] = False


# flows, jobs, the project ---------------------------------------------------------------------------------

FLOW = {"exec_config": "ec1", "priority": 5}


@case(
    "a value of a flow is changed",
    Patch_arithmetic={"run config": (FLOW, FLOW | {"priority": 6})},
    Patch_arithmetic__value={"priority": (5, 6)},
)
def _(files: Files) -> None:
    """The running job and the generated one have theirs from rules."""
    spec_of(files, "Flow", "arithmetic")["priority"] = 6


@case(
    "a value of a flow is removed",
    Patch_arithmetic={"run config": (FLOW, {"priority": 5})},
    Patch_arithmetic__value={"exec_config": ("ec1", None)},
    Defer_arithmetic__add={"exec_config": ("ec1", None)},
    Patch_arithmetic__born={"exec_config": ("ec1", None)},
)
def _(files: Files) -> None:
    del spec_of(files, "Flow", "arithmetic")["exec_config"]


@case(
    "the worker of a flow is removed",
    Patch_other={"run config": ({"worker": "w3"}, {})},
    Patch_other__value={"worker": ("w3", "w1"), "resources": (DEFAULT, None)},
    Patch_other__add={"worker": ("w3", "w1"), "resources": (DEFAULT, None)},
)
def _(files: Files) -> None:
    del spec_of(files, "Flow", "other")["worker"]


@case("a value of a job is added", Patch_other__value={"priority": (None, 4)})
def _(files: Files) -> None:
    """A value for other/add changes nothing: the rules are stronger."""
    for one in spec_of(files, "Flow", "other")["jobs"]:
        one["priority"] = 4


@case("a value of a job below a rule")
def _(files: Files) -> None:
    del spec_of(files, "Flow", "arithmetic")["jobs"][1]["priority"]


@case(
    "a default of the project",
    Patch_arithmetic__value={"worker": ("w1", "w2")},
    Defer_arithmetic__add={"worker": ("w1", "w2")},
    Patch_arithmetic__born={"worker": ("w1", "w2")},
)
def _(files: Files) -> None:
    spec_of(files, "Project", "cases")["defaults"]["worker"] = "w2"


@case(
    "a label that a rule waits for",
    Patch_other={"labels": ({}, {"stage": "test"})},
    Patch_other__value={"resources": (DEFAULT, {})},
    Patch_other__add={"resources": (DEFAULT, {})},
)
def _(files: Files) -> None:
    find(files, "Flow", "other")["metadata"]["labels"] = {"stage": "test"}


@case("a label that no rule asks for", Patch_arithmetic={"labels": ({"campaign": "eos"}, {})})
def _(files: Files) -> None:
    del find(files, "Flow", "arithmetic")["metadata"]["labels"]


@case(
    "a rule asks for a label that one flow has",
    Patch_arithmetic__value={"resources": (None, {})},
    Defer_arithmetic__add={"resources": (None, {})},
    Patch_arithmetic__born={"resources": (None, {})},
)
def _(files: Files) -> None:
    spec_of(files, "OverrideRule", "tested")["labels"] = {"campaign": "eos"}


@case("a flow is moved to another file")
def _(files: Files) -> None:
    files["flows/new/name.yaml"] = files.pop("flows/other.yaml")


# workers and exec configs ---------------------------------------------------------------------------------


@case(
    "the default resources of a worker",
    Patch_other__value={"resources": (DEFAULT, {"qverbatim": "# new"})},
    Patch_other__add={"resources": (DEFAULT, {"qverbatim": "# new"})},
)
def _(files: Files) -> None:
    spec_of(files, "Worker", "w3")["resources"] = {"qverbatim": "# new"}


@case(
    "the default resources of a worker are removed",
    Patch_other__value={"resources": (DEFAULT, None)},
    Patch_other__add={"resources": (DEFAULT, None)},
)
def _(files: Files) -> None:
    del spec_of(files, "Worker", "w3")["resources"]


@case("what else a worker has")
def _(files: Files) -> None:
    spec_of(files, "Worker", "w3")["max_jobs"] = 2


@case(
    "the content of an ExecConfig",
    Patch_other__add={"exec_config": ("ec2@old", "ec2@new")},
)
def _(files: Files) -> None:
    spec_of(files, "ExecConfig", "ec2")["pre_run"] = "echo something else"


@case(
    "the content of an ExecConfig of a running job",
    Patch_arithmetic__value={"exec_config": ("ec1@old", "ec1@new")},
    Defer_arithmetic__add={"exec_config": ("ec1@old", "ec1@new")},
    Patch_arithmetic__born={"exec_config": ("ec1@old", "ec1@new")},
)
def _(files: Files) -> None:
    spec_of(files, "ExecConfig", "ec1")["export"] = {"OMP_NUM_THREADS": "2"}


@case(
    "a worker is renamed with all its uses",
    Patch_other={"run config": ({"worker": "w3"}, {"worker": "big"})},
    Patch_other__value={"worker": ("w3", "big")},
    Patch_other__add={"worker": ("w3", "big")},
)
def _(files: Files) -> None:
    find(files, "Worker", "w3")["metadata"]["name"] = "big"
    spec_of(files, "Flow", "other")["worker"] = "big"


@case(
    "the default worker is renamed with all its uses",
    Patch_arithmetic__value={"worker": ("w1", "first")},
    Defer_arithmetic__add={"worker": ("w1", "first")},
    Patch_arithmetic__born={"worker": ("w1", "first")},
)
def _(files: Files) -> None:
    """Where the running job runs is not forgotten: see the worker of its record."""
    find(files, "Worker", "w1")["metadata"]["name"] = "first"
    spec_of(files, "Project", "cases")["defaults"]["worker"] = "first"


@case(
    "an ExecConfig is renamed with all its uses",
    Patch_other__add={"exec_config": ("ec2", "second")},
)
def _(files: Files) -> None:
    find(files, "ExecConfig", "ec2")["metadata"]["name"] = "second"
    spec_of(files, "OverrideRule", "second")["set"]["exec_config"] = "second"


@case(
    "several things at once",
    Patch_other={"run config": ({"worker": "w3"}, {"worker": "w2", "priority": 0})},
    Patch_other__value={"worker": ("w3", "w2"), "resources": (DEFAULT, None)},
    Patch_other__add={"worker": ("w3", "w2"), "resources": (DEFAULT, None), "priority": (8, 9)},
    Defer_arithmetic__add={"priority": (7, 9), "worker": ("w1", "w2")},
)
def _(files: Files) -> None:
    spec_of(files, "Flow", "other").update(worker="w2", priority=0)
    files["rules/z.yaml"] = [
        rule("z", {"priority": 9, "worker": "w2"}, function_filter="reconciler.examples.add")
    ]
