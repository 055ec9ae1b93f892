"""What the verbs of a job's life have in common: select, show, ask, carry out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from reconciler.cli.context import Context
from reconciler.cli.options import global_options

_ABOUT = """{about}

{takes}

SELECTORs are names and filters. Names: FLOW for all its jobs, FLOW/JOB, both may be globs as in
'eos-*/relax*'; a uuid, or uuid_index. Filters: state:FAILED,REMOTE_ERROR, worker:NAME, flow:LABEL=VALUE.
A job is selected that matches one of the names (if there are any) and one of the filters of each kind.
{reach}

What the verb cannot be done to is left alone. Exit code 4: no job was in a state for it, or one that you
named yourself (FLOW/JOB, uuid) was not, or it was refused for another reason."""

_CURRENT = "Jobs that are history are never selected by a glob."


def job_verb(
    verb: str, about: str, takes: str, *, reach: str = _CURRENT, descendants: bool = False
) -> click.Command:
    """Return the command of a verb; ``takes`` tells from which states."""

    @click.argument("selectors", metavar="SELECTOR...", nargs=-1, required=True)
    @click.option("--dry-run", is_flag=True, help="Show what would happen and change nothing.")
    @click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    @global_options
    def run(context: Context, **given: Any) -> None:
        from reconciler.cli.job_verbs_run import Call

        sys.exit(Call(context, verb, now=time.time(), **given).run())

    if descendants:
        run = _with_descendants(run)
    text = _ABOUT.format(about=about, takes=takes, reach=reach)
    return click.command(name=verb, help=text, short_help=about)(run)


def _with_descendants(run: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--with-descendants", "descendants", is_flag=True,
        help="Also run again all that needs these jobs, also in other flows; what runs of it is cancelled.",
    )(run)  # fmt: skip


def command_text(verb: str, selectors: Sequence[str], *, descendants: bool) -> str:
    """Return the command as it was typed, for the record."""
    import shlex

    return shlex.join(["reconcile", verb, *selectors, *(["--with-descendants"] if descendants else [])])
