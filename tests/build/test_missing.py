"""Builds that a desired state lacks: how they are stored, and in which order what is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.build import missing
from reconciler.build.missing import KeptBuilds, build_missing
from reconciler.desired.source.git import Source
from reconciler.desired.state import load_desired
from reconciler.diagnostics import Diagnostic
from reconciler.model.desired import DesiredState
from reconciler.model.flows import BuiltFlow
from tests.desired.test_flows import NoCache
from tests.loop.histories import QuickBuilder
from tests.support import Repository


class CountingStore(Store):
    writes = 0

    def write(self, change):  # type: ignore[no-untyped-def]
        self.writes += 1
        return super().write(change)


def build_of(number: int) -> BuiltFlow:
    return BuiltFlow(build_key=f"k{number}", jobs=[], jobflow_version="1")


def stored(store: Store) -> set[str]:
    with store.read() as view:
        return {key.decode() for key in view.txn.keys("builds")}


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "state")


def test_fast_builds_share_transactions_and_slow_ones_are_stored_at_once(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(missing.time, "monotonic", lambda: now[0])
    kept = KeptBuilds(store)
    for number in range(1501):
        now[0] += 0.0001
        kept.add(build_of(number))
    assert store.writes == 4
    assert len(stored(store)) == 1501, "the first, and three times 500"
    for number in range(2000, 2003):
        now[0] += 1.0
        kept.add(build_of(number))
        assert f"k{number}" in stored(store)
    now[0] += 0.1
    kept.add(build_of(3000))
    assert "k3000" not in stored(store)
    kept.flush()
    assert "k3000" in stored(store)
    writes = store.writes
    kept.flush()
    assert store.writes == writes


def test_a_build_with_an_odd_value_is_refused_where_it_is_that_of_one_flow(store: CountingStore) -> None:
    kept = KeptBuilds(store)
    with pytest.raises(TypeError):
        kept.add(BuiltFlow(build_key="odd", jobs=[], jobflow_version="1", form={"x": object()}))
    kept.add(build_of(1))
    kept.flush()
    assert stored(store) == {"k1"}


def flows(repository: Repository, **documents: str) -> DesiredState:
    head = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}{}}}\nspec:\n"
    repository.write("reconciler.yaml", head.format("Project", "p", "") + "  defaults: {}\n")
    for name, argument in documents.items():
        labels = ", labels: {broken: 'yes'}" if name.startswith("bad") else ""
        job = f"  jobs: [{{id: a, function: reconciler.examples.value, args: [{argument}]}}]\n"
        repository.write(f"flows/{name}.yaml", head.format("Flow", name, labels) + job)
    repository.commit()
    source = Source(repository.path / ".git", repository.path, None, "")
    return load_desired(source, source.revision(), NoCache(), {}).state


class OneBehind(QuickBuilder):
    """Returns the flows in the reverse order of those that are under way."""

    def __init__(self, desired: DesiredState) -> None:
        super().__init__(None, desired, Path())  # type: ignore[arg-type]
        self.under_way: list[object] = []

    def start(self, flow, externals):  # type: ignore[no-untyped-def]
        self.under_way.append((flow, externals))
        self.unfinished = len(self.under_way)

    def next(self):  # type: ignore[no-untyped-def]
        flow, externals = self.under_way.pop()
        self.unfinished = len(self.under_way)
        try:
            return flow, self.build(flow, externals)
        except missing.BuildFailedError as error:
            return flow, error


def test_flows_wait_for_those_that_they_refer_to_and_problems_keep_their_order(
    repository: Repository,
) -> None:
    desired = flows(
        repository, bad1="1", bad2="2", bad3="3", fine="4",
        user="{$output: fine/a}", user2="{$output: user/a}", blocked="{$output: bad2/a}",
    )  # fmt: skip
    built: dict[str, BuiltFlow] = {}
    failures: dict[str, Diagnostic] = {}
    said: list[str] = []
    builder = OneBehind(desired)
    build_missing(builder, built, failures, say=said.append)  # type: ignore[arg-type]
    assert set(built) == {"fine", "user", "user2"}
    assert list(failures) == ["bad1", "bad2", "bad3"]
    assert built["user2"].externals == {"user/a": built["user"].exports["a"]}
    assert sorted(said) == [f"building {name}" for name in ("bad1", "bad2", "bad3", "fine", "user", "user2")]


def test_of_many_flows_only_the_number_is_told(repository: Repository) -> None:
    desired = flows(repository, **{f"f{number}": str(number) for number in range(21)})
    said: list[str] = []
    built: dict[str, BuiltFlow] = {}
    build_missing(OneBehind(desired), built, {}, say=said.append)  # type: ignore[arg-type]
    assert said == ["building 21 flows"]
    assert len(built) == 21


def test_a_build_that_cannot_be_kept_stops_its_flow_only(repository: Repository, store: Store) -> None:
    desired = flows(repository, one="1", two="2")

    def keep(build: BuiltFlow) -> None:
        if build.preview == {"a": desired.flows["one"].preview[0].digest}:
            raise ZeroDivisionError("odd")
        store.write(lambda writer: Writer.put_build(writer, build))

    built: dict[str, BuiltFlow] = {}
    failures: dict[str, Diagnostic] = {}
    builder = OneBehind(desired)
    builder.unexpected = lambda flow, error: missing.BuildFailedError(  # type: ignore[attr-defined]
        flow.manifest.diagnostic("build/failed", str(error), "/spec")
    )
    build_missing(builder, built, failures, say=lambda line: None, keep=keep)  # type: ignore[arg-type]
    assert list(built) == ["two"]
    assert failures["one"].message == "odd"
