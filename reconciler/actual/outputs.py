"""Documents in the ``outputs`` table, within a transaction of the caller. Independent of maggma.

The key of a document is ``collection \\0 identity \\0 index``. The identity is its ``uuid``, otherwise its
``blob_uuid``, otherwise a digest of the fields that it is updated by. The keys of all documents of a uuid are
adjacent, so that a look-up by uuid reads only these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from reconciler.actual.codec import Document, decode, encode
from reconciler.actual.db import Transaction

TABLE = "outputs"
COLLECTION = "outputs"
"""The collection of job outputs; each additional store is a collection with the store's name."""

IDENTITY_FIELDS = ("uuid", "blob_uuid")
"""Fields that identify a document; the first one that is a string counts."""

_LONGEST_COLLECTION, _LONGEST_IDENTITY = 120, 200  # bytes; a key of LMDB holds 511
_INDEX_DIGITS = 10
_NO_INDEX = b"-"  # sorts before every digit


class Pin(NamedTuple):
    """Criteria that restrict a query to a few known keys."""

    field: str
    identities: list[str]
    indexes: list[int] | None = None


class Upsert(NamedTuple):
    """One document to write, the values that name the one it replaces, and its bytes."""

    wanted: Document
    doc: Document
    data: bytes


def put_document(
    txn: Transaction, collection: str, doc: Mapping[str, Any], data: bytes | None = None
) -> None:
    """Write a document; it replaces the one with the same uuid and index, or the same blob_uuid.

    With ``data``, its bytes, ``doc`` needs only the fields that identify it.

    Raises
    ------
    ValueError
        ``doc`` has neither a uuid nor a blob_uuid that is a string.
    """
    if isinstance(doc.get("uuid"), str):
        wanted = ("uuid", "index") if "index" in doc else ("uuid",)
    elif isinstance(doc.get("blob_uuid"), str):
        wanted = ("blob_uuid",)
    else:
        raise ValueError("a document needs a uuid or a blob_uuid")
    if data is None:
        entry = prepare(doc, wanted)
    else:
        entry = Upsert({field: doc[field] for field in wanted}, dict(doc), data)
    upsert_documents(txn, collection, [entry])


def get_documents(txn: Transaction, collection: str, uuid: str) -> list[Document]:
    """Return all documents of ``uuid``, the lowest index first."""
    return [decode(data) for _, data in txn.scan(TABLE, _prefix(collection, uuid))]


def latest_packed(txn: Transaction, collection: str, uuid: str) -> bytes | None:
    """Return the bytes of the document of ``uuid`` with the highest index, or None."""
    return next((data for _, data in txn.scan(TABLE, _prefix(collection, uuid), reverse=True)), None)


def first_packed(txn: Transaction, collection: str, uuid: str) -> bytes | None:
    """Return the bytes of the document of ``uuid`` with the lowest index, or None."""
    return next((data for _, data in txn.scan(TABLE, _prefix(collection, uuid))), None)


def has_document(txn: Transaction, collection: str, uuid: str, index: int) -> bool:
    """Return whether there is a document with this uuid and index, without decoding any."""
    return any(True for _ in txn.keys(TABLE, _prefix(collection, uuid) + _index_part(index)))


def delete_documents(txn: Transaction, collection: str, uuid: str) -> int:
    """Delete all documents of ``uuid``; return their number."""
    return delete_keys(txn, list(txn.keys(TABLE, _prefix(collection, uuid))))


def delete_later_documents(txn: Transaction, collection: str, uuid: str, index: int) -> int:
    """Delete the documents of ``uuid`` with a higher index; return their number."""
    prefix = _prefix(collection, uuid)
    last = prefix + _index_part(index) + b"\xff"
    return delete_keys(txn, [key for key in txn.keys(TABLE, prefix) if key > last])


def take_documents(txn: Transaction, collection: str, uuid: str, index: int) -> list[Document]:
    """Delete the documents with this uuid and index, and return them."""
    found = list(txn.scan(TABLE, _prefix(collection, uuid) + _index_part(index)))
    delete_keys(txn, [key for key, _ in found])
    return [decode(data) for _, data in found]


def delete_keys(txn: Transaction, keys: Iterable[bytes]) -> int:
    """Delete documents by the keys that :func:`rows` yields; return their number."""
    return sum(txn.delete(TABLE, key) for key in keys)


def count_documents(txn: Transaction, collection: str) -> int:
    """Return the number of documents in a collection without reading them."""
    return sum(1 for _ in txn.keys(TABLE, _collection_prefix(collection)))


def prepare(doc: Mapping[str, Any], wanted: Iterable[str]) -> Upsert:
    """Encode a document outside the transaction; it replaces the one with equal ``wanted`` fields.

    Raises
    ------
    KeyError
        The document lacks one of these fields.
    TypeError
        A value has a type that cannot be stored.
    """
    kept = {key: value for key, value in doc.items() if key != "_id"}
    named = decode(
        encode({field: kept[field] for field in wanted})
    )  # dates are compared in their stored form
    return Upsert(named, kept, encode(kept))


def upsert_documents(txn: Transaction, collection: str, entries: Iterable[Upsert]) -> None:
    """Write documents in order; each replaces the first one that agrees in its wanted fields."""
    everything: dict[bytes, Document] | None = None
    for entry in entries:
        pin = usable_pin(txn, collection, entry.wanted)
        if pin is not None:
            pool = _decoded(txn, collection, pin)
        else:  # read all of them once, not once per document
            pool = everything = everything or _decoded(txn, collection, None)
        found = next(
            (
                key
                for key, doc in pool.items()
                if all(_matches(doc.get(field), value) for field, value in entry.wanted.items())
            ),
            None,
        )
        key = _write(txn, collection, entry, found)
        if everything is not None:
            if found is not None and found != key:
                everything.pop(found, None)
            everything[key] = decode(entry.data)


