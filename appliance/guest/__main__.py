"""The agent's main loop: requests in, rows and replies out.

In the appliance it is the first process of the system (:func:`boot`); as LocalAppliance it is an
ordinary process that is given a directory and a connected socket (:func:`main`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from fleetscan.appliance.ground import encoding, redaction, schema, wire
from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.option import from_wire
from fleetscan.appliance.ground.options import FactOptions
from fleetscan.appliance.ground.reasons import in_words
from fleetscan.appliance.ground.redaction import redact
from fleetscan.appliance.ground.wire import FrameKind
from fleetscan.appliance.guest.machine import DirectoryMachine, DiskMachine, GuestMachine
from fleetscan.appliance.guest.root import Root
from fleetscan.appliance.guest.volume import VolumeKey

_RECEIVE = 1 << 16
_ROOTS, _WARNINGS = 64, 200  # of a machine, that are sent to the host; it takes no more


# What a collector may end by, besides what it states: a file or device that cannot be read, memory
# or a library that is missing. Anything else is a bug.
_FAILURES = (OSError, MemoryError, ImportError)
_TOLD, _FRAMES = 500, 4  # characters and frames of a bug that are reported


class Stream(Protocol):
    """Where frames come from and go to."""

    def recv(self, size: int, /) -> bytes:
        """Some bytes; none when the host is gone."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of them."""


class IncompleteRootError(OSError):
    """A collector looked below a mountpoint of the root whose filesystem is not here."""


class Collectors(Protocol):
    """The fact tables with their collectors: a package that ships beside the agent."""

    def load_tables(self) -> dict[str, schema.Table]:
        """All of them by name."""

    def load_collector(self, name: str, /) -> Callable[[GuestMachine | Root], Iterator[object]]:
        """What gathers a table's rows, of the whole machine or of one root."""

    def warm_up_collector(self, name: str, /) -> None:
        """Do what a table's collector does for every machine alike."""


class Operations:
    """Carries out the host's requests on one machine.

    Args:
        stream: where they come from.
        machine: what is scanned.
        tables: what can be gathered.
    """

    def __init__(self, stream: Stream, machine: GuestMachine, tables: Collectors) -> None:
        self._stream = stream
        self._machine = machine
        self._tables = tables
        self._options = FactOptions()

    def serve(self) -> None:
        """Answer requests until the host goes away."""
        reader = wire.FrameReader()
        while data := self._stream.recv(_RECEIVE):
            for frame in reader.feed(data):
                self._answer(frame.payload)

    def _answer(self, payload: bytes) -> None:
        try:
            request = wire.parse_json(payload)
            result = OPERATIONS[request["op"]](self, **request["args"])
        except BaseException as error:  # whatever it is, the host is told
            self._stream.sendall(wire.encode_json(FrameKind.ERROR, _describe(error)))
        else:
            self._stream.sendall(wire.encode_json(FrameKind.REPLY, result))

    def hello(self) -> object:
        """Say that the agent is ready."""
        return {"protocol": wire.PROTOCOL}

    def personalize(self, entropy: str, time_us: int) -> object:
        """Take the host's random bytes and time; before anything else is done."""
        self._machine.personalize(bytes.fromhex(entropy), time_us)
        return {}

    def warm_up(self) -> object:
        """Touch what every scan needs, before this machine is saved as a template."""
        from fleetscan.appliance.guest import setup

        setup.warm_up()
        for table in self._tables.load_tables().values():
            if table.origin is schema.Origin.GUEST:
                self._tables.warm_up_collector(table.name)
                encoding.warm_up(table.row)
        redaction.warm_up()
        _rehearse(self._tables)
        setup.settle()
        return {}

    def discover(
        self,
        disks: list[int],
        options: Mapping[str, object],
        keys: Sequence[Mapping[str, str]] = (),
    ) -> object:
        """Find volumes, filesystems and roots on the disks that were plugged.

        Args:
            disks: their places on the machine.
            options: those of FactOptions that are not at their defaults, by their names.
            keys: for encrypted volumes: ``selector``, and ``secret`` in hexadecimal digits.
        """
        self._options = from_wire(FactOptions, options)
        given = [VolumeKey(key["selector"], bytes.fromhex(key["secret"])) for key in keys]
        self._machine.discover(disks, self._options, given, self.log)
        roots, warnings = self._machine.roots, list(self._machine.warnings)
        if len(roots) > _ROOTS:
            warnings.insert(0, f"of {len(roots)} systems only the first {_ROOTS} were looked at")
        if len(warnings) > _WARNINGS:
            warnings[_WARNINGS - 1 :] = [f"and {len(warnings) - _WARNINGS + 1} more"]
        return {
            "devices": self._machine.devices(),
            "roots": [schema.escape(root.name) for root in roots[:_ROOTS]],
            "warnings": [_text(warning) for warning in warnings],
        }

    def collect(self, table: str, root: int | None) -> object:
        """Gather one table's rows, of the whole machine or of one root."""
        if root is None:
            self._send_rows(table, self._machine)
            return {}
        subject = self._machine.roots[root]
        with subject.lookups.watching() as lost:
            try:
                self._send_rows(table, subject)
            except (schema.NotApplicable, schema.UnreadError) as outcome:
                if lost:
                    raise IncompleteRootError(str(lost)) from outcome
                raise
            if lost:
                raise IncompleteRootError(str(lost))
        return {}

    def _send_rows(self, table: str, subject: GuestMachine | Root) -> None:
        for chunk in _chunks(encode_rows(self._tables.load_collector(table)(subject))):
            self._stream.sendall(wire.encode_rows(table, chunk))

    def log(self, text: str) -> None:
        """Send a line to the scanner's log."""
        self._stream.sendall(wire.encode(FrameKind.LOG, _text(text).encode("utf-8", "replace")))


