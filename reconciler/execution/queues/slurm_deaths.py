"""What Slurm remembers of a job that is over: asked of three places, of which any may know nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from reconciler.execution.queues.base import Death
from reconciler.model.retries import Cause

_LAUNCH_FAILED = 53
"""The signal that Slurm pretends when it cannot start the script, as when its output cannot be written."""

_CAUSES: Mapping[str, Cause] = {
    "TIMEOUT": Cause.WALLTIME,
    "DEADLINE": Cause.WALLTIME,
    "OUT_OF_MEMORY": Cause.OOM,
    "NODE_FAIL": Cause.NODE_FAIL,
    "BOOT_FAIL": Cause.NODE_FAIL,
    "PREEMPTED": Cause.KILLED,
    "REVOKED": Cause.KILLED,
    "CANCELLED": Cause.KILLED,
    "LAUNCH_FAILED": Cause.NEVER_STARTED,
    "RECONFIG_FAIL": Cause.NEVER_STARTED,
}
_ENDED = frozenset(_CAUSES) | {"COMPLETED", "FAILED"}
_TELLING = ("BadConstraints", "JobHoldMaxRequeue", "InvalidAccount", "InvalidQOS", "AccountNotAllowed")
"""Reasons that say more than state and exit code do. JobLaunchFailure is none: a killed script has it too."""


class Facts(msgspec.Struct, frozen=True):
    """What one of the places says. ``state`` may have more words: ``CANCELLED by 1000``."""

    state: str
    exit_code: str = "0:0"
    time_limit: str = ""
    reason: str = ""


def asking(queue_id: str) -> str:
    """Return the command that asks where something may be known; it never fails."""
    # Not `show job -o`: with a line for each group of values, a name or a directory with blanks in it cannot
    # be taken for one of them. sacct answers where Slurm has a data base, `sacct -c` from the file of ended
    # jobs.
    fields = "State,ExitCode,Timelimit"
    return (
        f"( echo '=scontrol'; scontrol show job {queue_id} && exit 0\n"
        f"echo '=sacct'; sacct -n -P -X -j {queue_id} -o {fields}\n"
        f"echo '=jobcomp'; sacct -c -n -P -j {queue_id} -o {fields}\n"
        f"exit 0 ) 2>/dev/null"
    )


def death(output: str) -> Death | None:
    """Return what the output of :func:`asking` says; None if nobody knows the job."""
    live, _, rest = output.partition("\n=sacct\n")
    known = _scontrol(live.rpartition("=scontrol\n")[2])
    if known is not None:
        return _death(known)
    # Others may say RUNNING for ever of a job that was lost in a crash of the controller: no news.
    found = [facts for facts in map(_sacct, rest.splitlines()) if facts and _word(facts.state) in _ENDED]
    return _death(found[0]) if found else None


def _scontrol(text: str) -> Facts | None:
    """The first lines that look like it: names and directories come first on a line only after these."""
    state = re.search(r"^\s+JobState=(\S+) Reason=(.*?) Dependency=", text, re.MULTILINE)
    code = re.search(r"^\s+Requeue=.* ExitCode=(\d+:\d+)", text, re.MULTILINE)
    limit = re.search(r"^\s+RunTime=\S+ TimeLimit=(\S+)", text, re.MULTILINE)
    if state is None:
        return None
    return Facts(state[1], code[1] if code else "0:0", limit[1] if limit else "", state[2])


def _sacct(line: str) -> Facts | None:
    values = line.split("|")
    if len(values) != 3 or not re.fullmatch(r"\d+:\d+", values[1]):
        return None
    minutes = values[2].isdigit()  # `sacct -c` gives a number only
    return Facts(values[0], values[1], f"{values[2]} min" if minutes else values[2])


def _word(state: str) -> str:
    return re.split(r"[\s+]", state.strip(), maxsplit=1)[0]


def _death(facts: Facts) -> Death:
    state = _word(facts.state)
    if state not in _ENDED:
        return Death(f"Slurm: {facts.state}", over=False)
    code, signal = map(int, facts.exit_code.split(":"))
    started = signal != _LAUNCH_FAILED and facts.reason not in _TELLING
    cause = _CAUSES.get(state) if started else Cause.NEVER_STARTED
    exit_code = 128 + signal if signal else code
    if cause is None and exit_code in (128 + 9, 128 + 15):
        cause = Cause.KILLED
    # Of a job that Slurm ended the exit code would only tell how; and a 0 would look like success.
    has_code = state == "COMPLETED" or (state == "FAILED" and started and exit_code != 0)
    return Death(_text(facts, exit_code if has_code else None, cause), cause, exit_code if has_code else None)


def _text(facts: Facts, exit_code: int | None, cause: Cause | None) -> str:
    parts = [re.sub(r"\bby (\d+)$", r"by user \1", facts.state)]
    if cause is Cause.WALLTIME and facts.time_limit:
        parts.append(f"time limit {facts.time_limit}")
    if facts.reason in _TELLING:
        parts.append(facts.reason)
    elif cause is Cause.NEVER_STARTED:
        parts.append("its script could not be started")
    if exit_code:
        parts.append(f"exit code {exit_code}")
    return "Slurm: " + ", ".join(parts)
