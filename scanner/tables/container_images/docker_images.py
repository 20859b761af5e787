"""Images in Docker's store: image/<driver>/.

Source: what Docker 20 writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.container_images.spec import ContainerImage
from fleetscan.scanner.tables.containers import stores
from fleetscan.scanner.tables.containers.stores import (
    ContainerStore,
    digest,
    get,
    text,
    texts,
    time,
)


def images(reader: Reader, store: ContainerStore) -> Iterator[ContainerImage]:
    """One row an image of a store."""
    for driver in reader.root.glob(f"{store.path}/image"):
        names: dict[str, list[str]] = {}
        repositories = get(stores.load(reader, f"{driver}/repositories.json"), "Repositories")
        for tags in repositories.values() if isinstance(repositories, Mapping) else ():
            for name, identity in tags.items() if isinstance(tags, Mapping) else ():
                names.setdefault(digest(identity) or "", []).append(name)
        paths = reader.root.glob(f"{driver}/imagedb/content/sha256")
        if len(paths) > stores.ENTRIES:
            reader.note(f"{driver}: only the first {stores.ENTRIES} images are listed")
        for path in paths[: stores.ENTRIES]:
            identity = path.rpartition("/")[2]
            config = stores.load(reader, path)
            known = [text(name) or "" for name in names.get(identity, ())]
            yield ContainerImage(
                engine=store.engine,
                store=store.path,
                user=store.user,
                id=identity,
                names=stores.texts([name for name in known if "@" not in name]),
                digests=stores.texts([name.partition("@")[2] for name in known if "@" in name]),
                created=time(get(config, "created")),
                architecture=text(get(config, "architecture")),
                size=_size(reader, driver, texts(get(config, "rootfs", "diff_ids"))),
            )


def _size(reader: Reader, driver: str, layers: tuple[str, ...]) -> int | None:
    """Bytes of an image's layers; each is found by the digest of the chain that it ends."""
    total, chain = 0, ""
    for layer in layers:
        both = f"{chain} {layer}".encode("utf-8", "surrogateescape")
        chain = f"sha256:{hashlib.sha256(both).hexdigest()}" if chain else layer
        size = reader.data(f"{driver}/layerdb/sha256/{digest(chain)}/size")
        if size is None or not size.strip().isdigit() or len(size) > 15:
            return None
        total += int(size)
    return total if layers else None
