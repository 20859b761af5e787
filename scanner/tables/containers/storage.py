"""The store that podman, Buildah and CRI-O share, and what podman keeps of its containers.

Source: what containers/storage 1.43 and podman 4 write; podman's database by SQLite of its
version 5.

Shared with ``container_images``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from fleetscan.appliance.guest.readers import sqlite
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.containers import stores
from fleetscan.scanner.tables.containers.bolt import BoltDatabase
from fleetscan.scanner.tables.containers.spec import Container, State
from fleetscan.scanner.tables.containers.stores import ContainerStore, flag, get, text, texts, time

_BOLT, _SQLITE = "libpod/bolt_state.db", ("db.sql", "libpod/db.sql")
_STATES: dict[int, State] = {
    1: "created",  # what podman calls configured
    2: "created",
    3: "running",
    4: "stopped",
    5: "paused",
    6: "stopped",
    7: "removing",
    8: "stopped",
}
_Podman = tuple[object, object]
"""What podman keeps of a container: its configuration, and the number of its state."""


def listed(reader: Reader, path: str) -> Iterator[Mapping[str, object]]:
    """The objects of a JSON file's list, up to a number."""
    for index, item in enumerate(stores.dicts(stores.load(reader, path))):
        if index >= stores.ENTRIES:
            reader.note(f"{path}: only the first {stores.ENTRIES} entries are listed")
            return
        yield item


def containers(reader: Reader, store: ContainerStore) -> Iterator[Container]:
    """One row a container of a store."""
    podman: dict[str, _Podman] | None = None
    for path in reader.root.glob(store.path, "*-containers"):
        for item in listed(reader, f"{path}/containers.json"):
            podman = _podman(reader, store) if podman is None else podman
            yield _container(reader, store, path, item, podman)


def _container(
    reader: Reader,
    store: ContainerStore,
    path: str,
    item: Mapping[str, object],
    podman: Mapping[str, _Podman],
) -> Container:
    identity = text(item.get("id")) or ""
    metadata = _metadata(reader, path, item)
    config, state = podman.get(identity, (None, None))
    spec = get(config, "spec")
    if spec is None and "/" not in identity:  # of CRI-O, once the container ran
        spec = stores.load(reader, f"{path}/{identity}/userdata/config.json")
    privileged = flag(get(config, "privileged"))
    return Container(
        engine=store.engine,
        store=store.path,
        user=store.user,
        id=identity,
        name=text(get(metadata, "name")) or next(iter(texts(item.get("names"))), None),
        image=text(get(metadata, "image-name")),
        image_id=text(item.get("image")),
        created=time(item.get("created")),
        state=_STATES.get(state) if isinstance(state, int) else None,
        privileged=flag(get(metadata, "privileged")) if privileged is None else privileged,
        account=text(get(config, "user")),
        network=text(get(config, "networkMode")),
        capabilities=texts(get(config, "capAdd")),
        host_mounts=texts(list(host_mounts(spec))),
        ports=texts(list(_ports(config))),
        restart=text(get(config, "restartPolicy")),
    )


def _metadata(reader: Reader, path: str, item: Mapping[str, object]) -> object:
    try:
        return stores.parse(text(item.get("metadata")) or "null")
    except ValueError as error:
        reader.note(f"{path}/containers.json: metadata of {text(item.get('id'))}: {error}")
        return None


def host_mounts(spec: object) -> Iterator[str]:
    """The bind mounts of an OCI specification, those of the engine's own files left out."""
    for mount in stores.dicts(get(spec, "mounts")):
        source, options = text(mount.get("source")), texts(mount.get("options"))
        is_bind = mount.get("type") == "bind" or not {"bind", "rbind"}.isdisjoint(options)
        if is_bind and source and not source.startswith(("/run/containers/", "/run/containerd/")):
            destination = text(mount.get("destination")) or ""
            yield f"{source}:{destination}{':ro' if 'ro' in options else ''}"


def _ports(config: object) -> Iterator[str]:
    for mapping in stores.dicts(get(config, "newPortMappings")):
        address = text(mapping.get("host_ip")) or "0.0.0.0"  # noqa: S104 - what podman means
        outside, inside = mapping.get("host_port"), mapping.get("container_port")
        if isinstance(outside, int) and isinstance(inside, int):
            yield f"{address}:{outside}->{inside}/{text(mapping.get('protocol')) or 'tcp'}"


def _podman(reader: Reader, store: ContainerStore) -> dict[str, _Podman]:
    """What podman keeps of its containers, by their ids; empty for a store of other engines."""
    for name in _SQLITE:
        if reader.root.is_file(f"{store.path}/{name}"):
            return dict(_from_sqlite(reader, f"{store.path}/{name}"))
    path = f"{store.path}/{_BOLT}"
    known: dict[str, _Podman] = {}
    data = reader.data(path)
    try:
        if data is not None:
            known.update(_from_bolt(data))
    except ValueError as error:
        reader.note(f"{path}: {error}")
    return known


def _from_bolt(data: bytes) -> Iterator[tuple[str, _Podman]]:
    bucket = BoltDatabase(data).root().bucket("ctr")
    for identity, container in bucket.buckets() if bucket else ():
        values = container.values()
        config = stores.parse(values.get("config", b"null"))
        yield identity, (config, get(stores.parse(values.get("state", b"null")), "state"))


def _from_sqlite(reader: Reader, path: str) -> Iterator[tuple[str, _Podman]]:
    query = (
        "SELECT c.ID, c.JSON, s.State FROM ContainerConfig c LEFT JOIN ContainerState s USING (ID)"
    )
    rows = sqlite.select(reader.root, path, query, reader)
    for identity, config, state in itertools.islice(rows, stores.ENTRIES):
        try:
            yield sqlite.text(identity), (stores.parse(sqlite.text(config)), state)
        except ValueError as error:
            reader.note(f"{path}: {error}")
