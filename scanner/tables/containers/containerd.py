"""containerd's database: its namespaces with their images and containers.

Source: what containerd 1.6 writes, schema version v1; Go's time.MarshalBinary; Protocol Buffers'
encoding of an Any.

Shared with ``container_images``.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.containers import stores
from fleetscan.scanner.tables.containers.bolt import BoltDatabase, BoltError, Bucket
from fleetscan.scanner.tables.containers.spec import Container
from fleetscan.scanner.tables.containers.storage import host_mounts
from fleetscan.scanner.tables.containers.stores import ContainerStore, get, texts

DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
"""Where it is in a store."""

_YEAR_1 = 62_135_596_800  # seconds from the year 1 to 1970
_USUAL = frozenset(
    "CAP_" + name
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
        *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)
"""What containerd gives every container."""


def containers(reader: Reader, store: ContainerStore) -> Iterator[Container]:
    """One row a container of a store."""
    for namespace, bucket in namespaces(reader, store):
        try:
            for identity, container in below(bucket, "containers"):
                yield _container(store, namespace, identity, container)
        except ValueError as error:
            reader.note(f"{store.path}/{DATABASE}: {error}")


def _container(store: ContainerStore, namespace: str, identity: str, bucket: Bucket) -> Container:
    values = bucket.values()
    labels = values_below(bucket, "labels")
    names = ("io.kubernetes.pod.name", "io.kubernetes.container.name", "nerdctl/name")
    spec = _spec(values.get("spec", b""))
    added = set(texts(get(spec, "process", "capabilities", "bounding"))) - _USUAL
    uid = get(spec, "process", "user", "uid")
    return Container(
        engine=store.engine,
        store=store.path,
        user=store.user,
        namespace=namespace,
        id=identity,
        name="/".join(decoded(labels[name]) for name in names if name in labels) or None,
        image=decoded(values.get("image", b"")) or None,
        created=moment(values.get("createdat")),
        account=str(uid) if isinstance(uid, int) and 0 < uid < 1 << 32 else None,
        network=_network(spec),
        capabilities=tuple(sorted(added)),
        host_mounts=texts(list(host_mounts(spec))),
    )


def _network(spec: object) -> str | None:
    """host, where the container has no network namespace of its own."""
    kinds = {get(item, "type") for item in stores.dicts(get(spec, "linux", "namespaces"))}
    return "host" if kinds and "network" not in kinds else None


def namespaces(reader: Reader, store: ContainerStore) -> Iterator[tuple[str, Bucket]]:
    """The namespaces of a store, each with its bucket."""
    path = f"{store.path}/{DATABASE}"
    data = reader.data(path)
    try:
        if data is not None:
            yield from below(BoltDatabase(data).root(), "v1")
    except BoltError as error:
        reader.note(f"{path}: {error}")


def below(bucket: Bucket, *names: str) -> Iterator[tuple[str, Bucket]]:
    """The buckets in one some levels below, up to a number."""
    found = bucket.bucket(*names)
    for index, item in enumerate(found.buckets() if found else ()):
        if index >= stores.ENTRIES:
            raise BoltError(f"more than {stores.ENTRIES} {names[-1]}")
        yield item


def values_below(bucket: Bucket, name: str) -> dict[str, bytes]:
    """The values of the bucket of a name; none where there is none."""
    found = bucket.bucket(name)
    return found.values() if found else {}


def decoded(value: bytes) -> str:
    """A value's text; bytes that are not UTF-8 become surrogates."""
    return value.decode("utf-8", "surrogateescape")


def moment(value: bytes | None) -> int | None:
    """A time: version, seconds since the year 1, nanoseconds, minutes from UTC; big endian."""
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
