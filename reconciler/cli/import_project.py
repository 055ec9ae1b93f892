"""``reconcile import``: take over the configuration of another program."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import click

from reconciler.cli.context import Context
from reconciler.cli.options import KindGroup, global_options
from reconciler.desired.documents import PROJECT_FILES
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError, WorldError
from reconciler.files import write_atomically


@click.group(
    cls=KindGroup,
    name="import",
    no_args_is_help=False,
    help="Take over the configuration of another program.",
)
@global_options
def command(context: Context) -> None:
    """The programs are the subcommands."""


@command.command(
    name="jobflow-remote",
    short_help="Write the manifests of a project file of jobflow-remote.",
    epilog="Example: reconcile import jobflow-remote ~/.jfremote/std.yaml my-campaign",
)
@click.argument("file", metavar="PROJECT")
@click.argument("directory", metavar="[DIR]", default=".")
@global_options
def jobflow_remote(context: Context, *, file: str, directory: str) -> None:
    """Write Worker, ExecConfig and Project documents for PROJECT, a YAML, JSON or TOML file, into DIR.

    A field without a counterpart becomes a comment that says what to do instead. Secrets are not copied: the
    manifests name environment variables for them. Existing files are kept, and nothing is committed.
    """
    from reconciler.cli.jobflow_remote import Translation
    from reconciler.desired.yaml.reader import parse_file

    project = read_project(Path(file).expanduser())
    translation = Translation(project)
    folder = Path(directory).expanduser()
    documents = dict(translation.documents)
    if any((folder / name).exists() for name in PROJECT_FILES[1:]):
        documents[PROJECT_FILES[1]] = documents.pop(PROJECT_FILES[0])
    for path, text in documents.items():
        target = folder / path
        if target.exists() or target.is_symlink():
            click.echo(f"kept   {path}")
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, text.encode(), sync=False)
        except OSError as error:
            raise WorldError(f"cannot write {error.filename or target}: {error.strerror}") from error
        click.echo(f"wrote  {path}")
    for path, text in documents.items():
        comments = sum("<- not taken over" in line for line in text.splitlines())
        if comments:
            context.say(f"note: {path} has comments for fields without a counterpart: {comments}")
        for problem in parse_file(text.encode()).diagnostics:
            place = problem.location
            where = f"{path}:{place.line}:{place.column}" if place is not None else path
            context.say(f"note: {where}: {problem.message}")
    for remark in translation.remarks:
        context.say(f"note: {remark}")
    for variable, secret in translation.environment.items():
        context.say(f"note: set the environment variable {variable} to the secret {secret}")
    context.say("next: set `python` of each Worker, commit, and check it with: reconcile doctor")


def read_project(path: Path) -> dict[str, Any]:
    """Return the content of a project file of jobflow-remote.

    Raises
    ------
    InputError
        It cannot be read, or is not such a file; the message says where.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    from reconciler.desired.yaml.reader import ForeignYAMLError, load_foreign

    try:
        text = data.decode()
        if path.suffix == ".json":
            found = json.loads(text)
        elif path.suffix == ".toml":
            found = tomllib.loads(text)
        else:
            found = load_foreign(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: {error.msg}") from error
    except ForeignYAMLError as error:
        raise InputError(f"{path}:{error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    known = ("name", "workers", "queue", "exec_config", "jobstore", "runner")
    if not isinstance(found, dict) or not found.keys() & {"workers", "exec_config"}:
        given = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        unknown = [key for key in found if key not in known] if isinstance(found, dict) else []
        raise InputError(
            f"{path} is not a project file of jobflow-remote: it has neither workers nor exec_config, but "
            f"{given or 'nothing'}",
            hint=(did_you_mean(unknown[0], known) if unknown else None)
            or "give the file of a project, as `jf project list -v` shows it",
        )
    return found
