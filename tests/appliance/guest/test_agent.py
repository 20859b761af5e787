"""The agent's answers, without an appliance."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest

from fleetscan.appliance.ground import wire
from fleetscan.appliance.ground.schema import IncompleteError, NotApplicable, Origin, Scope
from fleetscan.appliance.ground.wire import FrameKind
from fleetscan.appliance.guest.__main__ import Operations
from fleetscan.appliance.guest.machine import DirectoryMachine
from fleetscan.appliance.guest.root import Mount, Root
from fleetscan.scanner import tables
from fleetscan.scanner.tables import load_tables
from tests.appliance.guest.test_mount_table import NODES


def lost(path: str) -> Mount:
    """A mount that the root lacks."""
    return Mount(path, "/dev/sdb1", mounted=False, error="why")


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
    [
        ((), "UnreadError", ["/etc/hosts"]),
        ((lost("/srv"),), "UnreadError", ["/etc/hosts"]),
        ((lost("/etc"),), "IncompleteRootError", None),
    ],
)
def test_files_are_all_that_lacks_unless_a_collector_looked_where_nothing_is_mounted(
    mounts: tuple[Mount, ...], name: str, unread: list[str] | None, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("address\n")
    stream = Stream("config")
    with Root("r", str(tmp_path), mounts) as root:
        Operations(stream, cast(DirectoryMachine, Machine(root)), tables).serve()
    assert (stream.last["name"], stream.last["unread"]) == (name, unread)


class Broken:
    """A table whose collector ends by an error after one row."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def load_collector(self, _: str) -> Any:
        return self.collect

    def collect(self, _: object) -> Iterator[object]:
        yield b"{}\n"
        raise self._error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (IncompleteError("/x: odd"), r"/x: odd"),
        (NotApplicable("no such thing"), r"no such thing"),
        (FileNotFoundError(2, "No such file", "/x"), r"/x: No such file( or directory)?"),
        (MemoryError("of this"), r"of this"),
    ],
)
def test_what_a_collector_states_is_told_as_it_is(error: Exception, told: str) -> None:
    stream = Stream("users")
    with Root("r", "/") as root:
        Operations(stream, cast(DirectoryMachine, Machine(root)), cast(Any, Broken(error))).serve()
    assert re.fullmatch(told, stream.last["message"])
    assert stream.last["name"] == type(error).__name__


@pytest.mark.parametrize(
    "error", [ValueError("x" * 900), KeyError("x"), AssertionError(), UnicodeError("x")]
)
def test_any_other_error_of_a_collector_is_a_bug_and_says_where(error: Exception) -> None:
    stream = Stream("users")
    with Root("r", "/") as root:
        Operations(stream, cast(DirectoryMachine, Machine(root)), cast(Any, Broken(error))).serve()
    assert stream.last["name"] == type(error).__name__
    where = r"\(a bug in fleetscan, at guest/test_agent\.py:[0-9]+ collect < "
    assert re.search(where, stream.last["message"][:1000])
    assert "Traceback" in stream.last["traceback"]


# -- Filesystems that are not there ----------------------------------------------------------

TREE = {
    "etc/os-release": "ID=debian\nVERSION_ID=12\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    "etc/group": "root:x:0:\nalice:x:1000:\n",
    "etc/shadow": "root:*:19000::::::\nalice:*:19000::::::\n",
    "etc/ssh/sshd_config": "PermitRootLogin no\n",
    "home/alice/.ssh/authorized_keys": "",
    "var/lib/dpkg/status": "Package: a\nStatus: install ok installed\nVersion: 1\n\n",
    "usr/lib/modules/6.1/modules.dep": "",
    "boot/vmlinuz-6.1": "",
    "srv/data": "",
}
ROOT_TABLES = [
    table.name
    for table in load_tables().values()
    if table.origin is Origin.GUEST and table.scope is Scope.ROOT
]


def debian(top: Path, links: Mapping[str, str] = MappingProxyType({})) -> Path:
    for path, text in TREE.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    for path, target in links.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).symlink_to(target)
    return top


def errors(top: Path, *mounts: Mount) -> dict[str, tuple[str, list[str] | None]]:
    """Message and unread files of each table that cannot be told wholly."""
    found = {}
    with Root("r", str(top), mounts) as root:
        for table in ROOT_TABLES:
            stream = Stream(table)
            Operations(stream, cast(DirectoryMachine, Machine(root)), tables).serve()
            if stream.last and stream.last["name"] != "NotApplicable":
                found[table] = stream.last["message"], stream.last["unread"]
    return found


def test_a_filesystem_that_is_not_there_costs_what_lies_below_its_mountpoint(
    tmp_path: Path,
) -> None:
    assert errors(debian(tmp_path)) == {}
    message = "not mounted: /srv (why)"
    assert errors(tmp_path, lost("/srv")) == {"files": (message, ["/srv/"])}
    assert errors(tmp_path, lost("//srv/./data/..//")) == {"files": (message, ["/srv/"])}