def rows(txn: Transaction, collection: str, pin: Pin | None) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, bytes) of the documents that ``pin`` allows, or of all, in the order of keys."""
    if pin is None:
        yield from txn.scan(TABLE, _collection_prefix(collection))
        return
    for identity in sorted(set(pin.identities)):
        place = _prefix(collection, identity)
        for suffix in _suffixes(pin.indexes):
            yield from txn.scan(TABLE, place + suffix)


def usable_pin(txn: Transaction, collection: str, criteria: Mapping[str, Any]) -> Pin | None:
    """Return the keys to which ``criteria`` restrict a query, or None if all must be read."""
    pin = find_pin(criteria)
    if pin is None or txn.get(TABLE, _astray_key(collection, pin.field)) is not None:
        return None
    return pin


def find_pin(criteria: Mapping[str, Any]) -> Pin | None:
    """Find an equality or ``$in`` on uuid or blob_uuid at the top of Mongo criteria or in their ``$and``."""
    for field in IDENTITY_FIELDS:
        identities = _bound_values(criteria, field, str)
        if identities is not None:
            return Pin(field, identities, _bound_values(criteria, "index", int) if field == "uuid" else None)
    return None


def _bound_values(criteria: Mapping[str, Any], field: str, kind: type) -> list[Any] | None:
    """Return the only values that ``criteria`` allow for a field; None if others are possible."""
    values = _listed(criteria.get(field))
    if values is not None and all(type(value) is kind for value in values):
        return values
    clauses = criteria.get("$and")
    for clause in clauses if isinstance(clauses, list | tuple) else ():
        if isinstance(clause, Mapping) and (inner := _bound_values(clause, field, kind)) is not None:
            return inner
    return None


def _listed(condition: Any) -> list[Any] | None:
    if not isinstance(condition, Mapping):
        return None if condition is None else [condition]
    if "$eq" in condition:
        return [condition["$eq"]]
    listed = condition.get("$in")
    return list(listed) if isinstance(listed, list | tuple) else None


def _decoded(txn: Transaction, collection: str, pin: Pin | None) -> dict[bytes, Document]:
    return {key: decode(data) for key, data in rows(txn, collection, pin)}


def _matches(have: Any, want: Any) -> bool:
    """Compare as MongoDB does: a list element is enough, None means absent, NaN equals NaN."""
    if have == want or (isinstance(have, list) and want in have):
        return True
    return isinstance(want, float) and want != want and isinstance(have, float) and have != have


def _write(txn: Transaction, collection: str, entry: Upsert, found: bytes | None) -> bytes:
    """Write a document that replaces the one at ``found``, and return its key."""
    target = _target(txn, collection, entry)
    if found is not None and found.startswith(target):
        key = found
    else:
        if found is not None:
            txn.delete(TABLE, found)
        key = _free_key(txn, target)
    txn.put(TABLE, key, entry.data)
    return key


def _target(txn: Transaction, collection: str, entry: Upsert) -> bytes:
    """Return the key of a document, and mark the identity fields that do not lead to it."""
    doc = entry.doc
    leading = next((field for field in IDENTITY_FIELDS if isinstance(doc.get(field), str)), None)
    for field in IDENTITY_FIELDS:
        if field != leading and isinstance(doc.get(field), str | list):
            txn.put(TABLE, _astray_key(collection, field))
    if leading is None:
        place = _collection_prefix(collection) + _digest(encode(entry.wanted)) + b"\0"
    else:
        place = _prefix(collection, doc[leading])
    return place + _index_part(doc.get("index"))


def _free_key(txn: Transaction, target: bytes) -> bytes:
    """Return ``target`` or a free key after it, because documents can share a uuid and index."""
    last = next((key for key, _ in txn.scan(TABLE, target, reverse=True)), None)
    if last is None:
        return target
    number = int(last[len(target) + 1 :] or b"0") + 1
    return target + b"\0%06d" % number


def _suffixes(indexes: list[int] | None) -> list[bytes]:
    """Return the ends of keys that can belong to one of ``indexes``, which can also be lists."""
    if indexes is None:
        return [b""]
    return [_NO_INDEX, *sorted({_index_part(index) for index in indexes} - {_NO_INDEX})]


def _index_part(index: Any) -> bytes:
    if isinstance(index, float) and index.is_integer():
        index = int(index)  # 1.0 equals 1 in a query
    if isinstance(index, int) and 0 <= index < 10**_INDEX_DIGITS:
        return b"%0*d" % (_INDEX_DIGITS, index)
    return _NO_INDEX


def _prefix(collection: str, identity: str) -> bytes:
    return _collection_prefix(collection) + _identity_part(identity) + b"\0"


def _identity_part(identity: str) -> bytes:
    """Return the text itself if it fits into a key and does not look like a digest; else a digest."""
    raw = identity.encode()
    plain = len(raw) <= _LONGEST_IDENTITY and b"\0" not in raw and not raw.startswith(b"#")
    return raw if plain else _digest(raw)


def _digest(raw: bytes) -> bytes:
    return b"#" + hashlib.sha256(raw).hexdigest().encode()


def _collection_prefix(collection: str) -> bytes:
    raw = collection.encode()
    if not raw or b"\0" in raw or len(raw) > _LONGEST_COLLECTION:
        raise ValueError(f"not a name of a collection: {collection!r:.80}")
    return raw + b"\0"


def _astray_key(collection: str, field: str) -> bytes:
    """Return the key of the mark that some document has ``field`` but another identity."""
    return b"\0astray\0" + _collection_prefix(collection) + field.encode()
