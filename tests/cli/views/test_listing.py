"""Tables: how they fit a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.views.listing import _fitted, cell_text, cut, display_width


@given(st.lists(st.integers(1, 90), min_size=1, max_size=14), st.integers(1, 200))
def test_columns_fit(widths: list[int], limit: int) -> None:
    found = _fitted(widths, limit)
    shown = [width for width in found if width]
    assert sum(shown) + 2 * max(0, len(shown) - 1) <= limit
    assert all(new <= old for new, old in zip(found, widths, strict=True))


@given(st.lists(st.integers(1, 90), min_size=1, max_size=14))
def test_what_fits_is_not_cut(widths: list[int]) -> None:
    assert _fitted(widths, sum(widths) + 2 * (len(widths) - 1)) == widths


def test_the_widest_column_is_narrowed_first() -> None:
    assert _fitted([11, 9, 60], 60) == [11, 9, 36]


def test_columns_at_the_right_are_cut_off_last() -> None:
    assert _fitted([20, 20, 20, 20], 30) == [20, 8, 0, 0]


@given(st.text(max_size=60), st.integers(0, 40))
def test_cut_text_is_never_wider(text: str, width: int) -> None:
    found = cut(text, width)
    assert display_width(found) <= width
    assert found == text or found == "" or found.endswith("…")


def test_wide_characters_take_two_columns() -> None:
    assert display_width("日本") == 4
    assert cut("日本語テキスト", 7) == "日本語…"
    assert display_width("e\N{COMBINING ACUTE ACCENT}") == 1


def test_cell_text() -> None:
    values = [None, True, False, 0, {}, {"a": {"b": 1}}, [], ["x", "y"], "two\nlines"]
    assert [cell_text(value) for value in values] == [
        "-", "yes", "no", "0", "{}", "a=b=1", "-", "x, y", "two lines",
    ]  # fmt: skip
