"""An agent that was taken over: it behaves as it is told, and never as it should.

As the agent of a LocalAppliance it takes the name of its directory for what to do; inside a
virtual machine, the first words on the first disk: the image decides, as in life.

Like the agent it imports nothing that is not in the appliance.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fleetscan.appliance.ground import wire
from fleetscan.appliance.ground.wire import FrameKind
from fleetscan.appliance.guest import setup
from fleetscan.appliance.guest.__main__ import Operations, _Port
from fleetscan.appliance.guest.disks import wait_for_disks
from fleetscan.appliance.guest.machine import DirectoryMachine, DiskMachine, GuestMachine
from fleetscan.scanner import tables

CONTROL = "\x1b]0;owned\x07\u202e\r\n\x00"
GROUP = {"name": "wheel", "gid": 10, "members": [], "administrators": []}
_BLKROSET = 0x125D  # linux/fs.h


class HostileAgent(Operations):
    """Honest until it has seen the machine."""

    def __init__(self, stream: Any, machine: GuestMachine, behaviour: str = "") -> None:
        super().__init__(stream, machine, tables)
        self.stream = stream
        self.behaviour = behaviour

    def _answer(self, payload: bytes) -> None:
        request = json.loads(payload)
        if request["op"] in ("hello", "warm_up", "personalize"):
            super()._answer(payload)
        elif request["op"] in PLAIN:
            self.say(wire.encode_json(FrameKind.REPLY, PLAIN[request["op"]](**request["args"])))
        else:
            self.behaviour = self.behaviour or _first_words()
            BEHAVIOURS[self.behaviour](self, request["op"], request["args"])

    def say(self, data: bytes) -> None:
        """Send bytes that may be frames."""
        self.stream.sendall(data)

    def reply(self, value: object) -> None:
        """Send a reply."""
        self.say(wire.encode_json(FrameKind.REPLY, value))

    def rows(self, table: str, *rows: object) -> None:
        """Send rows."""
        lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        self.say(wire.encode_rows(table, lines))

    def endlessly(self, data: bytes) -> NoReturn:
        """Send the same bytes until somebody puts an end to it."""
        block = data * max(1, (1 << 18) // len(data))
        while True:
            self.say(block)


def _first_words() -> str:
    (disk,) = wait_for_disks([0])
    with Path(disk.path).open("rb") as stream:
        return stream.read(64).split(b"\n")[0].decode()


# -- What it does when asked for anything ----------------------------------------------------

Behaviour = Callable[[HostileAgent, str, Mapping[str, Any]], object]


def _always(data: bytes) -> Behaviour:
    return lambda agent, op, args: agent.say(data)


def _stall(agent: HostileAgent, op: str, args: Mapping[str, Any]) -> None:
    time.sleep(3600)


def _drip(agent: HostileAgent, op: str, args: Mapping[str, Any]) -> None:
    for byte in wire.encode(FrameKind.REPLY, bytes(1 << 20)):
        agent.say(bytes([byte]))
        time.sleep(0.01)


def _exit(agent: HostileAgent, op: str, args: Mapping[str, Any]) -> None:
    os._exit(3)


def _kill(agent: HostileAgent, op: str, args: Mapping[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_first(answer: object) -> Behaviour:
    """Answer the discovery so, and every other request as if all were well."""
    return lambda agent, op, args: agent.reply(answer if op == "discover" else {})


def found(**changes: object) -> dict[str, object]:
    """The discovery of an honest agent, changed."""
    return {"devices": [], "roots": ["/"], "warnings": [], **changes}


def _for_groups(act: Callable[[HostileAgent], object]) -> Behaviour:
    """Lie about the groups, and say of all else that there is none."""

    def behave(agent: HostileAgent, op: str, args: Mapping[str, Any]) -> None:
        if op == "discover":
            agent.reply(found())
            return
        if args["table"] == "groups":
            act(agent)
        agent.reply({})

    return behave


def _good_then_bad(agent: HostileAgent) -> None:
    agent.rows("groups", GROUP)
    agent.rows("groups", {"name": 1})
    agent.rows("groups", GROUP)


def _exit_midway(agent: HostileAgent) -> None:
    agent.rows("groups", GROUP)
    os._exit(3)


def _error(**fields: object) -> bytes:
    return wire.encode_json(FrameKind.ERROR, fields)


BEHAVIOURS: dict[str, Behaviour] = {
    "stall": _stall,
    "drip": _drip,
    "exit": _exit,
    "kill": _kill,
    "zeros": lambda agent, op, args: agent.endlessly(bytes(4096)),
    "announce": _always(bytes([FrameKind.REPLY]) + b"\xff\xff\xff\xff"),
    "request": _always(wire.encode(FrameKind.REQUEST, b"{}")),
    "cut-json": _always(wire.encode(FrameKind.REPLY, b'{"roots": [')),
    "deep-json": _always(wire.encode(FrameKind.REPLY, b"[" * 1_000_000)),
    "long-number": _always(wire.encode(FrameKind.REPLY, b"9" * 1_000_000)),
    "error-not-json": _always(wire.encode(FrameKind.ERROR, b"\xff")),
    "error-of-wrong-type": _always(_error(name=["x"], message={}, traceback=1)),
    "error-of-control": _always(_error(name=CONTROL, message=CONTROL * 100_000)),
    "not-applicable": _always(_error(name="NotApplicable", message="said the guest")),
    "log-flood": lambda agent, op, args: agent.endlessly(wire.encode(FrameKind.LOG, b"x")),
    "log-control": lambda agent, op, args: agent.endlessly(
        wire.encode(FrameKind.LOG, CONTROL.encode() * 1000)
    ),
    "reply-null": _always(wire.encode(FrameKind.REPLY, b"null")),
    "reply-list": _always(wire.encode(FrameKind.REPLY, b"[1]")),
    "reply-more": _at_first(found(more=1)),
    "reply-wrong-types": _at_first(found(roots=[1])),
    "roots-many": _at_first(found(roots=[f"/dev/sda{number}" for number in range(1000)])),
    "roots-twice": _at_first(found(roots=["/", "/"])),
    "roots-alike": _at_first(found(roots=["a\n", "a\\n"])),
    "roots-long": _at_first(found(roots=["x" * (3 << 20)])),
    "roots-control": _at_first(found(roots=[CONTROL], warnings=[CONTROL], devices=[CONTROL])),
    "warnings-many": _at_first(found(warnings=["x"] * 100_000)),
    "devices-many": _at_first(found(devices=[f"/dev/sd{number}" for number in range(200)])),
    "no-roots": _at_first(found(roots=[])),
    "all-empty": _at_first(found()),
    "other-table": _for_groups(lambda agent: agent.rows("users", {"name": "root"})),
    "unknown-table": _for_groups(lambda agent: agent.rows("../../etc/passwd", {})),
    "unnamed-table": _for_groups(lambda agent: agent.say(wire.encode(FrameKind.ROWS, b"{}"))),
    "rows-unasked": _always(wire.encode_rows("groups", b"{}\n")),
    "unknown-column": _for_groups(lambda agent: agent.rows("groups", {**GROUP, "more": 1})),
    "wrong-type": _for_groups(lambda agent: agent.rows("groups", {**GROUP, "gid": "ten"})),
    "out-of-range": _for_groups(lambda agent: agent.rows("groups", {**GROUP, "gid": 2**32})),
    "missing-column": _for_groups(lambda agent: agent.rows("groups", {"name": "wheel"})),
    "identity": _for_groups(lambda agent: agent.rows("groups", {**GROUP, "machine_id": "other"})),
    "not-rows": _for_groups(lambda agent: agent.say(wire.encode_rows("groups", b"\xff\n[]\n"))),
    "deep-rows": _for_groups(
        lambda agent: agent.say(wire.encode_rows("groups", b'{"a":' * 200_000 + b"\n"))
    ),
    "long-row": _for_groups(lambda agent: agent.rows("groups", {**GROUP, "name": "x" * (3 << 20)})),
    "row-flood": _for_groups(
        lambda agent: agent.endlessly(
            wire.encode_rows("groups", (json.dumps(GROUP).encode() + b"\n") * 5000)
        )
    ),
    "tiny-frames": _for_groups(lambda agent: agent.endlessly(wire.encode_rows("groups", b""))),
    "good-then-bad": _for_groups(_good_then_bad),
    "reply-twice": _for_groups(lambda agent: agent.reply({})),
    "exit-midway": _for_groups(_exit_midway),
}


# -- Further operations, for tests that ask the guest themselves -----------------------------


def _scribble(mebibytes: int) -> int:
    """Overwrite memory; its size is returned so that nothing is left out."""
    pages = bytearray(os.urandom(4096)) * (256 * mebibytes)
    return len(pages)


def _write(path: str) -> str:
    """Try to make a block device writable and to write it; why that fails, empty if it does not."""
    if path == "/dev/sda":
        wait_for_disks([0])
    try:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.ioctl(descriptor, _BLKROSET, struct.pack("i", 0))
        os.close(descriptor)
        descriptor = os.open(path, os.O_WRONLY)
        os.pwrite(descriptor, b"written by the guest" * 1000, 0)
        os.fsync(descriptor)
    except OSError as error:
        return str(error.strerror)
    return ""


def _sysrq(key: str) -> None:
    Path("/proc/sysrq-trigger").write_text(key)


PLAIN: dict[str, Callable[..., object]] = {
    "random": lambda: os.urandom(32).hex(),
    "now": time.time,
    "scribble": _scribble,
    "write": _write,
    "sysrq": _sysrq,
    "exit": lambda: os._exit(3),
}


def boot() -> None:
    """Be the appliance's first process."""
    setup.mount_pseudo_filesystems()
    setup.load_modules()
    setup.hold_disks()
    with Path(setup.agent_port()).open("r+b", buffering=0) as port:
        HostileAgent(_Port(port), DiskMachine()).serve()


def main(arguments: list[str]) -> None:
    """Be a LocalAppliance's process: ``DIRECTORY SOCKET-DESCRIPTOR``."""
    directory, descriptor = arguments
    with socket.socket(fileno=int(descriptor)) as stream:
        HostileAgent(stream, DirectoryMachine(directory), Path(directory).name).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
