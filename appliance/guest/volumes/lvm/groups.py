"""Logical volumes: opened read-only; what stays closed is named with the reason."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from fleetscan.appliance.guest import mapping
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.tools import ToolError, run
from fleetscan.appliance.guest.volume import Volume, VolumeKey, VolumeKind
from fleetscan.appliance.guest.volumes.lvm.metadata import NotPlainError
from fleetscan.appliance.guest.volumes.lvm.plain_mapping import open_plain

# No udev, no daemon, no device file of an earlier system: lvm makes its nodes itself and looks at
# every device. It could not write if it tried: the disks are read-only.
_CONFIG = (
    "activation{udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0} "
    "devices{obtain_device_list_from_udev=0 use_devicesfile=0 scan_lvs=1 "
    'hints="none" multipath_component_detection=0 md_component_detection=1} '
    "global{use_lvmpolld=0 use_lvmlockd=0 event_activation=0 "
    'thin_check_executable="" cache_check_executable=""} '
    "backup{backup=0 archive=0}"
)

_LV_FIELDS = (
    "vg_name,vg_uuid,vg_systemid,lv_name,lv_uuid,lv_size,lv_layout,lv_role,lv_path,"
    "lv_health_status,devices,pool_lv,data_lv,metadata_lv"
)
_PV_FIELDS = "pv_name,pv_uuid,vg_name,vg_exported"


# Layouts whose drivers only read. The others keep metadata that they must be able to write.
_READ_ONLY_LAYOUTS = frozenset({"linear", "striped"})


class LogicalVolumes(VolumeKind):
    """The machine's volume groups."""

    members = ("LVM2_member",)

    def __init__(self, keys: Sequence[VolumeKey] = ()) -> None:
        super().__init__(keys)
        self._devices: dict[str, BlockDevice] = {}  # physical volumes, by UUID
        self._copies: list[Volume] = []
        self._written: set[str] = set()  # names of the groups that are on overlays
        self._hidden: list[str] = []  # devices that lvm must not see
        self._overlays: dict[str, str] = {}  # what is seen instead, to the device below

    @classmethod
    def warm_up(cls) -> None:
        """Have lvm start once."""
        for command in ["vgchange", "-ay"], ["lvs", "--reportformat", "json"]:
            run(["lvm", *command, "--config", _CONFIG], accept=range(256))

    def open(self, fresh: Sequence[BlockDevice]) -> None:
        """Activate every logical volume there is, read-only, and list them all anew.

        lvm is asked where there is more than plain groups.

        Args:
            fresh: physical volumes that were not there before.

        Raises:
            ToolError, ValueError, KeyError: lvm cannot say which there are.
        """
        first = not self._devices
        self._add(fresh)
        if first and not self._hidden:
            with contextlib.suppress(NotPlainError, OSError):  # lvm will say what there is to say
                self.volumes = open_plain(self._devices)
                return
        report = ["-a", "--foreign", "--reportformat", "json", "--units", "b", "--nosuffix"]
        listed = run(["lvm", "lvs", *report, "-o", _LV_FIELDS, "--config", self._config()])
        self._lay_over(listed)
        errors = self._activate(listed)
        self.volumes = [
            *(self._named(volume) for volume in parse_lvs(listed, errors, os.path.exists)),
            *self._copies,
        ]
        if {device.path for device in self._devices.values()} - {
            member for volume in self.volumes for member in volume.members
        }:
            command = ["lvm", "pvs", *report[2:4], "-o", _PV_FIELDS, "--config", self._config()]
            self.volumes += exported(run(command))

    def _add(self, devices: Sequence[BlockDevice]) -> None:
        """Take in physical volumes; of copies of one, which lvm would refuse, only the first."""
        for device in devices:
            uuid = device.probe.get("UUID", device.path)
            first = self._devices.setdefault(uuid, device)
            if first is not device:
                self._hidden.append(device.path)
                self._copies.append(_copy(device, first))

    def _lay_over(self, listed: str) -> None:
        """Give groups with volumes whose drivers write a throw-away overlay to write to."""
        segments = [segment for report in json.loads(listed)["report"] for segment in report["lv"]]
        self._written = {item["vg_name"] for item in segments if _needs_writing(item)}
        wanted = {
            os.path.realpath(entry)
            for item in segments
            if item["vg_name"] in self._written
            for entry in _devices(item)
        }
        for device in self._devices.values():
            path = os.path.realpath(device.path)
            if path in wanted and device.path not in self._hidden:
                over = mapping.overlay(path, device.size)
                self._overlays[os.path.realpath(over)] = device.path
                self._hidden.append(device.path)
        if self._overlays:
            _stop_resynchronisation()

    def _activate(self, listed: str) -> dict[str, str]:
        """Activate all groups; by name of those that failed, why."""
        errors = {}
        for system, groups in _owners(listed).items():
            command = ["lvm", "vgchange", "-ay", "-K", "-qq", "--config"]
            command.append(self._config(sorted(groups - self._written), system))
            try:
                run(command)
            except ToolError:
                for group in groups:  # one by one, to find which it was
                    try:
                        run([*command, group])
                    except ToolError as error:
                        errors[group] = str(error)
        return errors

    def _config(self, groups: Sequence[str] = (), system: str = "") -> str:
        config = read_only_config(groups, system)
        if self._hidden:
            hidden = ",".join(f'"r|^{re.escape(path)}$|"' for path in self._hidden)
            config += f" devices{{global_filter=[{hidden}]}}"
        return config

    def _named(self, volume: Volume) -> Volume:
        """The volume, its members called as they are in other tables."""
        names = {os.path.realpath(item.path): item.path for item in self._devices.values()}
        names |= self._overlays
        members = (names.get(os.path.realpath(member), member) for member in volume.members)
        return dataclasses.replace(volume, members=tuple(members))


