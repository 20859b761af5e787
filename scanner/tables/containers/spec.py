"""One row a container."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_DIGEST, IS_NAME, IS_PATH, Timestamp, column, table

State = Literal["created", "running", "paused", "restarting", "stopped", "removing", "dead"]


@table()
class Container:
    """Containers in the stores of Docker, podman, Buildah, CRI-O and containerd, as on disk.

    Stores are searched for where the engines put them, including those of unprivileged accounts.
    Environment variables, which often carry secrets, are never stored.
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
    id: str = column("The container's id.", unredacted=IS_DIGEST)
    name: str | None = column(
        "Its name; in Kubernetes the names of pod and container.", example="web", default=None
    )
    image: str | None = column(
        "Name of its image.", example="docker.io/library/nginx:1.27", default=None
    )
    image_id: str | None = column(
        "Id of its image, in hexadecimal digits.", unredacted=IS_DIGEST, default=None
    )
    created: Timestamp | None = column("When it was created.", default=None)
    state: State | None = column(
        "State on disk; running means that it was running when the disk was last written.",
        default=None,
    )
    privileged: bool | None = column(
        "Whether it has all rights on its host; null if not recorded.", default=None
    )
    account: str | None = column(
        "Account, and group, that its program runs as; null for root.", default=None
    )
    network: str | None = column(
        "Kind of its network; host means the host's own network.", default=None
    )
    capabilities: tuple[str, ...] = column("Capabilities added to the default ones.")
    host_mounts: tuple[str, ...] = column(
        "Directories and files of the host that it sees: path on the host, path in the container, "
        "and ro if it cannot write to them, separated by colons.",
        example="/var/run/docker.sock:/var/run/docker.sock",
    )
    ports: tuple[str, ...] = column(
        "Ports of the host that are forwarded to it.",
        example="127.0.0.1:8080->80/tcp",
        default=(),
    )
    restart: str | None = column(
        "When the engine starts it automatically.", example="always", default=None
    )
