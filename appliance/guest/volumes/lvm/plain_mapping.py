"""Volume groups of only linear and striped volumes, opened without lvm.

lvm's own start and report cost a quarter of a second under emulation, a third of all that is done
to find a machine's systems, although its library is loaded in the template; for groups that are
nearly always of the simplest kind. Those are read and mapped here, under the names and with the
UUIDs that lvm gives them. Whatever is not plain is left to lvm: another segment type, a physical
volume that is missing or there twice, a group that is exported or another host's, copies of the
metadata that differ, anything that is not understood.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping

from fleetscan.appliance.guest.devicemapper import DeviceMapper, MapperLine
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volume import Volume
from fleetscan.appliance.guest.volumes.lvm.metadata import (
    LogicalVolume,
    NotPlainError,
    Target,
    read,
    text_on,
)

_SECTOR = 512


def open_plain(devices: Mapping[str, BlockDevice]) -> list[Volume]:
    """Map the volumes of all groups, read-only; nothing is mapped where one is not plain.

    Args:
        devices: physical volumes by UUID.

    Raises:
        NotPlainError: lvm is to open them.
        OSError: a device cannot be read, or device mapper refused.
    """
    texts = [text for device in devices.values() if (text := text_on(device.path)) is not None]
    found = sorted(
        (volume for text in dict.fromkeys(texts) for volume in read(text, devices.keys())),
        key=lambda volume: (volume.group, volume.name),
    )
    if len({(volume.group, volume.name) for volume in found}) < len(found):
        raise NotPlainError("two volumes have the same name")
    with contextlib.ExitStack() as undo:
        mapper = undo.enter_context(DeviceMapper())
        rows = [_map(mapper, volume, devices, undo) for volume in found]
        undo.pop_all()
        mapper.close()
    return rows


def _map(
    mapper: DeviceMapper,
    volume: LogicalVolume,
    devices: Mapping[str, BlockDevice],
    undo: contextlib.ExitStack,
) -> Volume:
    """Make a volume's device and the names that lvm gives it."""
    name = f"{volume.group.replace('-', '--')}-{volume.name.replace('-', '--')}"
    uuid = "LVM-" + (volume.group_uuid + volume.uuid).replace("-", "")
    number = mapper.create(name, uuid)
    undo.callback(mapper.remove, name)
    members = dict.fromkeys(uuid for target in volume.targets for uuid in target.members)
    mapper.load_read_only(name, [_line(target, devices) for target in volume.targets])
    node, path = f"/dev/mapper/{name}", f"/dev/{volume.group}/{volume.name}"
    os.makedirs(f"/dev/{volume.group}", exist_ok=True)
    os.mknod(node, stat.S_IFBLK | 0o600, number)
    undo.callback(os.unlink, node)
    os.symlink(node, path)
    undo.callback(os.unlink, path)
    return Volume(
        kind="lvm",
        device=path,
        name=volume.name,
        group_name=volume.group,
        uuid=volume.uuid,
        group_uuid=volume.group_uuid,
        size=sum(target.length for target in volume.targets) * _SECTOR,
        layout=volume.layout,
        members=tuple(devices[uuid].path for uuid in members),
        active=True,
    )


def _line(target: Target, devices: Mapping[str, BlockDevice]) -> MapperLine:
    paths = [os.path.realpath(devices[uuid].path) for uuid in target.members]
    return MapperLine(target.start, target.length, target.kind, target.parameters.format(*paths))
