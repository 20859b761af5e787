"""Images in containerd's database.

Source: what containerd 1.6 writes, schema version v1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.container_images.spec import ContainerImage
from fleetscan.scanner.tables.containers import containerd, stores
from fleetscan.scanner.tables.containers.bolt import BoltError, Bucket
from fleetscan.scanner.tables.containers.stores import (
    ContainerStore,
    digest,
    get,
    text,
    texts,
    time,
)

_BLOBS = "io.containerd.content.v1.content/blobs/sha256"
_REFERENCE = "containerd.io/gc.ref.content."


def images(reader: Reader, store: ContainerStore) -> Iterator[ContainerImage]:
    """One row an image of a store."""
    for namespace, bucket in containerd.namespaces(reader, store):
        try:
            yield from _images(reader, store, namespace, bucket)
        except BoltError as error:
            reader.note(f"{store.path}/{containerd.DATABASE}: {error}")


def _images(
    reader: Reader, store: ContainerStore, namespace: str, bucket: Bucket
) -> Iterator[ContainerImage]:
    found: dict[str, tuple[list[str], int | None]] = {}
    for name, image in containerd.below(bucket, "images"):
        target = containerd.values_below(image, "target").get("digest", b"")
        names, _ = found.setdefault(
            containerd.decoded(target), ([], containerd.moment(image.values().get("createdat")))
        )
        if not name.startswith("sha256:"):  # its id, which Kubernetes makes a name of
            names.append(name)
    labels = {
        blob: containerd.values_below(content, "labels")
        for blob, content in containerd.below(bucket, "content", "blob")
        if found
    }
    for manifest, (names, stored) in found.items():
        identity = digest(_configuration(labels, manifest))
        plain = identity is not None and identity.isalnum()
        config = stores.load(reader, f"{store.path}/{_BLOBS}/{identity}") if plain else None
        yield ContainerImage(
            engine=store.engine,
            store=store.path,
            user=store.user,
            namespace=namespace,
            id=identity,
            names=texts(names),
            digests=tuple(filter(None, [manifest])),
            created=time(get(config, "created")) or stored,
            architecture=text(get(config, "architecture")),
        )


def _configuration(labels: Mapping[str, Mapping[str, bytes]], manifest: str) -> str | None:
    """The digest of the configuration that a manifest names, or the first of several platforms."""
    own = labels.get(manifest, {})
    platforms = [
        containerd.decoded(own[name]) for name in sorted(own) if name.startswith(f"{_REFERENCE}m.")
    ]
    for blob in (manifest, *platforms):
        if config := labels.get(blob, {}).get(f"{_REFERENCE}config"):
            return containerd.decoded(config)
    return None
