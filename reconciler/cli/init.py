"""``reconcile init`` writes the files of a new campaign; ``reconcile schema`` prints the schema of a kind."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from reconciler.cli import starter
from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.desired.documents import PROJECT_FILES
from reconciler.desired.source.command import run_git, users_environment
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError, RefusedError, WorldError
from reconciler.files import write_atomically
from reconciler.model.manifests import Kind
from reconciler.model.schedulers import SCHEDULERS

SCHEMA_FOLDER = ".schemas"
"""Where a campaign keeps copies of the schemas, which the first line of each manifest names."""

_FOLDERS = {
    Kind.PROJECT: "reconciler.yaml",
    Kind.WORKER: "workers",
    Kind.EXEC_CONFIG: "exec_configs",
    Kind.FLOW: "flows",
    Kind.MAKER: "makers",
    Kind.OVERRIDE_RULE: "rules",
    Kind.MAKER: "makers",
}
"""Where manifests of each kind are. A FlowSet is among the flows, and names its schema in its first line."""


class _Worker(msgspec.Struct, frozen=True):
    """The worker that --worker names: ``local``, or ``SCHEDULER:[USER@]HOST``."""

    name: str
    scheduler: str
    user: str = ""
    host: str = ""


@click.command(
    name="init",
    help="Write the files of a new campaign into DIR: a project, a worker, a flow, a rule, a Python package. "
    "Existing files are kept, and nothing is committed.",
    epilog="Example: reconcile init my-campaign --worker slurm:ada@login.example.org --ci github",
)
@click.argument("directory", metavar="[DIR]", default=".")
@click.option(
    "--worker",
    default="local",
    metavar="local|SCHEDULER:[USER@]HOST",
    help="Where jobs run.  [default: local]",
)
@click.option(
    "--ci", type=click.Choice(["github", "gitlab"]), help="Also write a CI file that reviews changes."
)
@global_options
def init(context: Context, *, directory: str, worker: str, ci: str | None) -> None:
    """Write the files, and print what to run next."""
    folder = Path(directory).expanduser()
    described = _read_worker(worker)
    for name in PROJECT_FILES:
        if (folder / name).exists():
            raise RefusedError(
                f"{folder / name} exists, so there is a campaign already",
                hint="name another directory, or run `reconcile validate` to check this campaign",
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written, kept = [], []
        values = _values(folder, described)
        for path, content in _files(values, described, ci):
            target = folder / path
            if target.exists() or target.is_symlink():
                kept.append(path)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content.encode(), sync=False)
            written.append(path)
    except OSError as error:
        raise WorldError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    if run_git(["-C", str(folder), "rev-parse", "--git-dir"], check=False).returncode != 0:
        subprocess.run(["git", "init", "--quiet", str(folder)], env=users_environment(), check=False)
    for path in written:
        click.echo(f"wrote  {path}")
    for path in kept:
        click.echo(f"kept   {path}")
    for line in _next_steps(folder, described, ci):
        context.say(line)


def _read_worker(text: str) -> _Worker:
    """Parse --worker. Raises InputError for a scheduler that does not exist or a missing host."""
    scheduler, colon, place = text.partition(":")
    if text == "local":
        return _Worker("local", "shell")
    if not colon:
        raise InputError(
            f"--worker {text}: '{text}' is not 'local' or SCHEDULER:HOST",
            hint=did_you_mean(text, ("local",)) or "for example --worker slurm:ada@login.example.org",
        )
    if scheduler not in SCHEDULERS:
        hint = did_you_mean(scheduler, SCHEDULERS) or f"one of: {', '.join(SCHEDULERS)}"
        raise InputError(f"--worker {text}: there is no scheduler '{scheduler}'", hint=hint)
    user, _, host = place.rpartition("@")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]*", host) or not re.fullmatch(r"[\w.-]*", user):
        raise InputError(
            f"--worker {text}: '{place}' does not name a host",
            hint=f"write {scheduler}:HOST or {scheduler}:USER@HOST",
        )
    return _Worker(_plain_name(host.split(".")[0], "cluster"), scheduler, user, host)


def _plain_name(text: str, default: str) -> str:
    """Return a text as a name that YAML does not read as a number or another value."""
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")
    if not name or name in ("true", "false", "null"):
        return default
    return name if name[0].isalpha() else f"{default}-{name}"


def _values(folder: Path, worker: _Worker) -> dict[str, str]:
    """Return what the templates insert: ``name`` of the project, its Python ``package``, the ``worker``."""
    name = _plain_name(folder.resolve().name, "campaign")
    package = name.replace("-", "_")
    package = (
        f"{package}_campaign" if keyword.iskeyword(package) or importlib.util.find_spec(package) else package
    )
    return {"name": name, "package": package, "worker": worker.name, "schemas": SCHEMA_FOLDER}


def _files(values: dict[str, str], worker: _Worker, ci: str | None) -> Iterator[tuple[str, str]]:
    """Yield (path, content) of each file of the campaign."""

    def filled(template: str) -> str:
        return string.Template(template).substitute(values)

    yield "reconciler.yaml", filled(starter.PROJECT)
    yield f"workers/{worker.name}.yaml", _worker_manifest(values, worker)
    yield "flows/hello.yaml", filled(starter.FLOW)
    yield "rules/totals-first.yaml", filled(starter.RULE)
    yield f"lib/{values['package']}/__init__.py", filled(starter.PACKAGE)
    yield f"lib/{values['package']}/jobs.py", filled(starter.JOBS)
    yield "README.md", filled(starter.README)
    yield ".gitignore", starter.GITIGNORE
    yield ".vscode/settings.json", _editor_settings()
    yield ".vscode/extensions.json", starter.EXTENSIONS
    for name, content in schema_files():
        yield f"{SCHEMA_FOLDER}/{name}", content
    if ci == "github":
        yield ".github/workflows/plan.yml", starter.GITHUB
    elif ci == "gitlab":
        yield ".gitlab-ci.yml", starter.GITLAB


def _worker_manifest(values: dict[str, str], worker: _Worker) -> str:
    if not worker.host:
        return string.Template(starter.LOCAL_WORKER).substitute(values)
    user = f"\n  user: {worker.user}" if worker.user else ""
    resources = starter.RESOURCES.get(worker.scheduler, "")
    return string.Template(starter.REMOTE_WORKER).substitute(
        values, host=worker.host, user=user, scheduler=worker.scheduler, resources=resources
    )


def schema_files() -> Iterator[tuple[str, str]]:
    """Yield (file name, content) of the schema of each kind."""
    from reconciler.desired.schemas import schema_path

    for kind in Kind:
        path = schema_path(kind)
        yield path.name, path.read_text()


def _editor_settings() -> str:
    """Return settings that check each manifest in VS Code, also those without a schema line."""
    from reconciler.desired.schemas import schema_path

    schemas = {
        f"./{SCHEMA_FOLDER}/{schema_path(kind).name}": folder
        if folder.endswith(".yaml")
        else f"{folder}/*.yaml"
        for kind, folder in _FOLDERS.items()
    }
    return msgspec.json.format(msgspec.json.encode({"yaml.schemas": schemas})).decode() + "\n"


def _next_steps(folder: Path, worker: _Worker, ci: str | None) -> Iterator[str]:
    """Yield the commands that follow."""
    yield ""
    yield "Nothing is committed. Next:"
    if folder.resolve() != Path.cwd():
        yield f"  cd {shlex.quote(str(folder))}"
    yield "  git add . && git commit -m 'Start the campaign'"
    if worker.host:
        yield f"  reconcile doctor {worker.name}   # checks login, scheduler, Python and jobflow there"
    yield "  reconcile plan                 # shows what would run"
    yield "  reconcile --once --wait        # runs it"
    yield "  reconcile output hello/total   # prints the result"
    if ci is not None:
        file = ".github/workflows/plan.yml" if ci == "github" else ".gitlab-ci.yml"
        yield f"In {file}, set RECONCILER to the repository or package that CI installs reconciler from."


@click.command(
    name="schema",
    help="Print the JSON Schema of a KIND, for editors and other tools; without KIND, the file of each kind.",
    epilog="Example: reconcile schema Flow; reconcile schema --write .schemas",
)
@click.argument("kind", required=False)
@click.option("--write", metavar="DIR", help="Write the schemas of all kinds into a directory.")
@global_options
def schema(context: Context, *, kind: str | None, write: str | None) -> None:
    """Print or write schemas; each is shipped with the installed package."""
    from reconciler.cli.formats import emit
    from reconciler.desired.schemas import schema_path

    if write is not None:
        if kind is not None:
            raise InputError("--write writes the schemas of all kinds", hint="leave out the KIND")
        folder = Path(write).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in schema_files():
                write_atomically(folder / name, content.encode(), sync=False)
                click.echo(f"wrote  {folder / name}")
        except OSError as error:
            raise WorldError(f"cannot write {error.filename or folder}: {error.strerror}") from error
        return
    if kind is None:
        rows: list[dict[str, Any]] = [{"kind": str(one), "file": str(schema_path(one))} for one in Kind]
        emit(
            context,
            lambda: rows,
            lambda: click.echo("\n".join(f"{row['kind']:<14}{row['file']}" for row in rows)),
            names=lambda: (row["kind"] for row in rows),
        )
        return
    by_name = {str(one).lower(): one for one in Kind}
    if kind.lower() not in by_name:
        known = [str(one) for one in Kind]
        raise InputError(
            f"there is no kind '{kind}'", hint=did_you_mean(kind, known) or f"one of: {', '.join(known)}"
        )
    click.echo(schema_path(by_name[kind.lower()]).read_text(), nl=False)
