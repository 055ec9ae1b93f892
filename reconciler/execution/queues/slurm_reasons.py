"""Why a job waits, in the words of Slurm, and which of these reasons can never clear by themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NEVER: Mapping[str, str] = {
    "PartitionNodeLimit": "it asks for more nodes than its partition has or allows: "
    "ask for less `nodes` or another `partition`",
    "PartitionTimeLimit": "its time limit is longer than its partition allows: "
    "ask for less `time` or another `partition`",
    "PartitionConfig": "its partition has no such nodes or CPUs: ask for less, or another `partition`",
    "DependencyNeverSatisfied": "it depends on a job that ended otherwise: cancel it and run it again",
    "BadConstraints": "no node has what it asks for: change `constraint`, memory or CPUs",
    "AccountNotAllowed": "its account may not use this partition: change `account` or `partition`",
    "QOSNotAllowed": "its QOS may not be used here: change `qos`, `account` or `partition`",
    "InvalidAccount": "Slurm knows no such account: change `account`",
    "InvalidQOS": "Slurm knows no such QOS: change `qos`",
    "MaxMemPerLimit": "it asks for more memory per CPU or node than is allowed: ask for less",
    "QOSTimeLimit": "its QOS has no such time left: ask for less `time` or another `qos`",
    "ReservationDeleted": "its reservation is gone: ask for another one, or none",
}
_LIMIT_OF_A_JOB = re.compile(r"(Assoc|QOS)Max\w*Per(Job|Node)\w*$|QOSMin\w+$|(Assoc|QOS)MaxWall\w+$")
"""Limits that a job breaks all alone, however empty the cluster is."""

_HELD = re.compile(r"held|hold", re.IGNORECASE)
"""JobHeldUser, JobHeldAdmin, JobHoldMaxRequeue, `launch failed requeued held`."""


def reason_of(text: str) -> str:
    """Return the reason, empty if there is none."""
    return "" if text in ("None", "(null)", "N/A") else text


def is_held(reason: str) -> bool:
    """Whether somebody has to release the job."""
    return bool(_HELD.search(reason))


def never(reason: str) -> str:
    """Return, for people, why a job can never start as it is, and what to change; empty if it can."""
    code = re.split(r"[\s,:(]", reason, maxsplit=1)[0]
    text = _NEVER.get(code, "")
    if not text and _LIMIT_OF_A_JOB.fullmatch(code):
        text = "it breaks a limit that its account or QOS sets for every job: ask for less, or another `qos`"
    return f"{text} ({code})" if text else ""
