"""The files of an examined disk, opened for QEMU."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Sequence
from dataclasses import replace

from appliance.open_files import memory_file, reopened
from appliance.plugging import PluggedLayer
from scanner.errors import LockedError
from scanner.preflight import vmdk
from scanner.preflight.plan import DiskPlan, Layer, Limits, open_layer
from scanner.preflight.qemu_img import replay_log
from scanner.sources.keys import keys_for


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
    chain = [_open(layer, stack, live=live) for layer in plan.layers]
    return [_with_keys(*pair, keys) for pair in zip(chain, plan.layers, strict=True)]


def _with_keys(
    plugged: PluggedLayer, layer: Layer, keys: Sequence[tuple[str, bytes]]
) -> PluggedLayer:
    if layer.luks_uuid is None:
        return plugged
    fitting = keys_for(layer.luks_uuid, keys)
    if not fitting:
        raise LockedError(
            f"{layer.path!r}: encrypted (LUKS, UUID {layer.luks_uuid}), and no key was given",
            hint="say where its key is with --key, or keys in the inventory",
        )
    return replace(plugged, keys=fitting, name=layer.path)


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
