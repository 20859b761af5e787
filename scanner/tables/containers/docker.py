"""Docker's store: image/<driver>/ with its images, containers/ with theirs.

Source: what Docker 20 writes; the format of version 2 of a container's file has stood since 2015.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.containers import stores
from fleetscan.scanner.tables.containers.stores import (
    ContainerStore,
    digest,
    flag,
    get,
    text,
    texts,
    time,
)

_RUNNING = (
    ("Restarting", "restarting"),
    ("Paused", "paused"),
    ("Running", "running"),
    ("RemovalInProgress", "removing"),
    ("Dead", "dead"),
)


def images(reader: Reader, store: ContainerStore) -> Iterator[dict[str, Any]]:
    """The columns of ``container_images`` for each image of a store."""
    for driver in reader.root.glob(f"{store.path}/image"):
        names: dict[str, list[str]] = {}
        repositories = get(stores.load(reader, f"{driver}/repositories.json"), "Repositories")
        for tags in repositories.values() if isinstance(repositories, Mapping) else ():
            for name, identity in tags.items() if isinstance(tags, Mapping) else ():
                names.setdefault(digest(identity) or "", []).append(name)
        paths = reader.root.glob(f"{driver}/imagedb/content/sha256")
        if len(paths) > stores.ENTRIES:
            reader.note(f"{driver}: the first {stores.ENTRIES} images alone are told")
        for path in paths[: stores.ENTRIES]:
            identity = path.rpartition("/")[2]
            config = stores.load(reader, path)
            known = [text(name) or "" for name in names.get(identity, ())]
            yield {
                "id": identity,
                "names": stores.texts([name for name in known if "@" not in name]),
                "digests": stores.texts([name.partition("@")[2] for name in known if "@" in name]),
                "created": time(get(config, "created")),
                "architecture": text(get(config, "architecture")),
                "size": _size(reader, driver, texts(get(config, "rootfs", "diff_ids"))),
            }


def _size(reader: Reader, driver: str, layers: tuple[str, ...]) -> int | None:
    """Bytes of an image's layers; each is found by the digest of the chain that it ends."""
    total, chain = 0, ""
    for layer in layers:
        both = f"{chain} {layer}".encode("utf-8", "surrogateescape")
        chain = f"sha256:{hashlib.sha256(both).hexdigest()}" if chain else layer
        size = reader.data(f"{driver}/layerdb/sha256/{digest(chain)}/size")
        if size is None or not size.strip().isdigit() or len(size) > 15:
            return None
        total += int(size)
    return total if layers else None


def containers(reader: Reader, store: ContainerStore) -> Iterator[dict[str, Any]]:
    """The columns of ``containers`` for each container of a store."""
    paths = reader.root.glob(f"{store.path}/containers")
    if len(paths) > stores.ENTRIES:
        reader.note(f"{store.path}: the first {stores.ENTRIES} containers alone are told")
    for path in paths[: stores.ENTRIES]:
        config = stores.load(reader, f"{path}/config.v2.json")
        host = stores.load(reader, f"{path}/hostconfig.json")
        if config is None:
            continue
        yield {
            "id": path.rpartition("/")[2],
            "name": (text(get(config, "Name")) or "").removeprefix("/") or None,
            "image": text(get(config, "Config", "Image")),
            "image_id": digest(get(config, "Image")),
            "created": time(get(config, "Created")),
            "state": _state(get(config, "State")),
            "privileged": flag(get(host, "Privileged")),
            "account": text(get(config, "Config", "User")),
            "network": text(get(host, "NetworkMode")),
            "capabilities": texts(get(host, "CapAdd")),
            "host_mounts": stores.texts(list(_mounts(get(config, "MountPoints")))),
            "ports": stores.texts(list(_ports(get(host, "PortBindings")))),
            "restart": text(get(host, "RestartPolicy", "Name")),
        }


def _state(state: object) -> str | None:
    if not isinstance(state, Mapping):
        return None
    for name, value in _RUNNING:
        if state.get(name) is True:
            return value
    return "stopped" if time(state.get("StartedAt")) else "created"


def _mounts(points: object) -> Iterator[str]:
    for point in points.values() if isinstance(points, Mapping) else ():
        source, destination = text(get(point, "Source")), text(get(point, "Destination"))
        if get(point, "Type") == "bind" and source and destination:
            yield f"{source}:{destination}{'' if get(point, 'RW') is True else ':ro'}"


def _ports(bindings: object) -> Iterator[str]:
    for inside, outside in bindings.items() if isinstance(bindings, Mapping) else ():
        for binding in stores.dicts(outside):
            address = text(binding.get("HostIp")) or "0.0.0.0"  # noqa: S104 - what Docker means
            yield f"{address}:{text(binding.get('HostPort')) or ''}->{text(inside) or ''}"
