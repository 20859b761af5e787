from __future__ import annotations

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground import wire
from fleetscan.appliance.ground.wire import Frame, FrameError, FrameKind, FrameReader

HEADER = 5

frames = st.lists(st.builds(Frame, st.sampled_from(FrameKind), st.binary(max_size=60)), max_size=8)


def encoded(sequence: list[Frame]) -> bytes:
    return b"".join(wire.encode(frame.kind, frame.payload) for frame in sequence)


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(frames, st.lists(st.integers(0, 1000), max_size=12))
def test_any_chopping_of_any_frames_gives_them_back(sequence: list[Frame], cuts: list[int]) -> None:
    reader = FrameReader()
    pieces = chopped(encoded(sequence), cuts)
    assert [frame for piece in pieces for frame in reader.feed(piece)] == sequence


@given(frames, st.binary(max_size=80))
def test_garbage_gives_frames_or_a_frame_error_and_nothing_else(
    sequence: list[Frame], garbage: bytes
) -> None:
    reader = FrameReader()
    received = []
    try:
        for frame in reader.feed(encoded(sequence) + garbage):
            received.append(frame)
    except FrameError:
        pass
    assert received[: len(sequence)] == sequence


@given(st.binary(min_size=HEADER, max_size=40).filter(lambda data: data[0] not in range(1, 6)))
def test_an_unknown_kind_of_frame_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match="unknown kind"):
        list(FrameReader().feed(data))


@pytest.mark.parametrize("length", [wire.FRAME_LIMIT + 1, 2**32 - 1])
def test_a_frame_beyond_the_limit_is_refused_as_soon_as_it_is_announced(length: int) -> None:
    with pytest.raises(FrameError, match="announced"):
        list(FrameReader().feed(bytes([FrameKind.ROWS]) + length.to_bytes(4, "big")))


def test_the_longest_frame_passes() -> None:
    payload = bytes(wire.FRAME_LIMIT)
    reader = FrameReader()
    (frame,) = reader.feed(wire.encode(FrameKind.ROWS, payload))
    assert frame.payload == payload
    (frame,) = reader.feed(wire.encode(FrameKind.LOG, b"next"))
    assert frame.payload == b"next"


def test_a_longer_payload_is_not_encoded() -> None:
    with pytest.raises(FrameError, match="exceeds"):
        wire.encode(FrameKind.ROWS, bytes(wire.FRAME_LIMIT + 1))


def test_reading_a_long_stream_holds_no_more_than_one_frame() -> None:
    frame = wire.encode(FrameKind.ROWS, bytes(wire.FRAME_LIMIT))
    piece = 64 << 10
    pieces = [frame[start : start + piece] for start in range(0, len(frame), piece)]
    reader = FrameReader()
    tracemalloc.start()
    try:
        assert sum(len(list(reader.feed(part))) for part in pieces * 4) == 4
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The buffer, which takes an eighth more than it needs, and the frame that is cut from it.
    assert peak < 2.25 * wire.FRAME_LIMIT


def test_a_reader_that_is_left_off_midway_goes_on_where_it_was() -> None:
    sequence = [Frame(FrameKind.LOG, b"one"), Frame(FrameKind.LOG, b"two")]
    reader = FrameReader()
    for frame in reader.feed(encoded(sequence)):
        assert frame == sequence[0]
        break
    assert list(reader.feed(b"")) == sequence[1:]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_frames_carry_any_value(value: object) -> None:
    (frame,) = FrameReader().feed(wire.encode_json(FrameKind.REPLY, value))
    assert wire.parse_json(frame.payload) == value


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"\xff\xfe\xfd", b"nul", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000],
    ids=["empty", "cut", "not-text", "no-word", "deep-lists", "deep-objects", "endless-number"],
)
def test_what_is_no_json_is_a_frame_error(payload: bytes) -> None:
    with pytest.raises(FrameError):
        wire.parse_json(payload)


def test_rows_frames_name_their_table() -> None:
    row = json.dumps({"name": "bash"}).encode() + b"\n"
    (frame,) = FrameReader().feed(wire.encode_rows("packages", row * 2))
    assert frame == Frame(FrameKind.ROWS, b"packages\n" + row * 2)
