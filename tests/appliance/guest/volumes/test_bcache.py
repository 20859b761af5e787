"""What a bcache device's header says of where its data is."""

from __future__ import annotations

import struct

import pytest

from fleetscan.appliance.guest.volumes import bcache

MAGIC = bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")


def header(version: int = 1, state: int = 0, start: int = 0, magic: bytes = MAGIC) -> bytes:
    """A header as linux/bcache.h has it; in flags, the state stands above the cache's mode."""
    flags = state << 61 | 1
    return struct.pack(
        "<QQQ16s16s16s32sQQ64xQ", 0, 8, version, magic, b"", b"", b"", flags, 0, start
    )


@pytest.mark.parametrize(
    ("made", "start"),
    [(header(), 16), (header(state=1), 16), (header(version=4, start=2048), 2048)],
)
def test_data_begins_where_the_header_says(made: bytes, start: int) -> None:
    assert bcache.data_start(made) == start


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (header(state=2), "was not written back"),
        (header(state=3), "its cache was lost"),
        (header(version=3), "a cache"),
        (header(version=0), "a cache"),
        (header(version=9), "a cache"),
        (header(version=4, start=8), "within its header"),
        (header(magic=bytes(16)), "damaged"),
        (header()[:100], "cut short"),
    ],
)
def test_what_cannot_be_read_past_the_header_is_refused(made: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        bcache.data_start(made)
