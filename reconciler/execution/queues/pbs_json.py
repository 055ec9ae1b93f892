"""What ``qstat -f -F json`` prints, also where it is no JSON.

PBS writes values that look like numbers to C (``inf``, ``0x1f``, ``+5``, ``.5``) without quotes, and does not
escape every backslash: a variable of one job makes the answer for all of them invalid. It has one key and its
value in each line, so what it means can be told nevertheless.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

Records = Mapping[str, Mapping[str, Any]]

_BEGINNING = re.compile(r'^\{\s*"timestamp"', re.MULTILINE)
_OBJECT = re.compile(r'"(.*?)":\s*\{')
_PAIR = re.compile(r'"(.*?)":\s*(.*?),?')


def records(output: str, queue_ids: Iterable[str]) -> Records | None:
    """Return jobs by id, as mappings of attributes; None if this is no answer of ``qstat``.

    What stands above the answer is passed over. A job of ``queue_ids`` that is in there, but in no form that
    can be read, has an empty record.
    """
    beginnings = list(_BEGINNING.finditer(output))
    if not beginnings:
        return None
    answer = output[beginnings[-1].start() :]
    found = _jobs(answer)
    jobs = {name: record for name, record in found.items() if isinstance(record, dict)}
    hidden = [queue_id for queue_id in queue_ids if queue_id not in jobs and f'"{queue_id}"' in answer]
    return jobs | {queue_id: {} for queue_id in hidden}


def _jobs(answer: str) -> Mapping[str, Any]:
    try:
        content, _ = json.JSONDecoder(strict=False).raw_decode(answer)
    except ValueError:
        content = _by_lines(answer)
    jobs = content.get("Jobs") if isinstance(content, dict) else None
    return jobs if isinstance(jobs, dict) else {}


def _by_lines(answer: str) -> dict[str, Any]:
    """Read it line by line: a key with a value, the beginning of an object, or its end."""
    root: dict[str, Any] = {}
    nested = [root]
    for line in map(str.strip, answer.splitlines()[1:]):
        if opened := _OBJECT.fullmatch(line):
            inner: dict[str, Any] = {}
            nested[-1][opened[1]] = inner
            nested.append(inner)
        elif line in ("}", "},") and len(nested) > 1:
            nested.pop()
        elif pair := _PAIR.fullmatch(line):
            nested[-1][pair[1]] = _value(pair[2])
    return root


def _value(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return text.removeprefix('"').removesuffix('"')
