"""The parents of differencing images: found by name or identity, and verified by identity."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight import bounds
from fleetscan.scanner.preflight.image import Parent

_ROLE = "parent"
_MOST_CANDIDATES = 1000  # files of one folder that are searched for an identity

Identify = Callable[[str], bytes | None]
"""The identity of the image with this path; None when there is none that can be read."""


def windows_name(data: bytes, encoding: str) -> bytes:
    """A file name as Windows writes it, as a path of this host; empty where there is none."""
    text = data.decode(encoding, "replace").partition("\0")[0].replace("\\", "/")
    return text.encode()


def find(parent: Parent, image: str, shown: str, allowed: Sequence[str], identify: Identify) -> str:
    """The parent's file, as the image names it.

    Args:
        parent: what the image says of it.
        image: the image, as it was named.
        shown: the same for messages.
        allowed: directories below which it may be, links resolved.
        identify: returns the identity of an image.

    Raises:
        PreflightError: it is not there, is not the same image as before, or is out of bounds.
    """
    outside = None
    present = False
    for name in _candidates(parent, image, allowed):
        path = bounds.resolved(name)
        try:
            bounds.check_bounds(path, shown, _ROLE, allowed)
        except PreflightError as error:
            outside = outside or error
            continue
        found = identify(path)
        if found == parent.identity:
            return name
        present = present or found is not None
    if outside is not None:
        raise outside
    names = ", ".join(repr(os.fsdecode(name)) for name in parent.names) or "unnamed"
    if present and parent.names:
        raise PreflightError(
            f"{shown!r} is based on its parent ({names}), which is not the image it was made from",
            hint="restore the parent as it was: the images based on it fit no other",
        )
    raise PreflightError(
        f"{shown!r} is based on its parent ({names}), which is missing",
        hint="put it beside the image, or allow its directory with --allow-dir",
    )


class Beside:
    """The images in a folder, by their identities; each folder is read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[bytes, str]] = {}

    def find(self, parent: Parent, image: str, identify: Identify) -> str | None:
        """The parent's file, found by name in the image's folder or in the one above."""
        folder, suffix = Path(image).absolute().parent, Path(image).suffix.lower()
        if parent.names:
            real = (bounds.resolved(name) for name in _named(parent, image))
            return next((path for path in real if identify(path) == parent.identity), None)
        found = (self._images(str(place), suffix, identify) for place in (folder, folder.parent))
        return next(
            (images[parent.identity] for images in found if parent.identity in images), None
        )

    def _images(self, folder: str, suffix: str, identify: Identify) -> dict[bytes, str]:
        if (folder, suffix) not in self._known:
            images: dict[bytes, str] = {}
            for name in _alike(folder, suffix):
                path = bounds.resolved(name)
                if identity := identify(path):
                    images.setdefault(identity, path)
            self._known[folder, suffix] = images
        return self._known[folder, suffix]


def _candidates(parent: Parent, image: str, folders: Sequence[str]) -> Iterator[str]:
    """Paths that the parent may have: its names, else what has the image's suffix."""
    if parent.names:
        yield from _named(parent, image)
        return
    for folder in dict.fromkeys(folders):
        yield from _alike(folder, Path(image).suffix.lower())


def _named(parent: Parent, image: str) -> Iterator[str]:
    for name in parent.names:
        if b":" not in name.split(b"/", 1)[0] and b"\0" not in name:
            yield bounds.joined(name, image)


def _alike(folder: str, suffix: str) -> list[str]:
    """Files of a folder with a suffix, so many that looking into them does not take for ever."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.path
                for entry in itertools.islice(entries, _MOST_CANDIDATES)
                if Path(entry.name).suffix.lower() == suffix
            )
    except OSError:
        return []
