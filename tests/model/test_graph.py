"""A flow as a graph and as a tree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.graph import Branch, flow_graph, job_tree, missing_parents
from tests.cli.members import member

MEMBERS = [
    member("list"),
    member("spread", "list"),
    member("sum", "spread", "add", "add#2"),
    member("add", by="spread"),
    member("add#2", by="spread"),
    member("relax", "far"),
    member("relax@2", "relax", by="relax"),
    member("relax@3", by="relax@2"),
    member("extra", by="relax@2"),
    member("after", "relax"),
    member("old", "list", current=False),
]
FAR = [member("far", flow="other"), member("far@2", flow="other"), member("unused", flow="other")]


def arrows(history: bool = False) -> set[tuple[str, str, str]]:
    graph = flow_graph("f", MEMBERS, FAR, history=history)
    keys = {job.id: job.path for job in graph.jobs}
    return {(keys[edge.source], str(edge.kind), keys[edge.target]) for edge in graph.edges}


class TestGraph:
    def test_arrows(self) -> None:
        assert arrows() == {
            ("f/list", "data", "f/spread"),
            ("f/spread", "data", "f/sum"),
            ("f/add", "data", "f/sum"),
            ("f/add#2", "data", "f/sum"),
            ("f/spread", "generated", "f/add"),
            ("f/spread", "generated", "f/add#2"),
            ("other/far@2", "data", "f/relax"),
            ("f/relax", "data", "f/relax@2"),
            ("f/relax", "generation", "f/relax@2"),
            ("f/relax@2", "generation", "f/relax@3"),
            ("f/relax@2", "generated", "f/extra"),
            ("f/relax@3", "data", "f/after"),
        }

    def test_jobs_of_other_flows_come_first_and_only_if_needed(self) -> None:
        assert [job.path for job in flow_graph("f", MEMBERS, FAR).jobs][:2] == ["other/far@2", "f/list"]
        assert missing_parents(MEMBERS) == {"far"}

    def test_history_only_if_asked_for(self) -> None:
        assert arrows(history=True) - arrows() == {("f/list", "data", "f/old")}

    def test_a_job_that_is_not_shown_has_no_arrow(self) -> None:
        gone = member("gone", current=False)
        graph = flow_graph("f", [gone, member("child", "gone", "nowhere", by="gone")])
        assert ([job.key for job in graph.jobs], graph.edges) == (["child"], ())


def lines(branches: list[Branch], depth: int = 0) -> list[str]:
    return [
        line
        for branch in branches
        for line in ["." * depth + branch.job.key, *lines(branch.below, depth + 1)]
    ]


class TestTree:
    def test_what_was_generated_is_below_its_generator_and_generations_side_by_side(self) -> None:
        assert lines(job_tree(MEMBERS)) == [
            *("list", "spread", ".add", ".add#2", "sum", "relax", ".relax@2", "..extra", ".relax@3", "after"),
        ]

    def test_generator_that_is_history_leaves_its_job_at_the_top(self) -> None:
        assert lines(job_tree([member("gone", current=False), member("child", by="gone")])) == ["child"]

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=30))
    def test_every_job_is_there_once(self, made: list[tuple[int, int]]) -> None:
        """Whatever generated what: another job, itself, nothing, or one that is not known."""
        jobs = [member("j0")]
        for uuid, generator in made:
            number = sum(1 for job in jobs if job.uuid == f"j{uuid}")
            key = f"j{uuid}@{number + 1}" if number else f"j{uuid}"
            by = jobs[generator].key if generator < len(jobs) else "unknown"
            jobs.append(member(key, by=by))
        shown = [line.lstrip(".") for line in lines(job_tree(jobs))]
        assert sorted(shown) == sorted(job.key for job in jobs)
