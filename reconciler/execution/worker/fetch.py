"""What attempts left behind: a few facts of each in a line, results as one tar stream, reasons of deaths.

The stream goes to a file, so that results of any size need memory for one of them at a time.
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.hosts.base import CommandResult, read_sections, sections_script
from reconciler.execution.qtk import STDERR
from reconciler.execution.queues.base import Queue
from reconciler.execution.run_files import CLAIM, RESULT, WorkerPaths, shell_path
from reconciler.model.records import JobRecord

AT_ONCE = 256 << 20
"""Bytes of results that one command brings, unless a single one is bigger; the others come with the next."""

_TAIL = 4000
_CHUNK = 1 << 16


class CollectRequest(msgspec.Struct, frozen=True):
    """An attempt that is over, or lost: its queue has forgotten it and there is no marker."""

    job: JobRecord
    lost: bool


class AttemptFacts(msgspec.Struct, frozen=True):
    """What is known of one attempt without its result.

    ``found``: ``gone`` (no run directory), ``fresh`` (it has not started), ``claimed`` (it has, or the claim
    is ours and it never will). ``size`` is that of the result in bytes, None without one; ``later`` when it
    did not fit into this stream. ``claimant`` is the queue id that has claimed the attempt.
    """

    found: str
    exit_code: int | None = None
    size: int | None = None
    later: bool = False
    claimant: str | None = None
    tail: str = ""
    accounting: CommandResult | None = None


def script(
    wanted: Sequence[CollectRequest], place: WorkerPaths, queue: Queue, sign: str, *, with_results: bool
) -> str:
    """Return the script: the facts, then the results as a tar stream unless another host brings them."""
    lines = [
        f"cd -- {shell_path(place.outbox)} || exit 9",
        _LOOK.format(claim=CLAIM, result=RESULT, limit=AT_ONCE, sign=sign),
        *(line for number, one in enumerate(wanted) for line in _look(number, one, queue, sign)),
        f"printf '\\n%s results\\n' {sign}-facts",
    ]
    if with_results:
        lines.append('if [ ${#results[@]} -gt 0 ]; then tar -cf - "${results[@]}" || exit 10; fi')
    return "\n".join([*lines, "exit 0"])


_LOOK = """\
total=0 results=()
look() {{
  found=gone code=- size=- claimant=-
  if [ -d "$2" ]; then
    found=fresh
    [ -d "$2/{claim}" ] && found=claimed
    [ -s "$2/{claim}/exit_code" ] && read -r code < "$2/{claim}/exit_code"
    [ -s "$2/{claim}/queue_id" ] && read -r claimant < "$2/{claim}/queue_id"
    [ -f "$2/{result}" ] && size=$(wc -c < "$2/{result}") && size=$((size))
  fi
  later=
  if [ "$size" != - ]; then
    if [ $total -gt 0 ] && [ $((total + size)) -gt {limit} ]; then later=later
    else total=$((total + size)); results+=(-C "$2" {result}); fi
  fi
  printf '\\n%s %s %s %s %s %s %s\\n' {sign}-facts "$1" $found "$code" "$size" "$claimant" $later
}}"""


def _look(number: int, wanted: CollectRequest, queue: Queue, sign: str) -> Iterator[str]:
    job = wanted.job
    assert job.run_dir is not None
    directory = shell_path(job.run_dir)
    yield f"look {number} {directory}"
    errors = shlex.quote(STDERR)
    questions = {f"{number}.tail": f"cd -- {directory} && tail -c {_TAIL} -- {errors} 2>/dev/null"}
    if job.queue_id and job.cancel is None:  # why one has ended that we ended ourselves is no question
        questions[f"{number}.accounting"] = queue.accounting_command(job.queue_id)
    yield f'if [ "$size" = - ]; then :\n{sections_script(questions, sign)}\nfi'


def results_script(directories: Sequence[str]) -> str:
    """Return the script for the host of the transfers: the results in these run directories."""
    members = " ".join(f"-C {shell_path(directory)} {RESULT}" for directory in directories)
    return f"tar -cf - {members} || exit 10"


def read_facts(stream: BinaryIO, count: int, sign: str) -> dict[int, AttemptFacts]:
    """Read the facts from the beginning of a stream, and leave it where the tar begins.

    Raises
    ------
    TransientError
        The stream was cut off.
    """
    end = f"\n{sign}-facts results\n".encode()
    head = bytearray()
    while end not in head:
        chunk = stream.read(_CHUNK)
        if not chunk:
            raise TransientError("the answer about finished jobs was cut off")
        head += chunk
    length = head.index(end) + len(end)
    stream.seek(length)
    text = head[:length].decode(errors="replace")
    answers = read_sections(text, sign)
    return {number: facts for number, facts in _facts(text, answers, sign) if number < count}


def _facts(text: str, answers: Mapping[str, CommandResult], sign: str) -> Iterator[tuple[int, AttemptFacts]]:
    for part in text.split(f"\n{sign}-facts ")[1:]:
        words = part.partition("\n")[0].split()
        if len(words) < 5:
            continue
        number, found, code, size, claimant = words[:5]
        tail = answers.get(f"{number}.tail")
        yield (
            int(number),
            AttemptFacts(
                found=found,
                exit_code=_number(code),
                size=_number(size),
                later=len(words) > 5,
                claimant=None if claimant == "-" else claimant,
                tail=tail.stdout.strip() if tail is not None else "",
                accounting=answers.get(f"{number}.accounting"),
            ),
        )


def _number(word: str) -> int | None:
    return int(word) if word.isdigit() else None


def read_results(stream: BinaryIO, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield (number, result) from the tar that follows, in the order in which it was asked for.

    Raises
    ------
    TransientError
        The stream was cut off.
    """
    if not numbers:
        return
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for number, member in zip(numbers, archive, strict=True):
                content = archive.extractfile(member)
                if content is None:
                    raise TransientError(f"{member.name} is no plain file")
                yield number, content.read()
    except (tarfile.TarError, ValueError, OSError) as error:
        raise TransientError(f"the results of finished jobs were cut off: {error}") from error
