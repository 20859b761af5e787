"""Container images, from the stores of the engines that keep them."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.guest.root import Root
from scanner.schema import NotApplicable
from scanner.tables.container_images.spec import ContainerImage
from scanner.tables.containers import containerd, docker, storage, stores
from scanner.tables.reading import Reader

_READERS = {
    "docker": docker.images,
    "podman": storage.images,
    "containerd": containerd.images,
}


def collect(root: Root) -> Iterator[ContainerImage]:
    """One row an image, store by store.

    Raises:
        NotApplicable: there is no store.
        ValueError: a file of one cannot be read, or is damaged; raised after all rows.
    """
    reader = Reader(root, stores.LIMIT)
    found = [] if root.windows else stores.find(reader)
    for store in found:
        for columns in _READERS[store.engine](reader, store):
            yield ContainerImage(
                engine=store.engine,
                store=store.path,
                user=store.user,
                **{"namespace": None, **columns},
            )
    reader.finish()
    if not found:
        raise NotApplicable("no store of a container engine")
