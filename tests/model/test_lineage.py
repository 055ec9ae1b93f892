"""Which repository and project a state belongs to."""

from __future__ import annotations

import pytest

from reconciler.errors import ForeignStateError, RefusedError
from reconciler.model.lineage import Lineage, lineage_for

A, B, C = "a" * 40, "b" * 40, "c" * 40
KNOWN = Lineage("p", [A, B])


def after(known: Lineage | None, project: str, roots: list[str], **how: bool) -> Lineage:
    return lineage_for(known, project, roots, **({"same_path": True, "adopt": False} | how))


@pytest.mark.parametrize(
    ("roots", "kept"),
    [([A], [A, B]), ([B, C], [A, B, C]), ([], [A, B]), ([A, B], [A, B])],
)
def test_one_common_root_is_enough_and_all_are_remembered(roots: list[str], kept: list[str]) -> None:
    assert after(KNOWN, "p", roots) == Lineage("p", kept)


def test_a_new_state_and_one_of_a_shallow_clone_take_what_they_get() -> None:
    assert after(None, "p", [B, A]) == Lineage("p", [A, B])
    assert after(Lineage("p"), "p", [C]) == Lineage("p", [C])


@pytest.mark.parametrize("project", ["p", "q"])
def test_no_common_root_is_another_repository(project: str) -> None:
    with pytest.raises(ForeignStateError, match=r"root aaaaaaa, bbbbbbb.*not to.*ccccccc"):
        after(KNOWN, project, [C])
    assert after(KNOWN, project, [C], adopt=True).roots == [A, B, C]


def test_a_new_name_keeps_the_first_one_for_uuids() -> None:
    renamed = after(KNOWN, "q", [A])
    assert (renamed.project, renamed.name_in_uuids) == ("q", "p")
    again = after(renamed, "r", [A])
    assert (again.project, again.name_in_uuids) == ("r", "p")
    assert after(again, "p", [A]) == KNOWN


@pytest.mark.parametrize(
    ("known", "roots", "same_path"),
    [(KNOWN, [A], False), (KNOWN, [], True), (Lineage("p"), [A], True)],
)
def test_another_name_that_may_be_another_project_is_refused(
    known: Lineage, roots: list[str], same_path: bool
) -> None:
    with pytest.raises(RefusedError, match="not to project 'q'"):
        after(known, "q", roots, same_path=same_path)
    assert after(known, "q", roots, same_path=same_path, adopt=True).project == "q"


def test_many_roots_are_shown_in_short() -> None:
    roots = [character * 40 for character in "abcde"]
    assert Lineage("p", roots).shown() == "project 'p' (repository with root aaaaaaa, bbbbbbb, ccccccc ...)"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (KNOWN, Lineage("p", [B]), True),
        (KNOWN, Lineage("q", [B], "p"), True),
        (KNOWN, Lineage("q", [B]), False),
        (KNOWN, Lineage("p", [C]), False),
        (KNOWN, Lineage("p"), True),
    ],
)
def test_states_of_one_project(one: Lineage, other: Lineage, same: bool) -> None:
    assert one.is_same(other) is other.is_same(one) is same
