"""Records as bytes: MessagePack, with one decoder for each kind."""

from __future__ import annotations

import functools

import msgspec

from reconciler.model.flows import BuiltFlow
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
decode_lineage = msgspec.msgpack.Decoder(dict[str, str]).decode
