"""Random commits: what may be edited in the repository of the state machine, and how."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from tests.conformance.edits_world import Document, Files, document, find

Draw = Callable[[st.SearchStrategy[Any]], Any]

CODE = '''"""Code of the campaign: a function by a second name, and a flow whose jobs configure themselves."""

from jobflow import Flow

from reconciler.examples import add, value

__all__ = ["add", "coded"]


def coded() -> Flow:
    relax, static = value(1), add(2, 3)
    relax.name, static.name = "relax coded", "static"
    relax.config.manager_config = {"priority": 2, "resources": {}}
    static.config.pass_manager_config = False
    return Flow([relax, static])
'''

JOBS = [
    {"id": "relax", "function": "reconciler.examples.value", "args": [1]},
    {"id": "relax-2", "function": "reconciler.examples.add", "args": [{"$output": "relax"}, 1]},
    {"id": "Static", "name": "static relax", "function": "campaign.add", "args": [1, 2], "priority": 3},
    {"id": "dos", "function": "reconciler.examples.value", "args": [3], "config": {
        "response_manager_config": {"priority": 4}}},
]  # fmt: skip

NAMES = ("relax", "relax more", "static", "dos [1]", "child*")
"""What jobs that are generated may be called."""

KEYS = ("worker", "exec_config", "resources", "qresources", "priority", "retries")


def first_files(root: str) -> Files:
    """Return the manifests that every example begins with."""
    local = {"type": "local", "scheduler_type": "shell"}
    workers = [
        document("Worker", name, local | {"work_dir": f"{root}/{name}"}) for name in ("w1", "w2", "w3")
    ]
    workers[2]["spec"]["resources"] = {"qverbatim": "# one"}
    factory = {"function": "campaign.coded"}
    return {
        "reconciler.yaml": [
            document("Project", "edits", {"python_path": ["lib"], "defaults": {"worker": "w1"}})
        ],
        "workers/all.yaml": workers,
        "exec_configs/all.yaml": [
            document("ExecConfig", name, {"pre_run": f"echo {name}"}) for name in ("ec1", "ec2")
        ],
        "flows/alpha.yaml": [document("Flow", "alpha", {"jobs": JOBS}, labels={"campaign": "x"})],
        "flows/beta.yaml": [document("Flow", "beta", {"worker": "w3", "priority": 5, "jobs": JOBS[:2]})],
        "flows/coded.yaml": [document("Flow", "coded", {"exec_config": "ec1", "factory": factory})],
        "rules/c.yaml": [
            document("OverrideRule", "glob", {"name_glob": "relax", "set": {"exec_config": {}}}),
            document("OverrideRule", "alias", {"function_filter": "campaign.add", "set": {"worker": "w3"}}),
            document(
                "OverrideRule",
                "static",
                {
                    "dynamic": False,
                    "flows": ["alpha"],
                    "name_filter": "static",
                    "labels": {"campaign": "x"},
                    "set": {"priority": 0},
                },
            ),
        ],
    }


class Edits:
    """Edits ``files``; ``draw`` makes every choice."""

    draw: Draw

    def __init__(self, files: Files) -> None:
        self.files = files
        self.numbers = itertools.count(1)

    def edit(self, draw: Draw) -> str:
        """Make one random edit, and return what it was."""
        self.draw = draw
        edits: list[Callable[[], None]] = [
            self.add_rule, self.add_rule, self.add_rule, self.edit_rule, self.edit_rule, self.reorder_rule,
            self.move_rule, self.swap_rules, self.remove_rule, self.edit_selector, self.edit_flow,
            self.edit_flow, self.edit_job, self.edit_project, self.edit_worker, self.edit_exec_config,
            self.rename_worker, self.rename_exec_config, self.edit_labels, self.move_flow,
        ]  # fmt: skip
        chosen: Callable[[], None] = self.draw(st.sampled_from(edits))
        chosen()
        return chosen.__name__

    # rules --------------------------------------------------------------------------------------------

    def rules(self) -> list[tuple[str, Document]]:
        """Return every rule with its file."""
        return [
            (file, one)
            for file, documents in self.files.items()
            for one in documents
            if one["kind"] == "OverrideRule"
        ]

    def a_rule(self) -> tuple[str, Document] | None:
        found = self.rules()
        return self.draw(st.sampled_from(found)) if found else None

    def add_rule(self) -> None:
        spec = self.selector() | {"set": {}}
        if self.draw(st.booleans()):
            spec["order"] = self.draw(ORDERS)
        while not spec["set"]:
            self.edit_level(spec["set"])
            self.edit_level(spec["set"])
        self.put_rule(document("OverrideRule", f"r{self.fresh()}", spec))

    def put_rule(self, rule: Document) -> None:
        """Write a rule to one of four files, at any position."""
        documents = self.files.setdefault(f"rules/{self.draw(st.sampled_from('abcd'))}.yaml", [])
        documents.insert(self.draw(st.integers(0, len(documents))), rule)

    def edit_rule(self) -> None:
        found = self.a_rule()
        if found is not None:
            values = found[1]["spec"]["set"]
            before = dict(values)
            self.edit_level(values)
            if not values:  # the schema wants at least one
                values.update(before)

    def reorder_rule(self) -> None:
        found = self.a_rule()
        if found is not None:
            found[1]["spec"]["order"] = self.draw(ORDERS)

    def move_rule(self) -> None:
        found = self.a_rule()
        if found is not None:
            self.files[found[0]].remove(found[1])
            self.put_rule(found[1])

    def swap_rules(self) -> None:
        found = self.a_rule()
        if found is not None:
            self.files[found[0]].reverse()

    def remove_rule(self) -> None:
        found = self.a_rule()
        if found is not None:
            self.files[found[0]].remove(found[1])

    def edit_selector(self) -> None:
        found = self.a_rule()
        if found is not None:
            spec = found[1]["spec"]
            kept = {key: spec[key] for key in ("order", "set") if key in spec}
            spec.clear()
            spec.update(kept | self.selector())

    def selector(self) -> dict[str, Any]:
        """Return a random selector: each of its six parts is given or not."""
        return dict(self.draw(SELECTORS))

    # the other levels ---------------------------------------------------------------------------------

    def edit_level(self, level: dict[str, Any], *, keep: str = "") -> None:
        """Give one key of a level another value, empty it, or take it away (but not ``keep``)."""
        key = self.draw(st.sampled_from(KEYS))
        if key in level and key != keep and self.draw(st.booleans()):
            del level[key]
            return
        if key in ("resources", "qresources"):
            level.pop("qresources" if key == "resources" else "resources", None)
        level[key] = self.draw(self.values_of(key))

    def values_of(self, key: str) -> st.SearchStrategy[Any]:
        """Return what may stand under a key. The workers are shells, so few resources are possible."""
        match key:
            case "worker":
                return st.sampled_from(self.names("Worker"))
            case "exec_config":
                return st.sampled_from([*self.names("ExecConfig"), {}, {"pre_run": "echo here"}])
            case "resources":
                return st.sampled_from([{}, {"qverbatim": "# one"}, {"qverbatim": "# two"}])
            case "qresources":
                return st.just({})
            case "retries":
                return st.sampled_from([{"limit": 0}, {"limit": 2}, {"limit": 1, "on": ["oom"]}])
        return st.sampled_from([-3, 0, 1, 5])

    def edit_flow(self) -> None:
        self.edit_level(self.a_flow()["spec"])

    def edit_job(self) -> None:
        spec = self.a_flow()["spec"]
        if "jobs" in spec:
            self.edit_level(self.draw(st.sampled_from(spec["jobs"])))

    def edit_project(self) -> None:
        self.edit_level(find(self.files, "Project", "edits")["spec"]["defaults"], keep="worker")

    def edit_worker(self) -> None:
        """Change the default resources of a worker."""
        spec = find(self.files, "Worker", self.draw(st.sampled_from(self.names("Worker"))))["spec"]
        key = self.draw(st.sampled_from(["resources", "qresources", "max_jobs"]))
        for old in ("resources", "qresources"):
            spec.pop(old, None)
        spec[key] = self.draw(self.values_of(key)) if key != "max_jobs" else 3

    def edit_exec_config(self) -> None:
        spec = find(self.files, "ExecConfig", self.draw(st.sampled_from(self.names("ExecConfig"))))["spec"]
        spec["pre_run"] = self.draw(st.sampled_from(["echo a", "echo b", "echo c"]))

    def edit_labels(self) -> None:
        self.a_flow()["metadata"]["labels"] = dict(self.draw(LABELS))

    def move_flow(self) -> None:
        """A file's name is no identity."""
        flow = self.a_flow()
        for documents in self.files.values():
            if flow in documents:
                documents.remove(flow)
        self.files.setdefault(f"flows/moved-{self.fresh()}.yaml", []).append(flow)

    def a_flow(self) -> Document:
        return find(self.files, "Flow", self.draw(st.sampled_from(self.names("Flow"))))

    # names --------------------------------------------------------------------------------------------

    def rename_worker(self) -> None:
        self.rename("Worker", "worker")

    def rename_exec_config(self) -> None:
        self.rename("ExecConfig", "exec_config")

    def rename(self, kind: str, field: str) -> None:
        """Give a manifest another name, and follow it everywhere in the same commit."""
        old = self.draw(st.sampled_from(self.names(kind)))
        new = f"{old.partition('-')[0]}-{self.fresh()}"
        find(self.files, kind, old)["metadata"]["name"] = new
        for level in self.levels():
            if level.get(field) == old:
                level[field] = new

    def levels(self) -> Iterator[dict[str, Any]]:
        """Yield everything in the repository that gives run config."""
        yield find(self.files, "Project", "edits")["spec"]["defaults"]
        yield from (rule["spec"]["set"] for _, rule in self.rules())
        for name in self.names("Flow"):
            spec = find(self.files, "Flow", name)["spec"]
            yield spec
            yield from spec.get("jobs", [])

    def names(self, kind: str) -> list[str]:
        """Return the names of all manifests of a kind."""
        return sorted(one["metadata"]["name"] for docs in self.files.values() for one in docs
                      if one["kind"] == kind)  # fmt: skip

    def fresh(self) -> int:
        """Return a number that no name has had."""
        return next(self.numbers)


ORDERS = st.sampled_from([-1, 99, 100, 101])

LABELS = st.dictionaries(st.sampled_from(["campaign", "stage"]), st.sampled_from("xy"))

PARTS: dict[str, st.SearchStrategy[Any]] = {
    "flows": st.lists(st.sampled_from(["alpha", "*a", "[bc]*", "ALPHA", "none"]), max_size=2),
    "labels": LABELS,
    "name_filter": st.sampled_from(["relax", "static", "dos", "a", " ", "*"]),
    "name_glob": st.sampled_from(["relax*", "*", "relax", "?os", "dos ?[]1]*", "RELAX"]),
    "function_filter": st.sampled_from(
        ["reconciler.examples.value", "reconciler.examples.add", "campaign.add", "campaign.none"]
    ),
    "dynamic": st.booleans(),
}

SELECTORS = st.lists(st.sampled_from(sorted(PARTS)), max_size=3, unique=True).flatmap(
    lambda parts: st.fixed_dictionaries({part: PARTS[part] for part in parts})
)
"""Up to three of the six parts: with more of them hardly any rule would match a job."""
