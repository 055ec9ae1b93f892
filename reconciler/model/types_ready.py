"""Types that threads may use: msgspec works out the fields of a Struct when it is first used as a type.

Two threads that come first at the same time crash the whole process (msgspec 0.22). So what is converted or
decoded anywhere is made ready when its module is imported, or has a decoder of its module.
"""

from __future__ import annotations

import msgspec


def make_ready(*types: type) -> None:
    """Make msgspec resolve the fields of Structs now."""
    for kind in types:
        msgspec.json.Decoder(kind)
