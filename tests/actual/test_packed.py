"""Parts of MessagePack: what is found, cut out, checked and printed is what decoding all of it gives."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.actual import packed
from reconciler.actual.codec import decode_value, encode
from reconciler.execution.launcher import unpacked

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=40)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=20),
    max_leaves=60,
)


def pack(value: Any) -> bytes:
    """Return a value as it is stored."""
    return encode({"v": value})[3:]


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, NaN included."""
    return pack(one) == pack(other)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all parts of a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for step, one in inner for place in places(one, (*path, step)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """Return what a path leads to."""
    for step in path:
        value = value[step]
    return value


@given(VALUES)
def test_every_part_is_found(value: Any) -> None:
    data = pack(value)
    for path in places(value):
        assert same(decode_value(packed.part(data, path)), at(value, path))


@given(VALUES, st.randoms())
def test_what_is_cut_out_has_each_part_at_its_place(value: Any, chance: random.Random) -> None:
    wanted = chance.sample(places(value), k=min(3, len(places(value))))
    left = unpacked(msgspec.msgpack.encode(packed.cut(pack(value), wanted)))
    for path in wanted:
        assert same(at(left, path), at(value, path))


@given(VALUES)
def test_a_whole_value_is_valid_and_every_beginning_of_it_is_not(value: Any) -> None:
    data = pack(value)
    packed.check(data, 200)
    for end in range(min(len(data), 50)):
        with pytest.raises(ValueError, match="cut off"):
            packed.check(data[:end], 200)


@pytest.mark.parametrize(
    "data", [b"\xc1", b"\x91\xc1", b"\xa1\xff", b"\xc0\xc0", b"\xdb\xff\xff\xff\xff", b""]
)
def test_what_is_not_messagepack_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"damaged|decode"):
        packed.check(data, 200)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\xdd\x00\x00\x00\x01"])
def test_what_is_too_deep_is_refused(opening: bytes) -> None:
    packed.check(opening * 198 + b"\xc0", 200)
    with pytest.raises(ValueError, match="200 levels"):
        packed.check(opening * 200_000 + b"\xc0", 200)


@given(VALUES)
def test_text_in_pieces_is_what_json_would_print(value: Any) -> None:
    expected = json.dumps(_finite(value), indent=2, ensure_ascii=False, default=packed._readable)
    text = "".join(packed.json_pieces(pack(value), ascii_only=False))
    assert text == expected


@pytest.mark.parametrize(
    "value",
    [
        [float(n) / 7 for n in range(100_000)],
        [1, 2.5, math.nan, -3, "text\n", None, -math.inf] * 9000,
        [{"row": n, "name": f"é{n}", "of": [n, -n]} for n in range(9000)],
        {"a": {"b": [[0.5] * 9000] * 9, "c": "x" * 90_000}, "d": list(range(-50, 50)) * 900, "e": []},
    ],
    ids=["floats", "mixed", "rows", "nested"],
)
def test_large_values_are_printed_as_small_ones(value: Any) -> None:
    text = "".join(packed.json_pieces(pack(value), ascii_only=False))
    assert text == json.dumps(_finite(value), indent=2, ensure_ascii=False)
    packed.check(pack(value), 200)


def test_links_are_replaced_by_what_they_stand_for() -> None:
    link, other = {"blob_uuid": "b", "store": "data"}, {"blob_uuid": "c", "store": "data"}
    value = {"x": [1, link, {"y": link}], "z": other, "text": "blob_uuid", "rows": [{"n": 1}] * 30_000}
    heavy = {"heavy": [n / 7 for n in range(30_000)]}

    def load(found: memoryview) -> memoryview:
        return memoryview(pack(heavy)) if decode_value(found) == link else found

    text = "".join(packed.json_pieces(pack(value), ascii_only=True, load=load))
    assert text == json.dumps(value | {"x": [1, heavy, {"y": heavy}]}, indent=2)


def test_one_item_of_a_long_list_travels_with_its_index_only() -> None:
    value = {"trajectory": [[float(n)] * 3 for n in range(50_000)], "energy": -1.5}
    data = pack(value)
    left = msgspec.msgpack.encode(packed.cut(data, [("trajectory", -1, 0), ("energy",)]))
    assert len(left) < 100 < len(data)
    assert unpacked(left)["trajectory"][-1][0] == 49_999.0
    assert len(unpacked(left)["trajectory"]) == 50_000


@pytest.mark.parametrize("steps", [("nowhere",), ("a", 5), ("a", "b"), ("a", 0, 0)])
def test_a_step_that_leads_nowhere_leaves_its_part_whole(steps: tuple[Any, ...]) -> None:
    value = {"a": [1, 2], "b": 3}
    left = unpacked(msgspec.msgpack.encode(packed.cut(pack(value), [steps])))
    assert left == ({"a": [1, 2]} if steps[0] == "a" and steps != ("a", 0, 0) else left)
    with pytest.raises(LookupError) as failed:
        packed.part(pack(value), steps)
    assert failed.value.args == (len(steps) - 1,)


@pytest.mark.parametrize("kind", [{"@class": "C", "@module": "m"}, {"blob_uuid": "b", "store": "data"}])
def test_what_describes_an_object_stays_whole(kind: dict[str, str]) -> None:
    value = {"a": kind | {"x": {"y": 1, "z": 2}}, "b": 1}
    left = unpacked(msgspec.msgpack.encode(packed.cut(pack(value), [("a", "x", "y")])))
    assert left == {"a": value["a"]}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


TEXTS = {
    "short": "é",
    "empty": "",
    "quotes and line ends": 'a "b"\\\n\t\x7f' * 20_000,
    "characters of two bytes": "a" + "é" * 100_000,
    "characters of four bytes": "abc" + "\U0001f600" * 50_000,
    "one piece": "x" * packed._PIECE,
    "one byte more": "x" * (packed._PIECE + 1),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_large_text_is_printed_piece_by_piece(text: str, ascii_only: bool) -> None:
    for value in (text, [text, 1], {"a": {"b": text}}):
        pieces = list(packed.json_pieces(pack(value), ascii_only=ascii_only))
        assert "".join(pieces) == json.dumps(value, indent=2, ensure_ascii=ascii_only)
        assert max(map(len, pieces)) <= 12 * packed._PIECE
    raw = packed.raw_pieces(pack(text))
    assert raw is not None
    assert "".join(map(str, raw)) == text
    content = text.encode()
    assert b"".join(packed.raw_pieces(pack(content)) or ()) == content  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1, None, 2.5, True, [], ["x"], {}, {"a": "x"}])
def test_other_values_have_no_raw_form(value: Any) -> None:
    assert packed.raw_pieces(pack(value)) is None
