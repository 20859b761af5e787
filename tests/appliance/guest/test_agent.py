"""The agent's answers, without an appliance."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from appliance import wire
from appliance.guest.__main__ import Agent
from appliance.guest.machine import DirectoryMachine
from appliance.guest.root import Mount, Root
from appliance.wire import FrameKind

LOST = Mount("/srv", "/dev/sdb1", mounted=False, error="why")


class Stream:
    """Asks for one table of the first root."""

    def __init__(self, table: str) -> None:
        args = {"table": table, "root": 0}
        self._requests = [wire.encode_json(FrameKind.REQUEST, {"op": "collect", "args": args})]
        self.answers = wire.FrameReader()
        self.last: Any = None  # JSON of the last error

    def recv(self, _: int, /) -> bytes:
        return self._requests.pop() if self._requests else b""

    def sendall(self, data: bytes, /) -> None:
        for frame in self.answers.feed(data):
            if frame.kind is FrameKind.ERROR:
                self.last = wire.parse_json(frame.payload)


class Machine:
    """A machine whose roots are known."""

    def __init__(self, *roots: Root) -> None:
        self.roots = roots


@pytest.mark.parametrize(
    ("mounts", "name", "unread"),
    [((), "UnreadError", ["/etc/hosts"]), ((LOST,), "IncompleteRootError", None)],
)
def test_files_are_all_that_lacks_only_where_everything_is_mounted(
    mounts: tuple[Mount, ...], name: str, unread: list[str] | None, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("address\n")
    stream = Stream("config")
    with Root("r", str(tmp_path), mounts) as root:
        Agent(stream, cast(DirectoryMachine, Machine(root))).serve()
    assert (stream.last["name"], stream.last["unread"]) == (name, unread)
