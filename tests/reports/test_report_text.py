from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetscan.reports import text

ANYTHING = st.text(alphabet=st.characters(codec=None), max_size=60)


@given(ANYTHING)
@example("\x1b[31m\u202e\ud800\ufffe")
def test_visible_text_holds_nothing_that_is_invisible_or_moves_the_cursor(guest: str) -> None:
    shown = text.visible(guest, 10_000)
    assert all(unicodedata.category(char)[0] != "C" for char in shown)
    assert shown.isprintable()


@given(ANYTHING)
def test_printable_text_stays_as_it_is(guest: str) -> None:
    printable = "".join(filter(str.isprintable, guest))
    assert text.visible(printable) == printable


@given(ANYTHING, st.integers(1, 30))
def test_text_is_cut_at_its_limit_and_says_so(guest: str, limit: int) -> None:
    shown = text.visible(guest, limit)
    whole = text.visible(guest, 10_000)
    assert len(shown) <= limit + 1
    assert shown == whole or shown.endswith("…")


@given(ANYTHING, st.integers(1, 40))
def test_chart_text_has_only_characters_the_chart_renderer_takes(guest: str, limit: int) -> None:
    shown = text.chart_text(guest, limit)
    assert shown.isprintable()
    assert all(char <= "\uffff" for char in shown)
    assert len(shown) <= limit + 1


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, "n/a"),
        (0, 7, "0 %"),
        (7, 7, "100 %"),
        (1, 3, "33.3 %"),
        (99_999, 100_000, "99.9 %"),
        (1, 100_000, "0.1 %"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(part: int, whole: int, shown: str) -> None:
    assert text.percent(part, whole) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (150 * 1024**4, "150 TiB"),
        (2**64 - 1, "16.0 EiB"),
        (1000 * 1024**6, "1,000 EiB"),
    ],
)
def test_sizes_are_in_the_largest_unit_that_fits(size: int, shown: str) -> None:
    assert text.human_bytes(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (59.99, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (float("nan"), "n/a"),
    ],
)
def test_durations_carry_over_into_the_next_unit(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_moments_are_written_in_utc_with_microseconds() -> None:
    assert text.iso(text.from_epoch(1_500_000)) == "1970-01-01T00:00:01.500000Z"
