"""plan(apply(plan)) is empty: for random repositories, random edits, and jobs in any state."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from reconciler.model.records import JobRecord
from reconciler.model.states import JobState
from tests.loop.random_repositories import EDITS, random_model
from tests.loop.worlds import SharedBuilder, World, fields

seeds = st.integers(0, 2**32).map(random.Random)
numbers = itertools.count()
MakeWorld = Callable[[], World]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedBuilder]:
    shared = SharedBuilder(tmp_path_factory.mktemp("builds"))
    yield shared
    shared.close()


@pytest.fixture
def make_world(tmp_path_factory: pytest.TempPathFactory, builder: SharedBuilder) -> Iterator[MakeWorld]:
    made: list[World] = []

    def make() -> World:
        made.append(World(tmp_path_factory.mktemp(f"world{next(numbers)}"), builder))
        return made[-1]

    yield make
    for world in made:
        world.close()


def check_kept(before: list[JobRecord], after: list[JobRecord], wanted: set[str]) -> None:
    """A result is never lost or computed again, and a job on its way is never touched but to cancel it."""
    now = {job.id: job for job in after}
    for job in before:
        assert job.id in now or job.flow not in wanted
        if job.id not in now:
            continue
        if job.state is JobState.COMPLETED:
            assert now[job.id].state is JobState.COMPLETED
            assert now[job.id].attempt.number == job.attempt.number
        if job.state in (JobState.SUBMITTED, JobState.RUNNING) and now[job.id].current:
            held = {"state", "config", "attempt", "code"}
            assert {k: fields(job)[k] for k in held} == {k: fields(now[job.id])[k] for k in held}


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(source=seeds)
def test_after_every_apply_nothing_is_left_to_do(make_world: MakeWorld, source: random.Random) -> None:
    world = make_world()
    model = random_model(source)
    for _ in range(4):
        before = world.jobs()
        built = world.apply(model)
        assert world.left_to_do() == []
        assert world.current() == {(name, job.uuid) for name, flow in built.items() for job in flow.jobs}
        world.check_sound()
        check_kept(before, world.jobs(), {flow.name for flow in model.flows})
        world.live_a_little(source)
        assert world.left_to_do() == []
        world.check_sound()
        for edit in source.choices(EDITS, k=source.randint(1, 3)):
            note(edit.__name__)
            edit(model, source)
