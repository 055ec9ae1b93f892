"""Job outputs, in the embedded store or in any other jobflow JobStore."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from reconciler.actual.codec import decode
from reconciler.actual.outputs import (
    COLLECTION,
    delete_documents,
    delete_later_documents,
    first_packed,
    get_documents,
    latest_packed,
    put_document,
    take_documents,
)
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.errors import InputError, ReconcilerError, TransientError
from reconciler.jobs.job_json import PackedDocument, blob_links, is_uuid
from reconciler.model.records import JobRecord

Document = dict[str, Any]
Blobs = Mapping[str, list[Document]]
Packed = Sequence[PackedDocument]

_one_at_a_time = threading.Lock()
"""Two threads that import jobflow for the first time can deadlock."""


class Outputs(Protocol):
    """Where job outputs are kept."""

    def latest(self, uuid: str) -> Document | None:
        """Return the document of the highest index of a job."""
        ...

    def blob(self, store: str, blob_uuid: str) -> Document | None:
        """Return a document of an additional store."""
        ...

    def packed(self, uuid: str) -> bytes | None:
        """Return the same document as MessagePack."""
        ...

    def packed_blob(self, store: str, blob_uuid: str) -> bytes | None:
        """Return a document of an additional store as MessagePack."""
        ...

    def save_before(self, documents: list[Document], blobs: Blobs, packed: Packed = ()) -> None:
        """Write outputs elsewhere, before the transaction that completes the job; may be repeated."""
        ...

    def save_inside(
        self, writer: Writer, documents: list[Document], blobs: Blobs, packed: Packed = ()
    ) -> None:
        """Write outputs in the transaction that completes the job."""
        ...


class OpenedLater:
    """Outputs that are opened at their first use, by the thread that uses them.

    A failure to open them, for whatever reason, is an outage: it is not the fault of a job, and the next use
    tries again.
    """

    def __init__(self, opening: Callable[[], Outputs]) -> None:
        self._opening = opening
        self._outputs: Outputs | None = None

    def _opened(self) -> Outputs:
        if self._outputs is None:
            try:
                with _one_at_a_time:
                    self._outputs = self._opening()
            except ReconcilerError as error:
                raise TransientError(error.message, hint=error.hint) from error
        return self._outputs

    def latest(self, uuid: str) -> Document | None:
        """Return the document of the highest index of a job."""
        return self._opened().latest(uuid)

    def blob(self, store: str, blob_uuid: str) -> Document | None:
        """Return a document of an additional store."""
        return self._opened().blob(store, blob_uuid)

    def packed(self, uuid: str) -> bytes | None:
        """Return the same document as MessagePack."""
        return self._opened().packed(uuid)

    def packed_blob(self, store: str, blob_uuid: str) -> bytes | None:
        """Return a document of an additional store as MessagePack."""
        return self._opened().packed_blob(store, blob_uuid)

    def save_before(self, documents: list[Document], blobs: Blobs, packed: Packed = ()) -> None:
        """Write outputs elsewhere, before the transaction that completes the job; may be repeated."""
        self._opened().save_before(documents, blobs, packed)

    def save_inside(
        self, writer: Writer, documents: list[Document], blobs: Blobs, packed: Packed = ()
    ) -> None:
        """Write outputs in the transaction that completes the job."""
        self._opened().save_inside(writer, documents, blobs, packed)


class EmbeddedOutputs:
    """Outputs in the state's own LMDB: written in the same transaction as the job's new state."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def latest(self, uuid: str) -> Document | None:
        """Return the document of the highest index of a job."""
        data = self.packed(uuid)
        return decode(data) if data is not None else None

    def blob(self, store: str, blob_uuid: str) -> Document | None:
        """Return a document of an additional store."""
        data = self.packed_blob(store, blob_uuid)
        return decode(data) if data is not None else None

    def packed(self, uuid: str) -> bytes | None:
        """Return the same document as MessagePack."""
        with self.store.read() as view:
            return latest_packed(view.txn, COLLECTION, uuid)

    def packed_blob(self, store: str, blob_uuid: str) -> bytes | None:
        """Return a document of an additional store as MessagePack."""
        with self.store.read() as view:
            return first_packed(view.txn, store, blob_uuid)

    def save_before(self, documents: list[Document], blobs: Blobs, packed: Packed = ()) -> None:
        """Nothing to do: everything is written inside the transaction."""

    def save_inside(
        self, writer: Writer, documents: list[Document], blobs: Blobs, packed: Packed = ()
    ) -> None:
        """Write outputs in the transaction that completes the job.

        An output of a higher index is from before a rerun of the job, and would hide this one.
        """
        for name, document, data in _by_store(documents, blobs, packed):
            if name == COLLECTION:
                raise InputError(_RESERVED)
            if name:
                stored = get_documents(writer.txn, name, document["blob_uuid"])
                if any(one.get("job_uuid") != document["job_uuid"] for one in stored):
                    raise InputError(f"{name}/{document['blob_uuid']} is part of the output of another job")
            put_document(writer.txn, name or COLLECTION, document, data)
            if not name and "index" in document:
                delete_later_documents(writer.txn, COLLECTION, document["uuid"], document["index"])


