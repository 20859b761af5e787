"""Software RAID (md): arrays are put together read-only, also when members are missing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from glob import glob

from fleetscan.appliance.guest import mapping
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.tools import ToolError, run
from fleetscan.appliance.guest.volume import Volume, VolumeKind
from fleetscan.appliance.guest.volumes.arrays.mdadm_conf import MEMBER

_PARAMETERS = "/sys/module/md_mod/parameters"
_NAME = re.compile(r"[\w+-][\w.+-]{0,63}", re.ASCII)
_NUMBER = re.compile(r"\d{1,3}", re.ASCII)


class Arrays(VolumeKind):
    """The machine's arrays."""

    members = (MEMBER,)
    hides_partitions = True  # of a mirror, any member shows them

    def open(self, fresh: Sequence[BlockDevice]) -> None:
        """Put together every array that has members among these devices."""
        self.volumes += _assembled(fresh)


def _assembled(members: Sequence[BlockDevice]) -> list[Volume]:
    """Put together every array that has members among these devices.

    Returns:
        The arrays; of those that cannot run, the reason.

    Raises:
        ToolError: device mapper or md cannot be used at all.
    """
    run(["modprobe", "md_mod"])
    # Nothing is written, so an array whose parity may be stale can be read without harm.
    for name in ("start_dirty_degraded", "start_ro"):
        with open(f"{_PARAMETERS}/{name}", "w") as parameter:
            parameter.write("1")
    nodes = mapping.read_only([(member.path, member.size) for member in members])
    arrays: dict[str, list[BlockDevice]] = {}
    for member in members:
        arrays.setdefault(member.probe.get("UUID", member.path), []).append(member)
    return [volume for parts in arrays.values() for volume in _assemble(parts, nodes)]


def _assemble(members: Sequence[BlockDevice], nodes: Mapping[str, str]) -> list[Volume]:
    """The array that these are members of, and a row for those that it was started without."""
    path = device_path(members[0])
    before = set(glob("/sys/block/md*"))
    command = ["mdadm", "--assemble", "--config=none", "--readonly", "--run", path]
    try:
        run([*command, *(nodes[member.path] for member in members)])
    except ToolError as error:
        reason = str(error).rpartition("mdadm: ")[2]
        return [_closed(members, f"cannot be started with {len(members)} of its members: {reason}")]
    place = next(iter(set(glob("/sys/block/md*")) - before), None)
    if place is None:
        return [_closed(members, "cannot be started: another array has its place")]
    volume = _array(place, path, members, {node: path for path, node in nodes.items()})
    left = [member for member in members if member.path not in volume.members]
    others = [_closed(left, "is another member's copy, or out of date")] if left else []
    return [volume, *others]


def device_path(member: BlockDevice) -> str:
    """The path by which the guest knows an array, as far as a member says.

    Its name stands there as HOST:NAME or NAME; arrays of metadata 0.90 have none.
    """
    name = member.probe.get("LABEL", "").rpartition(":")[2]
    path = f"/dev/md{name}" if _NUMBER.fullmatch(name) else f"/dev/md/{name}"
    if not _NAME.fullmatch(name) or os.path.lexists(path):
        return f"/dev/md/{os.path.basename(os.path.realpath(member.path))}"
    return path


def _array(
    place: str, path: str, members: Sequence[BlockDevice], paths: Mapping[str, str]
) -> Volume:
    """A running array, from its place in sysfs."""
    slaves = [f"/dev/mapper/{_read(f'{slave}/dm/name')}" for slave in glob(f"{place}/slaves/*")]
    named = members[0].probe.get("LABEL") is not None
    return Volume(
        kind="md",
        device=path if named else f"/dev/{os.path.basename(place)}",
        name=os.path.basename(path if named else place),
        uuid=members[0].probe.get("UUID"),
        size=int(_read(f"{place}/size")) * 512,
        layout=_read(f"{place}/md/level"),
        members=tuple(sorted(paths[slave] for slave in slaves)),
        active=True,
        degraded=_read(f"{place}/md/degraded") not in ("", "0"),
    )


def _closed(members: Sequence[BlockDevice], error: str) -> Volume:
    probe = members[0].probe
    return Volume(
        kind="md",
        name=probe.get("LABEL") or members[0].path,
        uuid=probe.get("UUID"),
        members=tuple(member.path for member in members),
        error=error,
    )


def _read(path: str) -> str:
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return ""
