"""When a worker is looked at: often after something happened there, ever less while nothing does."""

from __future__ import annotations

from reconciler.model.manifests import PollInterval

_SHARE = 0.2
_SLOWER, _URGENT = 4, 4
"""The queue of this machine is asked less often than the outbox of another, but not while a job starts."""


class PollSchedule:
    """The times of the looks at one worker. All times are seconds since the epoch.

    An interval is a fixed share of the time since anything moved: so a job that ran for a minute is noticed
    within some seconds, and one that ran for hours costs its cluster no more than six looks a minute, or what
    the worker's ``poll_interval`` says. The outbox of this machine costs nothing, and is looked at in every
    pass.
    """

    def __init__(self, bounds: PollInterval, *, local: bool) -> None:
        self._bounds = bounds
        self._local = local
        self._moved = self._looked = self._asked = 0.0

    def due(self, now: float) -> bool:
        """Whether to look at the outbox."""
        return self._local or _past(self._looked, self._interval(now), now)

    def queue_due(self, now: float, *, urgent: bool) -> bool:
        """Whether to ask the queue too; on another host both are one command."""
        return not self._local or _past(self._asked, self._question_interval(now, urgent=urgent), now)

    def next_look(self, now: float, *, urgent: bool) -> float:
        """Return when :meth:`due` and :meth:`queue_due` will say so, whichever is first.

        The outbox of this machine needs no look for that: who waits is told of what comes there.
        """
        if self._local:
            before, interval = self._asked, self._question_interval(now, urgent=urgent)
        else:
            before, interval = self._looked, self._interval(now)
        return before + interval if before <= now else now  # later only by a clock that was set back

    def looked(self, now: float, *, asked: bool) -> None:
        """Note a look."""
        self._looked = now
        if asked:
            self._asked = now

    def moved(self, now: float) -> None:
        """Note that something happened on the worker: it is worth to look again soon."""
        self._moved = now

    def ask_again(self) -> None:
        """Ask the queue at the next look, whenever it was asked last."""
        self._asked = 0.0

    def _interval(self, now: float, slower: int = 1) -> float:
        bounds = self._bounds
        return min(bounds.longest, max(bounds.shortest * slower, _SHARE * (now - self._moved)))

    def _question_interval(self, now: float, *, urgent: bool) -> float:
        return self._interval(now, _SLOWER) / (_URGENT if urgent else 1)


def _past(before: float, interval: float, now: float) -> bool:
    return not 0 <= now - before < interval  # a clock that was set back must not stop everything
