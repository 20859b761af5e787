"""What maps block devices to further ones: one module or folder each kind in ``volumes/``."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from fleetscan.appliance.ground.volumes import VolumeType
from fleetscan.appliance.guest.disks import BlockDevice


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One volume, as the agent opened it or, unless it says so, found it closed.

    Its attributes are the columns of the ``volumes`` table, which describes them.
    """

    kind: VolumeType
    device: str | None = None
    name: str
    group_name: str | None = None
    uuid: str | None = None
    group_uuid: str | None = None
    size: int | None = None
    layout: str | None = None
    members: tuple[str, ...]
    active: bool = False
    snapshot: bool = False
    degraded: bool | None = None
    error: str | None = None


@dataclass(frozen=True)
class VolumeKey:
    """A passphrase or the content of a key file.

    Attributes:
        selector: what it is for: ``all``, a container's UUID or its device's path.
        secret: the key itself; never shown.
    """

    selector: str
    secret: bytes = field(repr=False)

    def is_for(self, device: BlockDevice) -> bool:
        """Whether it is to be tried on a container."""
        uuid = device.probe.get("UUID", "")
        names = {"all", device.path, uuid.casefold()} - {""}
        return self.selector in names or self.selector.casefold() in names


class VolumeKind(ABC):
    """Opens the volumes of one kind, of one machine; its class is the ``KIND`` of its module.

    Args:
        keys: for encrypted containers.

    Attributes:
        volumes: every volume of this kind found so far, those that stayed closed included.
        members: what blkid calls the devices that such volumes consist of.
        hides_partitions: partitions seen on a disk that is a member are the volume's own.
        instead_of_partitions: the disks are known by their content, and the kernel mistakes pieces
            of volumes for partitions. Such a kind goes first, and once, over all disks with their
            partitions.
    """

    members: ClassVar[Collection[str]] = ()
    hides_partitions: ClassVar[bool] = False
    instead_of_partitions: ClassVar[bool] = False

    def __init__(self, keys: Sequence[VolumeKey] = ()) -> None:
        self.keys = keys
        self.volumes: list[Volume] = []

    @classmethod  # noqa: B027 # most kinds have nothing to do
    def warm_up(cls) -> None:
        """Do what is slow and the same for every machine, before the template is saved."""

    @classmethod
    def takes(cls, device: BlockDevice) -> bool:
        """Whether a device is to be opened by this kind."""
        return cls.instead_of_partitions or device.probe.get("TYPE") in cls.members

    @abstractmethod
    def open(self, fresh: Sequence[BlockDevice]) -> None:
        """Open what is on devices that were not there before, and list it in ``volumes``.

        Args:
            fresh: those that it takes, probed; one at least.

        Raises:
            OSError, ValueError, KeyError, ToolError: no volume can be opened any more; those
                listed until then stay.
        """


@functools.cache
def load_kinds() -> tuple[type[VolumeKind], ...]:
    """All kinds, in the order in which they are opened: by the names of their modules."""
    folder = str(Path(__file__).with_name("volumes"))
    return tuple(map(_load, sorted(found.name for found in pkgutil.iter_modules([folder]))))


def _load(name: str) -> type[VolumeKind]:
    module = importlib.import_module(f"fleetscan.appliance.guest.volumes.{name}")
    kind: type[VolumeKind] = module.KIND
    return kind
