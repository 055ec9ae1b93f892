"""Small pieces of the shell text that queues write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

LONGEST_ARGUMENT = 60_000
"""Bytes. Linux takes 128 KiB in one argument, however long the whole command may be."""


def chunks(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield all words in lists, each short enough for one argument with a byte between two words."""
    longest = max((len(word) for word in words), default=0) + 1
    size = max(1, LONGEST_ARGUMENT // longest)
    for begin in range(0, len(words), size):
        yield list(words[begin : begin + size])


def all_of(commands: Iterable[str], prepare: str = ":") -> str:
    """Return text that runs every command, also after one that failed, and ends with the last failure."""
    lines = "\n".join(f"{command} || failed=$?" for command in commands)
    return f"(\n{prepare}\nfailed=0\n{lines}\nexit $failed\n)"