def check_own(job: JobRecord, documents: list[Document], blobs: Blobs, packed: Packed = ()) -> None:
    """Check that a result has no outputs but those of its own job.

    Raises
    ------
    InputError
        It would replace the output of another job.
    """
    own = (job.uuid, job.index)
    for name, document, _ in _by_store(documents, blobs, packed):
        if not name:
            index = document.get("index")
            if (document.get("uuid"), index) != own or isinstance(index, bool):
                raise InputError(f"it has an output of another job: {document.get('uuid')!s:.80}")
            continue
        if (document.get("job_uuid"), document.get("job_index")) != own or "uuid" in document:
            raise InputError(f"it has an output of another job in the store '{name}'")
        if not is_uuid(document.get("blob_uuid")):
            raise InputError(f"it has an output without a blob_uuid in the store '{name}'")


def _by_store(
    documents: list[Document], blobs: Blobs, packed: Packed
) -> Iterator[tuple[str, Document, bytes | None]]:
    """Yield (store, document, its bytes) of a result; the store is empty for an output.

    Of a large document, there are only the fields that identify it, and its bytes.
    """
    yield from (("", document, None) for document in documents)
    yield from ((name, document, None) for name, found in blobs.items() for document in found)
    yield from ((one.store, one.head(), one.data) for one in packed)


_RESERVED = (
    f"it writes to an additional store '{COLLECTION}', but that is where the outputs of all jobs are: choose "
    "another name for the store"
)


def missing_stores(jobstore: Mapping[str, Any] | None, needed: Iterable[str]) -> str | None:
    """Return why a job cannot write to the additional stores that it needs; None if it can.

    ``jobstore`` is ``spec.jobstore`` of the Project. The embedded store has every additional store, but one
    that is named like its own store of outputs.
    """
    if jobstore is None:
        return _RESERVED if COLLECTION in needed else None
    known = jobstore.get("additional_stores")
    missing = sorted(set(needed) - set(known if isinstance(known, Mapping) else ()))
    if not missing:
        return None
    stores = ", ".join(f"'{name}'" for name in missing)
    one = "store" if len(missing) == 1 else "stores"
    return (
        f"it writes to the additional {one} {stores}, which spec.jobstore of the Project does not have: "
        f"add {', '.join(f'additional_stores.{name}' for name in missing)}"
    )


def forget_job(writer: Writer, job: JobRecord) -> None:
    """Delete a job, and its output from the embedded store. Any other JobStore keeps its output."""
    writer.delete_job(job)
    for document in take_documents(writer.txn, COLLECTION, job.uuid, job.index):
        for store, blob_uuid in blob_links(document.get("output")):
            delete_documents(writer.txn, store, blob_uuid)
