"""The files of an examined disk, opened for QEMU."""

from __future__ import annotations

import contextlib
import functools
import os
import stat

from appliance.plugging import PluggedLayer
from scanner.preflight import vmdk
from scanner.preflight.plan import DiskPlan, Layer, open_layer


def open_disk(
    plan: DiskPlan, stack: contextlib.ExitStack, *, live: bool = False
) -> list[PluggedLayer]:
    """Open a disk's files read-only, each the one that preflight looked at.

    Args:
        plan: how the disk is opened.
        stack: closes the files.
        live: they may have been written to since.

    Raises:
        PreflightError: one cannot be opened, or is not what preflight saw.
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
    return PluggedLayer(layer.driver, (descriptor,), block_device, layer.start, layer.length)


def _opened(layer: Layer, stack: contextlib.ExitStack, *, live: bool) -> int:
    descriptor = open_layer(layer, live=live)
    stack.callback(os.close, descriptor)
    return descriptor
