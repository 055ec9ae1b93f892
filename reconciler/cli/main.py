"""``reconcile``: the table of commands, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any, NoReturn

import click

from reconciler import __version__
from reconciler.cli.context import Context
from reconciler.cli.formats import check_format
from reconciler.cli.options import Duration, global_options
from reconciler.cli.streams import tolerant_streams
from reconciler.errors import ExitCode, InputError, ReconcilerError, WorldError

COMMANDS = {
    "init": ("init:init", "Write the files of a new campaign."),
    "import": ("import_project:command", "Take over the configuration of another program."),
    "validate": ("validate:command", "Check the manifests of a revision."),
    "plan": ("plan:plan", "Show what a reconcile would change."),
    "diff": ("plan:diff", "Show the plan between two revisions."),
    "apply": ("once:apply", "Apply a saved plan, unless it is stale."),
    "expand": ("expand:command", "Print the flows that a FlowSet makes."),
    "set": ("edit.command:command", "Commit a value for jobs, or suspend a flow."),
    "retry": ("job_operations:retry", "Run failed jobs again."),
    "rerun": ("job_operations:rerun", "Run jobs again, whatever their result."),
    "pause": ("job_operations:pause", "Keep jobs from starting."),
    "resume": ("job_operations:resume", "Allow paused jobs to start."),
    "cancel": ("job_operations:cancel", "End jobs, or keep them from starting."),
    "forget": ("job_operations:forget", "Delete records and outputs of superseded jobs."),
    "abandon": ("job_operations:abandon", "Stop waiting for attempts on a worker that does not answer."),
    "get": ("get:command", "List flows, jobs, failures, workers, batches, rules, FlowSets or Makers."),
    "describe": ("describe:command", "Show everything about one flow, job, worker or Maker."),
    "graph": ("graph:command", "Draw the jobs of a flow and their dependencies."),
    "advise": ("advise:command", "Compare requests with what jobs used, and propose rules."),
    "output": ("job_output:output", "Print the output of a finished job."),
    "results": ("results:command", "Print a table with one row for each flow."),
    "logs": ("job_output:logs", "Print the stdout and stderr of a job."),
    "files": ("job_output:files", "List or print the files in a job's run directory."),
    "events": ("history:events", "Print what happened, oldest first."),
    "watch": ("watch:command", "Run as a daemon that reconciles continuously."),
    "now": ("handover:now", "Ask the daemon to check the source immediately."),
    "wait": ("wait:command", "Wait until flows, jobs or workers reach a state."),
    "systemd": ("systemd:command", "Print a systemd unit for the daemon."),
    "history": ("history:history", "List the applied revisions and what they changed."),
    "notify": ("notify:command", "Send a test message by a notify rule."),
    "page": ("page:command", "Write a report of the campaign as one HTML file."),
    "render": ("render:command", "Print the submission script of a job."),
    "policy": ("policy:command", "Show what repositories may do, and write a first policy."),
    "doctor": ("doctor:command", "Check this machine, the repository and the workers."),
    "backup": ("backup:backup", "Copy the state to a file, even during a reconcile."),
    "restore": ("backup:restore", "Replace the state with a backup."),
    "fsck": ("fsck:command", "Check the integrity of the state, and repair what can be rebuilt."),
    "schema": ("init:schema", "Print the JSON Schema of a kind, for editors."),
    "completion": ("completion:command", "Print the completion script of a shell."),
    "options": ("options:options", "Print the options that every command has."),
    "explain": ("explain:command", "Explain a job's run config, a rule, or a field of a manifest."),
}
"""For each command its ``module:attribute`` in this package, and its help, so that --help imports none."""

SECTIONS = {
    "Start": ("init", "import", "validate", "doctor", "schema", "explain", "options", "completion"),
    "Plan and apply": (
        "plan",
        "diff",
        "expand",
        "apply",
        "set",
        "watch",
        "now",
        "systemd",
        "notify",
        "policy",
    ),
    "Look": (
        "get",
        "describe",
        "results",
        "advise",
        "output",
        "logs",
        "files",
        "events",
        "history",
        "graph",
        "page",
        "render",
        "wait",
    ),
    "Operate on jobs": ("retry", "rerun", "pause", "resume", "cancel", "forget", "abandon"),
    "Keep the state": ("backup", "restore", "fsck"),
}
"""The commands as ``--help`` groups them."""


_SHOW = "to list what exists: reconcile get flows, or reconcile get jobs"
_APPLY = "to apply what is committed: reconcile --once; add --wait to wait until everything has run"
_REMOVE = "remove the manifest from git, then: reconcile --once; to end jobs: reconcile cancel"
_OTHER_TOOLS = {
    **dict.fromkeys(("status", "list", "ls", "jobs", "job", "flows", "flow", "queue", "ps", "top"), _SHOW),
    **dict.fromkeys(("run", "start", "reconcile", "sync", "update", "once", "deploy"), _APPLY),
    **dict.fromkeys(("submit", "create", "add"), f"commit a Flow manifest; {_APPLY}"),
    **dict.fromkeys(("delete", "remove", "rm"), _REMOVE),
    **dict.fromkeys(
        ("stop", "kill", "abort"), "to end jobs: reconcile cancel; to keep them waiting: reconcile pause"
    ),
    **dict.fromkeys(("play", "unpause"), "to let paused jobs start: reconcile resume"),
    **dict.fromkeys(
        ("show", "info", "inspect"), "reconcile describe flow NAME, or reconcile describe job KEY"
    ),
    **dict.fromkeys(
        ("check", "lint"), "to check manifests: reconcile validate; the machine: reconcile doctor"
    ),
    **dict.fromkeys(("new", "generate", "bootstrap"), "to start a campaign: reconcile init"),
    **dict.fromkeys(("daemon", "serve", "runner"), "to run the daemon: reconcile watch"),
    **dict.fromkeys(("report", "error", "errors"), "to see what failed: reconcile get failures"),
    "result": "to print the output of a job: reconcile output KEY; a table of many: reconcile results",
    **dict.fromkeys(("log", "tail"), "to print what a job wrote: reconcile logs KEY"),
}
"""Hints for commands that similar tools have under another name."""


class LazyGroup(click.Group):
    """A group whose commands are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"reconciler.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in their groups, without importing them."""
        width = max(map(len, COMMANDS))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), COMMANDS[name][1]) for name in names])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; for an unknown name suggest the nearest one."""
        if args and args[0] not in COMMANDS:
            from reconciler.diagnostics import did_you_mean

            name = os.fsencode(args[0]).decode(errors="backslashreplace")
            hint = _OTHER_TOOLS.get(args[0]) or did_you_mean(name, COMMANDS) or "see `reconcile --help`"
            raise InputError(f"there is no command '{name}'", hint=hint)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 condition not met (changes found, timed out, degraded), "
    "2 invalid input, 3 external failure (git, host, scheduler, disk), 4 refused.",
)
@click.option("--once", is_flag=True, help="Reconcile once: plan, apply, advance jobs.")
@click.option("--wait", is_flag=True, help="With --once: continue until nothing is running.")
@click.option("--timeout", type=Duration(), metavar="DURATION", help="With --wait: how long.")
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@click.option("--allow-prune", is_flag=True, help="Apply a plan that a guard refuses.")
@click.option("--follow", is_flag=True, help="Follow --branch, or the checked-out branch, from now on.")
@click.option("--adopt", is_flag=True, help="Keep a state whose repository was rewritten or project renamed.")
@click.version_option(__version__, prog_name="reconcile")
@global_options
def cli(context: Context, **flags: Any) -> None:
    """GitOps for jobflow: make the jobs on your workers match your git repository.

    \b
      reconcile plan            show what would change
      reconcile --once          change it: submit, patch, cancel, advance
      reconcile --once --wait   ... and wait until everything has run
      reconcile get flows       show the status
    """
    click_context = click.get_current_context()
    if click_context.invoked_subcommand is not None:
        if any(flags.values()):
            raise InputError(
                "--once, --wait, --timeout, --dry-run, --allow-prune, --follow and --adopt "
                "go without a command",
                hint="write `reconcile --once`, or the command without these options",
            )
        return
    if not flags["once"] and not flags["dry_run"]:
        if any(flags.values()):
            raise InputError(
                "--wait, --timeout, --allow-prune, --follow and --adopt require --once",
                hint="write `reconcile --once --wait`",
            )
        click.echo(click_context.get_help())
        return
    check_format(context.options.output, "--once")
    from reconciler.cli.once import run

    sys.exit(run(context, **flags))


_EXTERNAL = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE),
        *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV),
    }
)
"""Errors of the file system that the program did not expect at their place, but did not cause either."""


def main() -> NoReturn:
    """Run the command line; each error ends here, with the exit code of its class."""
    with tolerant_streams():
        code = _run()
    sys.exit(code)


def _run() -> int:
    try:
        cli.main(prog_name="reconcile", standalone_mode=False)
    except SystemExit as end:  # a command's own exit code
        return end.code if isinstance(end.code, int) else ExitCode.OK
    except click.ClickException as error:
        _show(_usage_error(error))
        return ExitCode.USAGE
    except ReconcilerError as error:
        _show(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; running jobs continue and are picked up by the next reconcile", err=True)
        return ExitCode.INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            _show(WorldError(f"cannot write: {error}", hint="free some space there, then try again"))
            return ExitCode.WORLD
        if isinstance(error, OSError) and error.errno in _EXTERNAL and error.filename is not None:
            name = os.fsencode(error.filename).decode(errors="backslashreplace")
            _show(WorldError(f"cannot use {name[:300]}: {error.strerror}"))
            return ExitCode.WORLD
        _report_bug(error)
        return ExitCode.BUG
    return ExitCode.OK


def _usage_error(error: click.ClickException) -> InputError:
    """Return an error of click's option parser in the form that all errors have."""
    from reconciler.diagnostics import nearest

    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    if context is None:
        return InputError(message)
    hint = f"see `{context.command_path} --help`"
    if isinstance(error, click.NoSuchOption):
        options = {name for param in context.command.params for name in (*param.opts, *param.secondary_opts)}
        guess = nearest(error.option_name, options)
        message = f"there is no option '{error.option_name}'"
        hint = f"did you mean '{guess}'?" if guess is not None else hint
    elif isinstance(context.command, click.Group) and message == "missing command":
        message = f"`{context.command_path}` needs a kind"
        hint = f"one of: {', '.join(context.command.list_commands(context))}"
    return InputError(message, hint=hint)


def _show(error: ReconcilerError) -> None:
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"  help: {error.hint}", err=True)


def _report_bug(error: Exception) -> None:
    """Write a report with the traceback to a temporary file, and print the error and the file's name.

    Where no file can be written, the report goes to stderr.
    """
    import platform
    import tempfile
    import traceback

    from reconciler.desired.source.command import without_password

    trace = "".join(traceback.format_exception(error))
    facts = f"reconciler {__version__}, Python {platform.python_version()}, {platform.platform()}"
    text = without_password(f"{facts}\n{' '.join(sys.argv)}\n\n{trace}")
    last = without_password(traceback.format_exception_only(error)[-1].strip()[:1000])
    click.echo(f"error: this is a bug in reconciler, not your mistake: {last}", err=True)
    try:
        descriptor, name = tempfile.mkstemp(prefix="reconcile-bug-", suffix=".txt")
        with os.fdopen(descriptor, "wb") as report:
            report.write(text.encode(errors="backslashreplace"))
    except OSError:
        click.echo(f"  help: please report it with this text:\n{text}", err=True)
    else:
        click.echo(f"  help: please report it with the contents of {name}", err=True)
