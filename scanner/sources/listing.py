"""What is in a scanned folder: names, kinds and links, before any file is opened."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight.bounds import resolved
from fleetscan.scanner.preflight.deciding import is_image_name

log = logging.getLogger(__name__)

MARKER = "machine.yaml"
"""File that makes its folder one machine."""

BUNDLE = "DiskDescriptor.xml"
"""File of a Parallels bundle, whose images (``.hdd``) add to each other."""

_BUNDLED = ".hdd"
_SPARSE_BUNDLE = ".sparsebundle"  # a disk in many files, in a folder (libmodi's documentation)
_NO_SPARSE_BUNDLE = (
    "an Apple sparse bundle, which is not read (use hdiutil convert -format UDTO on a Mac, which "
    "makes a raw disk of it)"
)
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a device",
}


@dataclass(frozen=True)
class ImageFile:
    """A file that is an image by its suffix.

    Attributes:
        path: as it was found.
        real: the same, symbolic links resolved.
        error: why it must not be opened; None when it may be.
    """

    path: str
    real: str
    error: str | None = None


@dataclass
class Folder:
    """A folder that is one machine.

    Attributes:
        path: as it was found.
        real: the same, symbolic links resolved.
        images: the images in and, where it speaks for those as well, below it.
    """

    path: str
    real: str
    images: list[ImageFile] = field(default_factory=list)


@dataclass
class FolderListing:
    """What a folder holds.

    Attributes:
        images: those that speak for themselves.
        marked: folders with a ``machine.yaml``, with all images in and below them.
        bundles: Parallels bundles, with their own images.
        errors: folders that could not be listed, and why.
    """

    images: list[ImageFile] = field(default_factory=list)
    marked: list[Folder] = field(default_factory=list)
    bundles: list[Folder] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)


def bounds_of(top: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Directories, links resolved, that symbolic links in a source may lead to."""
    return tuple(resolved(folder) for folder in (top, *allowed))


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Whether a path without links lies below one of the folders."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def list_source(top: str, allowed: Sequence[str]) -> FolderListing:
    """List a source at any depth; links to folders are not followed.

    Args:
        top: the source, absolute.
        allowed: directories that links may lead to, besides the source.
    """
    bounds = bounds_of(top, allowed)
    listing = FolderListing()
    pending: list[tuple[str, Folder | None]] = [(top, None)]
    while pending:
        path, owner = pending.pop()
        real = bounds[0] + path[len(top) :]
        entries = _entries(path, owner, listing)
        names = {entry.name for entry in entries if not _is_folder(entry)}
        if owner is None and MARKER in names and path != top:
            owner = Folder(path, real)
            listing.marked.append(owner)
        if owner is None and path.lower().endswith(_SPARSE_BUNDLE):
            listing.errors.append((path, _NO_SPARSE_BUNDLE))
        bundle = Folder(path, real) if owner is None and BUNDLE in names else None
        if bundle:
            listing.bundles.append(bundle)
        for entry in entries:
            if _is_folder(entry):
                pending.append((entry.path, owner))
            elif image := image_of(entry, f"{real}/{entry.name}", bounds):
                _owned(image, bundle, owner, listing).append(image)
    listing.images.sort(key=lambda image: image.path)
    return listing


def _entries(path: str, owner: Folder | None, listing: FolderListing) -> list[os.DirEntry[str]]:
    entries: list[os.DirEntry[str]] = []
    try:
        with os.scandir(path) as found:
            entries.extend(found)
    except OSError as error:
        if owner is not None:  # what is there would not have been a machine
            owner.images.append(ImageFile(path, path))
        else:
            listing.errors.append((path, f"folder cannot be read: {error.strerror}"))
    return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # whatever it is, it can only be reported as unreadable
        return False


def _owned(
    image: ImageFile, bundle: Folder | None, owner: Folder | None, listing: FolderListing
) -> list[ImageFile]:
    """The list that an image belongs on."""
    if bundle and image.path.lower().endswith(_BUNDLED):
        return bundle.images
    return owner.images if owner else listing.images


def image_of(entry: os.DirEntry[str], real: str, bounds: Sequence[str]) -> ImageFile | None:
    """The image that a directory entry is; None when it is none.

    Args:
        entry: the entry.
        real: its path, were it no link.
        bounds: directories, links resolved, that it may lead to when it is one.
    """
    if not is_image_name(entry.name):
        log.debug("not an image by its suffix: %s", entry.path)
        return None
    try:
        if entry.is_file(follow_symlinks=False):
            return ImageFile(entry.path, real)
        if entry.is_symlink():
            return _linked(entry.path, bounds)
    except OSError as error:
        return ImageFile(entry.path, real, error=f"it cannot be read: {error.strerror}")
    return ImageFile(entry.path, real, error=f"it is {_kind(entry.path)}, not an image file")


def _linked(path: str, bounds: Sequence[str]) -> ImageFile | None:
    """The image that a symbolic link leads to; nothing outside the bounds is read."""
    try:
        real = resolved(path)
    except PreflightError as error:
        return ImageFile(path, path, error=str(error))
    if not is_below(real, bounds):
        return ImageFile(path, real, error=link_error(path, real))
    if Path(real).is_dir():
        log.debug("a link to a folder is not followed: %s", path)
        return None
    return ImageFile(path, real)


def link_error(path: str, real: str) -> str:
    """What is wrong with a link that leads out of its source, and what to do about it."""
    return (
        f"{path!r} leads to {real!r}, which lies outside of the source: name that file as a source "
        f"of its own or in an inventory, or allow its directory with --allow-dir"
    )


def _kind(path: str) -> str:
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        return f"unreadable ({error.strerror})"
    return _KINDS.get(stat.S_IFMT(mode), "something else")
