"""One row a container."""

from __future__ import annotations

from typing import Literal

from scanner.schema import IS_DIGEST, IS_NAME, IS_PATH, Timestamp, column, table


@table()
class Container:
    """Containers in the stores of Docker, podman, Buildah, CRI-O and containerd, as on disk.

    Stores are looked for where the engines put them, those of accounts without privileges as well.
    Environment variables, in which secrets are passed, are never read into a row.
    """

    engine: Literal["docker", "podman", "containerd"] = column(
        "Whose store it is; podman: podman's, Buildah's or CRI-O's, who share one kind."
    )
    store: str = column("The store's directory.", example="/var/lib/docker", unredacted=IS_PATH)
    user: str | None = column(
        "Account that the store belongs to; null for the system's.", unredacted=IS_NAME
    )
    namespace: str | None = column("containerd's namespace.", example="k8s.io")
    id: str = column("The container's id.", unredacted=IS_DIGEST)
    name: str | None = column("Its name; in Kubernetes pod and container.", example="web")
    image: str | None = column("Name of its image.", example="docker.io/library/nginx:1.27")
    image_id: str | None = column("Id of its image, in hexadecimal digits.", unredacted=IS_DIGEST)
    created: Timestamp | None = column("When it was created.")
    state: (
        Literal["created", "running", "paused", "restarting", "stopped", "removing", "dead"] | None
    ) = column("State on disk: running means that it ran when the disk was last written.")
    privileged: bool | None = column("Whether it has all rights on its host; null when not kept.")
    account: str | None = column("Account, and group, that its program runs as; null for root.")
    network: str | None = column("Kind of its network; host means that of its host.")
    capabilities: tuple[str, ...] = column("Capabilities added to the usual ones.")
    host_mounts: tuple[str, ...] = column(
        "Directories and files of the host that it sees: host's path, container's path, and ro "
        "for those that it cannot write, with colons between.",
        example="/var/run/docker.sock:/var/run/docker.sock",
    )
    ports: tuple[str, ...] = column(
        "Ports of the host that lead into it.", example="127.0.0.1:8080->80/tcp"
    )
    restart: str | None = column("When the engine starts it by itself.", example="always")
