"""``reconcile``: the group, lazy verbs, and the one error boundary."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Any, NoReturn

import click

from reconciler import __version__
from reconciler.cli.context import Context, mute_stdout
from reconciler.cli.options import global_options
from reconciler.errors import ExitCode, InputError, ReconcilerError, WorldError

COMMANDS = {
    "validate": "Check the manifests of a revision.",
    "plan": "Show what a reconcile would change.",
    "diff": "Show the plan between two revisions.",
    "apply": "Apply a saved plan, unless it is stale.",
    "set": "Commit a value for jobs, or suspend a flow.",
    "retry": "Run failed jobs again.",
    "rerun": "Run jobs again, whatever their result.",
    "pause": "Keep jobs from starting.",
    "resume": "Let paused jobs start.",
    "cancel": "End jobs, or keep them from starting.",
    "forget": "Delete records and outputs of jobs that are history.",
    "get": "List flows, jobs, workers or rules.",
    "describe": "Show everything about one flow, job or worker.",
    "graph": "Draw the jobs of a flow and their dependencies.",
    "output": "Print the output of a finished job.",
    "logs": "Print the stdout and stderr of a job.",
    "events": "Print what happened, oldest first.",
    "watch": "Run as a daemon that reconciles continuously.",
    "now": "Ask the daemon to check the source immediately.",
    "wait": "Wait until flows, jobs or workers reach a state.",
    "systemd": "Print a systemd unit for the daemon.",
    "history": "List the applied revisions and what they changed.",
    "render": "Print the submission script of a job.",
    "doctor": "Check this machine, the repository and the workers.",
    "backup": "Copy the state to a file, even during a reconcile.",
    "restore": "Replace the state with a backup.",
    "fsck": "Check the integrity of the state, and repair what can be rebuilt.",
    "explain": "Explain a job's run config, a rule, or a field of a manifest.",
}
"""The commands and what each is for, so that ``--help`` imports none of them."""

_PLACES = {
    "set": "reconciler.cli.edit.command:command",
    **{
        name: f"reconciler.cli.job_operations:{name}"
        for name in ("retry", "rerun", "pause", "resume", "cancel", "forget")
    },
}
"""Where a command is, unless it is ``command`` in the module of its name in this package."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that --help costs nothing."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; that nobody reads its output to the end (``| head``) is no failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            mute_stdout()
            return None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = _PLACES.get(cmd_name, f"reconciler.cli.{cmd_name}:command").partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a verb; suggest the nearest one if there is none of this name."""
        if args and args[0] not in COMMANDS:
            from reconciler.diagnostics import did_you_mean

            hint = did_you_mean(args[0], COMMANDS) or "see `reconcile --help`"
            raise InputError(f"there is no verb '{args[0]}'", hint=hint)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 the answer is no, 2 your input, 3 the world failed, 4 refused.",
)
@click.option("--once", is_flag=True, help="Make one pass: plan, apply, advance what can advance now.")
@click.option("--wait", is_flag=True, help="With --once: go on until nothing is running.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: how long.")
@click.option("--dry-run", is_flag=True, help="Show the plan and do nothing.")
@click.option("--allow-prune", is_flag=True, help="Apply a plan that a guard refuses.")
@click.version_option(__version__, prog_name="reconcile")
@global_options
def cli(context: Context, **flags: Any) -> None:
    """GitOps for jobflow: make the jobs on your workers be what your git repository says.

    \b
      reconcile plan            what would change
      reconcile --once          change it: submit, patch, cancel, advance
      reconcile --once --wait   ... and wait until everything has run
      reconcile get flows       how it stands
    """
    click_context = click.get_current_context()
    if click_context.invoked_subcommand is not None:
        if any(flags.values()):
            raise InputError(
                "--once, --wait, --timeout, --dry-run and --allow-prune go with no verb",
                hint="write `reconcile --once`, or the verb without them",
            )
        return
    if not flags["once"] and not flags["dry_run"]:
        if any(flags.values()):
            raise InputError(
                "--wait, --timeout and --allow-prune go with --once", hint="write `reconcile --once --wait`"
            )
        click.echo(click_context.get_help())
        return
    from reconciler.cli.once import run

    sys.exit(run(context, **flags))


def main() -> NoReturn:
    """Run the command line; every error ends here, with the exit code that its kind has."""
    try:
        cli.main(prog_name="reconcile", standalone_mode=False)
        code: int = ExitCode.OK
    except click.ClickException as error:
        _show(_as_ours(error))
        code = ExitCode.USAGE
    except ReconcilerError as error:
        _show(error)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; jobs that run go on, the next reconcile takes them in", err=True)
        code = ExitCode.INTERRUPTED
    except Exception as error:
        if _disk_is_full(error):
            _show(WorldError(f"cannot write: {error}", hint="free some space there, then try again"))
            code = ExitCode.WORLD
        else:
            _report_bug(error)
            code = ExitCode.BUG
    sys.exit(code)


def _disk_is_full(error: Exception) -> bool:
    """Whether something could not be written at a place that says no more of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _as_ours(error: click.ClickException) -> InputError:
    """Return an error of the option parser in the form that all errors have."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else None
    return InputError(message[:1].lower() + message[1:], hint=hint)


def _show(error: ReconcilerError) -> None:
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"  help: {error.hint}", err=True)


def _report_bug(error: Exception) -> None:
    import platform
    import tempfile
    import traceback

    trace = "".join(traceback.format_exception(error))
    facts = f"reconciler {__version__}, Python {platform.python_version()}, {platform.platform()}"
    with tempfile.NamedTemporaryFile("w", prefix="reconcile-bug-", suffix=".txt", delete=False) as report:
        report.write(f"{facts}\n{' '.join(sys.argv)}\n\n{trace}")
    last = f"{type(error).__name__}: {error}"
    click.echo(f"error: this is a bug in reconciler, not your mistake: {last}", err=True)
    click.echo(f"  help: please report it with the contents of {report.name}", err=True)
