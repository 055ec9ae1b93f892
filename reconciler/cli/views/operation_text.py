"""What an operation (retry, cancel ...) does to jobs, as text and as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from reconciler.cli.context import Context
from reconciler.cli.views.data import Data
from reconciler.cli.views.words import many, some
from reconciler.model.operations import Effect
from reconciler.plan.operations import OperationPlan, Refusal

_FEW = 40

_SYMBOLS = {
    Effect.AGAIN: ("+", "green"),
    Effect.CANCEL_THEN_AGAIN: ("-/+", "yellow"),
    Effect.PAUSE: ("~", "yellow"),
    Effect.RESUME: ("~", "yellow"),
}
_REMOVES = ("-", "red")

_WORDS = {
    Effect.AGAIN: "to run again",
    Effect.CANCEL_THEN_AGAIN: "to cancel and run again",
    Effect.SUPERSEDE: "to supersede",
    Effect.PAUSE: "to pause",
    Effect.RESUME: "to resume",
    Effect.STOP: "to keep from starting",
    Effect.CANCEL: "to cancel",
    Effect.GIVE_UP: "without a further retry",
    Effect.FORGET: "to forget",
    Effect.ABANDON: "whose attempts are no longer waited for",
}


def step_lines(context: Context, plan: OperationPlan) -> Iterator[str]:
    """Yield one line per job. Of more than 40 jobs only the first ones are shown, unless --verbose."""
    limit = len(plan.steps) if context.options.verbose or len(plan.steps) <= _FEW else _FEW // 2
    for step in plan.steps[:limit]:
        symbol, color = _SYMBOLS.get(step.effect, _REMOVES)
        yield context.style(f"{symbol:>4} job  {step.job.path}  ({step.reason})", fg=color)
    if len(plan.steps) > limit:
        yield f"     ... and {many(len(plan.steps) - limit, 'job')} more; -v shows all"


def summary_line(context: Context, plan: OperationPlan, *, dry_run: bool) -> str:
    """Return how many jobs the operation affects, and how."""
    counts = [(plan.count(effect), words) for effect, words in _WORDS.items()]
    text = ", ".join(f"{many(number, 'job')} {words}" for number, words in counts if number)
    line = f"{plan.operation}: {text}" + ("; dry run, nothing was changed" if dry_run else "")
    return context.style(line, bold=True)


def refusal_lines(refusals: Iterable[Refusal]) -> Iterator[str]:
    """Yield an error and a hint for each reason, with the jobs that are refused for it."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in refusals:
        groups.setdefault((one.reason, one.hint), []).append(one.job.path)
    for (reason, hint), paths in groups.items():
        yield f"error: {some(paths, 3)}: {reason}"
        if hint:
            yield f"  help: {hint}"


def left_alone_line(refusals: Sequence[Refusal]) -> str:
    """Return in which states the selected jobs are that the operation does not apply to."""
    counts = Counter(str(one.job.state) for one in refusals)
    return "left alone: " + ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))


def verb_data(plan: OperationPlan, refused: Iterable[Refusal], left: Iterable[Refusal]) -> Data:
    """Return everything; the contract of ``-o json``."""

    def refusal_data(one: Refusal) -> Data:
        return {
            "key": one.job.path, "uuid": one.job.uuid, "index": one.job.index, "state": str(one.job.state),
            "reason": one.reason, "hint": one.hint or None,
        }  # fmt: skip

    return {
        "jobs": [
            {
                "key": step.job.path, "uuid": step.job.uuid, "index": step.job.index,
                "state": str(step.job.state), "effect": str(step.effect), "reason": step.reason,
            }
            for step in plan.steps
        ],
        "refused": [refusal_data(one) for one in refused],
        "left_alone": [refusal_data(one) for one in left],
    }  # fmt: skip
