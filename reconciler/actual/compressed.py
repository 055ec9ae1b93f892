"""Compression of records that many others resemble: builds, parsed files and the jobflow Jobs of records.

A value that begins with a mark is compressed; others, such as all of earlier versions, are as they were
given. Neither MessagePack of a record nor JSON begins with the mark.
"""

from __future__ import annotations

import zlib

_MARK = b"\x01"
"""The first byte of a compressed value; another dictionary of words needs another mark."""

_WORDS = (
    b'apiVersion reconciler/v1 kind Flow metadata labels spec/jobs/args/kwargs/maker/make/class$output'
    b'\xabcode\xa5files\xabexternals\xa7aliases\xa6output\xa6makers\xabpython_path\xa7imports\xa7preview'
    b'\x8d\xa3key\xa4uuid\xa5index\x01\xa4name\xa8function\xa7content\xd9@\xa7parents\x91\xd9$\xaaon_missing'
    b'\xa5error\xa3own\x80\xa5files\x90\xa5hosts\x91\xd9$\xa7payload\xc5'
    b'"@module": "pymatgen.core.structure", "@class": "Structure", "@module": "jobflow.core.reference", '
    b'"@class": "OutputReference", "attributes": [], "output_schema": null, "@module": "builtins", '
    b'"metadata_updates": [], "config_updates": [], "name_updates": [], "metadata": {}, '
    b'{"@module": "jobflow.core.job", "@class": "Job", "@version": "0.4.0", "function": {"@module": "", '
    b'"@callable": "", "@bound": null}, "function_args": [], "function_kwargs": {}, "output_schema": null, '
    b'"uuid": "", "index": 1, "name": "", "metadata": {}, "config": {"@module": "jobflow.core.job", '
    b'"@class": "JobConfig", "@version": "0.4.0", "resolve_references": true, '
    b'"on_missing_references": "error", "manager_config": {}, "expose_store": false, '
    b'"pass_manager_config": true, "response_manager_config": {}}, "hosts": [""], "metadata_updates": [], '
    b'"config_updates": [], "name_updates": []}'
)  # fmt: skip
"""What such values often have. It can never change, because stored values are read with it."""

_LARGEST = 1 << 20
"""Bytes of the largest value that is compressed: larger ones cost too much time and memory at once."""


def compressed(data: bytes) -> bytes:
    """Return a value in its shorter form."""
    if len(data) > _LARGEST:
        return data
    packer = zlib.compressobj(level=4, zdict=_WORDS)
    packed = _MARK + packer.compress(data) + packer.flush()
    return packed if len(packed) < len(data) or data.startswith(_MARK) else data


def restored(data: bytes) -> bytes:
    """Return the value that :func:`compressed` was given.

    Raises
    ------
    ValueError
        The bytes are damaged.
    """
    if data[:1] != _MARK:
        return data
    unpacker = zlib.decompressobj(zdict=_WORDS)
    try:
        found = unpacker.decompress(data[1:])
    except zlib.error as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error
    if not unpacker.eof:
        raise ValueError("its compressed bytes break off")
    return found
