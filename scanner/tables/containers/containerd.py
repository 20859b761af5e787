"""containerd's database: its namespaces with their images and containers.

Source: what containerd 1.6 writes, schema version v1; Go's time.MarshalBinary; Protocol Buffers'
encoding of an Any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.containers import stores
from fleetscan.scanner.tables.containers.bolt import BoltDatabase, BoltError, Bucket
from fleetscan.scanner.tables.containers.storage import host_mounts
from fleetscan.scanner.tables.containers.stores import (
    ContainerStore,
    digest,
    get,
    text,
    texts,
    time,
)

_DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
_BLOBS = "io.containerd.content.v1.content/blobs/sha256"
_REFERENCE = "containerd.io/gc.ref.content."
_YEAR_1 = 62_135_596_800  # seconds from the year 1 to 1970
_USUAL = frozenset(
    "CAP_" + name
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
        *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)
"""What containerd gives every container."""


def images(reader: Reader, store: ContainerStore) -> Iterator[dict[str, Any]]:
    """The columns of ``container_images`` for each image of a store."""
    for namespace, bucket in _namespaces(reader, store):
        try:
            yield from _images(reader, store, namespace, bucket)
        except BoltError as error:
            reader.note(f"{store.path}/{_DATABASE}: {error}")


def _images(
    reader: Reader, store: ContainerStore, namespace: str, bucket: Bucket
) -> Iterator[dict[str, Any]]:
    found: dict[str, tuple[list[str], int | None]] = {}
    for name, image in _below(bucket, "images"):
        target = _below_values(image, "target").get("digest", b"")
        names, _ = found.setdefault(_text(target), ([], _time(image.values().get("createdat"))))
        if not name.startswith("sha256:"):  # its id, which Kubernetes makes a name of
            names.append(name)
    labels = {
        blob: _below_values(content, "labels")
        for blob, content in _below(bucket, "content", "blob")
        if found
    }
    for manifest, (names, stored) in found.items():
        identity = digest(_configuration(labels, manifest))
        plain = identity is not None and identity.isalnum()
        config = stores.load(reader, f"{store.path}/{_BLOBS}/{identity}") if plain else None
        yield {
            "namespace": namespace,
            "id": identity,
            "names": texts(names),
            "digests": tuple(filter(None, [manifest])),
            "created": time(get(config, "created")) or stored,
            "architecture": text(get(config, "architecture")),
            "size": None,
        }


def _configuration(labels: Mapping[str, Mapping[str, bytes]], manifest: str) -> str | None:
    """The digest of the configuration that a manifest names, or the first of several platforms."""
    own = labels.get(manifest, {})
    platforms = [_text(own[name]) for name in sorted(own) if name.startswith(f"{_REFERENCE}m.")]
    for blob in (manifest, *platforms):
        if config := labels.get(blob, {}).get(f"{_REFERENCE}config"):
            return _text(config)
    return None


def containers(reader: Reader, store: ContainerStore) -> Iterator[dict[str, Any]]:
    """The columns of ``containers`` for each container of a store."""
    for namespace, bucket in _namespaces(reader, store):
        try:
            for identity, container in _below(bucket, "containers"):
                yield {"namespace": namespace, "id": identity, **_container(container)}
        except ValueError as error:
            reader.note(f"{store.path}/{_DATABASE}: {error}")


def _container(bucket: Bucket) -> dict[str, Any]:
    values = bucket.values()
    labels = _below_values(bucket, "labels")
    names = ("io.kubernetes.pod.name", "io.kubernetes.container.name", "nerdctl/name")
    spec = _spec(values.get("spec", b""))
    added = set(texts(get(spec, "process", "capabilities", "bounding"))) - _USUAL
    uid = get(spec, "process", "user", "uid")
    return {
        "name": "/".join(_text(labels[name]) for name in names if name in labels) or None,
        "image": _text(values.get("image", b"")) or None,
        "image_id": None,
        "created": _time(values.get("createdat")),
        "state": None,
        "privileged": None,
        "account": str(uid) if isinstance(uid, int) and 0 < uid < 1 << 32 else None,
        "network": _network(spec),
        "capabilities": tuple(sorted(added)),
        "host_mounts": texts(list(host_mounts(spec))),
        "ports": (),
        "restart": None,
    }


def _network(spec: object) -> str | None:
    """host, where the container has no network namespace of its own."""
    kinds = {get(item, "type") for item in stores.dicts(get(spec, "linux", "namespaces"))}
    return "host" if kinds and "network" not in kinds else None


def _namespaces(reader: Reader, store: ContainerStore) -> Iterator[tuple[str, Bucket]]:
    path = f"{store.path}/{_DATABASE}"
    data = reader.data(path)
    try:
        if data is not None:
            yield from _below(BoltDatabase(data).root(), "v1")
    except BoltError as error:
        reader.note(f"{path}: {error}")


def _below(bucket: Bucket, *names: str) -> Iterator[tuple[str, Bucket]]:
    """The buckets in one some levels below, up to a number."""
    found = bucket.bucket(*names)
    for index, item in enumerate(found.buckets() if found else ()):
        if index >= stores.ENTRIES:
            raise BoltError(f"more than {stores.ENTRIES} {names[-1]}")
        yield item


def _below_values(bucket: Bucket, name: str) -> dict[str, bytes]:
    found = bucket.bucket(name)
    return found.values() if found else {}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _time(value: bytes | None) -> int | None:
    """Version, seconds since the year 1, nanoseconds, minutes from UTC; big endian."""
    if not value or len(value) < 13 or value[0] not in (1, 2):
        return None
    seconds = int.from_bytes(value[1:9], "big", signed=True) - _YEAR_1
    if not 0 < seconds < 1 << 37:
        return None
    return seconds * MICROSECOND + int.from_bytes(value[9:13], "big") // 1000


def _spec(value: bytes) -> object:
    """The JSON in an Any: a field 1 with the type's name, a field 2 with the value."""
    place = 0
    while place < len(value):
        tag, place = _varint(value, place)
        length, place = _varint(value, place)
        if tag == 2 << 3 | 2:
            return stores.parse(value[place : place + length])
        if tag & 7 != 2:
            return None
        place += length
    return None


def _varint(value: bytes, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 64, 7):
        if place >= len(value):
            raise ValueError("a specification that is cut off")
        byte = value[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("an invalid specification")
