"""Docker's store: image/<driver>/ with its images, containers/ with theirs.

Source: what Docker 20 writes; the format of version 2 of a container's file has stood since 2015.

"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.containers import stores
from fleetscan.scanner.tables.containers.spec import Container, State
from fleetscan.scanner.tables.containers.stores import (
    ContainerStore,
    digest,
    flag,
    get,
    text,
    texts,
    time,
)

_RUNNING: tuple[tuple[str, State], ...] = (
    ("Restarting", "restarting"),
    ("Paused", "paused"),
    ("Running", "running"),
    ("RemovalInProgress", "removing"),
    ("Dead", "dead"),
)


def containers(reader: Reader, store: ContainerStore) -> Iterator[Container]:
    """One row a container of a store."""
    paths = reader.root.glob(f"{store.path}/containers")
    if len(paths) > stores.ENTRIES:
        reader.note(f"{store.path}: only the first {stores.ENTRIES} containers are listed")
    for path in paths[: stores.ENTRIES]:
        config = stores.load(reader, f"{path}/config.v2.json")
        host = stores.load(reader, f"{path}/hostconfig.json")
        if config is None:
            continue
        yield Container(
            engine=store.engine,
            store=store.path,
            user=store.user,
            id=path.rpartition("/")[2],
            name=(text(get(config, "Name")) or "").removeprefix("/") or None,
            image=text(get(config, "Config", "Image")),
            image_id=digest(get(config, "Image")),
            created=time(get(config, "Created")),
            state=_state(get(config, "State")),
            privileged=flag(get(host, "Privileged")),
            account=text(get(config, "Config", "User")),
            network=text(get(host, "NetworkMode")),
            capabilities=texts(get(host, "CapAdd")),
            host_mounts=stores.texts(list(_mounts(get(config, "MountPoints")))),
            ports=stores.texts(list(_ports(get(host, "PortBindings")))),
            restart=text(get(host, "RestartPolicy", "Name")),
        )


def _state(state: object) -> State | None:
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
