"""Any maggma JobStore that the Project names in ``spec.jobstore``, behind the interface of outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobflow import JobStore
from monty.json import MontyDecoder

from reconciler.actual.codec import decode, encode
from reconciler.actual.writer import Writer
from reconciler.errors import InputError, TransientError
from reconciler.jobs.job_json import PackedDocument

Document = dict[str, Any]


class ForeignOutputs:
    """Outputs in a JobStore of the user (MongoDB, S3, files, ...)."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.store = open_jobstore(spec)

    def latest(self, uuid: str) -> Document | None:
        """Return the document of the highest index of a job."""
        with _answering():
            found = self.store.query_one({"uuid": uuid}, sort={"index": -1}, load=False)
        return _without_id(found) if found is not None else None

    def blob(self, store: str, blob_uuid: str) -> Document | None:
        """Return a document of an additional store."""
        other = self.store.additional_stores.get(store)
        with _answering():
            found = other.query_one({"blob_uuid": blob_uuid}) if other is not None else None
        return _without_id(found) if found is not None else None

    def packed(self, uuid: str) -> bytes | None:
        """Return the same document as MessagePack."""
        found = self.latest(uuid)
        return encode(found) if found is not None else None

    def packed_blob(self, store: str, blob_uuid: str) -> bytes | None:
        """Return a document of an additional store as MessagePack."""
        found = self.blob(store, blob_uuid)
        return encode(found) if found is not None else None

    def save_before(
        self,
        documents: list[Document],
        blobs: Mapping[str, list[Document]],
        packed: Sequence[PackedDocument] = (),
    ) -> None:
        """Write outputs; writing them twice is the same as once.

        Raises
        ------
        InputError
            ``spec.jobstore`` lacks an additional store that the job writes to, or can never hold its output.
        TransientError
            The store cannot be reached.
        """
        documents = documents + [decode(one.data) for one in packed if not one.store]
        blobs = {name: list(found) for name, found in blobs.items()}
        for one in packed:
            if one.store:
                blobs.setdefault(one.store, []).append(decode(one.data))
        for name, found in blobs.items():
            if found and name not in self.store.additional_stores:
                raise InputError(
                    f"spec.jobstore of the Project has no additional store '{name}', which the job writes to",
                    hint=f"add it under additional_stores.{name}",
                )
        with _answering(), _holding():
            for name, found in blobs.items():
                if found:
                    self.store.additional_stores[name].update(found, key="blob_uuid")
            if documents:
                self.store.docs_store.update(documents, key=["uuid", "index"])
            for document in documents:  # one of a higher index is from before a rerun of the job
                later = {"uuid": document["uuid"], "index": {"$gt": document["index"]}}
                self.store.docs_store.remove_docs(later)

    def save_inside(
        self,
        writer: Writer,
        documents: list[Document],
        blobs: Mapping[str, list[Document]],
        packed: Sequence[PackedDocument] = (),
    ) -> None:
        """Do nothing: the outputs are already written."""


@contextmanager
def _answering() -> Iterator[None]:
    """Turn any error of a store into an outage: each store has errors of its own, and may answer later."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise TransientError(f"the job store does not answer: {error}") from error


_DATA_ERRORS = frozenset({"InvalidDocument", "DocumentTooLarge", "InvalidStringData"})
"""Errors of MongoDB's client about a document; they do not derive from a suitable error of Python."""

_DATA_CODES = frozenset({15, 22, 52, 56, 57, 121, 10334, 17280, 17419, 17420})
"""Codes with which MongoDB's server refuses a document: too large, too deep, names of fields."""

_LONGEST_REASON = 500
"""Characters of an error that are shown: some errors repeat the document."""


@contextmanager
def _holding() -> Iterator[None]:
    """Raise InputError for a document that the store can never hold, such as a 65-bit integer in MongoDB."""
    try:
        yield
    except Exception as error:
        if _is_about_data(error):
            text = f"{type(error).__name__}: {error}"
            raise InputError(f"the job store cannot hold it: {text[:_LONGEST_REASON]}") from error
        raise


def _is_about_data(error: Exception) -> bool:
    """Return whether the document is the cause."""
    if isinstance(error, OSError):  # an invalid certificate is a ValueError, too
        return False
    if isinstance(error, ArithmeticError | TypeError | ValueError | RecursionError):
        return True
    details = getattr(error, "details", None)
    write_errors = details.get("writeErrors") if isinstance(details, Mapping) else None
    codes = {one.get("code") for one in write_errors or ()} | {getattr(error, "code", None)}
    return bool(_DATA_ERRORS & {kind.__name__ for kind in type(error).__mro__} or codes & _DATA_CODES)


def open_jobstore(spec: Mapping[str, Any]) -> JobStore:
    """Return the JobStore of a spec: a serialised JobStore, or jobflow's ``docs_store: {type: ...}`` form.

    ``{env: NAME}`` and ``{file: PATH}`` stand for secrets.

    Raises
    ------
    InputError
        The spec does not describe a JobStore, or it cannot be opened.
    """
    try:
        plain = _with_secrets(dict(spec))
        if "docs_store" in plain and "@module" not in plain:
            store = JobStore.from_dict_spec(plain)
        else:
            store = MontyDecoder().process_decoded(plain)
        if not isinstance(store, JobStore):
            store = JobStore(store)
        store.connect()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"spec.jobstore of the Project cannot be opened: {type(error).__name__}: {error}",
            hint="give `docs_store: {type: MongoStore, ...}` as in jobflow.yaml, or a serialised JobStore",
        ) from error
    return store


def _with_secrets(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_secrets(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"env"}:
        if value["env"] not in os.environ:
            raise InputError(f"spec.jobstore: the environment variable {value['env']} is not set")
        return os.environ[value["env"]]
    if value.keys() == {"file"}:
        return Path(value["file"]).expanduser().read_text().rstrip("\n")
    return {key: _with_secrets(inner) for key, inner in value.items()}


def _without_id(document: Document) -> Document:
    return {key: value for key, value in document.items() if key != "_id"}
