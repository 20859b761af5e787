"""The files of an examined disk, opened for QEMU."""

from __future__ import annotations

import contextlib
import functools
import os
import stat

from appliance.open_files import memory_file, reopened
from appliance.plugging import PluggedLayer
from scanner.preflight import vmdk
from scanner.preflight.plan import DiskPlan, Layer, Limits, open_layer
from scanner.preflight.qemu_img import replay_log


def open_disk(
    plan: DiskPlan, stack: contextlib.ExitStack, *, live: bool = False
) -> list[PluggedLayer]:
    """Open a disk's files read-only, each the one that preflight looked at.

    Args:
        plan: how the disk is opened.
        stack: closes the files.
        live: they may have been written to since.

    Raises:
        PreflightError: one cannot be opened, is not what preflight saw, or has a log that cannot
            be replayed.
    """
    return [_open(layer, stack, live=live) for layer in plan.layers]


def _open(layer: Layer, stack: contextlib.ExitStack, *, live: bool) -> PluggedLayer:
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


def _replayed(descriptor: int, layer: Layer, stack: contextlib.ExitStack) -> int:
    """An overlay in memory that holds what replaying the layer's log would write."""
    overlay = memory_file(stack, "overlay", b"")
    length = layer.size - layer.start if layer.length is None else layer.length
    replay_log(descriptor, Limits(), layer.start, length, overlay)
    return reopened(stack, overlay, os.O_RDONLY)


def _opened(layer: Layer, stack: contextlib.ExitStack, *, live: bool) -> int:
    descriptor = open_layer(layer, live=live)
    stack.callback(os.close, descriptor)
    return descriptor
