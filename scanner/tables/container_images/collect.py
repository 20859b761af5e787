"""Container images, from the stores of the engines that keep them."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.container_images import (
    containerd_images,
    docker_images,
    storage_images,
)
from fleetscan.scanner.tables.container_images.spec import ContainerImage
from fleetscan.scanner.tables.containers import stores


def collect(root: Root) -> Iterator[ContainerImage]:
    """One row an image, store by store.

    Raises:
        NotApplicable: there is no store.
        IncompleteError: a file of one cannot be read, or is damaged; raised after all rows.
    """
    yield from stores.rows(
        root,
        {
            "docker": docker_images.images,
            "podman": storage_images.images,
            "containerd": containerd_images.images,
        },
    )
