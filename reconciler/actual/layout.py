"""How records are stored: their bytes, and the keys of the tables.

Records are MessagePack, with one decoder for each kind. In keys, names end with NUL and numbers are
big-endian, so that keys sort by name and by number.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from reconciler.actual.compressed import restored
from reconciler.errors import WorldError
from reconciler.model.applied import AppliedConfig, AppliedRevision, Attempt, Outcome
from reconciler.model.baseline import Baseline, FlowEntry
from reconciler.model.flows import BuiltFlow
from reconciler.model.lineage import Lineage
from reconciler.model.manifests import GoodManifest, ParsedFile
from reconciler.model.notifications import NotifyState
from reconciler.model.records import Event, FlowRecord, JobMark, JobRecord, WorkerStatus
from reconciler.model.summaries import FlowSummary

T = TypeVar("T")


class DamagedError(WorldError):
    """A record of the store cannot be read."""


_encode = msgspec.msgpack.Encoder().encode


def encode(record: Any) -> bytes:
    """Return the bytes of a record. Text that is not valid Unicode is escaped.

    Raises
    ------
    ValueError, TypeError, OverflowError
        A value of the record cannot be stored.
    """
    try:
        return _encode(record)
    except UnicodeEncodeError:
        return _encode(_escaped(msgspec.to_builtins(record)))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list | tuple) else value


def damaged(what: str, error: Exception) -> DamagedError:
    """Return the error of a record that cannot be read."""
    return DamagedError(
        f"{what} in the store is damaged: {error}",
        hint="run `reconcile fsck`: it names the record, and `--repair` repairs what can be repaired",
    )


def decoder(kind: type[T], what: str) -> Callable[[bytes], T]:
    """Return the decoder of a kind of record, which raises :class:`DamagedError`."""
    decode = msgspec.msgpack.Decoder(kind).decode

    def read(data: bytes) -> T:
        try:
            return decode(restored(data))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:  # of text that is not UTF-8, too
            raise damaged(what, error) from error

    return read


def readable(decode: Callable[[bytes], T], data: bytes | None) -> T | None:
    """Return a record that is recreated, or is only history; None if it is missing or damaged."""
    try:
        return decode(data) if data is not None else None
    except DamagedError:
        return None


decode_job = decoder(JobRecord, "the record of a job")
decode_summary = decoder(FlowSummary, "the summary of a flow")
decode_mark = decoder(JobMark, "the record of a job")
decode_flow = decoder(FlowRecord, "the record of a flow")
decode_event = decoder(Event, "an event")
decode_build = decoder(BuiltFlow, "a built flow")
decode_parsed = decoder(ParsedFile, "a parsed file")
decode_good = decoder(GoodManifest, "a last good version")
decode_config = functools.lru_cache(maxsize=2)(decoder(AppliedConfig, "the applied configuration"))
decode_attempt = decoder(Attempt, "the last attempt")
decode_outcome = decoder(Outcome, "the last outcome")
decode_status = decoder(WorkerStatus, "the status of a worker")
decode_revision = decoder(AppliedRevision, "an applied revision")
decode_lineage = decoder(Lineage, "the lineage")
decode_baseline = decoder(Baseline, "the revision to compare with")
decode_entry = decoder(FlowEntry, "what a flow depends on")
decode_imports = decoder(list[str], "the imports of a build")
decode_notify = decoder(NotifyState, "how far a notify rule is")


def index_entries(job: JobRecord) -> set[tuple[str, bytes]]:
    """Return (table, key) of all index entries of a job."""
    job_id = job.id
    children = {("children", pair(parent, job_id)) for parent in job.parents}
    found = {("by_state", state_key(job)), ("by_flow", pair(job.flow, job_id)), *children}
    if job.current:
        found.add(("by_path", path_key(job)))
    found |= {("left", pair(one.worker, job_id)) for one in job.left}
    if job.retry.at is not None:
        found.add(("retries", big_endian(milliseconds(job.retry.at)) + name_bytes(job_id)))
    return found


def path_key(job: JobRecord) -> bytes:
    """Return the key of a job in the index by path, which has the current jobs."""
    return about_key(job.path) + name_bytes(job.id)


def state_key(job: JobRecord) -> bytes:
    """Return the key of a job in the index by state: state, worker, priority, age, id."""
    rank = struct.pack(">q", -job.config.priority_value)
    flipped = bytes([rank[0] ^ 0x80]) + rank[1:]  # so that negative numbers sort before positive ones
    return b"\0".join([job.state.encode(), name_bytes(job.config.worker_name), b""]) + (
        flipped + big_endian(job.sequence) + name_bytes(job.id)
    )


def id_in_state_key(state_key: bytes) -> bytes:
    """Return the job id in a key of the index by state, after two names and 16 bytes of rank and age."""
    after_state = state_key.index(b"\0") + 1
    after_worker = state_key.index(b"\0", after_state) + 1
    return state_key[after_worker + 16 :]


def cleanup_key(worker: str, due: float) -> bytes:
    """Return the beginning of the keys of a worker's run directories that are removed at ``due`` (seconds).

    Keys have whole seconds, rounded up, so that nothing is removed too early.
    """
    return pair(worker, "") + big_endian(math.ceil(_bounded(due)))


def cleanup_due(key: bytes) -> float:
    """Return when a run directory is removed, from its key."""
    after_worker = key.index(b"\0") + 1
    return float(number_of(key[after_worker : after_worker + 8]))


def milliseconds(seconds: float) -> int:
    """Return a time (seconds) in the milliseconds that keys use."""
    return int(_bounded(seconds) * 1000)


def _bounded(seconds: float) -> float:
    """Return a time that a key can hold: not negative, not NaN, and finite."""
    return min(max(0.0, seconds), 1e12) if seconds == seconds else 0.0


def name_bytes(name: str) -> bytes:
    """Return a name for a key: without NUL, which ends names, and with text that is not Unicode escaped."""
    return str(name).encode("utf-8", "backslashreplace").replace(b"\0", b"\\0")


def about_key(about: str) -> bytes:
    """Return the beginning of keys by name. A long name is hashed, because keys have a limited length."""
    raw = name_bytes(about)
    return (raw if len(raw) <= 400 else hashlib.sha256(raw).digest()) + b"\0"


def pair(first: str, second: str) -> bytes:
    """Return two names as one key."""
    return name_bytes(first) + b"\0" + name_bytes(second)


def big_endian(number: int) -> bytes:
    """Return a number as 8 bytes that sort like the numbers."""
    return struct.pack(">Q", max(0, min(number, 2**64 - 1)))


def number_of(raw: bytes | None) -> int:
    """Return the number that :func:`big_endian` encoded; 0 for None."""
    if raw is None:
        return 0
    if len(raw) != 8:
        raise DamagedError("a number in the store is damaged", hint="run `reconcile fsck --repair`")
    return int.from_bytes(raw, "big")
