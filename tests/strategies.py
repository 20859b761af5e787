"""Hypothesis strategies shared by tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fleetscan.appliance.ground.schema import Column, Kind, Table

TIMESTAMPS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
"""Whole microseconds from the year 1 to the year 9999."""

_CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),  # bytes that were not UTF-8
    st.sampled_from('\\"{}[],:x5c\x00\n\r\x1b\u202e'),
)


def guest_texts() -> st.SearchStrategy[str]:
    """Text as a guest's bytes decode to with "surrogateescape"."""
    return st.text(_CHARACTERS, max_size=20)


# Any: what a column's Python type is depends on its kind.
_VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.STRING: guest_texts(),
    Kind.BOOL: st.booleans(),
    Kind.UINT8: st.integers(0, 2**8 - 1),
    Kind.UINT16: st.integers(0, 2**16 - 1),
    Kind.UINT32: st.integers(0, 2**32 - 1),
    Kind.UINT64: st.integers(0, 2**64 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    Kind.TIMESTAMP: TIMESTAMPS,
    Kind.STRING_LIST: st.lists(guest_texts(), max_size=4).map(tuple),
}


def values_of(column: Column) -> st.SearchStrategy[Any]:
    """Values that a column can hold."""
    values = st.sampled_from(column.values) if column.values else _VALUES[column.kind]
    return st.none() | values if column.nullable else values


def rows_of(table: Table) -> st.SearchStrategy[Any]:
    """Instances of a table's row class."""
    return st.builds(table.row, **{column.name: values_of(column) for column in table.columns})
