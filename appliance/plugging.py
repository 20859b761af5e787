"""Disks for a running appliance: files handed to QEMU by descriptor, and the graph over them.

Some formats have QEMU open files that the image names, whatever it is told: a qcow2 its external
data file, a vmdk its extents. Preflight refuses such images, but whoever may write to an image may
do so after that. So QEMU is asked what it opened before the guest gets a disk.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fleetscan.appliance import qemu_args
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import ApplianceError, ForeignFileError, LockedError
from fleetscan.appliance.host.descriptors import memory_file, reopened
from fleetscan.appliance.monitor import Monitor
from fleetscan.appliance.qemu_args import OpenLayer, OpenNode

_WRONG_KEY = "Invalid password"  # QEMU's crypto/block-luks.c, for what fits no key slot
_MOST_WORDS = 300


@dataclass(frozen=True)
class PluggedLayer:
    """One layer of a disk that is given to a guest.

    Attributes:
        driver: QEMU's driver for its format.
        descriptors: its file, open for reading; with ``describe`` the files that its content
            is in.
        block_device: whether the file is a block device.
        start: where in the file the image begins, in bytes.
        length: length of the image, in bytes; None for the rest of the file.
        describe: makes the file that the driver reads, of the paths under which QEMU finds the
            others; None when the driver reads the image's own file.
        joined: what ``describe`` describes is not the image, but a file that holds it.
        overlay: a qcow2 image, open for reading, that the driver reads on top of the file.
        keys: passphrases that may open it, when its format encrypts it; None when it does not.
        name: what an error calls it.
    """

    driver: str
    descriptors: tuple[int, ...]
    block_device: bool = False
    start: int = 0
    length: int | None = None
    describe: Callable[[Sequence[str]], bytes] | None = None
    joined: bool = False
    overlay: int | None = None
    keys: Sequence[bytes] | None = field(default=None, repr=False)
    name: str = ""


class Plugger:
    """Gives one QEMU its disks.

    Args:
        monitor: QEMU's.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._fd_sets = itertools.count(qemu_args.FIRST_DISK_SET)
        self._nodes: Counter[OpenNode] = Counter(qemu_args.ROOT_NODES)

    def plug(
        self, index: int, chain: Sequence[PluggedLayer], deadline: Deadline, sector_size: int
    ) -> None:
        """As :meth:`fleetscan.appliance.vm.ApplianceVM.plug`."""
        layers = [self._open_layer(layer, deadline) for layer in chain]
        name = f"disk{index}"
        device = qemu_args.disk_device(name, index, sector_size)
        nodes = qemu_args.disk_nodes(name, layers)
        for node, layer, opened in zip(nodes, reversed(chain), reversed(layers), strict=True):
            if layer.keys is None:
                self._monitor.execute("blockdev-add", deadline, node)
            else:
                self._unlock(node, layer.name, layer.keys, deadline)
            self._nodes.update(qemu_args.nodes_opened(node, opened))
        self._check_nodes(deadline)
        self._monitor.execute("device_add", deadline, device)

    def _check_nodes(self, deadline: Deadline) -> None:
        """Make sure that QEMU has our nodes and no others, all of them read-only.

        It reads an image's header once, when it opens it: no later change names a file.

        Raises:
            ForeignFileError: it has not.
        """
        found = self._monitor.execute("query-named-block-nodes", deadline, {"flat": True})
        nodes = Counter(qemu_args.open_node(node) for node in found)
        if nodes != self._nodes or not all(node.get("ro") is True for node in found):
            others = sorted(str(file or driver) for driver, file in (nodes - self._nodes))
            what = ", ".join(map(repr, others))[:_MOST_WORDS] or "something for writing"
            raise ForeignFileError(
                f"an image changed while it was opened, and had QEMU open {what}",
                hint="find out what writes to the image, and scan it when nothing does",
            )

    def _unlock(
        self, node: dict[str, object], name: str, keys: Sequence[bytes], deadline: Deadline
    ) -> None:
        """Add an encrypted node with the first key that fits.

        Raises:
            LockedError: none does.
        """
        secret = f"{node['node-name']}-key"
        for key in keys:
            self._monitor.execute("object-add", deadline, qemu_args.secret_object(secret, key))
            try:
                arguments = qemu_args.encrypted(node, secret)
                self._monitor.execute("blockdev-add", deadline, arguments)
                return
            except ApplianceError as error:
                if _WRONG_KEY not in str(error):
                    raise
            finally:
                self._monitor.execute("object-del", deadline, {"id": secret})
        which = "the key given for it does not fit" if len(keys) == 1 else "no key fits"
        raise LockedError(f"{name!r}: encrypted (LUKS), and {which}")

    def _open_layer(self, layer: PluggedLayer, deadline: Deadline) -> OpenLayer:
        sets = [self._pass(descriptor, deadline) for descriptor in layer.descriptors]
        described: tuple[int, ...] = ()
        if layer.describe is not None:
            content = layer.describe([qemu_args.fd_path(number) for number in sets])
            with contextlib.ExitStack() as ours:
                written = memory_file(ours, "descriptor", content)
                described = tuple(sets)
                sets = [self._pass(reopened(ours, written, os.O_RDONLY), deadline)]
        return OpenLayer(
            layer.driver,
            sets[0],
            layer.block_device,
            layer.start,
            layer.length,
            joined=layer.joined,
            overlay=None if layer.overlay is None else self._pass(layer.overlay, deadline),
            described=described,
        )

    def _pass(self, descriptor: int, deadline: Deadline) -> int:
        """Hand an open file over; the number of the descriptor set that holds it."""
        number = next(self._fd_sets)
        self._monitor.send_descriptor(descriptor)
        self._monitor.execute("add-fd", deadline, {"fdset-id": number})
        return number
