"""How records are stored: their bytes, and the keys of the tables.

Records are MessagePack, with one decoder for each kind. In keys, names end with NUL and numbers are
big-endian, so that keys sort by name and by number.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct

import msgspec

from reconciler.model.flows import BuiltFlow
from reconciler.model.lineage import Lineage
from reconciler.model.manifests import GoodManifest, ParsedFile
from reconciler.model.records import (
    AppliedConfig,
    AppliedRevision,
    Attempt,
    Event,
    FlowRecord,
    JobGlance,
    JobRecord,
    Outcome,
    WorkerStatus,
)

encode = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(JobRecord).decode
decode_glance = msgspec.msgpack.Decoder(JobGlance).decode
decode_flow = msgspec.msgpack.Decoder(FlowRecord).decode
decode_event = msgspec.msgpack.Decoder(Event).decode
decode_build = msgspec.msgpack.Decoder(BuiltFlow).decode
decode_parsed = msgspec.msgpack.Decoder(ParsedFile).decode
decode_good = msgspec.msgpack.Decoder(GoodManifest).decode
decode_config = functools.lru_cache(maxsize=2)(msgspec.msgpack.Decoder(AppliedConfig).decode)
decode_attempt = msgspec.msgpack.Decoder(Attempt).decode
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
decode_status = msgspec.msgpack.Decoder(WorkerStatus).decode
decode_revision = msgspec.msgpack.Decoder(AppliedRevision).decode
decode_lineage = msgspec.msgpack.Decoder(Lineage).decode


def index_entries(job: JobRecord) -> set[tuple[str, bytes]]:
    """Return (table, key) of all index entries of a job."""
    job_id = job.id
    children = {("children", pair(parent, job_id)) for parent in job.parents}
    found = {("by_state", state_key(job)), ("by_flow", pair(job.flow, job_id)), *children}
    if job.current:
        found.add(("by_path", path_key(job)))
    if job.retry.at is not None:
        found.add(("retries", big_endian(milliseconds(job.retry.at)) + job_id.encode()))
    return found


def path_key(job: JobRecord) -> bytes:
    """Return the key of a job in the index by path, which has the current jobs."""
    return about_key(job.path) + job.id.encode()


def state_key(job: JobRecord) -> bytes:
    """Return the key of a job in the index by state: state, worker, priority, age, id."""
    rank = struct.pack(">q", -job.config.priority_value)
    flipped = bytes([rank[0] ^ 0x80]) + rank[1:]  # so that negative numbers sort before positive ones
    return b"\0".join([job.state.encode(), job.config.worker_name.encode(), b""]) + (
        flipped + big_endian(job.sequence) + job.id.encode()
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
    return pair(worker, "") + big_endian(math.ceil(max(0.0, due)))


def cleanup_due(key: bytes) -> float:
    """Return when a run directory is removed, from its key."""
    after_worker = key.index(b"\0") + 1
    return float(number_of(key[after_worker : after_worker + 8]))


def milliseconds(seconds: float) -> int:
    """Return a time (seconds) in the milliseconds that keys use."""
    return int(max(0.0, seconds) * 1000)


def about_key(about: str) -> bytes:
    """Return the beginning of keys by name. A long name is hashed, because keys have a limited length."""
    raw = about.encode()
    return (raw if len(raw) <= 400 else hashlib.sha256(raw).digest()) + b"\0"


def pair(first: str, second: str) -> bytes:
    """Return two names as one key. Names contain no NUL."""
    return first.encode() + b"\0" + second.encode()


def big_endian(number: int) -> bytes:
    """Return a number as 8 bytes that sort like the numbers."""
    return struct.pack(">Q", number)


def number_of(raw: bytes | None) -> int:
    """Return the number that :func:`big_endian` encoded; 0 for None."""
    return struct.unpack(">Q", raw)[0] if raw is not None else 0
