"""A maggma Store on the ``outputs`` table: the default JobStore, and results in a notebook while jobs run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from maggma.core import Sort, Store, StoreError
from maggma.core.store import DateTimeFormat
from monty.json import jsanitize

from reconciler.actual import mongo, outputs
from reconciler.actual.codec import Document, decode
from reconciler.actual.db import Database, Transaction, close_database, open_database
from reconciler.actual.state_dir import lmdb_dir
from reconciler.actual.view import View
from reconciler.model.records import FlowRecord

Properties = dict[str, Any] | list[str] | None
SortSpec = dict[str, Sort | int] | None


class LMDBStore(Store):  # type: ignore[misc]
    """Documents of one collection in the LMDB store of a state directory.

    You can read and write it while a reconciler uses the same directory. Connect before use, and use it only
    in the process that connected it (a pickled copy connects again).

    Parameters
    ----------
    path
        The state directory (which holds ``lmdb/``), or the LMDB directory itself.
    collection_name
        Name of the collection: any text of up to 120 bytes.
    key
        The field that :meth:`update` replaces documents by.
    last_updated_field, last_updated_type
        Field and format of the time of the last change, as in every maggma Store.
    validator
        A maggma Validator for documents that are written.
    current_only
        Read only the outputs of current jobs, not those of superseded ones.

    Documents of jobs have more fields than were written, also for criteria and sort orders: ``flow``, ``key``
    (the name of the job in its flow), ``labels`` (of the flow) and ``current`` (False if superseded or
    removed). They tell how things are at the moment in which you read.
    """

    def __init__(
        self,
        path: str | Path,
        collection_name: str = "outputs",
        key: str = "uuid",
        last_updated_field: str = "last_updated",
        last_updated_type: DateTimeFormat = DateTimeFormat.DateTime,
        validator: Any = None,
        current_only: bool = False,
    ) -> None:
        self.path = str(path)
        self.collection_name = collection_name
        self.current_only = current_only
        self._open: Database | None = None
        super().__init__(
            key=key,
            last_updated_field=last_updated_field,
            last_updated_type=DateTimeFormat(last_updated_type),
            validator=validator,
        )

    @property
    def directory(self) -> Path:
        """The LMDB directory at :attr:`path` or below it."""
        path = Path(self.path).expanduser().resolve()
        return path if (path / "data.mdb").exists() else lmdb_dir(path)

    @property
    def name(self) -> str:
        """The place of the documents, as text."""
        return f"lmdb://{self.directory}/{self.collection_name}"

    @property
    def _collection(self) -> Any:
        """Raise StoreError: this store has no pymongo collection."""
        raise StoreError(f"{self.name} has no pymongo collection: use query, update, distinct or groupby")

    def connect(self, force_reset: bool = False) -> None:
        """Open the state directory; create it if it does not exist.

        Raises
        ------
        WorldError
            The directory cannot be opened.
        """
        if self._open is not None and force_reset:
            self.close()
        if self._open is None:
            self._open = open_database(self.directory)

    def close(self) -> None:
        """Release the state directory; a second call does nothing."""
        if self._open is not None:
            database, self._open = self._open, None
            close_database(database)

    def count(self, criteria: Mapping[str, Any] | None = None) -> int:
        """Return the number of documents that match Mongo criteria; without criteria, decode none."""
        with self._database().read() as txn:
            if not criteria and not self.current_only:
                return outputs.count_documents(txn, self.collection_name)
            return sum(1 for _ in self._matches(txn, criteria or {}))

    def query(
        self,
        criteria: Mapping[str, Any] | None = None,
        properties: Properties = None,
        sort: SortSpec = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[Document]:
        """Yield documents that match Mongo criteria, all from one snapshot of the store.

        Criteria with uuids read only the documents of these. ``limit=0`` means all.

        Raises
        ------
        StoreError
            The store is not connected.
        ValueError
            ``properties``, ``sort``, ``skip`` or ``limit`` is invalid.
        """
        project = mongo.projector(properties)
        stop = skip + abs(limit) if limit else None
        # The snapshot ends before the first document is yielded, so that the caller can write meanwhile.
        with self._database().read() as txn:
            found: Iterator[Document] = (doc for _, doc in self._matches(txn, criteria or {}))
            if sort:
                found = iter(mongo.ordered(found, sort))
            docs = [project(doc) for doc in islice(found, skip, stop)]
        yield from docs

    def query_one(
        self,
        criteria: Mapping[str, Any] | None = None,
        properties: Properties = None,
        sort: SortSpec = None,
    ) -> Document | None:
        """Return the first document that :meth:`query` would yield, or None; reads only up to it."""
        return next(self.query(criteria, properties, sort, limit=1), None)

    def distinct(
        self, field: str, criteria: Mapping[str, Any] | None = None, all_exist: bool = False
    ) -> list[Any]:
        """Return the distinct values of a field in MongoDB's order; a list counts by its elements."""
        with self._database().read() as txn:
            return mongo.distinct((doc for _, doc in self._matches(txn, criteria or {})), field)

    def groupby(
        self,
        keys: list[str] | str,
        criteria: Mapping[str, Any] | None = None,
        properties: Properties = None,
        sort: SortSpec = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[tuple[Document, list[Document]]]:
        """Yield (values of the keys, documents), in the order of the values.

        Documents that lack a key are omitted. ``sort``, ``skip`` and ``limit`` count documents, not groups.
        """
        fields = [keys] if isinstance(keys, str) else list(keys)
        project = mongo.projector(properties, keep=fields)
        groups: dict[Any, tuple[Document, list[Document]]] = {}
        for doc in self.query(criteria, None, sort, skip, limit):
            values = [_value_at(doc, field) for field in fields]
            if all(values):
                place = tuple(mongo.order_key(value) for (value,) in values)
                head = _nested(fields, [value for (value,) in values])
                groups.setdefault(place, (head, []))[1].append(project(doc))
        yield from (groups[place] for place in sorted(groups))

    def update(self, docs: list[Document] | Document, key: list[str] | str | None = None) -> None:
        """Write documents; each replaces the first one with the same values in all fields of ``key``.

        Either all are written or none.

        Raises
        ------
        KeyError
            A document lacks a field of ``key``.
        ValueError
            A strict validator refused a document.
        WorldError
            The disk is full or not writable.
        """
        fields = key or self.key
        wanted = [fields] if isinstance(fields, str) else list(fields)
        written = [_without_marks(doc) for doc in (docs if isinstance(docs, list) else [docs])]
        entries = [outputs.prepare(doc, wanted) for doc in self._valid(written)]
        if entries:
            self._write(lambda txn: outputs.upsert_documents(txn, self.collection_name, entries))

    def remove_docs(self, criteria: Mapping[str, Any]) -> None:
        """Delete the documents that match MongoDB criteria; ``{}`` deletes the whole collection."""

        def remove(txn: Transaction) -> None:
            outputs.delete_keys(txn, [key for key, _ in self._matches(txn, criteria)])

        self._write(remove)

    def ensure_index(self, key: str, unique: bool = False) -> bool:
        """Return whether the store has an index on ``key``; the set of indexed fields is fixed."""
        return key in outputs.IDENTITY_FIELDS and not unique

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LMDBStore) and self._place() == other._place()

    def __hash__(self) -> int:
        return hash(self._place())

    def _place(self) -> tuple[str, str]:
        return self.name, self.last_updated_field

    def _database(self) -> Database:
        if self._open is None:
            raise StoreError(f"{self.name} is not connected: call connect() first")
        return self._open

    def _write(self, change: Callable[[Transaction], None]) -> None:
        self._database().write(change)

    def _matches(self, txn: Transaction, criteria: Mapping[str, Any]) -> Iterator[tuple[bytes, Document]]:
        matches = mongo.matcher(criteria)
        pin = outputs.usable_pin(txn, self.collection_name, criteria)
        mark = _Marks(View(txn)).add
        for key, data in outputs.rows(txn, self.collection_name, pin):
            doc = mark(decode(data))
            if (doc.get("current") is True or not self.current_only) and matches(doc):
                yield key, doc

    def _valid(self, docs: list[Document]) -> Iterator[Document]:
        """Yield the documents as maggma stores them; a lenient validator drops invalid ones."""
        for raw in docs:
            doc = jsanitize(raw, allow_bson=True, recursive_msonable=True)
            if self.validator is None or self.validator.is_valid(doc):
                yield doc
                continue
            errors = self.validator.validation_errors(doc)
            if self.validator.strict:
                raise ValueError(errors)
            self.logger.error(errors)


