"""Flows that a plan treats alike: the first few in full, the others as one line for each kind of action.

Flows that are submitted share a line with their jobs.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconciler.model.actions import Action, ActionType, Subject
from reconciler.model.records import Change

SHOWN = 3
"""Flows of a fold that are shown in full."""

_FEWEST = 3
"""Flows that are worth a fold of their own."""


class Fold(NamedTuple):
    """Actions of one kind on flows that a plan treats alike; ``names`` are all flows of the fold."""

    names: list[str]
    actions: list[Action]

    @property
    def changes(self) -> list[tuple[str, int, Change | None]]:
        """Each changed field, in how many actions it changes, and the change if it is the same in all."""
        found: dict[str, list[Change]] = defaultdict(list)
        for action in self.actions:
            for change in action.changes:
                found[change.field].append(change)
        rows = []
        for field, several in found.items():
            same = all((one.old, one.new) == (several[0].old, several[0].new) for one in several)
            rows.append((field, len(several), several[0] if same else None))
        return rows


def folded(actions: Sequence[Action]) -> Iterator[list[Action] | Fold]:
    """Yield the actions of each flow, and folds in place of the flows beyond the first of each kind.

    Flows are alike if their actions differ only in names and values. A fold follows the last flow of its kind
    that is shown.
    """
    blocks = [
        (name, list(block))
        for name, block in itertools.groupby(actions, lambda one: one.key.partition("/")[0])
    ]
    alike: dict[object, list[int]] = defaultdict(list)
    for number, (_, block) in enumerate(blocks):
        alike[_likeness(block)].append(number)
    hidden: set[int] = set()
    folds: dict[int, list[int]] = {}
    for numbers in alike.values():
        if len(numbers) >= SHOWN + _FEWEST:
            hidden.update(numbers[SHOWN:])
            folds[numbers[SHOWN - 1]] = numbers[SHOWN:]
    for number, (_, block) in enumerate(blocks):
        if number in hidden:
            continue
        yield block
        if number in folds:
            names = [blocks[other][0] for other in folds[number]]
            kinds: dict[object, list[Action]] = defaultdict(list)
            for other in folds[number]:
                for action in blocks[other][1]:
                    submitted = action.type is ActionType.SUBMIT
                    kinds[ActionType.SUBMIT if submitted else _kind(action)].append(action)
            for several in kinds.values():
                yield Fold(names, several)


def _likeness(block: Sequence[Action]) -> object:
    return tuple(
        (
            _kind(action),
            action.key.partition("/")[2],
            tuple(change.field for change in action.changes),
            action.ends_running,
            action.ends is None,
        )
        for action in block
    )


def _kind(action: Action) -> object:
    """Return what the actions of one line have in common; flows that are kept have their reason."""
    kept = str(action.reason) if action.type is ActionType.KEEP and action.subject is Subject.FLOW else ""
    return action.type, action.subject, action.reason.code, action.is_deferred, action.build, kept
