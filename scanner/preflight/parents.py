"""The images that differencing images add to: found by name or identity, and told by identity."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scanner.errors import PreflightError
from scanner.preflight import bounds
from scanner.preflight.image import Parent

_ROLE = "parent"
_MOST_CANDIDATES = 1000  # files of one folder that are looked into for an identity

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
        allowed: directories below which it may lie, links resolved.
        identify: tells the identity of an image.

    Raises:
        PreflightError: it is not there, is another image than it was, or lies out of bounds.
    """
    outside = None
    present = False
    for name in _candidates(parent, image, allowed):
        path = os.path.realpath(name)
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
            f"{shown!r} adds to its parent ({names}), which is not the image that it was made from",
            hint="put the parent back as it was: what is above it does not fit to another",
        )
    raise PreflightError(
        f"{shown!r} adds to its parent ({names}), which is not there",
        hint="put it beside the image, or allow its directory with --allow-dir",
    )


def found_beside(parent: Parent, image: str, identify: Identify) -> str | None:
    """The parent's file where it lies by name, in the image's folder, or in the one above."""
    folder = Path(image).absolute().parent
    names = _candidates(parent, image, (str(folder), str(folder.parent)))
    real = (os.path.realpath(name) for name in names)
    return next((path for path in real if identify(path) == parent.identity), None)


def _candidates(parent: Parent, image: str, folders: Sequence[str]) -> Iterator[str]:
    """Paths that the parent may have: its names, else what has the image's suffix."""
    if parent.names:
        for name in parent.names:
            if b":" not in name.split(b"/", 1)[0] and b"\0" not in name:
                yield bounds.joined(name, image)
        return
    for folder in dict.fromkeys(folders):
        try:
            with os.scandir(folder) as entries:
                found = sorted(
                    entry.path
                    for entry in itertools.islice(entries, _MOST_CANDIDATES)
                    if Path(entry.name).suffix.lower() == Path(image).suffix.lower()
                )
        except OSError:
            continue
        yield from found
