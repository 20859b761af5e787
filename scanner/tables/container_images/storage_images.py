"""Images in the store that podman, Buildah and CRI-O share.

Source: what containers/storage 1.43 writes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.container_images.spec import ContainerImage
from fleetscan.scanner.tables.containers import storage, stores
from fleetscan.scanner.tables.containers.stores import ContainerStore, get, text, texts, time

_LONGEST_CHAIN = 1000


def images(reader: Reader, store: ContainerStore) -> Iterator[ContainerImage]:
    """One row an image of a store."""
    for path in reader.root.glob(store.path, "*-images"):
        layers = _by_id(reader, f"{path.removesuffix('-images')}-layers/layers.json")
        for image in storage.listed(reader, f"{path}/images.json"):
            identity = text(image.get("id"))
            # The configuration is stored under its digest, in a file whose name is that in Base64.
            name = base64.b64encode(f"sha256:{identity}".encode("utf-8", "replace")).decode()
            plain = identity is not None and "/" not in identity
            config = stores.load(reader, f"{path}/{identity}/={name}") if plain else None
            yield ContainerImage(
                engine=store.engine,
                store=store.path,
                user=store.user,
                id=identity,
                names=texts(image.get("names")),
                digests=tuple(filter(None, [text(image.get("digest"))])),
                created=time(get(config, "created")) or time(image.get("created")),
                architecture=text(get(config, "architecture")),
                size=_size(layers, text(image.get("layer"))),
            )


def _by_id(reader: Reader, path: str) -> dict[str, Mapping[str, object]]:
    return {str(item.get("id")): item for item in stores.dicts(stores.load(reader, path))}


def _size(layers: Mapping[str, Mapping[str, object]], layer: str | None) -> int | None:
    """Bytes of a layer and those that it stands on; None when one of them is unknown."""
    total = 0
    for _ in range(_LONGEST_CHAIN):
        size = stores.count(get(layers, layer or "", "diff-size"))
        if size is None:
            return None
        total += size
        layer = text(get(layers, layer or "", "parent"))
        if layer is None:
            return total
    return None
