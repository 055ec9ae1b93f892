"""Random repositories for property tests: a model of flows and rules, edits on it, and its YAML.

The model knows nothing of the program. ``meaning`` is the oracle: two jobs compute the same thing exactly
if their meanings are equal.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support import Repository

FUNCTIONS = {
    "reconciler.examples.value": 1,
    "reconciler.examples.add": 2,
    "reconciler.examples.make_list": 2,
    "reconciler.examples.multiply": 2,
    "reconciler.examples.power": 2,
}
"""Function and the number of its arguments."""

WORKERS = ("w1", "w2")


@dataclass(frozen=True)
class Ref:
    """A reference to the output of a job; ``job`` is its token, which no edit changes."""

    job: int
    attribute: str = ""


@dataclass
class JobModel:
    """One job. Its ``token`` is its identity for the tests, ``key`` what the YAML calls it."""

    token: int
    key: str
    function: str
    args: list[int | Ref]
    name: str | None = None
    own: dict[str, Any] = field(default_factory=dict)


@dataclass
class FlowModel:
    """One flow and where its manifest lies."""

    name: str
    file: str
    jobs: list[JobModel]
    run_config: dict[str, Any] = field(default_factory=dict)
    suspend: bool = False
    prune: str | None = None


@dataclass
class RepositoryModel:
    """All flows and rules, in the order of their references; ``gone`` are flows that were removed."""

    flows: list[FlowModel]
    rules: dict[str, dict[str, Any]]
    next_token: int = 0
    comment: str = ""
    sort_keys: bool = False
    gone: list[FlowModel] = field(default_factory=list)

    def places(self) -> dict[int, tuple[FlowModel, JobModel]]:
        """Every job, with its flow, by token."""
        return {job.token: (flow, job) for flow in self.flows for job in flow.jobs}

    def earlier(self, flow: FlowModel, job: JobModel | None = None) -> list[int]:
        """The tokens that a job of a flow may refer to without a circle: whatever has a smaller token.

        Between flows references lead only to flows that stand before.
        """
        found = []
        for other in self.flows:
            if other is flow:
                return found + [j.token for j in flow.jobs if job is None or j.token < job.token]
            found += [j.token for j in other.jobs]
        return found


def random_model(source: random.Random) -> RepositoryModel:
    """Make one to four flows of one to five jobs, and up to two rules."""
    model = RepositoryModel([], {})
    for _ in range(source.randint(1, 4)):
        add_flow(model, source)
    for _ in range(source.randint(0, 2)):
        add_rule(model, source)
    return model


def add_flow(model: RepositoryModel, source: random.Random) -> None:
    name = f"flow{model.next_token}"
    prune = source.choice([None, "cancel", "orphan", "delete"])
    flow = FlowModel(name, f"flows/{name}.yaml", [], random_run_config(source), prune=prune)
    model.flows.append(flow)
    model.next_token += 1
    for _ in range(source.randint(1, 5)):
        add_job(model, source, flow)


def add_job(model: RepositoryModel, source: random.Random, flow: FlowModel | None = None) -> None:
    flow = flow or source.choice(model.flows)
    function = source.choice(list(FUNCTIONS))
    known = model.earlier(flow)
    args = [_argument(source, known) for _ in range(FUNCTIONS[function])]
    token = model.next_token
    model.next_token += 1
    flow.jobs.append(JobModel(token, f"job{token}", function, args, own=random_run_config(source, 0.2)))


def _argument(source: random.Random, known: list[int]) -> int | Ref:
    """Few different numbers, so that jobs with equal contents are common."""
    if known and source.random() < 0.5:
        return Ref(source.choice(known), source.choice(["", "", ".a", "[0]"]))
    return source.randint(0, 2)


def random_run_config(source: random.Random, likely: float = 0.5) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if source.random() < likely:
        found["worker"] = source.choice(WORKERS)
    if source.random() < likely:
        found["priority"] = source.choice([-1, 0, 5])
    return found


def add_rule(model: RepositoryModel, source: random.Random) -> None:
    values = {"priority": source.randint(-3, 3)} | random_run_config(source)
    rule: dict[str, Any] = {"order": source.choice([1, 2]), "set": values}
    rule |= source.choice(
        [{"name_filter": "1"}, {"function_filter": "reconciler.examples.add"}, {"flows": ["flow*"]}]
    )
    model.rules[f"rule{model.next_token}"] = rule
    model.next_token += 1


# edits ------------------------------------------------------------------------------------------------


def remove_job(model: RepositoryModel, source: random.Random) -> None:
    """Remove a job of a flow that has another; who referred to it gets a number."""
    flows = [flow for flow in model.flows if len(flow.jobs) > 1]
    if flows:
        flow = source.choice(flows)
        gone = flow.jobs.pop(source.randrange(len(flow.jobs)))
        _forget(model, {gone.token})


def remove_flow(model: RepositoryModel, source: random.Random) -> None:
    if len(model.flows) > 1:
        flow = model.flows.pop(source.randrange(len(model.flows)))
        _forget(model, {job.token for job in flow.jobs})
        model.gone.append(flow)


def return_flow(model: RepositoryModel, source: random.Random) -> None:
    """Bring a removed flow back, as the last one, so that what it refers to stands before it."""
    if model.gone:
        flow = model.gone.pop(source.randrange(len(model.gone)))
        model.flows.append(flow)
        known = model.places().keys()
        _forget(model, {a.job for j in flow.jobs for a in j.args if isinstance(a, Ref)} - known)


def _forget(model: RepositoryModel, tokens: set[int]) -> None:
    for _, job in model.places().values():
        job.args = [9 if isinstance(arg, Ref) and arg.job in tokens else arg for arg in job.args]


def change_argument(model: RepositoryModel, source: random.Random) -> None:
    flow = source.choice(model.flows)
    job = source.choice(flow.jobs)
    job.args[source.randrange(len(job.args))] = _argument(source, model.earlier(flow, job))


def change_function(model: RepositoryModel, source: random.Random) -> None:
    job = source.choice(source.choice(model.flows).jobs)
    same = [name for name, count in FUNCTIONS.items() if count == FUNCTIONS[job.function]]
    job.function = source.choice(same)


def rename_key(model: RepositoryModel, source: random.Random) -> None:
    job = source.choice(source.choice(model.flows).jobs)
    job.key = f"renamed{model.next_token}"
    model.next_token += 1


def rename_job(model: RepositoryModel, source: random.Random) -> None:
    job = source.choice(source.choice(model.flows).jobs)
    job.name = source.choice([None, "another name", "job 1"])


def reorder_jobs(model: RepositoryModel, source: random.Random) -> None:
    source.shuffle(source.choice(model.flows).jobs)


def move_file(model: RepositoryModel, source: random.Random) -> None:
    """Move a manifest, maybe into a file that has others already."""
    source.choice(model.flows).file = source.choice(
        ["flows/together.yaml", "flows/a/b/c.yml", "flows/x.yaml"]
    )


def change_levels(model: RepositoryModel, source: random.Random) -> None:
    flow = source.choice(model.flows)
    flow.run_config = random_run_config(source)
    source.choice(flow.jobs).own = random_run_config(source)


def remove_rule(model: RepositoryModel, source: random.Random) -> None:
    if model.rules:
        del model.rules[source.choice(list(model.rules))]


def suspend(model: RepositoryModel, source: random.Random) -> None:
    flow = source.choice(model.flows)
    flow.suspend = not flow.suspend


def comment(model: RepositoryModel, source: random.Random) -> None:
    model.comment = f"# {source.randrange(1000)}\n"
    model.sort_keys = not model.sort_keys


Edit = Callable[[RepositoryModel, random.Random], None]

COSMETIC: tuple[Edit, ...] = (
    rename_key, rename_job, move_file, change_levels, add_rule, remove_rule, suspend, comment,
)  # fmt: skip
"""Edits that change nothing of what a job computes."""

EDITS: tuple[Edit, ...] = (
    *COSMETIC, add_flow, add_job, remove_job, remove_flow, return_flow, change_argument, change_function,
    reorder_jobs,
)  # fmt: skip


# the oracle -------------------------------------------------------------------------------------------

Meaning = tuple[Any, ...]


def meanings(model: RepositoryModel) -> dict[int, Meaning]:
    """What every job computes: its function, and its arguments, down to numbers."""
    places, known = model.places(), {}

    def meaning(token: int) -> Meaning:
        if token not in known:
            job = places[token][1]
            args = [
                ("output", meaning(arg.job), arg.attribute) if isinstance(arg, Ref) else arg
                for arg in job.args
            ]
            known[token] = (job.function, *args)
        return known[token]

    for token in places:
        meaning(token)
    return known


def identities(model: RepositoryModel) -> dict[int, tuple[Any, ...]]:
    """What must decide about the uuid: flow, meaning, and the position among equal ones of the flow."""
    found, what = {}, meanings(model)
    for flow in model.flows:
        seen: dict[Meaning, int] = {}
        for job in flow.jobs:
            number = seen.get(what[job.token], 0)
            seen[what[job.token]] = number + 1
            found[job.token] = (flow.name, what[job.token], number)
    return found


def descendants(model: RepositoryModel, token: int) -> set[int]:
    """The job and all that need it, by a walk over the references."""
    found = {token}
    while True:
        more = {
            job.token
            for _, job in model.places().values()
            if any(isinstance(arg, Ref) and arg.job in found for arg in job.args)
        }
        if more <= found:
            return found
        found |= more


# YAML -------------------------------------------------------------------------------------------------


def write(model: RepositoryModel, repository: Repository) -> str:
    """Make the work tree say what the model says, commit, and return the commit."""
    for old in [*repository.path.glob("flows/**/*.y*ml"), *repository.path.glob("rules/*.yaml")]:
        old.unlink()
    files: dict[str, list[str]] = {}
    for flow in model.flows:
        files.setdefault(flow.file, []).append(_document(model, flow_document(model, flow)))
    for name, rule in model.rules.items():
        kind = {"apiVersion": "reconciler/v1", "kind": "OverrideRule"}
        document = kind | {"metadata": {"name": name}, "spec": rule}
        files[f"rules/{name}.yaml"] = [_document(model, document)]
    for path, documents in files.items():
        repository.write(path, model.comment + "\n---\n".join(documents) + "\n")
    return repository.commit()


def _document(model: RepositoryModel, document: dict[str, Any]) -> str:
    """JSON is YAML; every other time in another order of keys."""
    return json.dumps(document, indent=1, sort_keys=model.sort_keys)


def flow_document(model: RepositoryModel, flow: FlowModel) -> dict[str, Any]:
    """The manifest of a flow."""
    spec: dict[str, Any] = {"jobs": [_job(model, flow, job) for job in flow.jobs], **flow.run_config}
    if flow.suspend:
        spec["suspend"] = True
    if flow.prune is not None:
        spec["prune"] = flow.prune
    return {"apiVersion": "reconciler/v1", "kind": "Flow", "metadata": {"name": flow.name}, "spec": spec}


def _job(model: RepositoryModel, flow: FlowModel, job: JobModel) -> dict[str, Any]:
    places = model.places()

    def argument(arg: int | Ref) -> Any:
        if not isinstance(arg, Ref):
            return arg
        other, target = places[arg.job]
        prefix = "" if other is flow else f"{other.name}/"
        return {"$output": f"{prefix}{target.key}{arg.attribute}"}

    entry: dict[str, Any] = {"id": job.key, "function": job.function, "args": [argument(a) for a in job.args]}
    if job.name is not None:
        entry["name"] = job.name
    return entry | job.own


def clone(model: RepositoryModel) -> RepositoryModel:
    """Return a copy that can be edited by itself."""
    flows = [
        replace(flow, jobs=[replace(job, args=list(job.args)) for job in flow.jobs]) for flow in model.flows
    ]
    return replace(model, flows=flows, rules=dict(model.rules), gone=list(model.gone))