OPERATIONS: dict[str, Callable[..., object]] = {
    "hello": Operations.hello,
    "warm_up": Operations.warm_up,
    "personalize": Operations.personalize,
    "discover": Operations.discover,
    "collect": Operations.collect,
}


def _rehearse(tables: Collectors) -> None:
    """Gather facts of the appliance's own tree, and drop them.

    What is imported late, patterns that are compiled when first used and the interpreter's own
    tuning of what runs often are there then, in every clone.
    """
    with Root("", "/") as root:
        for table in tables.load_tables().values():
            wanted = table.origin is schema.Origin.GUEST and table.scope is schema.Scope.ROOT
            if wanted and not table.walks:  # which would go through /proc as well
                with contextlib.suppress(Exception):  # whatever the appliance lacks
                    for _ in encode_rows(tables.load_collector(table.name)(root)):
                        pass


def _chunks(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Encoded rows gathered to payloads of about ROWS_TARGET bytes.

    What was gathered before a collector failed is handed on before its error is.
    """
    gathered: list[bytes] = []
    size = 0
    try:
        for row in rows:
            if len(row) > wire.ROW_LIMIT:
                raise schema.IncompleteError(f"a row of {len(row)} bytes is too long to be sent")
            gathered.append(row)
            size += len(row)
            if size >= wire.ROWS_TARGET:
                yield b"".join(gathered)
                gathered, size = [], 0
    except Exception:
        if gathered:
            yield b"".join(gathered)
        raise
    if gathered:
        yield b"".join(gathered)


def _describe(error: BaseException) -> dict[str, object]:
    # A stated outcome needs no traceback, and to make one costs more than most collectors.
    stated = isinstance(error, (schema.NotApplicable, schema.IncompleteError))
    text = [] if stated else traceback.format_exception(error)
    unread = error.unread if isinstance(error, schema.UnreadError) else None
    told = in_words(error)
    if not stated and not isinstance(error, _FAILURES):
        told = f"{told[:_TOLD]} (a bug in fleetscan, at {_place(error)})"
    return {
        "unread": None if unread is None else [schema.escape(path) for path in unread],
        "name": type(error).__name__,
        "message": _text(told)[:2000],
        "traceback": _text("".join(text))[-3000:],
    }


def _place(error: BaseException) -> str:
    """Where an exception was raised, and what led there, nearest first."""
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), lookup_lines=False
    )
    nearest = [
        f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}"
        for frame in frames[-_FRAMES:]
    ]
    return " < ".join(reversed(nearest))


def _text(text: str) -> str:
    """A message for the host about a guest's content, which it may quote."""
    return schema.escape(redact(text))


class _Port:
    """The virtio-serial port as a stream."""

    def __init__(self, port: BinaryIO) -> None:
        self._port = port

    def recv(self, size: int, /) -> bytes:
        # The port reads as ended while the host's side is closed; a machine that is restored
        # from a template begins that way.
        while True:
            if data := os.read(self._port.fileno(), size):
                return data
            time.sleep(0.001)

    def sendall(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._port.fileno(), view) :]


def boot(tables: str) -> None:
    """Be the appliance's first process.

    Args:
        tables: the package of the fact tables.
    """
    from fleetscan.appliance.guest import setup

    setup.mount_pseudo_filesystems()
    setup.limit_memory()
    setup.load_modules()
    setup.hold_disks()
    with open(setup.agent_port(), "r+b", buffering=0) as port:
        Operations(_Port(port), DiskMachine(), _imported(tables)).serve()


def main(arguments: list[str]) -> None:
    """Be LocalAppliance's process: ``TABLES DIRECTORY SOCKET-DESCRIPTOR``."""
    tables, directory, descriptor = arguments
    with socket.socket(fileno=int(descriptor)) as stream:
        Operations(stream, DirectoryMachine(directory), _imported(tables)).serve()


def _imported(tables: str) -> Collectors:
    package: Any = importlib.import_module(tables)
    return package  # type: ignore[no-any-return] # the package that ships has these functions


if __name__ == "__main__":
    main(sys.argv[1:])
