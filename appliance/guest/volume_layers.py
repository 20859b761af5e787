"""What is on the disks, layer on layer: volumes of every kind, and partitions in them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence

from fleetscan.appliance.ground.reasons import in_words
from fleetscan.appliance.guest import disks, mapping
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volume import Volume, VolumeKind

_MOST_LAYERS = 8  # deeper than anybody builds; an image may try to nest for ever


class VolumeLayers:
    """Opens volumes on the devices there are, then on those volumes, until nothing is new.

    Args:
        kinds: of volume, each for this machine, in the order in which they are opened.

    Attributes:
        opened: block devices of the volumes, and partitions inside of volumes.
        partitions: of those the partitions.
        warnings: what went wrong beside what the volumes' rows say, a line each.
    """

    def __init__(self, kinds: Sequence[VolumeKind]) -> None:
        self.opened: list[BlockDevice] = []
        self.partitions: list[BlockDevice] = []
        self.warnings: list[str] = []
        self._kinds = kinds

    @property
    def volumes(self) -> list[Volume]:
        """Every volume found, those that stayed closed included."""
        return [volume for kind in self._kinds for volume in kind.volumes]

    def open(self, devices: Sequence[BlockDevice]) -> None:
        """Open all that is on probed devices."""
        fresh = list(devices)
        first = [kind for kind in self._kinds if kind.instead_of_partitions]
        fresh += self._keep([*self._opened(first, fresh)])
        others = [kind for kind in self._kinds if not kind.instead_of_partitions]
        for _ in range(_MOST_LAYERS):
            opened = self._keep([*self._opened(others, fresh), *self._inside(fresh)])
            if not opened:
                return
            fresh = opened
        self.warnings.append(f"volumes are nested more than {_MOST_LAYERS} deep")

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            self.warnings.append(f"volumes cannot be opened: {in_words(error)}")

    def _keep(self, opened: list[BlockDevice]) -> list[BlockDevice]:
        """Probe new devices, and take them in."""
        if opened:
            with self._warning():
                disks.probe(opened)
        self.opened += opened
        return opened

    def _opened(
        self, kinds: Iterable[VolumeKind], fresh: Sequence[BlockDevice]
    ) -> Iterator[BlockDevice]:
        """Have each kind open what it takes; the devices of the volumes that are new."""
        for kind in kinds:
            if taken := [device for device in fresh if kind.takes(device)]:
                before = {volume.device for volume in kind.volumes}
                with self._warning():
                    kind.open(taken)
                for volume in kind.volumes:
                    if volume.device and volume.device not in before:
                        with self._warning():
                            yield _device(volume.device, volume)

    def _inside(self, fresh: Sequence[BlockDevice]) -> Iterator[BlockDevice]:
        """Partitions inside of volumes."""
        for device in fresh:
            is_volume = device.disk is None and device.partition is None
            if is_volume and "PTTYPE" in device.probe and "TYPE" not in device.probe:
                with self._warning():
                    found = _partitions_inside(device)
                    self.partitions += found
                    yield from found


def _partitions_inside(volume: BlockDevice) -> list[BlockDevice]:
    name = disks.kernel_name(volume.path)
    if name.startswith("dm-"):  # in which the kernel looks for none, except this way
        name = os.path.basename(mapping.loop(volume.path, partitions=True))
    return disks.partitions(volume, name)


def _device(path: str, volume: Volume) -> BlockDevice:
    return disks.volume(path, volume.members, snapshot=volume.snapshot)
