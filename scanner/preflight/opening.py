"""The files of an examined disk, opened for QEMU."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import replace

from fleetscan.appliance.ground.errors import LockedError, PreflightError
from fleetscan.appliance.host.descriptors import held, memory_file, reopened
from fleetscan.appliance.plugging import PluggedLayer
from fleetscan.scanner.preflight import mapped
from fleetscan.scanner.preflight.deciding import differencing
from fleetscan.scanner.preflight.formats import vmdk
from fleetscan.scanner.preflight.image import SECTOR, ExtentReference
from fleetscan.scanner.preflight.layer import reader
from fleetscan.scanner.preflight.plan import DiskLayer, DiskPlan, QemuImgLimits, open_layer
from fleetscan.scanner.preflight.qemu_img import replay_log


def open_disk(
    plan: DiskPlan,
    stack: contextlib.ExitStack,
    *,
    live: bool = False,
    keys: Sequence[tuple[str, bytes]] = (),
) -> list[PluggedLayer]:
    """Open a disk's files read-only, each the one that preflight looked at.

    Args:
        plan: how the disk is opened.
        stack: closes the files.
        live: they may have been written to since.
        keys: selector and key, for layers whose format encrypts them.

    Raises:
        LockedError: there is no key for an encrypted layer.
        PreflightError: one cannot be opened, is not what preflight saw, or has a log that cannot
            be replayed.
    """
    until = time.monotonic() + QemuImgLimits().disk_seconds
    chain = [
        _open_mapped(plan.layers[index:], stack, until, live=live)
        if layer.mapped
        else _open(layer, stack, live=live)
        for index, layer in enumerate(plan.layers)
    ]
    return [_with_keys(*pair, keys) for pair in zip(chain, plan.layers, strict=True)]


def _with_keys(
    plugged: PluggedLayer, layer: DiskLayer, keys: Sequence[tuple[str, bytes]]
) -> PluggedLayer:
    if layer.luks_uuid is None:
        return plugged
    fitting = _keys_for(layer.luks_uuid, keys)
    if not fitting:
        raise LockedError(
            f"{layer.path!r}: encrypted (LUKS, UUID {layer.luks_uuid}), and no key was given",
            hint="give its key with --key, or with keys in the inventory",
        )
    return replace(plugged, keys=fitting, name=layer.path)


def _keys_for(uuid: str, keys: Sequence[tuple[str, bytes]]) -> list[bytes]:
    """The keys that are to be tried on what has this UUID, of those with their selectors."""
    wanted = ("all", uuid.casefold())
    return [key for selector, key in keys if selector.casefold() in wanted]


def _open(layer: DiskLayer, stack: contextlib.ExitStack, *, live: bool) -> PluggedLayer:
    descriptor = _opened(layer, stack, live=live)
    if layer.cid is not None:
        references = [extent.reference for extent in layer.extents]
        return PluggedLayer(
            layer.driver,
            tuple(_opened(extent.file, stack, live=live) for extent in layer.extents),
            describe=functools.partial(vmdk.describe, references, layer.cid),
        )
    block_device = stat.S_ISBLK(os.fstat(descriptor).st_mode)
    overlay = _replayed(descriptor, layer, stack) if layer.replay else None
    return PluggedLayer(
        layer.driver, (descriptor,), block_device, layer.start, layer.length, overlay=overlay
    )


def _open_mapped(
    layers: Sequence[DiskLayer], stack: contextlib.ExitStack, until: float, *, live: bool
) -> PluggedLayer:
    """The first of these layers, which is on top of the others, as a vmdk.

    Args:
        layers: these.
        stack: closes the files.
        until: ``time.monotonic()`` at which the disk is given up.
        live: they may have been written to since.

    Raises:
        PreflightError: also if what it would take to show it so is too much.
    """
    layer, sectors = layers[0], layers[0].size // SECTOR
    descriptor = _opened(layer, stack, live=live)
    cid = (len(layers), len(layers) - 1 or vmdk.NO_PARENT)
    if layer.driver == "raw":
        content = ExtentReference("FLAT", layer.virtual_size // SECTOR, b"")
        return PluggedLayer(
            "vmdk", (descriptor,), describe=functools.partial(vmdk.describe, [content], cid)
        )
    read = reader(descriptor)
    deadline = min(time.monotonic() + QemuImgLimits().wall_seconds, until)
    try:
        stretches = functools.partial(differencing(layer.format).runs, read, layer.size, deadline)
        head = mapped.head(layer.virtual_size, layer.size, cid, stretches)
    except PreflightError as error:
        raise PreflightError(f"{layer.path!r}: {error}", hint=error.hint) from error
    written = memory_file(stack, "head", head)
    pieces = [
        ExtentReference("FLAT", len(head) // SECTOR, b""),
        ExtentReference("FLAT", sectors, b""),
    ]
    return PluggedLayer(
        "vmdk",
        (reopened(stack, written, os.O_RDONLY), descriptor),
        describe=functools.partial(vmdk.describe, pieces, (0, vmdk.NO_PARENT)),
        joined=True,
    )


def _replayed(descriptor: int, layer: DiskLayer, stack: contextlib.ExitStack) -> int:
    """An overlay in memory that holds what replaying the layer's log would write."""
    overlay = memory_file(stack, "overlay", b"")
    length = layer.size - layer.start if layer.length is None else layer.length
    replay_log(descriptor, QemuImgLimits(), layer.start, length, overlay)
    return reopened(stack, overlay, os.O_RDONLY)


def _opened(layer: DiskLayer, stack: contextlib.ExitStack, *, live: bool) -> int:
    return held(stack, open_layer(layer, live=live))
