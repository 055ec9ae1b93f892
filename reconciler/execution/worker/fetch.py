"""Fetching ended attempts: a line of facts for each, their results in one tar stream, and why others ended.

The output of the script goes to a file, so that results of any size need memory for one of them at a time.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, BinaryIO

import msgspec

from reconciler.errors import TransientError
from reconciler.execution.claims import CLAIM, DOCUMENTS, EXIT_CODE, RESULT
from reconciler.execution.hosts.base import CommandResult, read_sections, sections_script
from reconciler.execution.launcher import SIGNALLED
from reconciler.execution.qtk import STDERR
from reconciler.execution.queues.base import Queue
from reconciler.execution.run_files import FAILED_COMMAND, WorkerPaths, shell_path
from reconciler.model.records import JobRecord

LARGEST_RESULT = 256 << 20
"""Bytes. A larger result fails its job; and one command fetches no more than this, the rest comes later."""

_TAIL = 4000
_CHUNK = 1 << 16


class CollectRequest(msgspec.Struct, frozen=True):
    """An attempt to collect: it has ended, or it is ``lost``, without a marker and not listed by its queue.

    ``requeued``: it has ended, and yet its queue lists it as pending. ``patient``: the scheduler may still be
    recording the end of the job, so its accounting can change. ``missing_for`` is the time in seconds since
    the queue listed it last, or since its last heartbeat. ``moved_from`` is the host on which it was
    submitted, if a commit has given the worker another one since. ``listed``: whether its queue lists it now;
    None if the queue was not asked.
    """

    job: JobRecord
    lost: bool
    requeued: bool = False
    patient: bool = False
    missing_for: float = 0.0
    moved_from: str | None = None
    listed: bool | None = None


class AttemptFacts(msgspec.Struct, frozen=True):
    """The state of one attempt without its result.

    ``found``: ``gone`` (no run directory), ``fresh`` (not started), ``claimed`` (started, or the claim is
    ours and it will never start). ``size`` is that of the result in bytes; ``bad_result`` says why a result
    that exists cannot be fetched. With ``later`` it did not fit into this stream. ``claimant`` is the queue
    id that has claimed the attempt; with ``damaged_claim`` it is unreadable. ``heartbeat`` counts while its
    script runs; ``same_host`` tells that the script ran on the host that was asked. ``tail`` is the end of
    its error output. ``turn`` counts how often the script was started (see
    :mod:`~reconciler.execution.claims`). ``signalled``: it got the signal that announces its time limit.
    ``failed_command`` is the command of the set-up that failed, so that
    the job did not start.
    """

    found: str
    exit_code: int | None = None
    size: int | None = None
    bad_result: str = ""
    later: bool = False
    claimant: str | None = None
    damaged_claim: bool = False
    heartbeat: str | None = None
    same_host: bool = False
    tail: str = ""
    accounting: CommandResult | None = None
    turn: int = 1
    signalled: bool = False
    failed_command: str = ""


def script(
    wanted: Sequence[CollectRequest], paths: WorkerPaths, queue: Queue, sentinel: str, *, with_results: bool
) -> str:
    """Return the script: the facts, then the results as a tar stream unless another host sends them."""
    lines = [
        f"cd -- {shell_path(paths.outbox)} || exit 9",
        _LOOK.format(
            claim=CLAIM,
            result=RESULT,
            documents=DOCUMENTS,
            code=EXIT_CODE,
            signalled=SIGNALLED,
            limit=LARGEST_RESULT,
            sentinel=sentinel,
        ),
        f"measure {' '.join(shell_path(one.job.attempt.run_dir or '') for one in wanted)}",
    ]
    for number, one in enumerate(wanted):
        job, directory = one.job, shell_path(one.job.attempt.run_dir or "")
        tail = f"cd -- {directory} && tail -c {_TAIL} -- {shlex.quote(STDERR)} 2>/dev/null"
        failed = f"cd -- {directory} && head -c 500 {FAILED_COMMAND} 2>/dev/null"
        questions = {f"{number}.tail": tail, f"{number}.failed": failed}
        if job.attempt.queue_id and not job.cancelling:  # we know why a cancelled job has ended
            questions[f"{number}.accounting"] = queue.accounting_command(job.attempt.queue_id)
        lines.append(f"look {number} {directory}")
        lines.append(f'if [ "$size" = - ]; then :\n{sections_script(questions, sentinel)}\nfi')
    lines.append(f"printf '\\n%s results\\n' {sentinel}-facts")
    if with_results:
        # A result that disappears or changes during the transfer affects no other: only what arrived counts.
        lines.append('if [ ${#results[@]} -gt 0 ]; then tar -cf - "${results[@]}"; fi')
    return "\n".join([*lines, "exit 0"])


# Values from files of the job are reduced to one word each, so that no content can shift the columns. One
# `wc` measures all results, and `hostname` runs once: a process for each job would cost more than all else.
_LOOK = """\
total=0 results=() sizes=() here=$(hostname)
measure() {{
  local directory number=0 next=0 bytes name names=() numbers=()
  for directory; do
    if [ -f "$directory/{result}" ] && [ ! -L "$directory/{claim}" ] && [ ! -L "$directory/{result}" ]; then
      names+=("$directory/{result}") numbers+=($number)
    fi
    number=$((number + 1))
  done
  [ ${{#names[@]}} -gt 0 ] || return 0
  while read -r bytes name; do  # in their order; those that cannot be read are left out
    while [ $next -lt ${{#names[@]}} ] && [ "${{names[next]}}" != "$name" ]; do next=$((next + 1)); done
    [ $next -lt ${{#names[@]}} ] && sizes[numbers[next]]=$bytes
  done < <(wc -c -- "${{names[@]}}" 2>/dev/null)
}}
word() {{
  local line=
  [ -f "$1" ] && read -r -n 200 line < "$1" 2>/dev/null
  line=${{line%$'\\r'}}
  [[ $line =~ ^[][A-Za-z0-9._:\\;@+-]+$ ]] || line=${{line:+?}}
  word=${{line:--}}
}}
look() {{
  local found=gone code=- claimant=- later=- bad=- turn=1 heartbeat=- host=- warned=-
  local machine file more
  size=-
  if [ -d "$2" ]; then
    found=fresh
    [ -d "$2/{claim}" ] && found=claimed
    while [ -e "$2/{claim}/turn.$((turn + 1))" ]; do turn=$((turn + 1)); done
    word "$2/{code}"; code=$word
    word "$2/{claim}/queue_id"; claimant=$word
    word "$2/{claim}/heartbeat"; heartbeat=$word
    [ -e "$2/{signalled}" ] && warned=signalled
    read -r machine _ < "$2/{claim}/process" 2>/dev/null && [ "$machine" = "$here" ] && host=same
    if [ -L "$2/{claim}" ] || [ -L "$2/{result}" ]; then bad=symlink
    elif [ -f "$2/{result}" ]; then
      size=${{sizes[$1]:-$(wc -c < "$2/{result}" 2>/dev/null)}}  # it may be newer than the measurement
      [ -n "$size" ] && size=$((size)) || {{ size=-; bad=unreadable; }}
      for file in "$2/{documents}/"*; do
        [ "$size" != - ] && [ -f "$file" ] || continue
        [ ! -L "$file" ] && more=$(wc -c < "$file" 2>/dev/null) && size=$((size + more)) ||
          {{ size=-; bad=unreadable; }}
      done
      [ "$size" != - ] && [ $size -gt {limit} ] && {{ bad=$size; size=-; }}
    elif [ -e "$2/{result}" ]; then bad=special
    fi
  fi
  if [ "$size" != - ]; then
    if [ $total -gt 0 ] && [ $((total + size)) -gt {limit} ]; then later=later
    else
      total=$((total + size)); results+=(-C "${{2%/*}}" "${{2##*/}}/{result}")
      [ -d "$2/{documents}" ] && results+=("${{2##*/}}/{documents}")
    fi
  fi
  printf '\\n%s' {sentinel}-facts
  printf ' %s' "$1" $found "$code" "$size" "$claimant" $later $bad $turn "$heartbeat" $host $warned
  printf '\\n'
}}"""


def results_script(directories: Sequence[str]) -> str:
    """Return the script for the host of the transfers: the results in these run directories."""
    lines = ["results=()"]
    for directory in directories:
        parent, _, name = directory.rpartition("/")
        lines.append(f"results+=(-C {shell_path(parent)} {shlex.quote(f'{name}/{RESULT}')})")
        documents = shlex.quote(f"{name}/{DOCUMENTS}")
        lines.append(f"[ -d {shell_path(parent)}/{documents} ] && results+=({documents})")
    return "\n".join([*lines, 'tar -cf - "${results[@]}"', "exit 0"])


def read_facts(stream: BinaryIO, count: int, sentinel: str) -> dict[int, AttemptFacts]:
    """Read the facts at the beginning of a stream, by number, and leave it where the tar begins.

    Raises
    ------
    TransientError
        The stream was cut off.
    """
    end = f"\n{sentinel}-facts results\n".encode()
    head = bytearray()
    while end not in head:
        chunk = stream.read(_CHUNK)
        if not chunk:
            raise TransientError("the facts about ended jobs were cut off")
        head += chunk
    length = head.index(end) + len(end)
    stream.seek(length)
    text = head[:length].decode(errors="replace")
    sections = read_sections(text, sentinel)
    facts: dict[int, AttemptFacts] = {}
    for part in text.split(f"\n{sentinel}-facts ")[1:]:
        words = part.partition("\n")[0].split(" ")
        if len(words) != 11 or not words[0].isdigit() or int(words[0]) >= count:
            continue
        number, found, code, size, claimant, later, bad, turn, heartbeat, host, warned = words
        failed = sections.get(f"{number}.failed")
        tail = sections.get(f"{number}.tail")
        facts[int(number)] = AttemptFacts(
            found=found,
            exit_code=int(code) if re.fullmatch(r"\d{1,3}", code) else None,
            size=int(size) if size.isdigit() else None,
            bad_result=_BAD_RESULTS.get(bad, "") or (_too_large(int(bad)) if bad.isdigit() else ""),
            later=later == "later",
            claimant=None if claimant in ("-", "?", "withdrawn") else claimant,
            damaged_claim=claimant == "?",
            heartbeat=None if heartbeat == "-" else heartbeat,
            same_host=host == "same",
            tail=tail.stdout.strip() if tail is not None else "",
            accounting=sections.get(f"{number}.accounting"),
            signalled=warned == "signalled",
            turn=int(turn) if turn.isdigit() else 1,
            failed_command=failed.stdout.strip() if failed is not None else "",
        )
    return facts


_BAD_RESULTS = {
    "symlink": "is a symbolic link, which is not followed",
    "unreadable": "cannot be read",
    "special": "is not a regular file",
}


def _too_large(size: int) -> str:
    return (
        f"has {size >> 20} MB, and the limit is {LARGEST_RESULT >> 20} MB; "
        "keep large data in files of the run directory, and return their paths"
    )


class FetchedResult(msgspec.Struct):
    """A result, None if it is not a regular file, and its large documents by their file names."""

    content: bytes | None
    documents: dict[str, bytes] = {}


def read_results(stream: BinaryIO, names: Mapping[str, int]) -> Iterator[tuple[int, FetchedResult]]:
    """Yield (number, result) from the tar at the position of the stream; ``names`` are by run directory name.

    Members that were not requested are skipped.

    Raises
    ------
    TransientError
        The stream was cut off, or results are missing from it.
    """
    missing = dict(names)
    number, result = None, FetchedResult(None)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                directory, _, file = member.name.partition("/")
                content = archive.extractfile(member) if member.isreg() else None
                if file == RESULT and directory in missing:
                    if number is not None:
                        yield number, result
                    number = missing.pop(directory)
                    result = FetchedResult(_read_whole(content) if content is not None else None)
                elif content is not None and number is not None and names.get(directory) == number:
                    result.documents[PurePosixPath(file).name] = _read_whole(content)
        if number is not None:
            yield number, result
    except (tarfile.TarError, ValueError, OSError) as error:
        raise TransientError(f"the results of ended jobs were cut off: {error}") from error
    if missing:
        raise TransientError(f"results of ended jobs could not be read: {', '.join(sorted(missing))}")


def _read_whole(content: IO[bytes]) -> bytes:
    """Return the bytes of a member of a tar stream; its own ``read()`` takes three times their memory."""
    whole = io.BytesIO()
    shutil.copyfileobj(content, whole, _CHUNK)
    return whole.getvalue()
