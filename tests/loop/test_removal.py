"""Flows that are removed from git: what becomes of what runs, of records and outputs; what is refused.

Real processes; each job appends its name to a log when it begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.view import View
from reconciler.jobs.outputs import EmbeddedOutputs
from reconciler.loop import Session
from reconciler.model.reasons import ReasonCode
from tests.execution.support import World, eventually, processes_below
from tests.loop.growing import Tree, grown, log, plan, settle
from tests.support import Reconcile, Repository, minimal_project

pytestmark = [pytest.mark.usefixtures("warm"), pytest.mark.timeout(300)]


class Removed(World):
    """A flow ``f`` of done -> runs -> after, where ``done`` has generated ``born``, and ``runs`` waits."""

    def begin(self, *, project: str | None = None, **spec: Any) -> None:
        """Submit it beside another one; ``runs`` runs, and ``done`` is done."""
        if project is not None:
            file = self.repository.path / "reconciler.yaml"
            file.write_text(file.read_text().replace("spec: {", f"spec: {{prune: {project}, "))
        self.flow("other", grown(self, "other", {"name": "other"}))
        self.write(**spec)
        self.reconcile()
        self.until(lambda: "runs" in log(self) and self.states("f/born", "other/other") == ["COMPLETED"] * 2)

    def write(self, **spec: Any) -> None:
        done: Tree = {"name": "done", "addition": [{"name": "born"}]}
        self.flow(
            "f",
            grown(self, "done", done),
            grown(self, "runs", {"name": "runs", "gate": str(self.gate)}, "done"),
            grown(self, "after", {"name": "after"}, "runs"),
            **spec,
        )

    @property
    def gate(self) -> Path:
        return self.root / "gate"

    def remove(self) -> None:
        self.repository.remove("flows/f.yaml")
        self.reconcile()

    def outputs(self, *paths: str) -> list[Any]:
        """Return what the jobs have found, by the uuids that they had."""
        found = (EmbeddedOutputs(self.store).latest(self.uuids[path]) for path in paths)
        return [document["output"] if document is not None else None for document in found]

    def remember(self) -> None:
        self.uuids = {path: job.uuid for path, job in self.jobs().items()}
        self.directory = Path(str(self.job("f/runs").attempt.run_dir))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Removed]:
    made = Removed(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("spec", [{}, {"project": "orphan", "prune": "cancel"}])
def test_cancel_ends_what_runs_and_keeps_what_was_found(spec: dict[str, str], world: Removed) -> None:
    world.begin(**spec)
    world.remember()
    world.remove()
    world.run()
    assert eventually(lambda: not processes_below(world.directory), 30)
    assert world.states("f/done", "f/born", "f/runs", "f/after") == [
        "COMPLETED", "COMPLETED", "USER_STOPPED", "USER_STOPPED"
    ]  # fmt: skip
    assert world.outputs("f/done", "f/born") == ["done", "born"]
    assert not plan(world).effective
    world.gate.touch()
    before = log(world)
    world.write(**{key: value for key, value in spec.items() if key != "project"})
    settle(world)
    assert log(world)[len(before) :] == ["runs", "after"], "it is wanted again: the rest runs"


@pytest.mark.parametrize("spec", [{"prune": "orphan"}, {"project": "orphan"}])
def test_orphan_lets_everything_run_on(spec: dict[str, str], world: Removed) -> None:
    world.begin(**spec)
    world.remove()
    assert not plan(world).effective
    world.gate.touch()
    world.run()
    assert world.states("f/done", "f/born", "f/runs", "f/after") == ["COMPLETED"] * 4
    assert log(world).count("runs") == 1
    before = log(world)
    world.write(**{key: value for key, value in spec.items() if key != "project"})
    settle(world)
    assert log(world) == before, "wanted again: it has all of its results"


@pytest.mark.parametrize("spec", [{"prune": "delete"}, {"project": "delete"}])
def test_delete_ends_what_runs_first_and_then_leaves_nothing(spec: dict[str, str], world: Removed) -> None:
    world.begin(**spec)
    world.remember()
    world.remove()
    assert world.job("f/runs").cancellation.reason == "its flow was removed"
    assert world.outputs("f/done", "f/born") == ["done", "born"], "as long as something of it runs"
    assert not plan(world).effective
    world.run()
    assert eventually(lambda: not processes_below(world.directory), 30)
    world.reconcile()
    assert [path for path in world.jobs() if path.startswith("f/")] == []
    assert world.view(lambda view: view.flow("f")) is None
    assert world.outputs("f/done", "f/born") == [None, None]
    for table in ("payloads", "by_flow", "by_path", "children"):
        keys = world.view(lambda view, table=table: list(view.txn.keys(table)))
        assert not [key for key in keys if any(uuid.encode() in key for uuid in world.uuids.values()
                    if uuid != world.uuids["other/other"])]  # fmt: skip
    assert not plan(world).effective


def test_protection_outlives_its_own_annotation_until_it_is_taken_back(world: Removed) -> None:
    def annotate(value: str | None) -> None:
        file = world.repository.path / "flows/f.yaml"
        world.write()
        if value is not None:
            note = f"{{name: f, annotations: {{reconciler/prune: {value}}}}}"
            file.write_text(file.read_text().replace("{name: f}", note))

    world.begin()
    annotate("disabled")
    world.reconcile()
    annotate(None)
    world.reconcile()
    world.remove()
    kept = plan(world)
    assert not kept.effective and not kept.refusals
    (reason,) = (action.reason for action in kept.actions if action.key == "f")
    assert reason.code is ReasonCode.REMOVED_PROTECTED
    assert world.view(View.config).out_of_sync["f"] == str(reason)
    world.gate.touch()
    world.run()
    assert world.states("f/done", "f/born", "f/runs", "f/after") == ["COMPLETED"] * 4
    annotate("enabled")
    world.reconcile()
    assert not world.view(lambda view: view.flow("f")).protected
    world.remove()
    assert world.view(lambda view: view.flow("f")).removed


def test_a_protection_that_is_misspelt_is_an_error(world: Removed) -> None:
    world.write()
    file = world.repository.path / "flows/f.yaml"
    text = file.read_text()
    file.write_text(text.replace("{name: f}", "{name: f, annotations: {reconciler/prune: disable}}"))
    world.repository.commit()
    (problem,) = Session(world.source, world.store).load().state.diagnostics
    assert "disabled" in f"{problem.message} {problem.hint}"
    assert str(problem.location).startswith("flows/f.yaml:4:")


# guards ---------------------------------------------------------------------------------------------------

FLOW = """\
apiVersion: reconciler/v1
kind: Flow
metadata: {{name: {name}}}
spec: {{suspend: true, jobs: [{{id: value, function: reconciler.examples.value, args: [1]}}]}}
"""


class Guarded:
    """A project in the folder ``campaign`` of a repository, with four flows that are submitted."""

    def __init__(self, repository: Repository, root: Path) -> None:
        self.repository = repository
        self.call = Reconcile(repository.path)
        self.place = ("--path", "campaign", "--state-dir", str(root / "state"))
        minimal_project(repository, root / "work")
        repository.move("reconciler.yaml", "campaign/reconciler.yaml")
        for name in ("one", "two", "three", "four"):
            repository.write(f"campaign/flows/{name}.yaml", FLOW.format(name=name))
        repository.write("README", "beside it")
        repository.commit()
        assert self.run("--once").returncode == 0

    def run(self, *arguments: str) -> Any:
        return self.call(*self.place, *arguments)

    def flows(self) -> list[str]:
        """Return the flows that the store shows, whatever the revision says."""
        done = self.call(*self.place[2:], "get", "flows", "-o", "json")
        return [flow["name"] for flow in json.loads(done.stdout)]

    def remove(self, *files: str) -> None:
        for file in files:
            self.repository.run("rm", "-rq", f"campaign/{file}")
        self.repository.commit()


@pytest.fixture
def guarded(repository: Repository, tmp_path: Path) -> Guarded:
    return Guarded(repository, tmp_path)


def two_flows(guarded: Guarded) -> None:
    guarded.remove("flows/one.yaml", "flows/two.yaml")


def all_flows(guarded: Guarded) -> None:
    guarded.remove("flows")


def its_folder_of_manifests(guarded: Guarded) -> None:
    file = guarded.repository.path / "campaign/reconciler.yaml"
    file.write_text(
        file.read_text().replace("spec:\n  defaults", "spec:\n  manifests: [rules]\n  defaults", 1)
    )
    guarded.repository.commit()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            two_flows,
            "would cancel 2 of 4 flows: one, two; 2 of their jobs have not ended; that is more than max_",
        ),
        (
            all_flows,
            "has no flows; applying it would cancel 4 of 4 flows: four, one, three, two; 4 of their",
        ),
        (its_folder_of_manifests, "has no flows; applying it would cancel 4 of 4 flows"),
    ],
)
def test_a_revision_that_removes_much_is_refused_until_it_is_meant(
    change: Callable[[Guarded], None], words: str, guarded: Guarded
) -> None:
    change(guarded)
    for verb in ("plan", "--once"):
        done = guarded.run(verb)
        assert (done.returncode, words in done.stdout + done.stderr) == (4, True), done.stderr
        assert "--allow-prune" in done.stdout + done.stderr
    assert len(guarded.flows()) == 4
    assert guarded.run("--once", "--allow-prune").returncode == 0
    assert len(guarded.flows()) == (2 if change is two_flows else 0)


def test_what_max_prune_allows_is_no_matter(guarded: Guarded) -> None:
    guarded.remove("flows/one.yaml")
    assert guarded.run("--once").returncode == 0
    assert len(guarded.flows()) == 3


@pytest.mark.parametrize("gone", ["", "reconciler.yaml"])
def test_a_path_or_a_project_that_is_gone_cancels_nothing(gone: str, guarded: Guarded) -> None:
    project = (guarded.repository.path / "campaign/reconciler.yaml").read_text()
    guarded.remove(gone)
    what = (
        "HEAD no longer has the directory 'campaign'"
        if not gone
        else f"'campaign' of main@{guarded.repository.head[:7]} no longer has a reconciler.yaml"
    )
    for arguments in (("--once",), ("--once", "--allow-prune"), ("plan",)):
        done = guarded.run(*arguments)
        assert done.returncode == 4
        assert f"{what}" in done.stderr and f"commit {guarded.repository.head[:7]} removed it" in done.stderr
        assert "Treating it as empty would cancel all its flows, so nothing was changed" in done.stderr
        assert "--allow-prune" in done.stderr and "--path" in done.stderr
    guarded.repository.run("rm", "-rq", "--ignore-unmatch", "campaign")
    guarded.repository.write("campaign/reconciler.yaml", project)
    guarded.repository.commit()
    assert guarded.run("--once").returncode == 4, "it has no flow: a guard of its own"
    assert len(guarded.flows()) == 4
    assert guarded.run("--once", "--allow-prune").returncode == 0
    assert guarded.flows() == []


def test_a_path_that_never_was_is_a_mistake_of_typing(guarded: Guarded) -> None:
    done = guarded.call("--path", "campain", *guarded.place[2:], "--once")
    assert (done.returncode, "check --path" in done.stderr) == (2, True)


def test_a_campaign_that_moves_to_another_folder_is_no_change(guarded: Guarded) -> None:
    guarded.repository.move("campaign", "moved")
    guarded.repository.commit()
    guarded.place = ("--path", "moved", *guarded.place[2:])
    done = guarded.run("--once")
    assert (done.returncode, "4 flows, 4 jobs" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "cancel" not in done.stdout and len(guarded.flows()) == 4
