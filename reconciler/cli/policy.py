"""``reconcile policy``: what a repository asks for, what the policy allows, and a first policy."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec

from reconciler.cli.context import Context
from reconciler.cli.formats import emit
from reconciler.cli.options import global_options
from reconciler.desired.policy_file import default_policy_file
from reconciler.diagnostics import Diagnostic
from reconciler.errors import ExitCode, InputError, WorldError
from reconciler.files import write_atomically
from reconciler.model.manifests import API_VERSION, Kind, Prune
from reconciler.model.policy import Use, scalar


@click.group(name="policy", help="Show what repositories may do, and write a first policy.")
@global_options
def command(context: Context) -> None:
    """Group the commands about the policy file."""


@command.command(name="show", help="Print which policy is in force here, and its entry for this repository.")
@global_options
def show(context: Context) -> None:
    """Print the file, the repository as the file would name it, and what its entry allows."""
    policy = context.source(fetch=False).policy
    rules = policy.rules
    click.echo(f"policy: {policy.file or f'{default_policy_file()} (does not exist)'}")
    click.echo(f"repository: {policy.source}")
    if rules is None:
        click.echo("no entry matches this local repository: everything that is installed is allowed")
    elif not rules.file:
        click.echo("no entry matches this remote repository: nothing is allowed; see `reconcile policy init`")
    else:
        for key, value in msgspec.to_builtins(rules).items():
            if key != "file":
                click.echo(f"  {key}: {msgspec.json.encode(value).decode()}")


@command.command(name="explain", help="List what a revision asks for, and whether the policy allows it.")
@global_options
def explain(context: Context) -> None:
    """List each use with its place and, if it is refused, the line that would allow it."""
    found = list(_uses(context))
    rows = [
        {
            "allowed": hint is None,
            "what": use.what,
            "line": use.line,
            "place": str(place.location) if place.location is not None else None,
        }
        for use, place, hint in found
    ]

    def text() -> None:
        for row in rows:
            mark = (
                context.style("allowed", fg="green") if row["allowed"] else context.style("refused", fg="red")
            )
            click.echo(f"{mark}  {row['what']}  ({row['place']})")
            if not row["allowed"]:
                click.echo(f"         to allow it: {row['line']}")
        refused = sum(not row["allowed"] for row in rows)
        click.echo(f"{len(rows) - refused} allowed, {refused} refused")

    emit(context, lambda: rows, text)
    if not all(row["allowed"] for row in rows):
        sys.exit(ExitCode.NO)


@command.command(
    name="init",
    help="Print a policy that allows what a revision uses now. Read it: it is what you trust.",
    epilog="Example: reconcile --repo https://git.example.org/group/campaign policy init --write",
)
@click.option("--write", is_flag=True, help="Write it to --policy or the default file, which must not exist.")
@global_options
def init(context: Context, *, write: bool) -> None:
    """Print or write a first policy for the repository."""
    from reconciler.cli.planning import asked_for

    given = context.options.policy
    file = Path(given).expanduser().absolute() if given else default_policy_file()
    if write and file.exists():
        raise InputError(
            f"the policy {file} exists already", hint="leave out --write, and add the printed entry to it"
        )
    context.options.policy = None  # it may not exist yet
    source = context.source()
    text = policy_text(source.policy.source, (use for _, use in asked_for(source)))
    if not write:
        click.echo(text, nl=False)
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, text.encode(), mode=0o600)
    except OSError as error:
        raise WorldError(f"cannot write {file}: {error.strerror}") from error
    click.echo(f"wrote {file}: read it, and remove what you do not trust")


def policy_text(source: str, uses: Iterable[Use]) -> str:
    """Return a policy in YAML with one entry, which allows the uses and nothing else."""
    lists: dict[str, set[str]] = {}
    secrets: dict[str, set[str]] = {}
    max_prune = None
    for use in uses:
        if use.field == "secrets":
            secrets.setdefault(use.host, set()).add(use.value)
        elif use.field == "max_prune":
            max_prune = use.value
        else:
            lists.setdefault(use.field, set()).add(str(use.value))
    prune = {str(Prune.CANCEL), *lists.pop("prune", set())}
    lines = [*_HEAD, f"    - source: {json.dumps(source)}"]
    for field in sorted(lists):
        lines += [f"      {field}:", *(f"        - {scalar(value)}" for value in sorted(lists[field]))]
    if secrets:
        lines.append("      secrets:")
        for host in sorted(secrets):
            lines += [
                f"        {scalar(host)}:",
                *(f"          - {scalar(one)}" for one in sorted(secrets[host])),
            ]
    lines.append(f"      prune: [{', '.join(sorted(prune))}]")
    lines += [f"      max_prune: {max_prune:g}"] if max_prune is not None else []
    lines.append("      # limits: {core_hours: 1000}  # the most that one job may ask for")
    return "\n".join(lines) + "\n"


_HEAD = (
    "# What repositories may ask of your machine and accounts. What an entry does not list is refused.",
    "# Read each line: it is what you trust. `reconcile explain Policy` explains the fields.",
    *(
        f"apiVersion: {API_VERSION}",
        f"kind: {Kind.POLICY}",
        "metadata:",
        "  name: mine",
        "spec:",
        "  sources:",
    ),
)


def _uses(context: Context) -> Iterator[tuple[Use, Diagnostic, str | None]]:
    """Yield (use, its place, the hint that allows it or None) of all that a revision asks for."""
    from reconciler.cli.planning import asked_for

    source = context.source()
    rules = source.rules
    seen = set()
    for manifest, use in asked_for(source):
        place = manifest.diagnostic("policy/use", use.what, use.pointer)
        if (use.line, place.location) not in seen:
            seen.add((use.line, place.location))
            refused = rules is not None and not rules.allows(use)
            yield use, place, rules.how_to_allow(use) if rules is not None and refused else None