@pytest.mark.parametrize(
    ("path", "tables"),
    [
        ("/var", {"packages", "scheduled_tasks", "certificates", "users", "containers"}),
        ("/usr", {"packages", "services", "kernel_settings", "operating_systems"}),
        ("/etc", {"users", "groups", "config", "network", "packages", "operating_systems"}),
        ("/home", {"ssh_keys", "containers"}),
        ("/boot", {"operating_systems", "boot"}),
        ("/", {"users", "packages", "services", "config", "operating_systems", "boot"}),
    ],
)
def test_tables_that_look_below_a_missing_mountpoint_are_incomplete(
    path: str, tables: set[str], tmp_path: Path
) -> None:
    found = errors(debian(tmp_path), lost(path))
    assert tables <= found.keys()
    for message, _ in found.values():
        assert f"not mounted: {path} (why)" in message


@pytest.mark.parametrize("table", ["users", "groups", "config", "services", "packages"])
def test_a_missing_boot_leaves_the_rest_alone(table: str, tmp_path: Path) -> None:
    assert table not in errors(debian(tmp_path), lost("/boot"))


def test_of_the_system_itself_a_missing_boot_costs_kernels_alone(tmp_path: Path) -> None:
    found = errors(debian(tmp_path), lost("/boot"))["operating_systems"]
    assert found == ("kernels: not mounted: /boot (why)", ["/boot/"])


def test_links_do_not_hide_that_a_file_lies_below_a_missing_mountpoint(tmp_path: Path) -> None:
    config = "etc/ssh/sshd_config.d/a.conf"
    debian(tmp_path, {config: "../../../opt/conf/a", "opt/conf": "/data/x", "data": "srv"})
    (tmp_path / "etc/ssh/sshd_config").write_text("Include /etc/ssh/sshd_config.d/*.conf\n")
    tables = {"files", "config", "ssh_keys"}  # the server says where keys are
    assert errors(tmp_path, lost("/srv")).keys() == tables
    assert errors(tmp_path, lost("/data")).keys() == tables  # which is /srv too


def test_a_home_that_a_link_leads_to_is_named_by_both_its_paths(tmp_path: Path) -> None:
    debian(tmp_path)
    (tmp_path / "home").rename(tmp_path / "srv/home")
    (tmp_path / "home").symlink_to("srv/home")
    message, unread = errors(tmp_path, lost("/srv"))["ssh_keys"]
    assert "not mounted: /srv (why)" in message
    assert {"/home/alice/", "/srv/"} <= set(unread or ())


def test_what_the_system_starts_without_concerns_only_who_looks_for_it(tmp_path: Path) -> None:
    optional = [
        Mount("/home", None, mounted=False, error="why", options=("nofail",)),
        Mount("/home", None, mounted=False, error="a share", remote=True),
    ]
    for mount in optional:
        found = errors(debian(tmp_path), mount)
        assert "files" not in found
        assert "ssh_keys" in found


def test_more_missing_mounts_than_can_be_named_leave_all_files_open(tmp_path: Path) -> None:
    mounts = [lost(f"/srv/{number}") for number in range(300)]
    message, unread = errors(debian(tmp_path), *mounts)["files"]
    assert message.startswith("not mounted: /srv/0 (why), /srv/1 (why)")
    assert unread is None


# -- Nodes where files should be -------------------------------------------------------------

WELL_KNOWN = {
    "etc/passwd": "users",
    "etc/group": "groups",
    "etc/shadow": "users",
    "etc/os-release": "operating_systems",
    "etc/hostname": "operating_systems",
    "etc/machine-id": "operating_systems",
    "etc/ssh/sshd_config": "config",
    "etc/crontab": "scheduled_tasks",
    "var/lib/dpkg/status": "packages",
}


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "loop", "huge"])
@pytest.mark.parametrize("path", WELL_KNOWN)
def test_whatever_stands_in_a_files_place_fails_its_table_and_leaves_the_others(
    tmp_path: Path, path: str, kind: str
) -> None:
    debian(tmp_path)
    (tmp_path / path).unlink(missing_ok=True)
    NODES[kind][0](tmp_path / path)
    with Root("r", str(tmp_path)) as root:
        for table in {WELL_KNOWN[path], "services", "kernel_settings"}:
            stream = Stream(table)
            Operations(stream, cast(DirectoryMachine, Machine(root)), tables).serve()
            name = stream.last["name"] if stream.last else None
            assert (name not in (None, "NotApplicable")) is (table == WELL_KNOWN[path]), table
            assert "Errno" not in (stream.last or {"message": ""})["message"]
