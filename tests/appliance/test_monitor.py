"""The monitor against a QEMU that answers, refuses, says nothing, or goes away."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError, DeadlineError
from fleetscan.appliance.monitor import Monitor

GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
        "capabilities": [],
    }
}
NAP = 0.3

Reply = Callable[[dict[str, Any]], dict[str, Any] | None]  # Any: JSON


def soon() -> Deadline:
    return Deadline(10, "the command")


class Qemu:
    """The other end of a monitor's socket, in a thread."""

    def __init__(self, reply: Reply, greeting: bytes | None = None) -> None:
        self.ours, self._theirs = socket.socketpair()
        self._reply = reply
        self._greeting = json.dumps(GREETING).encode() + b"\n" if greeting is None else greeting
        self.asked: list[str] = []
        self.descriptors: list[int] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._theirs.sendall(self._greeting)
            while True:
                data, extra, _, _ = self._theirs.recvmsg(1 << 16, socket.CMSG_SPACE(64))
                for _, _, content in extra:
                    numbers = array.array("i")
                    numbers.frombytes(content)
                    self.descriptors += numbers
                if not data:
                    return
                if data.strip():  # one command at a time, each in one piece
                    self._answer(json.loads(data))
        except OSError:
            return
        finally:
            self._theirs.close()

    def _answer(self, message: dict[str, Any]) -> None:
        self.asked.append(message["execute"])
        known = message["execute"] == "qmp_capabilities"
        answer = {"return": {}} if known else self._reply(message)
        if answer is not None:
            same = {"id": message["id"]} if "id" in message else {}
            self._theirs.sendall(json.dumps({**answer, **same}).encode() + b"\n")

    def leave(self) -> None:
        """Go away in the middle of it."""
        self._theirs.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.ours.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


Started = Callable[..., tuple[Monitor, Qemu]]


@pytest.fixture
def started() -> Iterator[Started]:
    """A monitor connected to a QEMU that replies so."""
    opened: list[tuple[Monitor, Qemu]] = []

    def start(reply: Reply) -> tuple[Monitor, Qemu]:
        qemu = Qemu(reply)
        pair = Monitor(qemu.ours, soon()), qemu
        opened.append(pair)
        return pair

    yield start
    for monitor, qemu in opened:
        monitor.close()
        qemu.close()


def test_a_command_has_its_result(started: Started) -> None:
    monitor, qemu = started(
        lambda message: {"return": {"status": "paused", **message["arguments"]}}
    )
    assert monitor.execute("query-status", soon(), {"x": 1}) == {"status": "paused", "x": 1}
    assert qemu.asked == ["qmp_capabilities", "query-status"]


def test_a_refusal_is_reported_with_the_command(started: Started) -> None:
    error = {"error": {"class": "GenericError", "desc": "no such node"}}
    monitor, _ = started(lambda message: error)
    with pytest.raises(ApplianceError, match="QEMU refused blockdev-add: no such node"):
        monitor.execute("blockdev-add", soon())


def test_a_qemu_that_does_not_answer_misses_the_deadline(started: Started) -> None:
    monitor, _ = started(lambda message: None)
    begun = time.monotonic()
    with pytest.raises(DeadlineError, match="the nap"):
        monitor.execute("cont", Deadline(NAP, "the nap"))
    assert time.monotonic() - begun < NAP + 3


def test_a_qemu_that_goes_away_is_an_error(started: Started) -> None:
    def leave(message: dict[str, Any]) -> None:
        qemu.leave()

    monitor, qemu = started(leave)
    with pytest.raises(ApplianceError, match="QEMU ended during cont"):
        monitor.execute("cont", soon())
    with pytest.raises(ApplianceError, match="QEMU accepts no more files"):
        monitor.send_descriptor(0)
    with pytest.raises(ApplianceError, match="QEMU ended during quit"):
        monitor.execute("quit", soon())


def test_a_descriptor_goes_along_with_a_command(started: Started) -> None:
    monitor, qemu = started(lambda message: {"return": {}})
    read_end, write_end = os.pipe()
    monitor.send_descriptor(read_end)
    monitor.execute("getfd", soon(), {"fdname": "state"})
    os.close(read_end)
    os.write(write_end, b"through")
    os.close(write_end)
    assert os.read(qemu.descriptors[0], 100) == b"through"


@pytest.mark.parametrize("greeting", [b"no json\n", b"{}\n", b'{"QMP": 1}\n'])
def test_what_is_no_qemu_is_an_error(greeting: bytes) -> None:
    qemu = Qemu(lambda message: None, greeting)
    with pytest.raises(ApplianceError, match="monitor does not answer"):
        Monitor(qemu.ours, soon())
    qemu.close()


def test_a_qemu_that_never_greets_misses_the_deadline() -> None:
    qemu = Qemu(lambda message: None, b"")
    with pytest.raises(DeadlineError):
        Monitor(qemu.ours, Deadline(NAP, "the greeting"))
    qemu.close()
