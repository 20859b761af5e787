"""The host's end of the wire, against a peer that says what a test has it say."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground import wire
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError, DeadlineError, GuestError, WireError
from fleetscan.appliance.ground.wire import FrameKind
from fleetscan.appliance.guest.__main__ import Operations
from fleetscan.appliance.guest.machine import DirectoryMachine
from fleetscan.appliance.host.printable import escaped
from fleetscan.appliance.session import Session, SessionLimits
from fleetscan.scanner import tables

Answer = Callable[[socket.socket], object]
REPLY = wire.encode_json(FrameKind.REPLY, {"done": True})
NAP = 0.3


def soon() -> Deadline:
    return Deadline(10, "the conversation")


class Peer:
    """The other end of a session, answering each request by the next of its answers."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.requests: list[Any] = []  # Any: JSON
        self._thread: threading.Thread | None = None

    def session(self, *answers: Answer | bytes, limits: SessionLimits | None = None) -> Session:
        self._thread = threading.Thread(target=self._serve, args=(answers,), daemon=True)
        self._thread.start()
        return Session(self._ours, limits or SessionLimits(), gone=lambda: "its own words")

    def _serve(self, answers: tuple[Answer | bytes, ...]) -> None:
        reader = wire.FrameReader()
        left = iter(answers)
        try:
            while data := self._theirs.recv(1 << 16):
                for frame in reader.feed(data):
                    self.requests.append(json.loads(frame.payload))
                    answer = next(left)
                    if isinstance(answer, bytes):
                        self._theirs.sendall(answer)
                    else:
                        answer(self._theirs)
        except (OSError, StopIteration):
            pass
        finally:
            self._theirs.close()

    def close(self) -> None:
        self._ours.close()
        if self._thread:
            self._thread.join(5)
            assert not self._thread.is_alive()


@pytest.fixture
def peer() -> Iterator[Peer]:
    end = Peer()
    yield end
    end.close()


def rows(table: str, payload: bytes = b"{}\n") -> bytes:
    return wire.encode_rows(table, payload)


def error(**fields: object) -> bytes:
    return wire.encode_json(FrameKind.ERROR, fields)


# -- What an honest agent says ---------------------------------------------------------------


def test_a_reply_is_the_result_and_the_request_names_operation_and_arguments(peer: Peer) -> None:
    session = peer.session(REPLY)
    assert session.call("collect", soon(), table="files", root=0) == {"done": True}
    assert peer.requests == [{"op": "collect", "args": {"table": "files", "root": 0}}]


def test_rows_arrive_in_order_before_the_reply(peer: Peer) -> None:
    got: list[tuple[str, bytes]] = []
    session = peer.session(rows("users", b"1\n") + rows("users", b"2\n") + REPLY)
    session.call("collect", soon(), lambda table, payload: got.append((table, payload)))
    assert got == [("users", b"1\n"), ("users", b"2\n")]


def test_one_conversation_has_many_requests(peer: Peer) -> None:
    session = peer.session(*[wire.encode_json(FrameKind.REPLY, number) for number in range(5)])
    assert [session.call("x", soon()) for _ in range(5)] == list(range(5))


def test_an_error_of_the_guest_keeps_name_message_and_traceback(peer: Peer) -> None:
    session = peer.session(error(name="OSError", message="no disk", traceback="line 1"))
    with pytest.raises(GuestError, match="OSError: no disk") as caught:
        session.call("discover", soon())
    assert (caught.value.name, caught.value.remote_traceback) == ("OSError", "line 1")


def test_after_an_error_the_conversation_goes_on(peer: Peer) -> None:
    session = peer.session(error(name="OSError"), REPLY)
    with pytest.raises(GuestError):
        session.call("collect", soon())
    assert session.call("collect", soon()) == {"done": True}


def test_the_real_agent_understands_the_session_and_the_session_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    ours, theirs = socket.socketpair()
    agent = Operations(theirs, DirectoryMachine(str(tmp_path)), tables)
    thread = threading.Thread(target=agent.serve, daemon=True)
    thread.start()
    with ours, theirs:
        session = Session(ours, SessionLimits())
        assert session.call("hello", soon()) == {"protocol": wire.PROTOCOL}
        found = session.call("discover", soon(), disks=[], options={"files": "none"})
        assert found == {"devices": [], "roots": ["/"], "warnings": []}
        got: list[bytes] = []
        session.call("collect", soon(), lambda _, rows: got.append(rows), table="groups", root=0)
        assert [json.loads(line)["name"] for line in b"".join(got).splitlines()] == ["root"]
        with pytest.raises(GuestError) as caught:
            session.call("collect", soon(), lambda *_: None, table="files", root=0)
        assert caught.value.name == "NotApplicable"
        with pytest.raises(GuestError, match="KeyError"):
            session.call("no such operation", soon())
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert not thread.is_alive()


