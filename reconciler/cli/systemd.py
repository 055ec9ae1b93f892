"""``reconcile systemd``: a systemd unit that keeps the daemon running."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from reconciler.cli.context import Context, opened
from reconciler.cli.options import Duration, global_options
from reconciler.errors import ExitCode, InputError

_UNIT = """\
# Made by `reconcile systemd`; create it again after you move the program or the repository.
[Unit]
Description=reconcile watch ({description})
Documentation=man:systemd.service(5)

[Service]
Type=notify
NotifyAccess=main
WorkingDirectory={directory}
Environment={environment}
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
# Stops only the daemon: jobs on this machine keep running and are picked up at the next start.
KillMode=process
# The daemon waits while another reconcile holds the lease.
TimeoutStartSec=infinity
TimeoutStopSec=20
WatchdogSec=120
Restart=on-failure
RestartSec=5
# Invalid input, or the state of another repository: a restart would not help.
RestartPreventExitStatus={permanent}

[Install]
WantedBy=default.target
"""

_PASSED_ON = ("PATH", "XDG_STATE_HOME", "XDG_CACHE_HOME", "RECONCILER_STATE_DIR")
"""Variables that change what the daemon does; a service does not inherit them from your shell."""

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./~-]+")


@click.command(name="systemd", help="Print a systemd user unit that keeps the daemon running.")
@click.option("--name", default="reconcile", metavar="NAME", show_default=True, help="Name of the unit.")
@click.option("--interval", type=Duration(1), metavar="DURATION", help="As for `reconcile watch`.")
@global_options
def command(context: Context, *, name: str, interval: float | None) -> None:
    """Print the unit on stdout, and on stderr how to install it."""
    from reconciler.desired.source.command import is_remote, without_secrets

    if not re.fullmatch(r"[A-Za-z0-9:_.\\-]+", name):
        raise InputError(f"'{name}' is not a valid unit name", hint="use letters, digits and : _ . - \\")
    repository = context.options.repo
    if not is_remote(repository):
        context.source(fetch=False)  # fails here, not in a log, if there is no repository
        repository = str(Path(repository).expanduser().absolute())
    repository, secrets = without_secrets(repository)
    if secrets:
        context.say(
            "note: the unit has the URL without its user and password, since others can read the commands of "
            "services; store them with `git config --global credential.helper store` and fetch once"
        )
    state_dir = context.state_dir()  # fails here, not in a log, if the project cannot be read
    options = context.options
    # -P: modules in the working directory are not imported.
    arguments = [sys.executable, "-P", "-m", "reconciler", "--repo", repository]
    branch = options.branch or _followed(context, state_dir)
    arguments += ["--branch", branch] if branch and branch.isprintable() else []
    arguments += ["--path", options.path] if options.path else []
    arguments += ["--state-dir", str(state_dir)] if options.state_dir else []
    arguments += ["--policy", str(Path(options.policy).expanduser().absolute())] if options.policy else []
    arguments += ["watch", "--standby"] + (["--interval", f"{interval:g}"] if interval is not None else [])
    click.echo(unit(arguments, repository, Path.home(), os.environ), nl=False)
    directory = "~/.config/systemd/user"
    for line in (
        "To install it:",
        f"  mkdir -p {directory}",
        f"  {shlex.join(['reconcile', *sys.argv[1:]])} > {directory}/{name}.service",
        "  systemctl --user daemon-reload",
        f"  systemctl --user enable --now {name}",
        "  loginctl enable-linger    # keeps it running while you are logged out",
        f"To see its status: systemctl --user status {name}; journalctl --user -u {name}",
        f"To reconcile immediately: systemctl --user reload {name}, or reconcile now --wait",
    ):
        context.say(line)


def _followed(context: Context, state_dir: Path) -> str | None:
    """Return the branch that the state follows, or the checked-out one if nothing has been applied yet."""
    from reconciler.actual.store import Store
    from reconciler.jobs.bookkeeping import followed_branch

    source = context.source(fetch=False)
    followed = None
    if Store.exists(state_dir):
        with opened(state_dir, read_only=True) as store, store.read() as view:
            followed = followed_branch(view, source)
    return followed or source.followable()


def unit(arguments: Sequence[str], repository: str, home: Path, environment: Mapping[str, str]) -> str:
    """Return the unit whose service runs a command; ``environment`` is that of the caller."""
    passed = []
    for name in filter(environment.get, _PASSED_ON):
        value = environment[name]
        directories = value.split(":") if name == "PATH" else [value]
        # Absolute: the service runs in another working directory.
        passed.append(
            f"{name}={':'.join(one and str(Path(one).expanduser().absolute()) for one in directories)}"
        )
    return _UNIT.format(
        description=_specifiers(_one_line(repository)),
        directory=_specifiers(_one_line(str(home))),
        environment=" ".join(quoted(setting, command=False) for setting in passed),
        command=" ".join(map(quoted, arguments)),
        permanent=f"{ExitCode.USAGE:d} {ExitCode.REFUSED:d}",
    )


def quoted(text: str, *, command: bool = True) -> str:
    """Quote an argument for systemd: quotes around spaces, ``%%`` for ``%``, in a command ``$$`` for ``$``.

    Raises
    ------
    InputError
        The text contains a line break.
    """
    text = _specifiers(_one_line(text))
    text = text.replace("$", "$$") if command else text
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{escaped}"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise InputError(
            f"{text!r} contains a line break", hint="a unit cannot contain it; rename the directory"
        )
    return text
