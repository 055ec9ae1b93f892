"""Conditions as people see them, and what is said about the source."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.actual.store import Store
from reconciler.cli.views.conditions import source_line
from reconciler.model.applied import AppliedRevision, Attempt, AttemptResult
from tests.cli.world import World

pytestmark = pytest.mark.usefixtures("warm")


def test_a_description_has_conditions_and_revisions(world: World) -> None:
    text = world.run("describe", "flow", "failing").stdout
    head = f"main@{world.repository.head[:7]}"
    wanted = [
        "conditions:",
        "  Ready        False    JobsFailed      bad FAILED: RuntimeError: no luck today; 1 job waiting",
        "  Reconciling  False    Idle            nothing is left to do",
        "  Stalled      True     JobsFailed      bad FAILED: RuntimeError: no luck today; 1 job waiting",
        f"  last applied {head}",
    ]
    assert "\n".join(wanted) in text
    held = world.run("describe", "flow", "held").stdout
    assert f"  last applied -\n  last attempted {head}\n" in held
    worker = world.run("describe", "worker", "w1").stdout
    assert "  Ready        True     Reachable       it answers, and has 1 job\n" in worker


def test_a_wide_table_has_a_column_for_each(world: World) -> None:
    header, *lines = world.run("get", "flows", "-o", "wide").stdout.splitlines()
    (failing,) = [line for line in lines if line.startswith("failing")]
    ready, reconciling, stalled = map(header.index, ("IS READY", "RECONCILING", "STALLED"))
    assert failing[ready:reconciling].strip() == "False (JobsFailed)"
    assert failing[reconciling:stalled].strip() == "False"
    assert failing[stalled:].startswith("True (JobsFailed)")
    slow = next(line for line in lines if line.startswith("slow"))
    assert "True (Progressing)" in slow


def test_the_table_of_workers_distinguishes_ready_jobs_from_a_ready_worker(world: World) -> None:
    header, first, *_ = world.run("get", "workers", "-o", "wide").stdout.splitlines()
    place = header.index(" READY ") + 1
    assert first[place:].split()[0] == "0"
    assert first[header.index("IS READY") :].split()[0] == "True"


@pytest.mark.parametrize(
    ("attempt", "line"),
    [
        (
            Attempt(time=0.0, result=AttemptResult.FAILED, message="no answer", fix="look", next_try=140.0),
            "source: Failed: no answer; look; next try in 40 s",
        ),
        (
            Attempt(time=0.0, result=AttemptResult.REFUSED, revision="main@1234567", message="too\nmuch"),
            "source: Refused at main@1234567: too much",
        ),
    ],
)  # fmt: skip
def test_the_line_about_the_source(attempt: Attempt, line: str) -> None:
    assert source_line(attempt, 100.0) == line


def test_an_attempt_counts_until_another_program_applies_a_revision(state_dir: Path) -> None:
    store = Store(state_dir)
    try:
        attempt = Attempt(time=10.0, result=AttemptResult.REFUSED, revision="main@1234567", message="no")
        store.write(lambda writer: writer.put_attempt(attempt))
        with store.read() as view:
            assert view.counted_attempt() == attempt
        later = AppliedRevision(time=11.0, branch="main", commit="1" * 40, path="", summary={})
        store.write(lambda writer: writer.add_revision(later))
        with store.read() as view:
            assert view.counted_attempt() is None
    finally:
        store.close()


def test_every_write_raises_the_version(state_dir: Path) -> None:
    """Those too that touch neither flow nor job, which the change counter does not count."""
    store = Store(state_dir)
    try:
        with store.read() as view:
            before, changes = view.version(), view.change_counter()
        attempt = Attempt(time=10.0, result=AttemptResult.APPLIED)
        store.write(lambda writer: writer.put_attempt(attempt))
        with store.read() as view:
            assert (view.version() > before, view.change_counter()) == (True, changes)
        with store.read() as view:
            unchanged = view.version()
        with store.read() as view:
            assert view.version() == unchanged
    finally:
        store.close()
