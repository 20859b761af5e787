from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.host.printable import LIMIT, printable


@given(st.text(st.characters(), max_size=400))
def test_any_text_becomes_short_and_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) <= LIMIT


def test_readable_text_stays_and_the_rest_is_escaped() -> None:
    assert printable("Größe 1 \u4e2d") == "Größe 1 \u4e2d"
    assert printable("a\x1b[31m\n\u202e\udc80") == r"a\x1b[31m\n\u202e\udc80"
    assert printable("abcdefgh", 6) == "abc..."
