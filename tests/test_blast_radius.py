"""What was fine and becomes invalid keeps its last good version; only what the mistake touches waits.

The real program on real repositories. Each test ends with the repair: everything converges, nothing has run
twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.broken import Campaign, flow, job
from tests.support import Reconcile, Repository

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def campaign(repository: Repository, reconcile: Reconcile, tmp_path: Path) -> Campaign:
    """Two flows that are about to run: ``beside``, and ``victim`` of two jobs in a chain."""
    made = Campaign(repository, reconcile, tmp_path / "work")
    repository.write("flows/victim.yaml", VICTIM)
    repository.commit()
    return made


VICTIM = flow(
    "victim",
    "  jobs:\n    - {id: first, function: tally.tally, args: [first]}\n"
    "    - {id: second, function: tally.tally, args: [second, {$output: first}]}\n",
)

LINK = object()
FLOW_MISTAKES: dict[str, tuple[str | bytes | object, str]] = {
    "unreadable": (VICTIM + "  \t- [", "yaml/"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0", "yaml/"),
    "schema": (VICTIM.replace("jobs", "jbs"), "schema/unknown-field"),
    "kind": (VICTIM.replace("Flow", "Flwo"), "manifest/kind"),
    "metadata": (VICTIM.replace("metadata", "metdata"), "schema/"),
    "invalid new name": (VICTIM.replace("victim", "'my victim'"), "schema/pattern"),
    "reference": (VICTIM.replace("$output: first", "$output: frist"), "flow/unknown-job"),
    "other flow": (VICTIM.replace("$output: first", "$output: nowhere/first"), "reference/unknown-flow"),
    "worker": (VICTIM.replace("spec:", "spec:\n  worker: w9"), "reference/unknown-worker"),
    "function": (VICTIM.replace("tally.tally, args: [first]", "tally.gone"), "build/failed"),
    "duplicate": (VICTIM + "---\n" + VICTIM, "manifest/duplicate"),
    "symlink": (LINK, "source/symlink"),
}


def write_flow(campaign: Campaign, name: str, content: str | bytes | object) -> None:
    """Write the flow ``name``: VICTIM, or what a mistake made of it."""
    file = campaign.repository.path / f"flows/{name}.yaml"
    file.unlink(missing_ok=True)
    if content is LINK:
        file.symlink_to("beside.yaml")
        return
    assert isinstance(content, str | bytes)
    data = content.encode() if isinstance(content, str) else content
    file.write_bytes(
        data.replace(b"name: victim}", f"name: {name}}}".encode()).replace(b"'my victim'", b"'my v'")
    )


def test_flows_that_become_invalid_run_on(campaign: Campaign) -> None:
    """Submitted, then broken while their jobs run: they go on, nothing is cancelled or pruned."""
    campaign.repository.remove("flows/victim.yaml")
    names = {f"v-{name.replace(' ', '-')}": case for name, case in FLOW_MISTAKES.items()}
    for name in names:
        write_flow(campaign, name, VICTIM)
    campaign.repository.commit()
    assert campaign.run("--once").returncode == 0
    for name, (content, _) in names.items():
        write_flow(campaign, name, content)
    campaign.repository.commit("mistakes")
    done = campaign.once()
    assert done.returncode == 2, done.stdout + done.stderr
    assert set(campaign.states().values()) == {"COMPLETED"}
    assert campaign.ran() == sorted(["beside", *["first", "second"] * len(names)])
    for name, (_, code) in names.items():
        assert re.search(rf"error\[{code}[^\n]*\n[^\n]* --> flows/{name}.yaml:\d+:\d+\n", done.stderr), name
        status = campaign.flow(name)
        assert (status["sync"], status["health"], status["removed"]) == ("OutOfSync", "Healthy", False), (
            status
        )
    for name in names:
        write_flow(campaign, name, VICTIM)
    campaign.repository.commit("the repair")
    campaign.assert_converged("beside", *["first", "second"] * len(names))
    assert {campaign.flow(name)["sync"] for name in names} == {"Synced"}


def test_flow_that_is_moved_and_broken_at_once_is_not_pruned(campaign: Campaign) -> None:
    campaign.assert_converged("beside", "first", "second")
    campaign.repository.remove("flows/victim.yaml")
    campaign.repository.write("flows/deeper/moved.yaml", "\t" + VICTIM)
    campaign.repository.commit()
    assert campaign.once().returncode == 2
    assert campaign.flow("victim")["removed"] is False
    campaign.repository.write("flows/deeper/moved.yaml", VICTIM)
    campaign.repository.commit()
    campaign.assert_converged("beside", "first", "second")


def test_flow_that_is_removed_beside_a_broken_one_is_removed(campaign: Campaign) -> None:
    """A document whose name can be read is known not to be the one that went."""
    campaign.assert_converged("beside", "first", "second")
    campaign.repository.remove("flows/victim.yaml")
    campaign.repository.write("flows/new.yaml", flow("new", "  wroker: w1\n" + job("")))
    campaign.repository.commit()
    done = campaign.once()
    assert done.returncode == 2
    assert (
        "victim  (removed from git; its jobs have ended, and their records and outputs stay)" in done.stdout
    )
    assert campaign.run("get", "flows", "-o", "name").stdout.split() == ["beside", "new"]


RULE = (
    "apiVersion: reconciler/v1\nkind: OverrideRule\nmetadata: {name: rule}\n"
    "spec:\n  flows: ['victim*']\n  set: {priority: 7}\n"
)
WORKER = (
    "apiVersion: reconciler/v1\nkind: Worker\nmetadata: {name: w2}\n"
    'spec: {type: local, scheduler_type: shell, work_dir: "WORK/w2"}\n'
)
EXEC_CONFIG = (
    "apiVersion: reconciler/v1\nkind: ExecConfig\nmetadata: {name: code}\nspec: {export: {A: '1'}}\n"
)

SHARED: dict[str, tuple[str, str, Callable[[str], str], str]] = {
    "rule, unreadable": ("rules/r.yaml", RULE, lambda text: text + "\t- [", ""),
    "rule, schema": ("rules/r.yaml", RULE, lambda text: text.replace("priority", "prority"), ""),
    "worker": ("workers/w.yaml", WORKER, lambda text: text.replace("work_dir", "wrk_dir"), "  worker: w2\n"),
    "exec_config": (
        "exec_configs/e.yaml",
        EXEC_CONFIG,
        lambda text: text.replace("export", "exprt"),
        "  exec_config: code\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "text", "mistake", "use"), SHARED.values(), ids=SHARED)
def test_shared_document_that_becomes_invalid(
    campaign: Campaign, file: str, text: str, mistake: Callable[[str], str], use: str
) -> None:
    """It keeps its last good version; a new flow that it touches waits, an untouched one proceeds."""
    repository = campaign.repository
    text = text.replace("WORK", str(campaign.work))
    repository.write(file, text)
    repository.commit()
    campaign.assert_converged("beside", "first", "second")
    repository.write(file, mistake(text))
    for name in ("victim2", "untouched"):
        spec = (use if name == "victim2" else "") + job("").replace("broken", name)
        repository.write(f"flows/{name}.yaml", flow(name, spec))
    repository.commit("a mistake")
    done = campaign.once()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "flow victim2  (waits: " in done.stdout
    assert campaign.ran() == ["beside", "first", "second", "untouched"]
    assert campaign.flow("victim2")["sync"] == "Unknown"
    assert campaign.flow("victim")["sync"] == "Synced"
    repository.write(file, text)
    repository.commit("the repair")
    campaign.assert_converged("beside", "first", "second", "untouched", "victim2")


PROJECT_MISTAKES = {
    "schema": lambda text: text.replace("defaults", "defualts"),
    "unreadable": lambda text: text + "\t: [\n",
    "kind": lambda text: text.replace("Project", "Projct"),
}


@pytest.mark.parametrize("mistake", PROJECT_MISTAKES.values(), ids=PROJECT_MISTAKES)
def test_project_that_becomes_invalid(campaign: Campaign, mistake: Callable[[str], str]) -> None:
    """Running jobs go on, and new submissions wait; without --state-dir too, where its name says which."""
    state = {"XDG_STATE_HOME": str(campaign.work / "default")}
    reconcile, repository = campaign.reconcile, campaign.repository
    assert reconcile("--once", env=state).returncode == 0
    good = (repository.path / "reconciler.yaml").read_text()
    repository.write("reconciler.yaml", mistake(good))
    repository.write("flows/new.yaml", flow("new"))
    repository.commit("a mistake")
    done = reconcile("--once", "--wait", env=state)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "flow new  (waits: " in done.stdout
    assert campaign.ran() == ["beside", "first", "second"]
    repository.write("reconciler.yaml", good)
    repository.commit("the repair")
    done = reconcile("--once", "--wait", env=state)
    assert done.returncode == 0, done.stdout + done.stderr
    assert campaign.ran() == ["beside", "first", "new", "second"]


def test_flows_with_the_same_jobs_share_nothing(campaign: Campaign) -> None:
    """Equal contents under two names are two flows: what was built for one is not taken for the other."""
    twin = campaign.repository.path / "flows/twin.yaml"
    twin.write_text(VICTIM.replace("victim", "twin"))
    campaign.repository.commit()
    campaign.assert_converged("beside", "first", "second", "first", "second")
    campaign.repository.remove("flows/twin.yaml")
    campaign.repository.commit()
    assert campaign.run("--once", "--wait", "--allow-prune").returncode == 0
    assert campaign.flow("victim")["jobs"] == {"COMPLETED": 2}
