"""Containers, from the stores of the engines that keep them."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.containers import containerd, docker, storage, stores
from fleetscan.scanner.tables.containers.spec import Container


def collect(root: Root) -> Iterator[Container]:
    """One row a container, store by store.

    Raises:
        NotApplicable: there is no store.
        IncompleteError: a file of one cannot be read, or is damaged; raised after all rows.
    """
    yield from stores.rows(
        root,
        {
            "docker": docker.containers,
            "podman": storage.containers,
            "containerd": containerd.containers,
        },
    )
