"""``reconcile completion``: the script that makes a shell complete commands, options and live names."""

from __future__ import annotations

import click

from reconciler.cli.context import Context
from reconciler.cli.options import global_options

_WHERE = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/reconcile.fish"}


@click.command(
    name="completion",
    help="Print the completion script of a shell.",
    epilog='Example: eval "$(reconcile completion bash)" in ~/.bashrc',
)
@click.argument("shell", type=click.Choice(list(_WHERE)))
@global_options
def command(context: Context, shell: str) -> None:
    """Print what to put into the configuration of the shell."""
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    assert found is not None, "click supports these shells"
    click.echo(found(root, {}, "reconcile", "_RECONCILE_COMPLETE").source())
    where = _WHERE[shell]
    line = (
        f"reconcile completion fish > {where}"
        if shell == "fish"
        else f'eval "$(reconcile completion {shell})"'
    )
    context.say(f"# to use it: {line}" + ("" if shell == "fish" else f" in {where}"))
