"""Who a job is: by what it computes, and by nothing else. Random repositories, real git, real processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.model.flows import BuiltFlow
from tests.loop.random_repositories import (
    COSMETIC,
    JobModel,
    RepositoryModel,
    clone,
    descendants,
    identities,
    random_model,
    write,
)
from tests.loop.worlds import SharedBuilder, World

PROPERTY = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
seeds = st.integers(0, 2**32).map(random.Random)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[World]]:
    """Two repositories, each with a build process of its own, whose hashes of strings differ."""
    made = []
    for number in (1, 2):
        root = tmp_path_factory.mktemp(f"world{number}")
        made.append(World(root, SharedBuilder(root / "builds")))
    yield made
    for world in made:
        world.builder.close()
        world.close()


def uuids(model: RepositoryModel, built: dict[str, BuiltFlow]) -> dict[int, str]:
    """The uuid of every job of the model."""
    by_key = {(name, job.key): job.uuid for name, flow in built.items() for job in flow.jobs}
    return {token: by_key[flow.name, job.key] for token, (flow, job) in model.places().items()}


def build(world: World, model: RepositoryModel) -> dict[int, str]:
    write(model, world.repository)
    return uuids(model, world.build())


class TestIdentity:
    """The uuid is a function of flow, meaning and position among equals; and tells them apart."""

    known: ClassVar[dict[tuple[Any, ...], str]] = {}

    @PROPERTY
    @given(source=seeds)
    def test_uuid_and_meaning_correspond_one_to_one(self, worlds: list[World], source: random.Random) -> None:
        model = random_model(source)
        found = build(worlds[0], model)
        for token, identity in identities(model).items():
            assert self.known.setdefault(identity, found[token]) == found[token]
        assert len(set(self.known.values())) == len(self.known)

    @PROPERTY
    @given(source=seeds)
    def test_two_processes_agree(self, worlds: list[World], source: random.Random) -> None:
        model = random_model(source)
        first, second = worlds
        write(model, first.repository)
        write(model, second.repository)
        assert first.build() == second.build()

    @PROPERTY
    @given(source=seeds, edit=st.sampled_from(COSMETIC))
    def test_cosmetic_edits_change_no_uuid(
        self, worlds: list[World], source: random.Random, edit: Any
    ) -> None:
        model = random_model(source)
        before = build(worlds[0], model)
        edited = clone(model)
        edit(edited, source)
        assert build(worlds[0], edited) == before

    @PROPERTY
    @given(source=seeds)
    def test_the_order_of_jobs_gives_no_job_another_uuid(
        self, worlds: list[World], source: random.Random
    ) -> None:
        """Only jobs that compute the same may swap theirs."""
        model = random_model(source)
        before = build(worlds[0], model)
        shuffled = clone(model)
        for flow in shuffled.flows:
            source.shuffle(flow.jobs)
        assert sorted(build(worlds[0], shuffled).values()) == sorted(before.values())

    @PROPERTY
    @given(source=seeds)
    def test_an_edit_reaches_the_job_and_its_descendants_only(
        self, worlds: list[World], source: random.Random
    ) -> None:
        model = random_model(source)
        for token, (_, job) in model.places().items():
            _make_unique(job, token)
        before = build(worlds[0], model)
        edited = clone(model)
        _, job = source.choice(list(edited.places().values()))
        job.args[source.randrange(len(job.args))] = 12345
        changed = descendants(model, job.token) if edited != model else set()
        after = build(worlds[0], edited)
        assert {token for token in before if before[token] != after[token]} == changed


def _make_unique(job: JobModel, token: int) -> None:
    """Give the job a number of its own, so that no two compute the same."""
    job.function, job.args = "reconciler.examples.add_many", [*job.args, 1000 + token]