def _copy(device: BlockDevice, first: BlockDevice) -> Volume:
    reason = f"a copy of the physical volume {first.path}, which is opened instead"
    return _closed(device.path, (device.path,), device.probe.get("UUID"), reason)


def exported(output: str) -> Iterator[Volume]:
    """A row for each physical volume of an exported group, of which lvs(8) says nothing.

    Args:
        output: what ``pvs --reportformat json`` printed.
    """
    for report in json.loads(output)["report"]:
        for entry in report["pv"]:
            if entry["vg_exported"]:
                reason = f"its volume group {entry['vg_name']} is exported"
                yield _closed(entry["pv_name"], (entry["pv_name"],), entry["pv_uuid"], reason)


def _closed(name: str, members: tuple[str, ...], uuid: str | None, reason: str) -> Volume:
    return Volume(
        kind="lvm",
        name=name,
        uuid=uuid,
        members=members,
        error=reason,
    )


def _needs_writing(segment: Mapping[str, str]) -> bool:
    """Whether the driver of a volume keeps metadata that it must be able to write."""
    roles = segment["lv_role"].split(",")
    return segment["lv_layout"] not in _READ_ONLY_LAYOUTS or "thicksnapshot" in roles


def _stop_resynchronisation() -> None:
    """Have RAID volumes stay as they are: their overlays could not hold what is rewritten."""
    run(["modprobe", "md_mod"])
    for name in ("min", "max"):
        with open(f"/proc/sys/dev/raid/speed_limit_{name}", "w") as limit:
            limit.write("0")


def _owners(listed: str) -> dict[str, set[str]]:
    """Names of the volume groups by the host that has them for itself; for most it is none."""
    owners: dict[str, set[str]] = {}
    for report in json.loads(listed)["report"]:
        for segment in report["lv"]:
            owners.setdefault(segment.get("vg_systemid", ""), set()).add(segment["vg_name"])
    return owners


def read_only_config(groups: Sequence[str] = (), system: str = "") -> str:
    """Settings under which the volumes of these groups are mapped read-only, as the disks are.

    There is no way to name all groups at once.

    Args:
        groups: names of volume groups.
        system: system id of the host in whose stead groups are opened that it has for itself.
    """
    # Names and system ids hold letters, digits and +_.- only (lvm(8), lvmsystemid(7)): nothing
    # that would end the string.
    config = _CONFIG
    if groups:
        names = ",".join(f'"{group}"' for group in groups)
        config += f" activation{{read_only_volume_list=[{names}]}}"
    if system:
        config += f' global{{system_id_source="lvmlocal"}} local{{system_id="{system}"}}'
    return config


def parse_lvs(
    output: str,
    errors: Mapping[str, str] | None = None,
    is_there: Callable[[str], bool] = lambda path: False,
) -> Iterator[Volume]:
    """Volumes from ``lvs -a --reportformat json``.

    A volume of several segments stands there once a segment; their members are joined. Volumes
    that others are made of stand there in brackets; they are no rows of their own.

    Args:
        output: what lvs printed.
        errors: why volumes of a group could not be activated, by its name.
        is_there: whether a volume's device exists, so that it is active.
    """
    segments: dict[str, list[dict[str, str]]] = {}
    entries: dict[tuple[str, str], list[str]] = {}
    for report in json.loads(output)["report"]:
        for segment in report["lv"]:
            segments.setdefault(segment["lv_uuid"], []).append(segment)
            name = segment["vg_uuid"], segment["lv_name"].strip("[]")
            entries.setdefault(name, []).extend(_devices(segment))
    for parts in segments.values():
        first = parts[0]
        if first["lv_name"].startswith("["):
            continue
        active = is_there(first["lv_path"])
        is_pool = "pool" in first["lv_layout"].split(",")  # has no device for anybody to open
        health = first.get("lv_health_status", "")
        yield Volume(
            kind="lvm",
            name=first["lv_name"],
            device=first["lv_path"] if active else None,
            group_name=first["vg_name"],
            uuid=first["lv_uuid"],
            group_uuid=first["vg_uuid"],
            size=int(first["lv_size"]),
            layout=first["lv_layout"],
            members=_members(first["vg_uuid"], first["lv_name"], entries),
            active=active,
            snapshot="snapshot" in first["lv_role"],
            degraded=health == "partial" if "raid" in first["lv_layout"] else None,
            error=None if active or is_pool else _reason(first, errors or {}),
        )


def _reason(segment: Mapping[str, str], errors: Mapping[str, str]) -> str:
    if segment.get("lv_health_status") == "partial":
        return "part of it is on a missing device"
    return errors.get(segment["vg_name"]) or "could not be activated"


def _devices(segment: Mapping[str, str]) -> list[str]:
    """What a segment is on: devices, by their paths, and volumes of its group, by their names.

    Entries are such as ``/dev/sda2(0)``, or ``root_rimage_0(0)``, or name a pool's volumes.
    """
    entries = [entry.partition("(")[0] for entry in (segment.get("devices") or "").split(",")]
    entries += [segment.get(name, "") for name in ("pool_lv", "data_lv", "metadata_lv")]
    return [entry.strip("[]") for entry in entries if entry]


def _members(
    group: str, name: str, entries: Mapping[tuple[str, str], Sequence[str]]
) -> tuple[str, ...]:
    """Devices that a volume is on in the end."""
    found = {name: None}
    waiting = [name]
    for known in waiting:
        for entry in entries.get((group, known), ()):
            if entry not in found:
                found[entry] = None
                waiting.append(entry)
    return tuple(entry for entry in found if entry.startswith("/"))
