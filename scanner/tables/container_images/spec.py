"""One row a container image."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import (
    IS_DIGEST,
    IS_NAME,
    IS_PATH,
    U64,
    Timestamp,
    column,
    table,
)


@table()
class ContainerImage:
    """Container images in the stores of Docker, podman, Buildah, CRI-O and containerd.

    Stores are searched for where the engines put them, including those of unprivileged accounts.
    """

    engine: Literal["docker", "podman", "containerd"] = column(
        "Engine that the store belongs to; podman: podman, Buildah or CRI-O, which share one kind "
        "of store."
    )
    store: str = column("The store's directory.", example="/var/lib/docker", unredacted=IS_PATH)
    user: str | None = column(
        "Account that the store belongs to; null for the system's store.",
        unredacted=IS_NAME,
        default=None,
    )
    namespace: str | None = column("containerd's namespace.", example="k8s.io", default=None)
    id: str | None = column(
        "The image's id, which is the SHA-256 of its configuration; null if containerd keeps only "
        "names.",
        example="d137a5449684c14b8f4bcb100aaa4543d0f0fb61d0143da7750c2e1b26058546",
        unredacted=IS_DIGEST,
    )
    names: tuple[str, ...] = column("Its names with their tags; empty for an image without names.")
    digests: tuple[str, ...] = column(
        "Digests of its manifests, which identify it in registries.", unredacted=IS_DIGEST
    )
    created: Timestamp | None = column("When it was built; for containerd, when it was stored.")
    architecture: str | None = column("Architecture, as Go names it.", example="amd64")
    size: U64 | None = column(
        "Size of its unpacked layers; null if not recorded.", unit="bytes", default=None
    )
