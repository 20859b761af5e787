"""Disks for a running appliance: files handed to QEMU by descriptor, and the graph over them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance import qemu_args
from appliance.monitor import Monitor
from appliance.open_files import memory_file, reopened
from appliance.qemu_args import OpenLayer
from scanner.deadline import Deadline


@dataclass(frozen=True)
class PluggedLayer:
    """One layer of a disk that is given to a guest.

    Attributes:
        driver: QEMU's driver for its format.
        descriptors: its file, open for reading; with ``describe`` the files that its content
            lies in.
        block_device: whether the file is a block device.
        start: where in the file the image begins, in bytes.
        length: length of the image, in bytes; None for the rest of the file.
        describe: makes the file that the driver reads, of the paths under which QEMU finds the
            others; None when the driver reads the image's own file.
        overlay: a qcow2 image, open for reading, that the driver reads on top of the file.
    """

    driver: str
    descriptors: tuple[int, ...]
    block_device: bool = False
    start: int = 0
    length: int | None = None
    describe: Callable[[Sequence[str]], bytes] | None = None
    overlay: int | None = None


class Plugger:
    """Gives one QEMU its disks.

    Args:
        monitor: QEMU's.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._fd_sets = itertools.count(qemu_args.FIRST_DISK_SET)

    def plug(
        self, index: int, chain: Sequence[PluggedLayer], deadline: Deadline, sector_size: int
    ) -> None:
        """As :meth:`appliance.vm.ApplianceVM.plug`."""
        layers = [self._open_layer(layer, deadline) for layer in chain]
        name = f"disk{index}"
        device = qemu_args.disk_device(name, index, sector_size)
        self._monitor.execute("blockdev-add", deadline, qemu_args.disk_node(name, layers))
        self._monitor.execute("device_add", deadline, device)

    def _open_layer(self, layer: PluggedLayer, deadline: Deadline) -> OpenLayer:
        sets = [self._pass(descriptor, deadline) for descriptor in layer.descriptors]
        if layer.describe is not None:
            content = layer.describe([qemu_args.fd_path(number) for number in sets])
            with contextlib.ExitStack() as ours:
                written = memory_file(ours, "descriptor", content)
                sets = [self._pass(reopened(ours, written, os.O_RDONLY), deadline)]
        return OpenLayer(
            layer.driver,
            sets[0],
            layer.block_device,
            layer.start,
            layer.length,
            overlay=None if layer.overlay is None else self._pass(layer.overlay, deadline),
        )

    def _pass(self, descriptor: int, deadline: Deadline) -> int:
        """Hand an open file over; the number of the descriptor set that holds it."""
        number = next(self._fd_sets)
        self._monitor.send_descriptor(descriptor)
        self._monitor.execute("add-fd", deadline, {"fdset-id": number})
        return number