MARKS = ("flow", "key", "labels", "current")
"""Fields that a document of a job gets when it is read."""


class _Marks:
    """Adds to documents what their job records say, in one snapshot."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._flows: dict[str, FlowRecord | None] = {}

    def add(self, doc: Document) -> Document:
        """Return a document of a job with its marks; any other stays as it is."""
        uuid, index = doc.get("uuid") or doc.get("job_uuid"), doc.get("index") or doc.get("job_index")
        found = self._view.mark(f"{uuid}_{index}") if uuid and index else None
        if found is None:
            return doc
        if found.flow not in self._flows:
            self._flows[found.flow] = self._view.flow(found.flow)
        flow = self._flows[found.flow]
        current = found.current and flow is not None and not flow.removed
        labels = dict(flow.labels) if flow is not None else {}
        return doc | {"flow": found.flow, "key": found.key, "labels": labels, "current": current}


def _without_marks(doc: Document) -> Document:
    """Return a document that was read, changed and is written again: its marks are not kept."""
    marked = all(name in doc for name in MARKS)
    return {name: value for name, value in doc.items() if name not in MARKS} if marked else doc


def _value_at(doc: Document, field: str) -> list[Any]:
    """Return a list with the value of a dotted field in nested dicts; empty if it is absent."""
    value: Any = doc
    for name in field.split("."):
        if not isinstance(value, dict) or name not in value:
            return []
        value = value[name]
    return [value]


def _nested(fields: list[str], values: list[Any]) -> Document:
    """Return ``{"a": {"b": value}}`` for the field ``a.b``."""
    doc: Document = {}
    for field, value in zip(fields, values, strict=True):
        *parents, last = field.split(".")
        holder = doc
        for name in parents:
            holder = holder.setdefault(name, {})
        holder[last] = value
    return doc
