"""``reconcile expand``: the flows that a FlowSet makes, as documents."""

from __future__ import annotations

import fnmatch
import sys

import click

from reconciler.cli.context import Context
from reconciler.cli.formats import emit
from reconciler.cli.options import LIMIT, global_options
from reconciler.cli.views.terminal_reporter import show_diagnostics
from reconciler.diagnostics import did_you_mean
from reconciler.errors import ExitCode, InputError
from reconciler.model.manifests import Manifest


@click.command(name="expand", help="Print the flows that a FlowSet of the revision makes, as documents.")
@click.argument("flowset", metavar="SET")
@click.option("--key", metavar="KEY", help="Only items with this key; globs work.")
@click.option("--limit", type=LIMIT, metavar="N", help="Print at most N flows.")
@global_options
def command(context: Context, *, flowset: str, key: str | None, limit: int | None) -> None:
    """Print the documents on stdout, and the problems of the set on stderr."""
    from reconciler.loop import Session

    source = context.source()
    context.notice_uncommitted(source)
    with context.store() as store:
        state = Session(source, store).load().state
    if flowset not in state.flowsets:
        hint = did_you_mean(flowset, state.flowsets)
        unread = state.frozen.get(flowset)
        what = f"there is no FlowSet '{flowset}'"
        if unread is not None:
            what = f"FlowSet '{flowset}' cannot be read: {unread}"
        raise InputError(f"{what} in {state.revision}", hint=hint or "see `reconcile validate`")
    show_diagnostics(context, [one for one in state.diagnostics if one.code.startswith("flowset/")])
    found = {
        flow.manifest.item.key: flow.manifest
        for flow in state.flows.values()
        if flow.manifest.item is not None and flow.manifest.item.flowset == flowset
    }
    wanted = [found[one] for one in sorted(found) if key is None or fnmatch.fnmatchcase(one, key)]
    if key is not None and not wanted:
        why = state.invalid.get(f"{flowset}-{key}")
        what = f"FlowSet '{flowset}' does not have an item '{key}'"
        if why is not None:
            what = f"item '{key}' of FlowSet '{flowset}' cannot be used: {why}"
        raise InputError(what, hint=did_you_mean(key, found))
    hidden = len(wanted) - limit if limit is not None else 0
    wanted = wanted[:limit]

    def text() -> None:
        from reconciler.cli.formats import as_yaml

        for number, manifest in enumerate(wanted):
            click.echo(("---\n" if number else "") + _heading(manifest))
            click.echo(as_yaml(manifest.document.content), nl=False)

    emit(
        context,
        lambda: [manifest.document.content for manifest in wanted],
        text,
        names=lambda: (manifest.name or "" for manifest in wanted),
    )
    if hidden > 0:
        context.say(f"{hidden:,} more flows; without --limit all are printed")
    sys.exit(ExitCode.USAGE if flowset in state.frozen else ExitCode.OK)


def _heading(manifest: Manifest) -> str:
    """Return a comment that says which rows the flow is made of."""
    item = manifest.item
    assert item is not None
    rows = ", ".join(f"{place.file}:{place.line}" for _, place in item.rows)
    return f"# item {item.key} of FlowSet {item.flowset}: {rows}"
