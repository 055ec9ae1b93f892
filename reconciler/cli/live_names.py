"""Names of flows, jobs and workers for shell completion.

The shell runs ``reconcile`` at each press of the tab key: any failure completes nothing and prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from reconciler.cli.context import Context, Options
from reconciler.model.manifests import Kind
from reconciler.model.states import JobState

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from reconciler.actual.view import View

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]

_MOST = 200
"""A longer list of names does not help to choose."""


def _names(find: Callable[[View, str], Iterable[str]]) -> Complete:
    """Return a completion by the names that ``find`` reads from the state."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        given: dict[str, str] = {}
        for one in (ctx, ctx.parent, ctx.find_root()):
            chosen = one.params if one is not None else {}
            given = {name: chosen[name] for name in ("repo", "path", "state_dir") if chosen.get(name)} | given
        try:
            context = Context(Options(quiet=True, **given))  # type: ignore[arg-type]
            with context.store(must_exist=True, read_only=True) as store, store.read() as view:
                names = sorted(name for name in set(find(view, incomplete)) if name.startswith(incomplete))
        except Exception:  # a completion must never print an error into the user's command line
            return []
        return [CompletionItem(name) for name in names[:_MOST]]

    return complete


def _flows(view: View, incomplete: str) -> Iterable[str]:
    return (flow.name for flow in view.flows() if not flow.removed)


def _jobs(view: View, incomplete: str) -> Iterable[str]:
    """Yield flows, and the jobs of the flow that is typed already."""
    flow, slash, _ = incomplete.partition("/")
    if not slash:
        return [name + end for name in _flows(view, incomplete) for end in ("", "/")]
    return (job.path for job in view.jobs_of(flow) if job.current)


def _workers(view: View, incomplete: str) -> Iterable[str]:
    config = view.config()
    return config.workers if config is not None else ()


def _makers(view: View, incomplete: str) -> Iterable[str]:
    """Yield the Makers of the last applied revision."""
    prefix = f"{Kind.MAKER}/"
    keys = view.good_manifests()
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]


def _labels(view: View) -> Iterable[str]:
    return (f"{key}={value}" for flow in view.flows() for key, value in flow.labels.items())


def _flow_selectors(view: View, incomplete: str) -> Iterable[str]:
    """Yield flows, and the filters on flows with their values."""
    if ":" in incomplete:
        return _selectors(view, incomplete)
    return [*_flows(view, incomplete), "label:", "flowset:"]


def _rule_selectors(view: View, incomplete: str) -> Iterable[str]:
    """Yield what a rule can select by."""
    if ":" in incomplete:
        return _selectors(view, incomplete)
    return [*_jobs(view, incomplete), "label:"]


def _selectors(view: View, incomplete: str) -> Iterable[str]:
    """Yield jobs, and filters with their values."""
    from reconciler.cli.job_selectors import FILTERS

    kind, colon, typed = incomplete.partition(":")
    if not colon:
        return [*_jobs(view, incomplete), *(f"{kind}:" for kind in FILTERS)]
    before = f"{kind}:{typed.rpartition(',')[0]}," if "," in typed else f"{kind}:"
    values: dict[str, Callable[[], Iterable[str]]] = {
        "state": lambda: map(str, JobState),
        "worker": lambda: _workers(view, ""),
        "flow": lambda: _labels(view),
        "label": lambda: _labels(view),
        "flowset": lambda: (one.flowset for one in view.flows() if one.flowset is not None),
    }
    return [before + value for value in values.get(kind, tuple)()]


complete_flows, complete_jobs = _names(_flows), _names(_jobs)
complete_workers, complete_selectors = _names(_workers), _names(_selectors)
complete_makers = _names(_makers)
complete_flow_selectors, complete_rule_selectors = _names(_flow_selectors), _names(_rule_selectors)
