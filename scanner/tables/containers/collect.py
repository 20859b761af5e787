"""Containers, from the stores of the engines that keep them."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.guest.root import Root
from scanner.schema import NotApplicable
from scanner.tables.containers import containerd, docker, storage, stores
from scanner.tables.containers.spec import Container
from scanner.tables.reading import Reader

_READERS = {
    "docker": docker.containers,
    "podman": storage.containers,
    "containerd": containerd.containers,
}


def collect(root: Root) -> Iterator[Container]:
    """One row a container, store by store.

    Raises:
        NotApplicable: there is no store.
        ValueError: a file of one cannot be read, or is damaged; raised after all rows.
    """
    reader = Reader(root, stores.LIMIT)
    found = [] if root.windows else stores.find(reader)
    for store in found:
        for columns in _READERS[store.engine](reader, store):
            yield Container(
                engine=store.engine,
                store=store.path,
                user=store.user,
                **{"namespace": None, **columns},
            )
    reader.finish()
    if not found:
        raise NotApplicable("no store of a container engine")