# -- What a hostile one says -----------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"\0" * 64,
        b"\xff" * 64,
        bytes([FrameKind.ROWS]) + b"\xff\xff\xff\xff",
        wire.encode(FrameKind.REQUEST, b"{}"),
        wire.encode(FrameKind.REPLY, b"{"),
        wire.encode(FrameKind.REPLY, b"[" * 100_000),
        wire.encode(FrameKind.ERROR, b"no json"),
        wire.encode(FrameKind.ERROR, b"[1]"),
        error(name="UnreadError", unread="/etc/passwd"),
        error(name="UnreadError", unread=["/etc/passwd", 1]),
        error(name="UnreadError", unread=["/x"] * 101),
        error(name="UnreadError", unread=["x" * 300_000]),
        error(name="UnreadError", unread=["/\ud800"]),
        error(name=1, message="x"),
        error(name="x", message=["y"]),
        wire.encode(FrameKind.ROWS, b"no newline at all"),
        wire.encode(FrameKind.ROWS, b"\xc3\xa9\n{}\n"),
        wire.encode(FrameKind.ROWS, b"x" * 65 + b"\n{}\n"),
    ],
    ids=[
        "zeros",
        "ones",
        "announcing-4-gib",
        "a-request",
        "cut-json",
        "deep-json",
        "error-not-json",
        "error-a-list",
        "error-files-a-text",
        "error-file-a-number",
        "error-too-many-files",
        "error-files-too-long",
        "error-file-no-text",
        "error-name-a-number",
        "error-message-a-list",
        "rows-without-table",
        "table-not-ascii",
        "table-name-too-long",
    ],
)
def test_what_breaks_the_rules_of_the_wire_is_a_wire_error(peer: Peer, answer: bytes) -> None:
    session = peer.session(answer)
    with pytest.raises(WireError):
        session.call("collect", soon(), lambda *_: None)


def test_rows_that_nobody_asked_for_are_a_wire_error(peer: Peer) -> None:
    session = peer.session(rows("users") + REPLY)
    with pytest.raises(WireError, match="ROWS frame out of turn"):
        session.call("hello", soon())


def last_words(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.close()


@given(st.binary(max_size=300))
def test_no_bytes_lead_to_another_exception_than_our_own(data: bytes) -> None:
    end = Peer()
    try:
        session = end.session(lambda sock: last_words(sock, data))
        try:
            session.call("collect", soon(), lambda *_: None)
        except ApplianceError:
            return
        assert FrameKind.REPLY in data
    finally:
        end.close()


def test_error_text_is_cut_and_its_control_characters_are_shown(peer: Peer) -> None:
    text = "\x1b]0;owned\x07\u202e\n" * 10_000
    session = peer.session(error(name=text, message=text, traceback=text))
    with pytest.raises(GuestError) as caught:
        session.call("discover", soon())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1200
    assert caught.value.remote_traceback.isprintable()


def test_a_guest_that_sends_nothing_misses_its_deadline(peer: Peer) -> None:
    session = peer.session(lambda sock: time.sleep(2 * NAP))
    begun = time.monotonic()
    with pytest.raises(DeadlineError, match=r"the nap did not finish within 0\.3 s"):
        session.call("discover", Deadline(NAP, "the nap"))
    assert NAP <= time.monotonic() - begun < NAP + 2


def drip(sock: socket.socket) -> None:
    for byte in rows("users") * 1000:
        sock.sendall(bytes([byte]))
        time.sleep(0.01)


def test_a_guest_that_sends_byte_by_byte_misses_its_deadline(peer: Peer) -> None:
    session = peer.session(drip)
    with pytest.raises(DeadlineError):
        session.call("collect", Deadline(NAP, "the drip"), lambda *_: None)


def flood(sock: socket.socket, frame: bytes) -> None:
    block = frame * max(1, (1 << 18) // len(frame))
    while True:
        sock.sendall(block)


def test_rows_without_end_miss_the_deadline(peer: Peer) -> None:
    session = peer.session(lambda sock: flood(sock, rows("users", b"{}\n" * 10_000)))
    with pytest.raises(DeadlineError):
        session.call("collect", Deadline(NAP, "the flood"), lambda *_: None)


def test_a_million_tiny_frames_are_too_many(peer: Peer) -> None:
    limits = SessionLimits(frames_left=1000)
    session = peer.session(lambda sock: flood(sock, rows("u", b"")), limits=limits)
    with pytest.raises(WireError, match="more than one machine may"):
        session.call("collect", soon(), lambda *_: None)


def test_too_many_bytes_are_too_many_however_they_are_parted(peer: Peer) -> None:
    limits = SessionLimits(bytes_left=1 << 20)
    frame = rows("users", bytes(1 << 17))
    session = peer.session(lambda sock: flood(sock, frame), limits=limits)
    got: list[int] = []
    with pytest.raises(WireError, match="more than one machine may"):
        session.call("collect", soon(), lambda _, payload: got.append(len(payload)))
    assert sum(got) <= 1 << 20


def test_limits_span_the_whole_conversation(peer: Peer) -> None:
    session = peer.session(REPLY, REPLY, REPLY, limits=SessionLimits(frames_left=2))
    session.call("a", soon())
    session.call("b", soon())
    with pytest.raises(WireError):
        session.call("c", soon())


def test_log_lines_are_kept_up_to_a_number_and_cut_and_made_printable(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    line = wire.encode(FrameKind.LOG, b"\x1b[2Jhello \xff" + b"x" * 5000)
    session = peer.session(line * 50 + REPLY, limits=SessionLimits(log_lines_left=3))
    with caplog.at_level(logging.INFO, "fleetscan.appliance.session"):
        session.call("discover", soon())
    assert len(caplog.messages) == 3
    assert all(text.isprintable() and len(text) < 600 for text in caplog.messages)


def test_a_guest_that_goes_away_is_told_in_the_words_of_its_keeper(peer: Peer) -> None:
    session = peer.session(lambda sock: sock.close())
    with pytest.raises(ApplianceError, match="the appliance stopped: its own words"):
        session.call("discover", soon())


def test_a_request_that_nobody_takes_misses_its_deadline(peer: Peer) -> None:
    session = peer.session(lambda sock: time.sleep(2 * NAP))
    with pytest.raises(DeadlineError):
        session.call("collect", Deadline(NAP, "the request"), table="x" * (4 << 20 >> 1))


@given(st.text())
def test_printable_text_is_printable_and_plain_text_stays_as_it_is(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
