"""Hooks of mkdocs: pages that are made from schemas and commands, and links that leave ``docs/``.

The pages of ``docs/`` link to files of the repository as they are there, so that they also work in a forge.
On the site, links to files that the site has are changed to it, and other links become plain text.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from reconciler.cli.main import COMMANDS, SECTIONS, cli
from reconciler.cli.options import GlobalOption
from reconciler.cli.views.explain_text import schema_fields, schema_type
from reconciler.desired.schemas import load_schema, resolve
from reconciler.errors import ExitCode
from reconciler.model.manifests import Kind

ROOT = Path(__file__).resolve().parent.parent

ADDED = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    **{
        str(file.relative_to(ROOT)): str(file.relative_to(ROOT))
        for file in sorted((ROOT / "schemas").rglob("*.json"))
    },
}
"""Files outside of ``docs/`` that the site has: path in the repository, path on the site."""

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in ``docs/``."""
    made = {
        "reference/commands.md": commands_page(),
        **{f"reference/manifests/{kind.lower()}.md": kind_page(kind) for kind in Kind},
    }
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    for source, path in ADDED.items():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links right for the place of the page on the site."""
    path = page.file.src_uri
    at = next((source for source, site in ADDED.items() if site == path), f"docs/{path}")
    return _LINK.sub(lambda found: _link(found[0], found[1], found[2], at, path), markdown)


def _link(whole: str, label: str, target: str, at: str, path: str) -> str:
    file, _, anchor = target.partition("#")
    if not file or ":" in file:
        return whole
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(at), file))
    on_site = ADDED.get(meant) or (meant.removeprefix("docs/") if meant.startswith("docs/") else None)
    if on_site is None or not posixpath.splitext(on_site)[1]:
        return label
    link = posixpath.relpath(on_site, posixpath.dirname(path) or ".")
    return f"[{label}]({link}{'#' + anchor if anchor else ''})"


# commands -------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Return a page with the help of every command."""
    root = click.Context(cli, info_name="reconcile")
    lines = ["# Commands and options", "", "The same as `reconcile COMMAND --help`.", ""]
    lines += ["## Options of every command", "", *_options(root, cli, common=True), ""]
    for title, names in SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in names:
            command = cli.get_command(root, name)
            assert command is not None
            lines += _command(click.Context(command, parent=root, info_name=name), command, COMMANDS[name][1])
    lines += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code.value} | {code.name.lower().replace('_', ' ')} |" for code in ExitCode]
    return "\n".join(lines) + "\n"


def _command(context: click.Context, command: click.Command, summary: str) -> Iterator[str]:
    yield from (f"### {context.command_path}", "", summary, "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _usage(click.Context(below, parent=context, info_name=name), below)
    else:
        yield from _usage(context, command)


def _usage(context: click.Context, command: click.Command) -> Iterator[str]:
    yield from ("```text", context.get_usage().removeprefix("Usage: "), "```", "")
    yield from (*_options(context, command), "")


def _options(context: click.Context, command: click.Command, *, common: bool = False) -> Iterator[str]:
    options = [
        one
        for one in command.params
        if isinstance(one, click.Option) and isinstance(one, GlobalOption) == common
    ]
    records = [record for one in options if (record := one.get_help_record(context)) is not None]
    if records:
        yield from ("| option | meaning |", "|---|---|")
    for name, meaning in records:
        yield f"| <code>{_cell(name)}</code> | {_cell(meaning)} |"


# manifests ------------------------------------------------------------------------------------------------


def kind_page(kind: Kind) -> str:
    """Return a page with every field of a kind, from its schema."""
    schema = load_schema(kind)
    lines = [f"# {kind}", "", schema.get("description", ""), "", "## Fields", ""]
    lines += ["| field | type | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {type_} | {meaning} |" for name, type_, meaning in _rows(schema, schema, "")]
    examples = schema.get("examples", [])
    if examples:
        lines += ["", "## Example", "", "```json", json.dumps(examples[0], indent=2), "```"]
    return "\n".join(lines) + "\n"


def _rows(
    schema: dict[str, Any], part: dict[str, Any], path: str, above: tuple[frozenset[str], ...] = ()
) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each field below a part; a form that contains itself is shown once."""
    fields = schema_fields(schema, part)
    names = frozenset(fields)
    if names in above:
        return
    required = resolve(schema, part).get("required", [])
    for name, inner in fields.items():
        place = f"{path}.{name}" if path else name
        needed = " **Required.**" if name in required else ""
        default = json.dumps(inner.get("default"))
        shown = f" Default: <code>{_cell(default)}</code>." if "default" in inner else ""
        text = f"{_cell(inner.get('description', ''))}{needed}{shown}"
        yield place, _cell(schema_type(inner)), text
        yield from _rows(schema, inner, f"{place}[]" if "items" in inner else place, (*above, names))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;").replace("<", "&lt;").replace("*", "\\*")
