"""Where container engines keep their stores, and what their JSON files hold.

Shared with ``container_images``.
"""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from fleetscan.appliance.ground.schema import (
    MICROSECOND,
    TIMESTAMP_MAX,
    TIMESTAMP_MIN,
    NotApplicable,
)
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root

Engine = Literal["docker", "podman", "containerd"]

LIMIT = 64 << 20
"""Largest file of a store that is read, in bytes: databases of nodes have some MiB."""

_JSON_LIMIT = 4 << 20  # of which Python makes a hundred times as much
_TEXT, _TEXTS = 4096, 200  # characters of a text, and texts of a list, that are kept

ENTRIES = 10_000
"""Most images, and most containers, that one store may have."""

_ACCOUNTS = 2000
_DOCKER, _PODMAN = "/var/lib/docker", "/var/lib/containers/storage"
_LIBRARY = "/var/lib"
_CONTAINERD = ("/var/lib/containerd", "/var/lib/rancher/k3s/agent/containerd")
_DAEMON, _STORAGE = "/etc/docker/daemon.json", "/etc/containers/storage.conf"
_NO_HOMES = (
    *("/usr/", "/bin", "/sbin", "/dev", "/proc", "/run/", "/nonexistent"),
    *("/var/mail", "/var/spool/", "/var/cache/", "/var/backups", "/var/empty"),
)
"""What the accounts of a system's own services have for a home, where they keep no store."""

_GRAPH_ROOT = re.compile(r"""^[ \t]*graphroot[ \t]*=[ \t]*["'](/[^"'\n]*)["']""", re.MULTILINE)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))"
)


@dataclass(frozen=True)
class ContainerStore:
    """A store: whose, where, and the account that it belongs to, None for the system's."""

    engine: Engine
    path: str
    user: str | None = None


Row = TypeVar("Row")


def find(reader: Reader) -> list[ContainerStore]:
    """The stores that there are."""
    root = reader.root
    stores = [ContainerStore("docker", path) for path in _docker(reader)]
    stores += [ContainerStore("podman", path) for path in _podman(reader)]
    stores += [ContainerStore("containerd", path) for path in _CONTAINERD]
    usual = frozenset(root.listdir(_LIBRARY))  # one look instead of four: most systems have none
    stores = [store for store in stores if _may_be(store.path, usual) and root.is_dir(store.path)]
    for user, home in _homes(reader):
        share = f"{home.rstrip('/')}/.local/share"
        if root.is_dir(share):
            own = (
                ContainerStore("docker", f"{share}/docker", user),
                ContainerStore("podman", f"{share}/containers/storage", user),
            )
            stores += [store for store in own if root.is_dir(store.path)]
    return stores


def rows(
    root: Root, readers: Mapping[Engine, Callable[[Reader, ContainerStore], Iterator[Row]]]
) -> Iterator[Row]:
    """The rows of every store.

    Args:
        root: whose stores.
        readers: give the rows of an engine's store.

    Raises:
        NotApplicable: there is no store.
        IncompleteError: a file of one cannot be read, or is damaged; raised after all rows.
    """
    reader = Reader(root, LIMIT)
    found = [] if root.windows else find(reader)
    for store in found:
        yield from readers[store.engine](reader, store)
    reader.finish()
    if not found:
        raise NotApplicable("no store of a container engine")


def _may_be(path: str, usual: frozenset[str]) -> bool:
    below = path.removeprefix(f"{_LIBRARY}/")
    return below == path or below.partition("/")[0] in usual


def _docker(reader: Reader) -> list[str]:
    moved = text(get(load(reader, _DAEMON), "data-root"))
    return list(dict.fromkeys((_DOCKER, moved or _DOCKER)))


def _podman(reader: Reader) -> list[str]:
    moved = _GRAPH_ROOT.findall(reader.text(_STORAGE) or "")
    return list(dict.fromkeys((_PODMAN, *moved[:1])))


def _homes(reader: Reader) -> list[tuple[str, str]]:
    homes: dict[str, str] = {}
    for _, fields in colonfile.records(reader.text("/etc/passwd") or ""):
        if len(fields) > 5 and len(fields[5]) > 1 and not fields[5].startswith(_NO_HOMES):
            homes.setdefault(fields[5], fields[0])
    if len(homes) > _ACCOUNTS:
        reader.note(f"/etc/passwd: only stores of the first {_ACCOUNTS} accounts are listed")
    return [(user, home) for home, user in homes.items()][:_ACCOUNTS]


def load(reader: Reader, path: str) -> object:
    """A JSON file's content; None for one that is not there, or cannot be read, which is noted."""
    data = reader.data(path)
    if data is None:
        return None
    try:
        return parse(data)
    except ValueError as error:
        reader.note(f"{path}: {error}")
        return None


def parse(data: bytes | str) -> object:
    """JSON.

    Raises:
        ValueError: it is none.
    """
    if len(data) > _JSON_LIMIT:
        raise ValueError(f"larger than {_JSON_LIMIT} bytes")
    try:
        value: object = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def get(value: object, *path: str) -> object:
    """What stands at a path of keys; None where there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def text(value: object) -> str | None:
    """A text that is not empty; None for anything else."""
    if not isinstance(value, str) or not value:
        return None
    return value[:_TEXT].encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


def texts(value: object) -> tuple[str, ...]:
    """The texts of a list."""
    found = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return tuple(item for item in map(text, found[:_TEXTS]) if item)


def flag(value: object) -> bool | None:
    """A truth value; None for anything else."""
    return value if isinstance(value, bool) else None


def dicts(value: object) -> Iterator[Mapping[str, object]]:
    """The objects of a list."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield item


def count(value: object) -> int | None:
    """A number of bytes; None for anything else."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 1 << 48 else None  # type: ignore[operator, return-value] # an int


def time(value: object) -> int | None:
    """A time of RFC 3339 in microseconds since 1970; None for none, and for Go's zero, year 1."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[1] == "0001":
        return None
    try:
        seconds = calendar.timegm(tuple(map(int, match.groups()[:6])))
    except (ValueError, OverflowError):
        return None
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds += -offset if match[8] == "+" else offset
    moment = seconds * MICROSECOND + int((match[7] or "0").ljust(6, "0")[:6])
    return moment if TIMESTAMP_MIN <= moment <= TIMESTAMP_MAX else None


def digest(value: object) -> str | None:
    """Hexadecimal digits of a ``sha256:`` digest."""
    return (text(value) or "").removeprefix("sha256:") or None
