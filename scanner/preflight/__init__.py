"""What a disk file is and what it refers to, found under limits, before any VM starts.

The format of every layer is decided here, once (:mod:`deciding`); backing files and extents are
found here, and only where the policy allows; whoever opens a layer later opens it with
:func:`open_layer`, which makes sure that it is still the file that was looked at.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from dataclasses import replace

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.appliance.host.descriptors import closing
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import bounds, parents
from fleetscan.scanner.preflight.deciding import decide_format, format_of, is_certain
from fleetscan.scanner.preflight.image import SECTOR, ExtentReference, Parent
from fleetscan.scanner.preflight.layer import Examined, examine_file, file_identity, reader
from fleetscan.scanner.preflight.parents import Beside
from fleetscan.scanner.preflight.plan import (
    DiskLayer,
    DiskPlan,
    DiskPolicy,
    Extent,
    QemuImgLimits,
    file_size,
    identity_of,
    open_checked,
    open_layer,
)

__all__ = [
    "Beside",
    "DiskLayer",
    "DiskPlan",
    "DiskPolicy",
    "QemuImgLimits",
    "examine",
    "open_layer",
    "referred_files",
]

_BACKING, _EXTENT = "backing file", "extent"


def examine(disk: Disk, policy: DiskPolicy) -> DiskPlan:
    """Decide how a disk is to be opened.

    Raises:
        PreflightError: a layer cannot be read, is malformed, in use, or out of the policy's
            bounds; the message names it.
    """
    name, stated = os.path.abspath(disk.path), disk.format  # noqa: PTH100 - ".." before links
    path = bounds.resolved(name)
    bounds.check_source(name, path, disk.within)
    allowed = bounds.allowed_directories(name, path, policy)
    chain: list[Examined] = []
    member, until = disk.member, time.monotonic() + policy.limits.disk_seconds
    while True:
        found = _examine_layer(path, stated, policy, member, until, is_top=not chain)
        _check_chain(found, chain, policy)
        found = _with_extents(found, name, allowed, policy, until)
        chain.append(found)
        below = found.image.backing_file or found.image.parent
        if below is None:
            return _plan(_mapped(chain))
        if member is not None:
            raise PreflightError(f"{path!r}: {member!r} needs another disk, its backing file")
        if isinstance(below, Parent):
            stated = found.layer.format
            identify = functools.partial(file_identity, image_format=found.layer.format)
            name = parents.find(below, name, found.layer.path, allowed, identify)
        else:
            stated = found.image.backing_format
            name = bounds.referred_name(below, name, found.layer.path, _BACKING)
        path = bounds.resolved(name)
        bounds.check_bounds(path, found.layer.path, _BACKING, allowed)


def _examine_layer(
    path: str,
    stated: str | None,
    policy: DiskPolicy,
    member: str | None,
    until: float,
    *,
    is_top: bool,
) -> Examined:
    """As :func:`examine_file`; a layer below the top does not stay closed by its content alone."""
    try:
        return examine_file(path, stated, policy, member, until=until)
    except PreflightError as error:
        if not is_top:
            error.identity = None
        raise


def referred_files(disk: Disk, beside: Beside | None = None) -> tuple[str, ...]:
    """The files, symbolic links resolved, that a sound image names: backing file and extents.

    For sources, which must distinguish images from the files below them. Reads only headers;
    whether the image passes preflight is for :func:`examine` to say.

    Args:
        disk: the image.
        beside: what is known of the folders of images asked for before.

    Returns:
        Nothing for all other disks: unreadable and malformed ones, and those for whose format
        nothing speaks but a header, which their guest may have written.
    """
    try:
        path = bounds.resolved(disk.path)
        with closing(open_checked(path)) as fd:
            size, read = file_size(fd), reader(fd)
            decided = decide_format(disk.format, path, read, size)
            if not is_certain(disk.format, path, decided):
                return ()
            names = format_of(decided).references(read, size)
            parent = format_of(decided).read_parent(read, size)
        files = [bounds.joined(name, disk.path) for name in names]
        if parent is not None:
            identify = functools.partial(file_identity, image_format=decided)
            found = (beside or Beside()).find(parent, disk.path, identify)
            files += [found] if found else []
        return tuple(bounds.resolved(file) for file in files)
    except (PreflightError, OSError):
        return ()


def _with_extents(
    found: Examined, name: str, allowed: Sequence[str], policy: DiskPolicy, until: float
) -> Examined:
    """The same, after examining the files that its disk is in.

    Args:
        found: an image file.
        name: how it was named, for relative names in it.
        allowed: where the files may be.
        policy: for the files.
        until: ``time.monotonic()`` at which the disk is given up.
    """
    if not found.image.extents:
        return found
    if found.layer.length is not None:
        raise PreflightError(f"{found.layer.path!r}: a disk in several files of an archive")
    files = []
    for reference in found.image.extents:
        file = bounds.referred_name(reference.file, name, found.layer.path, _EXTENT)
        path = bounds.resolved(file)
        bounds.check_bounds(path, found.layer.path, _EXTENT, allowed)
        files.append(_examine_extent(path, reference, policy, until))
    extents = [
        Extent(reference, file.layer)
        for reference, file in zip(found.image.extents, files, strict=True)
    ]
    return replace(
        found,
        layer=replace(found.layer, extents=tuple(extents)),
        allocated=found.allocated + sum(file.allocated for file in files),
        in_use=found.in_use or any(file.in_use for file in files),
        sector_size=files[0].sector_size,
    )


def _examine_extent(
    path: str, reference: ExtentReference, policy: DiskPolicy, until: float
) -> Examined:
    flat = reference.kind == "FLAT"
    file = examine_file(path, "raw" if flat else "vmdk", policy, until=until, is_extent=True)
    if file.is_device:
        raise PreflightError(f"{path!r} is an extent but not a regular file")
    if file.image.extents:
        raise PreflightError(f"{path!r} is an extent but itself in several files")
    size, end = file.image.virtual_size, (reference.offset + reference.sectors) * SECTOR
    # QEMU goes by what a sparse file says of itself, and takes the next extent to follow that.
    if size < end or (not flat and size != end):
        raise PreflightError(f"{path!r} has {size} bytes, but as an extent it holds {end}")
    return file


def _check_chain(found: Examined, above: Sequence[Examined], policy: DiskPolicy) -> None:
    layer = found.layer
    if above and found.is_device:
        raise PreflightError(f"{layer.path!r} is a backing file but not a regular file")
    if any((layer.device, layer.inode) == (up.layer.device, up.layer.inode) for up in above):
        raise PreflightError(f"{layer.path!r} is its own backing file: the chain is a circle")
    if len(above) >= policy.max_depth:
        raise PreflightError(
            f"{above[0].layer.path!r} has a backing chain of more than {policy.max_depth} layers",
            hint="flatten it with: qemu-img convert -O qcow2",
        )


def _mapped(chain: Sequence[Examined]) -> list[Examined]:
    """The chain with those layers marked that QEMU reads through tables of ours.

    Those are all from the first differencing image on: QEMU lets a vmdk, as which they are shown
    to it, are only on a vmdk.
    """
    differing = (index for index, found in enumerate(chain) if found.image.parent)
    first = next(differing, len(chain))
    for found in chain[first:]:
        if found.layer.replay:
            raise PreflightError(
                f"{found.layer.path!r}: a parent with a log to be replayed",
                hint="open and close it once on its host, or merge it with the image based on it",
            )
    mapped = [replace(found, layer=replace(found.layer, mapped=True)) for found in chain[first:]]
    return [*chain[:first], *mapped]


def _plan(chain: Sequence[Examined]) -> DiskPlan:
    top = chain[0]
    layers = tuple(found.layer for found in chain)
    steady = not any(found.in_use or found.is_device for found in chain)
    # The disk's beginning is in the first layer that has it.
    sector_sizes = (found.sector_size for found in chain if found.sector_size is not None)
    return DiskPlan(
        layers=layers,
        virtual_size=top.image.virtual_size,
        cluster_size=top.image.cluster_size,
        allocated=top.allocated,
        sector_size=next(sector_sizes, SECTOR),
        snapshots=top.image.snapshots,
        mark=top.image.mark,
        identity=_identity(layers) if steady else None,
        in_use=any(found.in_use for found in chain),
    )


def _identity(layers: Sequence[DiskLayer]) -> str:
    extents = (extent.file for layer in layers for extent in layer.extents)
    return identity_of(
        [
            (file.path, file.inode, file.size, file.mtime_ns, file.ctime_ns)
            for file in (*layers, *extents)
        ]
    )
