"""Job outputs, in the embedded store or in any other jobflow JobStore."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from reconciler.actual.outputs import (
    COLLECTION,
    delete_documents,
    delete_later_documents,
    get_documents,
    latest_document,
    put_document,
    take_documents,
)
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.errors import ReconcilerError, TransientError
from reconciler.jobs.job_json import additional_stores, blob_links, references
from reconciler.model.records import JobRecord

Document = dict[str, Any]
Blobs = Mapping[str, list[Document]]

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

    def save_before(self, documents: list[Document], blobs: Blobs) -> None:
        """Write outputs elsewhere, before the transaction that completes the job; may be repeated."""
        ...

    def save_inside(self, writer: Writer, documents: list[Document], blobs: Blobs) -> None:
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

    def save_before(self, documents: list[Document], blobs: Blobs) -> None:
        """Write outputs elsewhere, before the transaction that completes the job; may be repeated."""
        self._opened().save_before(documents, blobs)

    def save_inside(self, writer: Writer, documents: list[Document], blobs: Blobs) -> None:
        """Write outputs in the transaction that completes the job."""
        self._opened().save_inside(writer, documents, blobs)


class EmbeddedOutputs:
    """Outputs in the state's own LMDB: written in the same transaction as the job's new state."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def latest(self, uuid: str) -> Document | None:
        """Return the document of the highest index of a job."""
        with self.store.read() as view:
            return latest_document(view.txn, COLLECTION, uuid)

    def blob(self, store: str, blob_uuid: str) -> Document | None:
        """Return a document of an additional store."""
        with self.store.read() as view:
            found = get_documents(view.txn, store, blob_uuid)
        return found[0] if found else None

    def save_before(self, documents: list[Document], blobs: Blobs) -> None:
        """Nothing to do: everything is written inside the transaction."""

    def save_inside(self, writer: Writer, documents: list[Document], blobs: Blobs) -> None:
        """Write outputs in the transaction that completes the job.

        An output of a higher index is from before a rerun of the job, and would hide this one.
        """
        for document in documents:
            put_document(writer.txn, COLLECTION, document)
            if "index" in document:
                delete_later_documents(writer.txn, COLLECTION, document["uuid"], document["index"])
        for name, found in blobs.items():
            for document in found:
                put_document(writer.txn, name, document)


def forget_job(writer: Writer, job: JobRecord) -> None:
    """Delete a job, and its output from the embedded store. Any other JobStore keeps its output."""
    writer.delete_job(job)
    for document in take_documents(writer.txn, COLLECTION, job.uuid, job.index):
        for store, blob_uuid in blob_links(document.get("output")):
            delete_documents(writer.txn, store, blob_uuid)


def needed_outputs(payload: Any, outputs: Outputs) -> tuple[list[Document], dict[str, list[Document]]]:
    """Return the documents and blobs that a job refers to, directly or through other outputs."""
    documents: dict[str, Document] = {}
    blobs: dict[str, dict[str, Document]] = {name: {} for name in additional_stores(payload)}
    open_uuids = list(references(payload))
    while open_uuids:
        uuid = open_uuids.pop()
        if uuid in documents:
            continue
        document = outputs.latest(uuid)
        if document is None:
            continue
        documents[uuid] = document
        open_uuids += references(document.get("output"))
        for store, blob_uuid in blob_links(document.get("output")):
            found = outputs.blob(store, blob_uuid)
            if found is not None:
                blobs.setdefault(store, {})[blob_uuid] = found
                open_uuids += references(found.get("data"))
    return list(documents.values()), {name: list(found.values()) for name, found in blobs.items()}
